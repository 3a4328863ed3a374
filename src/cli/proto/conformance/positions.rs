//! What a group keeps of positions: where a link goes on.

use super::super::versions::Role;
use super::bench::{Bench, Place};
use super::rule::{Outcome, Rule, Why, expect, expect_error, found};
use crate::cluster::admin;
use crate::connection::Connection;
use crate::error::Error;
use crate::wire::common::TopicPartitions;
use crate::wire::error_code::ErrorCode;
use crate::wire::offset_commit::OffsetToCommit;
use crate::wire::offset_fetch::StoredOffset;

const SOURCE: Role = Role::Source;
/// `offset.metadata.max.bytes`.
const METADATA_CHARS_MAX: usize = 4096;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "position.kept",
        role: SOURCE,
        optional: false,
        states: "OffsetCommit keeps offset, leader epoch and text of a partition, and OffsetFetch gives them back",
        relies: "the position, with the place on the target in its text (the anchor)",
        source: "GroupCoordinator, OffsetMetadataManager",
        otherwise: "not a source: nothing can be resumed",
        check: |bench| Box::pin(kept(bench)),
    },
    Rule {
        id: "position.text",
        role: SOURCE,
        optional: false,
        states: "a position's text may have 4096 characters",
        relies: "the anchor holds the newest part of the offset map, and the numberings of a link with many origins",
        source: "offset.metadata.max.bytes",
        otherwise: "raise offset.metadata.max.bytes to 4096, or positions are refused",
        check: |bench| Box::pin(text(bench)),
    },
    Rule {
        id: "position.text_too_long",
        role: SOURCE,
        optional: true,
        states: "a longer text is refused for its partition, not cut",
        relies: "an anchor is whole or not there",
        source: "OffsetMetadataManager.validateOffsetMetadata",
        otherwise: "an anchor that was cut is read as none, and the partition parks",
        check: |bench| Box::pin(text_too_long(bench)),
    },
    Rule {
        id: "position.missing_topic",
        role: SOURCE,
        optional: false,
        states: "a partition that is not there is refused alone; the others of its request are kept",
        relies: "a topic that is deleted does not hold up the positions of the others",
        source: "KafkaApis.handleOffsetCommitRequest",
        otherwise: "a deleted topic stops the positions of its link",
        check: |bench| Box::pin(missing_topic(bench)),
    },
    Rule {
        id: "position.any_offset",
        role: SOURCE,
        optional: true,
        states: "an offset beyond the log's end is kept as it is",
        relies: "a position stays what it was when the source lost its tail, and tells of it (I6)",
        source: "OffsetMetadataManager.commitOffset",
        otherwise: "a source that lost its tail may be resumed without a word",
        check: |bench| Box::pin(any_offset(bench)),
    },
];

/// A group of the run's own, on its coordinator, once that has loaded it.
pub(super) async fn coordinator(bench: &Bench<'_>, group: &str) -> Result<Connection, Why> {
    bench
        .settled("the group's coordinator", async || {
            let connection = bench.cluster.coordinator(bench.env, group).await?;
            let answer = admin::offset_fetch(&connection, group, None).await?;
            Ok((answer.error == ErrorCode::NONE).then_some(connection))
        })
        .await
}

pub(super) fn to_commit(place: &Place, offset: i64, metadata: &str) -> OffsetToCommit {
    let (index, metadata) = (place.partition, metadata.to_owned());
    OffsetToCommit { index, offset, leader_epoch: 0, metadata }
}

/// Commits from outside the group; the error of each partition.
async fn commit(
    bench: &Bench<'_>,
    connection: &Connection,
    group: &str,
    topics: &[TopicPartitions<OffsetToCommit>],
) -> Result<Vec<ErrorCode>, Why> {
    bench
        .settled("OffsetCommit", async || {
            let answer = admin::offset_commit(connection, group, topics.to_vec()).await?;
            let errors = answer.iter().flat_map(|topic| &topic.partitions);
            let errors = errors.map(|(_, error)| *error).collect::<Vec<_>>();
            let early = [
                ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
                ErrorCode::COORDINATOR_NOT_AVAILABLE,
                ErrorCode::NOT_COORDINATOR,
            ];
            Ok((!errors.iter().any(|error| early.contains(error))).then_some(errors))
        })
        .await
}

/// What the group keeps of a partition.
pub(super) async fn stored(
    connection: &Connection,
    group: &str,
    place: &Place,
) -> Result<StoredOffset, Why> {
    let answer = fetch_stored(connection, group, place).await?;
    expect_error("OffsetFetch of the partition", answer.error, ErrorCode::NONE)?;
    Ok(answer)
}

/// The same with its error.
pub(super) async fn fetch_stored(
    connection: &Connection,
    group: &str,
    place: &Place,
) -> Result<StoredOffset, Why> {
    let asked: Result<_, Error> =
        admin::offset_fetch(connection, group, Some(place.named(place.partition))).await;
    let answer = asked?;
    expect_error("OffsetFetch", answer.error, ErrorCode::NONE)?;
    let partition = answer.topics.into_iter().flat_map(|topic| topic.partitions).next();
    found("the partition", partition)
}

async fn kept(bench: &mut Bench<'_>) -> Outcome {
    let (place, group) = (bench.place_in("", 0).await?, bench.topic.clone());
    let connection = coordinator(bench, &group).await?;
    let before = stored(&connection, &group, &place).await?;
    expect("an offset before the first commit", before.offset, -1)?;
    let position =
        OffsetToCommit { leader_epoch: 3, ..to_commit(&place, 17, "an anchor: ä, 7, {}") };
    let errors = commit(bench, &connection, &group, &place.named(position)).await?;
    expect("OffsetCommit", errors, vec![ErrorCode::NONE])?;
    let after = stored(&connection, &group, &place).await?;
    expect("offset and epoch", (after.offset, after.leader_epoch), (17, 3))?;
    expect("text", after.metadata.as_str(), "an anchor: ä, 7, {}")
}

async fn text(bench: &mut Bench<'_>) -> Outcome {
    let (place, group) = (bench.place_in("", 1).await?, bench.topic.clone());
    let connection = coordinator(bench, &group).await?;
    let long = "m".repeat(METADATA_CHARS_MAX);
    let topics = place.named(to_commit(&place, 1, &long));
    let errors = commit(bench, &connection, &group, &topics).await?;
    expect("4096 characters", errors, vec![ErrorCode::NONE])?;
    let after = stored(&connection, &group, &place).await?;
    expect("characters kept", after.metadata.len(), METADATA_CHARS_MAX)
}

async fn text_too_long(bench: &mut Bench<'_>) -> Outcome {
    let (place, group) = (bench.place_in("", 2).await?, bench.topic.clone());
    let connection = coordinator(bench, &group).await?;
    let long = "m".repeat(METADATA_CHARS_MAX + 1);
    let topics = place.named(to_commit(&place, 1, &long));
    let errors = commit(bench, &connection, &group, &topics).await?;
    expect("4097 characters", errors, vec![ErrorCode::OFFSET_METADATA_TOO_LARGE])
}

async fn missing_topic(bench: &mut Bench<'_>) -> Outcome {
    let (place, group) = (bench.place_in("", 3).await?, bench.topic.clone());
    let connection = coordinator(bench, &group).await?;
    let mut topics = place.named(to_commit(&place, 5, ""));
    let missing = format!("{}-missing", bench.topic);
    topics.push(TopicPartitions::new(missing, vec![to_commit(&place, 5, "")]));
    let mut errors = commit(bench, &connection, &group, &topics).await?;
    errors.sort();
    expect("errors", errors, vec![ErrorCode::NONE, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION])?;
    expect("the good one", stored(&connection, &group, &place).await?.offset, 5)
}

async fn any_offset(bench: &mut Bench<'_>) -> Outcome {
    let (place, group) = (bench.place_in("", 4).await?, bench.topic.clone());
    let connection = coordinator(bench, &group).await?;
    let topics = place.named(to_commit(&place, 1 << 62, ""));
    let errors = commit(bench, &connection, &group, &topics).await?;
    expect("OffsetCommit", errors, vec![ErrorCode::NONE])?;
    expect("offset", stored(&connection, &group, &place).await?.offset, 1 << 62)
}

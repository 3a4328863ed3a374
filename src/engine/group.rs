//! The source group `strait.<link>`: where it is coordinated, what it holds, and commits to it. One connection per share,
//! found again when the coordinator moves.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::anchor::Anchor;
use super::member::{Member, Standing};
use super::named::Named;
use super::share::Share;
use super::trouble;
use crate::connection::{CallError, Connection};
use crate::error::{Error, Side};
use crate::limits;
use crate::wire::common::TopicPartitions;
use crate::wire::error_code::ErrorCode;
use crate::wire::offset_commit::{OffsetCommitRequest, OffsetToCommit};
use crate::wire::offset_fetch::{OffsetFetchRequest, OffsetFetchResponse};

/// One partition's commit.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Source topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Next source offset to copy.
    pub offset: i64,
    /// Leader epoch of the last batch before it.
    pub leader_epoch: i32,
    /// The anchor.
    pub metadata: String,
    /// Whether it says that nothing is on its way.
    pub closed: bool,
}

/// What the group holds for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Next source offset to copy.
    pub offset: i64,
    /// Leader epoch of the last batch before it; -1 if none was committed.
    pub leader_epoch: i32,
    /// None if it was not Strait that committed.
    pub anchor: Option<Anchor>,
    /// Set if the operator named the position with `strait reset`.
    pub named: Option<Named>,
    /// What the source group holds; another offset, or none, where the target's own position overrules it.
    pub at_source: Option<i64>,
}

impl Committed {
    /// An era that was left is over: what counts is where the other delivery began.
    pub fn without_era_left(mut self) -> Self {
        if let Some(anchor) = self.anchor.as_mut().filter(|it| it.era.is_some() && it.closed) {
            anchor.era = None;
            anchor.closed = false;
        }
        self
    }
}

/// Commits, one outcome for each. The outer error is one of a whole request: [`trouble::NOT_A_MEMBER`] where the group
/// does not count us as the member that we were. A request becomes one batch of `__consumer_offsets`, which must not
/// pass `message.max.bytes`.
pub async fn commit(
    share: &Rc<Share>,
    commits: &[Commit],
) -> Result<Vec<Result<(), Error>>, Error> {
    let mut outcomes = Vec::with_capacity(commits.len());
    for chunk in requests(commits) {
        outcomes.extend(commit_chunk(share, chunk).await?);
    }
    Ok(outcomes)
}

/// What goes into one request each: so many partitions, and so many bytes of metadata.
fn requests(commits: &[Commit]) -> impl Iterator<Item = &[Commit]> {
    let mut bytes = 0;
    let chunks = commits.chunk_by(move |before, commit| {
        bytes += before.metadata.len();
        let fits = bytes + commit.metadata.len() <= limits::COMMIT_METADATA_BYTES_MAX;
        if !fits {
            bytes = 0;
        }
        fits
    });
    chunks.flat_map(|chunk| chunk.chunks(limits::COMMITS_PER_REQUEST_MAX))
}

/// Commits one request's worth.
async fn commit_chunk(
    share: &Rc<Share>,
    commits: &[Commit],
) -> Result<Vec<Result<(), Error>>, Error> {
    let topics = TopicPartitions::gather(commits.iter().map(|commit| {
        let partition = OffsetToCommit {
            index: commit.partition,
            offset: commit.offset,
            leader_epoch: commit.leader_epoch,
            metadata: commit.metadata.clone(),
        };
        (&*commit.topic, partition)
    }));
    let connection = coordinator(share).await?;
    let request = match share.link.member.standing() {
        Standing::Outsider => OffsetCommitRequest::simple(&*share.group, topics),
        Standing::Nobody => return Err(trouble::not_a_member(share, "not a member yet")),
        Standing::Member(Member { id, epoch, instance }) => {
            let group = share.group.clone();
            OffsetCommitRequest { group, generation: epoch, member: id, instance, topics }
        }
    };
    let answer = connection
        .call(&request, limits::REQUEST_TIMEOUT)
        .await
        .map_err(|error| lost(share, &connection, "OffsetCommit", &error))?;
    let outcomes: BTreeMap<_, _> = TopicPartitions::flat(&answer.topics)
        .map(|(topic, (index, error))| ((topic, *index), *error))
        .collect();
    let fenced = outcomes.values().copied().find(|error| is_about_membership(*error));
    if let Some(error) = fenced.filter(|_| !request.member.is_empty()) {
        share.link.member.doubt();
        return Err(trouble::not_a_member(share, error.name()));
    }
    let outcome = |commit: &Commit| {
        let answered = outcomes.get(&(&*commit.topic, commit.partition));
        match answered.copied().unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR) {
            ErrorCode::NONE => Ok(()),
            error => Err(refused(share, "OffsetCommit", error)),
        }
    };
    Ok(commits.iter().map(outcome).collect())
}

/// What the group holds, by source topic and partition.
pub type Commits = BTreeMap<(Arc<str>, i32), Result<Committed, Error>>;

/// What the group holds for these partitions; a partition without a commit is left out. The outer error is one of the
/// whole request.
pub async fn committed(
    share: &Rc<Share>,
    partitions: &[(Arc<str>, i32)],
) -> Result<Commits, Error> {
    let topics =
        TopicPartitions::gather(partitions.iter().map(|(topic, index)| (&**topic, *index)));
    let request = OffsetFetchRequest {
        group: share.group.clone(),
        topics: Some(topics),
        require_stable: true,
    };
    let connection = coordinator(share).await?;
    let answer = connection
        .call(&request, limits::REQUEST_TIMEOUT)
        .await
        .map_err(|error| lost(share, &connection, "OffsetFetch", &error))?;
    if answer.error.is_error() {
        return Err(refused(share, "OffsetFetch", answer.error));
    }
    Ok(sort(&answer, |error| refused(share, "OffsetFetch", error)))
}

/// UNSTABLE_OFFSET_COMMIT and the like are one partition's trouble: they hold up no other (I7).
pub(super) fn sort(answer: &OffsetFetchResponse, refused: impl Fn(ErrorCode) -> Error) -> Commits {
    let mut found = BTreeMap::new();
    for (topic, partition) in TopicPartitions::flat(&answer.topics) {
        let key = (Arc::from(topic), partition.index);
        if partition.error.is_error() {
            found.insert(key, Err(refused(partition.error)));
        } else if partition.offset >= 0 {
            let anchor = Anchor::parse(&partition.metadata, partition.offset).ok();
            let committed = Committed {
                offset: partition.offset,
                leader_epoch: partition.leader_epoch,
                anchor,
                named: Named::parse(&partition.metadata),
                at_source: Some(partition.offset),
            };
            found.insert(key, Ok(committed));
        }
    }
    found
}

/// A rebalance that we have not heard of yet, or the end of our membership: the next heartbeat tells which.
fn is_about_membership(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::ILLEGAL_GENERATION
            | ErrorCode::UNKNOWN_MEMBER_ID
            | ErrorCode::REBALANCE_IN_PROGRESS
            | ErrorCode::FENCED_INSTANCE_ID
            | ErrorCode::FENCED_MEMBER_EPOCH
            | ErrorCode::STALE_MEMBER_EPOCH
    )
}

async fn coordinator(share: &Rc<Share>) -> Result<Connection, Error> {
    let known = share.coordinator.borrow().clone();
    if let Some(connection) = known.filter(|known| !known.is_ending()) {
        return Ok(connection);
    }
    let connection = share.link.source.coordinator(&share.env, &share.group).await?;
    *share.coordinator.borrow_mut() = Some(connection.clone());
    Ok(connection)
}

fn lost(share: &Share, connection: &Connection, api: &str, error: &CallError) -> Error {
    *share.coordinator.borrow_mut() = None;
    trouble::call_to(connection, Side::Source, api, error).cluster(&share.link.config.from.name)
}

fn refused(share: &Share, api: &str, error: ErrorCode) -> Error {
    match error {
        ErrorCode::COORDINATOR_NOT_AVAILABLE
        | ErrorCode::NOT_COORDINATOR
        | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => *share.coordinator.borrow_mut() = None,
        ErrorCode::GROUP_AUTHORIZATION_FAILED => return trouble::group_not_authorized(share),
        ErrorCode::UNKNOWN_MEMBER_ID => {
            return trouble::answered(Side::Source, api, error, "the group has members")
                .cluster(&share.link.config.from.name)
                .fix(format!("no consumer may join the group {}: it is the link's", share.group));
        }
        _ => {}
    }
    trouble::answered(Side::Source, api, error, "").cluster(&share.link.config.from.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::offset_fetch::StoredOffset;

    #[test]
    fn a_request_stays_within_what_one_batch_of_the_offsets_topic_takes() {
        let commit = |chars: usize| Commit {
            topic: "orders".into(),
            partition: 0,
            offset: 1,
            leader_epoch: -1,
            metadata: "x".repeat(chars),
            closed: false,
        };
        for (chars, count) in [(100, 3_500), (4_000, 700), (0, 1), (0, 0)] {
            let commits = vec![commit(chars); count];
            let sizes: Vec<usize> = requests(&commits).map(<[Commit]>::len).collect();
            assert_eq!(sizes.iter().sum::<usize>(), count);
            let fits = |n: &usize| {
                *n <= limits::COMMITS_PER_REQUEST_MAX
                    && n * chars <= limits::COMMIT_METADATA_BYTES_MAX
            };
            assert!(sizes.iter().all(fits), "{chars}: {sizes:?}");
            assert!(sizes.len() <= count / 100 + 1, "{chars}: {sizes:?}");
        }
    }

    #[test]
    fn a_position_that_cannot_be_read_holds_up_no_other() {
        let partition = |index, offset, error| StoredOffset {
            index,
            offset,
            leader_epoch: 3,
            metadata: String::new(),
            error,
        };
        let partitions = vec![
            partition(0, -1, ErrorCode::UNSTABLE_OFFSET_COMMIT),
            partition(1, 7, ErrorCode::NONE),
            partition(2, -1, ErrorCode::NONE),
        ];
        let answer = OffsetFetchResponse {
            throttle_time_ms: 0,
            error: ErrorCode::NONE,
            topics: vec![TopicPartitions { topic: "t".to_owned(), partitions }],
        };
        let found =
            sort(&answer, |error| trouble::answered(Side::Source, "OffsetFetch", error, ""));
        let of = |index| found.get(&(Arc::from("t"), index));
        assert!(matches!(of(0), Some(Err(error)) if error.message.contains("UNSTABLE")));
        assert!(matches!(
            of(1),
            Some(Ok(Committed { offset: 7, leader_epoch: 3, anchor: None, .. }))
        ));
        assert!(of(2).is_none());
    }
}

//! What every suite asks of a copy: it is equal, its position is where the source ends, and nothing was said in the log.

use crate::agent::Admin;
use crate::compare::assert_equal;
use crate::strait::{Config, Strait};
use crate::wait::wait_for;

/// Whether `STRAIT_FULL` asks for the full sizes and durations of the ledger instead of those that fit a CI run.
pub fn full() -> bool {
    std::env::var_os("STRAIT_FULL").is_some()
}

/// One size for CI, one for `STRAIT_FULL`.
pub fn sized<T>(ci: T, full_size: T) -> T {
    if full() { full_size } else { ci }
}

/// `strait run --until-caught-up` with this configuration: it must end well and say nothing.
#[track_caller]
pub fn copy_once(config: &Config) -> Strait {
    let mut strait = Strait::start_with(config, &["--until-caught-up"]);
    let code = strait.wait(120);
    assert_eq!(code, 0, "{}", strait.log());
    strait.assert_clean_log();
    strait
}

/// Every field of every record is equal and in order, as Kafka's Java consumer reads both sides.
#[track_caller]
pub fn assert_copied(source: &Admin, target: &Admin, topic: &str) {
    assert_copied_as(source, topic, target, topic);
}

/// The same where the topic has another name on the target.
#[track_caller]
pub fn assert_copied_as(source: &Admin, topic: &str, target: &Admin, target_topic: &str) {
    assert_equal(&source.records(topic), &target.records(target_topic));
}

/// What is not committed yet, if anything: the group's offset of each partition must be the log's end.
pub fn behind(source: &Admin, group: &str, topic: &str) -> Result<(), String> {
    let ends = source.ends(topic);
    let offsets = source.group_offsets(group);
    for (partition, end) in (0..).zip(&ends) {
        let committed = offsets
            .iter()
            .find(|offset| offset.topic == topic && offset.partition == partition)
            .map(|offset| offset.offset);
        // A mirror of an empty partition has nothing to commit.
        if committed.unwrap_or(0) != *end {
            return Err(format!("{topic}-{partition}: committed {committed:?} of {end}"));
        }
    }
    Ok(())
}

/// Waits until the link has committed the source's ends of a topic.
#[track_caller]
pub fn wait_committed(source: &Admin, group: &str, topic: &str, seconds: u64) {
    wait_for(&format!("commit of the ends of {topic} by {group}"), seconds, || {
        behind(source, group, topic)
    });
}

/// Panics unless the link has committed the source's ends of a topic.
#[track_caller]
pub fn assert_committed(source: &Admin, group: &str, topic: &str) {
    behind(source, group, topic).unwrap_or_else(|what| panic!("{what}"));
}

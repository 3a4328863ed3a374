//! CPU time of this process and of its lanes, from Linux's `/proc`; elsewhere there is none.

use std::collections::BTreeMap;
use std::time::Duration;

/// A tick of `/proc/*/stat`: `USER_HZ` is 100 on every architecture that Linux exports it for.
const TICK: Duration = Duration::from_millis(10);

/// What was used so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    pub(super) process: Option<Duration>,
    /// By the lane's number.
    pub(super) lanes: BTreeMap<u32, Duration>,
}

impl Cpu {
    pub(super) fn now() -> Self {
        let process = std::fs::read_to_string("/proc/self/stat").ok();
        let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let threads =
            threads.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
        Self::of(process.as_deref(), threads)
    }

    fn of(process: Option<&str>, threads: impl Iterator<Item = String>) -> Self {
        let mut lanes = BTreeMap::new();
        for (name, used) in threads.filter_map(|stat| Some((name(&stat)?.to_owned(), used(&stat)?)))
        {
            if let Some(number) = name.strip_prefix("lane-").and_then(|n| n.parse().ok()) {
                *lanes.entry(number).or_default() += used;
            }
        }
        Self { process: process.and_then(used), lanes }
    }

    /// What was used since.
    pub(super) fn since(&self, before: &Self) -> Self {
        let process = self.process.zip(before.process);
        let lanes = self.lanes.iter().map(|(number, used)| {
            let before = before.lanes.get(number).copied().unwrap_or_default();
            (*number, used.saturating_sub(before))
        });
        Self {
            process: process.map(|(now, before)| now.saturating_sub(before)),
            lanes: lanes.collect(),
        }
    }

    /// All lanes together; none where nothing is known.
    pub(super) fn lanes_together(&self) -> Option<Duration> {
        (!self.lanes.is_empty()).then(|| self.lanes.values().sum())
    }
}

/// The name, which may hold anything: brackets and spaces too.
fn name(stat: &str) -> Option<&str> {
    let (_, rest) = stat.split_once('(')?;
    rest.rsplit_once(") ").map(|(name, _)| name)
}

/// Fields 14 and 15, user and system time; counted from behind the name.
fn used(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
    Some(TICK * user + TICK * system)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(name: &str, user: u32, system: u32) -> String {
        format!("7 ({name}) S 1 7 7 0 -1 64 1 0 0 0 {user} {system} 0 0 20 0 4 0 1000 1 1")
    }

    #[test]
    fn only_lanes_are_counted_as_lanes() {
        let threads = [
            stat("lane-0", 100, 50),
            stat("lane-1", 10, 0),
            stat("embedded-kafka", 900, 0),
            stat("lane-x", 1, 1),
            stat("a) lane-0", 1, 1),
        ];
        let cpu = Cpu::of(Some(&stat("strait", 1200, 100)), threads.into_iter());
        assert_eq!(cpu.process, Some(Duration::from_secs(13)));
        let (first, second) = (Duration::from_millis(1500), Duration::from_millis(100));
        assert_eq!(cpu.lanes, BTreeMap::from([(0, first), (1, second)]));
        let later = Cpu { process: Some(Duration::from_secs(15)), lanes: [(0, first * 2)].into() };
        let used = later.since(&cpu);
        assert_eq!(
            (used.process, used.lanes_together()),
            (Some(Duration::from_secs(2)), Some(first))
        );
    }

    #[test]
    fn without_proc_there_is_nothing() {
        let cpu = Cpu::of(None, std::iter::once("7 (cut".to_owned()));
        assert_eq!((cpu.process, cpu.lanes_together()), (None, None));
    }
}

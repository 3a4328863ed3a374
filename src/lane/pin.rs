//! Threads that stay on a core of their own (`engine.pin`): the i-th on the i-th of those that the process may use, by its
//! affinity mask and cpuset, as the system numbers them. Linux only; the configuration warns elsewhere. What cannot be
//! pinned runs unpinned, and says so.

/// The cores that this process may use; none if they cannot be told.
pub(super) fn allowed_cores(threads: usize) -> Vec<usize> {
    match system::allowed_cores() {
        Ok(cores) => {
            if cores.len() < threads {
                let cores = cores.len();
                tracing::warn!(
                    threads,
                    cores,
                    "`engine.pin`: threads share cores, there are too few"
                );
            }
            cores
        }
        Err(error) => {
            tracing::warn!(%error, "`engine.pin`: the allowed cores cannot be told, nothing is pinned");
            Vec::new()
        }
    }
}

/// Where the i-th thread stays. With more threads than cores, some share one.
pub(super) fn core_of(cores: &[usize], index: usize) -> Option<usize> {
    cores.get(index % cores.len().max(1)).copied()
}

/// Keeps the calling thread on a core.
pub(super) fn stay_on(core: Option<usize>, thread: &str) {
    let Some(core) = core else { return };
    match system::stay_on(core) {
        Ok(()) => tracing::debug!(thread, core, "pinned"),
        Err(error) => tracing::warn!(thread, core, %error, "`engine.pin`: cannot be pinned"),
    }
}

#[cfg(target_os = "linux")]
mod system {
    use rustix::io;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub(super) fn allowed_cores() -> io::Result<Vec<usize>> {
        let allowed = sched_getaffinity(None)?;
        Ok((0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect())
    }

    pub(super) fn stay_on(core: usize) -> io::Result<()> {
        let mut only = CpuSet::new();
        only.set(core);
        sched_setaffinity(None, &only)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    pub(super) fn allowed_cores() -> io::Result<Vec<usize>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn stay_on(_core: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_the_allowed_cores_in_their_order_and_share_them_when_they_are_too_few() {
        let cores: Vec<_> = (0..4).map(|index| core_of(&[3, 5, 6], index)).collect();
        assert_eq!(cores, [Some(3), Some(5), Some(6), Some(3)]);
        assert_eq!(core_of(&[], 2), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pinned_thread_may_run_on_one_core_only_and_the_others_are_left_alone() {
        let before = allowed_cores(1);
        let last = before.last().copied();
        let pinned = std::thread::spawn(move || {
            stay_on(last, "test");
            allowed_cores(1)
        });
        assert_eq!(pinned.join().unwrap(), Vec::from_iter(last));
        assert_eq!(allowed_cores(1), before);
    }
}

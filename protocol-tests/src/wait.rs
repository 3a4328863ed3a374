//! Waiting for a condition, the only way a test may wait.

use std::fmt::Debug;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// Polls `condition` until it holds; panics with `what` after `seconds`.
#[track_caller]
pub fn wait_until(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    wait_for(what, seconds, || condition().then_some(()).ok_or("not yet"));
}

/// Polls `condition` at this interval, for conditions that cost or change something; panics with `what` after `seconds`.
#[track_caller]
pub fn wait_pacing(
    what: &str,
    seconds: u64,
    interval: Duration,
    mut condition: impl FnMut() -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        assert!(Instant::now() < deadline, "after {seconds} s still no {what}");
        std::thread::sleep(interval);
    }
}

/// Polls `attempt` until it gives a value; panics with `what` and the last error after `seconds`.
#[track_caller]
pub fn wait_for<T, E: Debug>(
    what: &str,
    seconds: u64,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => {
                panic!("after {seconds} s still no {what}: {error:?}")
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// Holds for the whole of `duration`: panics with `what` the first time it does not. For "nothing happens" promises.
#[track_caller]
pub fn holds_for(what: &str, duration: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        assert!(condition(), "did not hold: {what}");
        std::thread::sleep(POLL);
    }
}

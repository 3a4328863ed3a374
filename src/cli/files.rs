//! Open files of this process: each connection is one. The limit is raised as far as the operating system lets us, and
//! what cannot even begin under it is refused before anything starts.

use crate::error::{Action, Code, Error, Side};
use crate::limits::{FILES_FIXED, FILES_PER_LANE};

/// Too few files.
const FEW_FILES: Code = Code(88);

/// Raises the limit; an error where it stays too low for so many lanes.
pub(super) fn make_room(lanes: usize) -> Result<(), Error> {
    match raised() {
        Some(limit) => judge(limit, lanes),
        None => Ok(()),
    }
}

fn judge(limit: u64, lanes: usize) -> Result<(), Error> {
    let needed = FILES_FIXED + FILES_PER_LANE * lanes as u64;
    if limit >= needed {
        return Ok(());
    }
    let what = format!(
        "too many open files would be needed: the limit is {limit}, {lanes} lanes begin with {needed}"
    );
    Err(Error::new(FEW_FILES, Side::Local, Action::Stop, what)
        .fix("raise it (`ulimit -n 65536`, LimitNOFILE= of the unit), or set fewer `engine.lanes`"))
}

/// The limit, after it was raised to the hard one. None: there is none, or none that we know of.
#[cfg(target_os = "linux")]
fn raised() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => before.maximum,
        Err(_) => before.current,
    }
}

#[cfg(not(target_os = "linux"))]
fn raised() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lanes_begin_with_must_fit() {
        assert!(judge(1024, 8).is_ok());
        let least = FILES_FIXED + 2 * FILES_PER_LANE;
        assert!(judge(least, 2).is_ok());
        let error = judge(least - 1, 2).unwrap_err();
        assert_eq!(error.code, FEW_FILES);
        assert!(error.message.contains(&least.to_string()), "{error}");
    }
}

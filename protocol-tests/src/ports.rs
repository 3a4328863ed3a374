//! Ports that are free and that nobody else in this process was given.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Mutex;

/// Below Linux's range for outgoing connections, so that a client socket cannot take a port in the meantime.
const FIRST: u16 = 15_000;
const COUNT: u16 = 16_000;

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port on loopback. It is free now; brokers need to know their port before they bind it.
pub fn free() -> u16 {
    let mut given = GIVEN.lock().unwrap();
    let given = given.get_or_insert_default();
    // Different processes begin at different places, so that suites can run beside each other.
    let start = std::process::id().wrapping_mul(2_654_435_761) >> 16;
    for step in 0..u32::from(COUNT) {
        let offset = (start + step + u32::try_from(given.len()).unwrap()) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).unwrap();
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!("no free port in {FIRST}..{}", FIRST + COUNT);
}

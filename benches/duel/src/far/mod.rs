//! A long link with TCP's own windows in play: a network namespace that is reached through two TUN devices and a queue
//! that holds every packet for half the round trip.
//!
//! The replicator runs in the namespace, the brokers outside: the source beside it through a veth pair without delay,
//! the target at the far end. A TCP proxy that delays bytes would end the connections itself, and hide their windows.

mod tun;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Where the source listens: the outer end of the veth pair.
pub const NEAR: &str = "10.213.0.1";
/// Where the target listens: the outer TUN device.
pub const FAR: &str = "10.213.1.1";
/// The namespace's own ends of both.
const INNER: [&str; 2] = ["10.213.0.2", "10.213.1.2"];
/// Packets that wait on the way; at 50 ms and 9,000 bytes a packet that is 3 GB/s.
const PACKETS_ON_THE_WAY: usize = 16_384;
/// Packets that the kernel queues to a device before it drops.
const DEVICE_QUEUE: &str = "20000";

/// The namespace and its link; both go with it.
#[derive(Debug)]
pub struct Link {
    /// Its namespace.
    pub namespace: String,
    outer: String,
    inner: String,
    carried: [Arc<AtomicU64>; 2],
}

impl Link {
    /// Makes it: every packet takes `delay` each way. Needs root.
    pub fn new(delay: Duration, mtu: usize) -> Result<Self, String> {
        sweep();
        let pid = std::process::id();
        let name = |end: &str| format!("duel{pid}{end}");
        let link = Self {
            namespace: format!("duel-{pid}"),
            outer: name("t"),
            inner: name("u"),
            carried: Default::default(),
        };
        let namespace = &link.namespace;
        let (near, beside) = (name("v"), name("w"));
        ip(&["netns", "add", namespace])?;
        ip(&["link", "add", &near, "type", "veth", "peer", "name", &beside, "netns", namespace])?;
        let open = |name: &str| tun::open(name).map_err(|error| format!("/dev/net/tun: {error}"));
        let (outer, inner) = (open(&link.outer)?, open(&link.inner)?);
        ip(&["link", "set", &link.inner, "netns", namespace])?;
        let mtu_text = mtu.to_string();
        for (device, address, inside) in [
            (&near, NEAR, false),
            (&beside, INNER[0], true),
            (&link.outer, FAR, false),
            (&link.inner, INNER[1], true),
        ] {
            let inside: &[&str] = if inside { &["-n", namespace] } else { &[] };
            let with = |words: &[&str]| ip(&[inside, words].concat());
            with(&["addr", "add", &format!("{address}/30"), "dev", device])?;
            if device.ends_with(['t', 'u']) {
                with(&["link", "set", device, "mtu", &mtu_text, "txqueuelen", DEVICE_QUEUE])?;
            }
            with(&["link", "set", device, "up"])?;
        }
        ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        carry(&outer, &inner, delay, mtu, &link.carried[0])?;
        carry(&inner, &outer, delay, mtu, &link.carried[1])?;
        Ok(link)
    }

    /// Sets a variable of the namespace's kernel, such as `net/ipv4/tcp_wmem`.
    pub fn set(&self, variable: &str, value: &str) -> Result<(), String> {
        let script = format!("echo '{value}' > /proc/sys/{variable}");
        ip(&["netns", "exec", &self.namespace, "sh", "-c", &script]).map(|_| ())
    }

    /// Reads one.
    pub fn get(&self, variable: &str) -> Result<String, String> {
        let file = format!("/proc/sys/{variable}");
        let text = ip(&["netns", "exec", &self.namespace, "cat", &file])?;
        Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Packets that a device had to drop, of both directions: an emulator that drops measures itself.
    pub fn dropped(&self) -> Result<u64, String> {
        let outer = ip(&["-s", "-j", "link", "show", &self.outer])?;
        let inner = ip(&["-n", &self.namespace, "-s", "-j", "link", "show", &self.inner])?;
        let of = |text: &str| -> Option<u64> {
            let devices: serde_json::Value = serde_json::from_str(text).ok()?;
            let sides = ["rx", "tx"].map(|side| devices[0]["stats64"][side]["dropped"].as_u64());
            Some(sides[0]? + sides[1]?)
        };
        of(&outer).zip(of(&inner)).map(|(a, b)| a + b).ok_or("no statistics of a device".to_owned())
    }

    /// Packets carried, of both directions.
    pub fn carried(&self) -> u64 {
        self.carried.iter().map(|count| count.load(Relaxed)).sum()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Its devices go with it; the carrying threads end with this process.
        ip(&["netns", "del", &self.namespace]).ok();
    }
}

/// Removes the namespaces of processes that were killed.
fn sweep() {
    let names = ip(&["netns", "list"]).unwrap_or_default();
    for name in names.lines().filter_map(|line| line.split(' ').next()) {
        let owner = name.strip_prefix("duel-");
        if owner.is_some_and(|pid| fs::metadata(format!("/proc/{pid}")).is_err()) {
            ip(&["netns", "del", name]).ok();
        }
    }
}

fn ip(words: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(words).output().map_err(|error| format!("ip: {error}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("ip {} (needs root): {}", words.join(" "), error.trim())),
    }
}

/// One direction: a thread reads and stamps, another delivers when it is time.
fn carry(
    from: &File,
    to: &File,
    delay: Duration,
    mtu: usize,
    count: &Arc<AtomicU64>,
) -> Result<(), String> {
    let clone = |file: &File| file.try_clone().map_err(|error| error.to_string());
    let (mut from, mut to, count) = (clone(from)?, clone(to)?, Arc::clone(count));
    let (sender, receiver): (SyncSender<(Instant, Vec<u8>)>, Receiver<_>) =
        sync_channel(PACKETS_ON_THE_WAY);
    std::thread::spawn(move || {
        let mut packet = vec![0; mtu];
        while let Ok(length) = from.read(&mut packet) {
            if sender.send((Instant::now() + delay, packet[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, packet) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // A device that is down for a moment loses packets, as links do.
            if to.write_all(&packet).is_ok() {
                count.fetch_add(1, Relaxed);
            }
        }
    });
    Ok(())
}

//! `strait proto decode --pcap`: the frames in a capture, a line of JSON for each. TCP is put in order, answers are read as
//! what their requests asked for, and what was not captured is named. For captures of anything from anyone: what is held is
//! bounded, whatever the packets claim.

mod file;
mod frames;
mod packet;
mod stream;
mod talk;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;

use serde_json::{Value, json};

use file::{Capture, Packet};
use packet::{Passed, Segment};
use talk::{Talk, Tally, Told};

const SCHEMA: &str = "strait.proto.capture/1";
/// Connections that are followed at once. Those beyond are left out, and counted.
const CONNECTIONS_MAX: usize = 4096;
/// What is held of all of them for frames and holes that are not complete.
const HELD_BYTES_MAX: usize = 256 << 20;

/// Reads a capture and writes its lines, the summary last. Whether all of it could be read.
///
/// # Errors
/// The writer's.
pub(super) fn show(from: impl Read, ports: &[u16], out: &mut dyn Write) -> std::io::Result<bool> {
    let mut reading = Reading::new(ports, out);
    let error = reading.all(from).err();
    while let Some((_, mut talk)) = reading.talks.pop_first() {
        talk.end(&mut reading.told);
    }
    let summary = reading.summary(error);
    reading.told.failed?;
    writeln!(reading.told.out, "{summary}")?;
    Ok(summary["ok"] == true)
}

/// Both ends of a connection, the smaller address first.
type Ends = (SocketAddr, SocketAddr);

struct Reading<'r> {
    ports: &'r [u16],
    talks: BTreeMap<Ends, Talk>,
    held: usize,
    told: Told<'r>,
    packets: u64,
    connections: u64,
    left_out: u64,
    passed: BTreeMap<Passed, u64>,
}

impl<'r> Reading<'r> {
    fn new(ports: &'r [u16], out: &'r mut dyn Write) -> Self {
        let told = Told { out, tally: Tally::default(), failed: Ok(()) };
        let (talks, passed) = (BTreeMap::new(), BTreeMap::new());
        Self { ports, talks, held: 0, told, packets: 0, connections: 0, left_out: 0, passed }
    }

    /// Everything up to where the file breaks, if it does.
    fn all(&mut self, from: impl Read) -> Result<(), String> {
        let mut capture = Capture::open(from)?;
        while let (Some(packet), Ok(())) = (capture.next()?, &self.told.failed) {
            self.packet(&packet);
        }
        Ok(())
    }

    fn packet(&mut self, packet: &Packet) {
        self.packets += 1;
        match packet::segment(packet.link, &packet.bytes) {
            Ok(segment) if self.is_asked_for(&segment) => self.segment(&segment, packet.time_us),
            Ok(_) => {}
            Err(passed) => *self.passed.entry(passed).or_default() += 1,
        }
    }

    fn is_asked_for(&self, segment: &Segment<'_>) -> bool {
        let is_named = |of: SocketAddr| self.ports.contains(&of.port());
        self.ports.is_empty() || is_named(segment.from) || is_named(segment.to)
    }

    fn segment(&mut self, segment: &Segment<'_>, time_us: u64) {
        let (from, to) = (segment.from, segment.to);
        let ends = (from.min(to), from.max(to));
        if self.talks.get(&ends).is_some_and(|talk| !talk.is_same(segment)) {
            self.end(&ends);
        }
        if !self.talks.contains_key(&ends) {
            // What is left of a connection that ended.
            if segment.rst || (segment.payload.is_empty() && !segment.syn) {
                return;
            }
            if self.talks.len() == CONNECTIONS_MAX {
                self.left_out += 1;
                return;
            }
            let ports = self.ports;
            self.talks.insert(ends, Talk::new(from, to, |port| ports.contains(&port)));
            self.connections += 1;
        }
        let Some(talk) = self.talks.get_mut(&ends) else { return };
        let before = talk.held_bytes();
        talk.take(segment, time_us, &mut self.told);
        self.held = self.held - before + talk.held_bytes();
        if self.held > HELD_BYTES_MAX {
            self.held -= talk.held_bytes();
            talk.give_up("frames that are not complete take too much memory", &mut self.told);
        }
        if talk.is_done(segment) {
            self.end(&ends);
        }
    }

    fn end(&mut self, ends: &Ends) {
        if let Some(mut talk) = self.talks.remove(ends) {
            self.held -= talk.held_bytes();
            talk.end(&mut self.told);
        }
    }

    fn summary(&self, error: Option<String>) -> Value {
        let tally = &self.told.tally;
        let wrong = tally.broken + tally.gaps + tally.encrypted + self.left_out;
        let passed: serde_json::Map<_, _> = self
            .passed
            .iter()
            .map(|(why, count)| (why.name().to_owned(), (*count).into()))
            .collect();
        let mut summary = json!({
            "schema": SCHEMA, "line": "summary", "ok": error.is_none() && wrong == 0 && tally.frames > 0,
            "packets": self.packets, "packetsPassed": passed, "connections": self.connections,
            "segmentsLeftOut": self.left_out, "encrypted": tally.encrypted, "frames": tally.frames,
            "broken": tally.broken, "gaps": tally.gaps, "bytesPassed": tally.passed_bytes,
            "unanswered": tally.unanswered,
        });
        if let Some(error) = error {
            summary["error"] = error.into();
        }
        summary
    }
}

#[cfg(test)]
mod tests;

//! One TCP connection: which side asks, what it asked for, and so as what the answers are read.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::super::{As, decode, is_whole, schema};
use super::frames::{Found, Frames, is_tls};
use super::packet::Segment;
use super::stream::{Piece, Stream};

/// Requests that wait for their answers; of more the oldest are forgotten. Strait itself has up to 512 on their way.
const WAITING_MAX: usize = 1000;
const PRODUCE: i16 = 0;
const SASL_AUTHENTICATE: i16 = 36;
const INCREMENTAL_ALTER_CONFIGS: i16 = 44;
/// `ConfigResource.Type.TOPIC`: the only resource without passwords among its settings.
const TOPIC: i8 = 2;

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    correlation_id: i32,
    key: i16,
    version: i16,
    time_us: u64,
}

#[derive(Debug)]
struct Side {
    address: SocketAddr,
    stream: Stream,
    frames: Frames,
}

/// What was seen of all connections.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) frames: u64,
    pub(super) broken: u64,
    pub(super) gaps: u64,
    pub(super) passed_bytes: u64,
    pub(super) unanswered: u64,
    pub(super) encrypted: u64,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Talk {
    sides: [Side; 2],
    /// Which side asks, as soon as it is known.
    client: Option<usize>,
    waiting: VecDeque<Asked>,
    /// Nothing more is read of it: encrypted, or too much of it would be held.
    is_over: bool,
    finished: [bool; 2],
    time_us: u64,
}

/// Where lines go, and what is counted.
pub(super) struct Told<'o> {
    pub(super) out: &'o mut dyn Write,
    pub(super) tally: Tally,
    /// The writer's first error; nothing is written behind it.
    pub(super) failed: io::Result<()>,
}

impl Told<'_> {
    fn line(&mut self, line: &Value) {
        if self.failed.is_ok() {
            self.failed = writeln!(self.out, "{line}");
        }
    }
}

impl Talk {
    /// A connection whose first packet goes from one address to another. `is_server` names ports that answer.
    pub(super) fn new(from: SocketAddr, to: SocketAddr, is_server: impl Fn(u16) -> bool) -> Self {
        let side = |address| Side { address, stream: Stream::default(), frames: Frames::default() };
        let client = match (is_server(from.port()), is_server(to.port())) {
            (false, true) => Some(0),
            (true, false) => Some(1),
            _ => None,
        };
        let (sides, waiting) = ([side(from), side(to)], VecDeque::new());
        Self { sides, client, waiting, is_over: false, finished: [false; 2], time_us: 0 }
    }

    /// Whether a segment is of this connection, and not of the next one between the same ports.
    pub(super) fn is_same(&self, segment: &Segment<'_>) -> bool {
        let side = &self.sides[self.side(segment)];
        !segment.syn || (!self.is_over && side.stream.may_begin_with(segment.sequence))
    }

    /// Whether both sides are done with it.
    pub(super) fn is_done(&self, segment: &Segment<'_>) -> bool {
        let holes = self.sides.iter().any(|side| side.stream.has_gap());
        segment.rst || (self.finished == [true; 2] && !holes)
    }

    /// Memory that waits for what comes.
    pub(super) fn held_bytes(&self) -> usize {
        let sides = self.sides.iter();
        sides.map(|side| side.stream.held_bytes() + side.frames.held_bytes()).sum()
    }

    fn side(&self, segment: &Segment<'_>) -> usize {
        usize::from(segment.from != self.sides[0].address)
    }

    /// Takes a segment.
    pub(super) fn take(&mut self, segment: &Segment<'_>, time_us: u64, told: &mut Told<'_>) {
        let from = self.side(segment);
        self.finished[from] |= segment.fin;
        if self.is_over {
            return;
        }
        self.time_us = time_us;
        let mut sequence = segment.sequence;
        if segment.syn {
            self.sides[from].stream.begin(sequence);
            self.sides[from].frames.begin();
            self.client.get_or_insert(if segment.ack { 1 - from } else { from });
            sequence = sequence.wrapping_add(1);
        }
        let mut pieces = Vec::new();
        self.sides[from].stream.take(sequence, segment.payload, &mut pieces);
        self.pieces(from, pieces, told);
    }

    /// No more of it comes.
    pub(super) fn end(&mut self, told: &mut Told<'_>) {
        // Requests first: answers are read by them.
        let client = self.client.unwrap_or(0);
        for side in [client, 1 - client] {
            while self.sides[side].stream.has_gap() {
                self.close_gap(side, told);
            }
            let mut found = Vec::new();
            self.sides[side].frames.end(&mut found);
            self.found(side, found, told);
        }
        told.tally.unanswered += self.waiting.len() as u64;
        self.is_over = true;
    }

    /// Ends it with a reason: there is more of it than can be held.
    pub(super) fn give_up(&mut self, why: &str, told: &mut Told<'_>) {
        told.tally.broken += 1;
        let side = self.client.unwrap_or(0);
        told.line(&self.line("givenUp", side, json!({ "error": why })));
        self.over();
    }

    fn over(&mut self) {
        for side in &mut self.sides {
            (side.stream, side.frames) = Default::default();
        }
        self.waiting = VecDeque::new();
        self.is_over = true;
    }

    fn close_gap(&mut self, side: usize, told: &mut Told<'_>) {
        let mut pieces = Vec::new();
        self.sides[side].stream.close_gap(&mut pieces);
        self.pieces(side, pieces, told);
    }

    fn pieces(&mut self, from: usize, pieces: Vec<Piece>, told: &mut Told<'_>) {
        for piece in pieces {
            if let (None, Piece::Bytes(bytes)) = (self.client, &piece)
                && begins_request(bytes) == Some(true)
            {
                self.client = Some(from);
            }
            let mut found = Vec::new();
            let Self { sides, client, waiting, .. } = self;
            let begins = |bytes: &[u8]| match *client {
                Some(client) if client == from => begins_request(bytes),
                Some(_) => begins_answer(bytes, waiting),
                None => Some(false),
            };
            sides[from].frames.take(piece, &begins, &mut found);
            self.found(from, found, told);
        }
    }

    fn found(&mut self, from: usize, found: Vec<Found>, told: &mut Told<'_>) {
        for found in found {
            if self.is_over {
                return;
            }
            let line = match found {
                Found::Frame(frame) => self.frame(from, &frame, None, told),
                Found::Holed(front) => {
                    self.frame(from, &front, Some("a part of it was not captured"), told)
                }
                Found::Gap(bytes) => {
                    told.tally.gaps += 1;
                    self.line("gap", from, json!({ "bytes": bytes }))
                }
                Found::Passed(bytes) => {
                    told.tally.passed_bytes += bytes;
                    let why = "no frame of Kafka's begins here";
                    self.line("passed", from, json!({ "bytes": bytes, "why": why }))
                }
                Found::Tls => {
                    told.tally.encrypted += 1;
                    let error =
                        "TLS: what it says cannot be read; capture where it is not encrypted";
                    let line = self.line("tls", from, json!({ "error": error }));
                    self.over();
                    line
                }
            };
            told.line(&line);
        }
    }

    fn frame(
        &mut self,
        from: usize,
        frame: &bytes::Bytes,
        cut: Option<&str>,
        told: &mut Told<'_>,
    ) -> Value {
        let mut shown = match self.client {
            Some(client) if client == from => self.request(frame),
            _ => self.answer(1 - from, frame, told),
        };
        hide_secrets(&mut shown);
        if let Some(cut) = cut {
            shown["error"] = cut.into();
        }
        told.tally.frames += 1;
        told.tally.broken += u64::from(!is_whole(&shown));
        self.line("frame", from, shown)
    }

    fn request(&mut self, frame: &bytes::Bytes) -> Value {
        let header = header(frame).filter(|(key, version, _)| is_known(*key, *version));
        let Some((key, version, correlation_id)) = header else {
            // It may be a SASL token of before KIP-152: nothing of it is shown.
            return json!({ "bytes": frame.len(), "kind": "request", "error": "no request that is known" });
        };
        let shown = decode(frame.clone(), As::Request);
        let is_answered = key != PRODUCE || shown["body"]["acks"] != 0;
        if is_answered {
            if self.waiting.len() == WAITING_MAX {
                self.waiting.pop_front();
            }
            let time_us = self.time_us;
            self.waiting.push_back(Asked { correlation_id, key, version, time_us });
        }
        shown
    }

    /// Answers come in the order of their requests: what was asked before this one is not answered any more.
    fn answer(&mut self, client: usize, frame: &bytes::Bytes, told: &mut Told<'_>) -> Value {
        let mut asked = self.asked(frame);
        // The request may wait behind a hole that nothing will fill: it was answered.
        while asked.is_none() && self.sides[client].stream.has_gap() {
            self.close_gap(client, told);
            asked = self.asked(frame);
        }
        let Some(asked) = asked else {
            let id = frame.first_chunk().map(|id| i32::from_be_bytes(*id));
            let error = "its request was not captured";
            return json!({ "bytes": frame.len(), "kind": "response", "correlationId": id, "error": error });
        };
        let (key, version) = (asked.key, asked.version);
        let mut shown = decode(frame.clone(), As::Response { key, version });
        shown["afterUs"] = self.time_us.saturating_sub(asked.time_us).into();
        shown
    }

    fn asked(&mut self, frame: &[u8]) -> Option<Asked> {
        let id = i32::from_be_bytes(*frame.first_chunk()?);
        let place = self.waiting.iter().position(|asked| asked.correlation_id == id)?;
        self.waiting.drain(..=place).next_back()
    }

    fn line(&self, what: &str, from: usize, body: Value) -> Value {
        let client = self.client.unwrap_or(0);
        let [client, server] =
            [client, 1 - client].map(|side| self.sides[side].address.to_string());
        let mut line = json!({
            "schema": super::SCHEMA, "line": what, "timeUs": self.time_us,
            "client": client, "server": server, "from": self.sides[from].address.to_string(),
        });
        if let (Value::Object(line), Value::Object(body)) = (&mut line, body) {
            line.extend(body);
        }
        line
    }
}

/// Key, version and correlation id.
fn header(frame: &[u8]) -> Option<(i16, i16, i32)> {
    let [k0, k1, v0, v1, c0, c1, c2, c3] = *frame.first_chunk()?;
    let id = i32::from_be_bytes([c0, c1, c2, c3]);
    Some((i16::from_be_bytes([k0, k1]), i16::from_be_bytes([v0, v1]), id))
}

/// A size, a known API in a known version, and a client id that fits.
fn begins_request(bytes: &[u8]) -> Option<bool> {
    if is_tls(bytes) {
        return Some(false);
    }
    let (size, rest) = bytes.split_first_chunk()?;
    let size = i32::from_be_bytes(*size);
    let ((key, version, _), client_id) = (header(rest)?, rest.get(8..)?.first_chunk()?);
    let client_id = i32::from(i16::from_be_bytes(*client_id));
    let fits = size >= 10 && (-1..=size - 10).contains(&client_id);
    // The definitions are text: they are asked last.
    Some(fits && (0..100).contains(&key) && is_known(key, version))
}

/// Whether there is a request of this key in this version.
fn is_known(key: i16, version: i16) -> bool {
    schema::message(key, true).is_some_and(|request| request.versions.hold(version))
}

/// A size, and the correlation id of a request that waits.
fn begins_answer(bytes: &[u8], waiting: &VecDeque<Asked>) -> Option<bool> {
    let (size, rest) = bytes.split_first_chunk()?;
    let id = i32::from_be_bytes(*rest.first_chunk()?);
    let is_waited_for = waiting.iter().any(|asked| asked.correlation_id == id);
    Some(i32::from_be_bytes(*size) >= 4 && is_waited_for)
}

/// What a login says is not shown, nor what a broker is set to (its JAAS entries hold passwords): captures are passed around.
fn hide_secrets(shown: &mut Value) {
    let key = shown["apiKey"].clone();
    let Some(body) = shown.get_mut("body") else { return };
    if key == SASL_AUTHENTICATE
        && let Some(said) = body.get_mut("authBytes")
    {
        let bytes = said.as_str().map_or(said["bytes"].clone(), |hex| (hex.len() / 2).into());
        *said = json!({ "bytes": bytes });
    }
    if key == INCREMENTAL_ALTER_CONFIGS {
        let resources = body.get_mut("resources").and_then(Value::as_array_mut);
        let brokers = resources.into_iter().flatten().filter(|one| one["resourceType"] != TOPIC);
        let configs = brokers.filter_map(|one| one.get_mut("configs")?.as_array_mut());
        for value in configs.flatten().filter_map(|config| config.get_mut("value")) {
            if let Some(text) = value.as_str() {
                *value = json!({ "bytes": text.len() });
            }
        }
    }
}

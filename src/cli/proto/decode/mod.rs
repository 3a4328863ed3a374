//! `strait proto decode`: frames as JSON, header and body, from hex, a file or a capture. For frames of anyone: reads by
//! Kafka's definitions (`messages.txt`) with bounds of its own, and says where a frame that is broken breaks.

mod batches;
mod body;
mod capture;
mod schema;

use std::io::{BufReader, Read};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::super::{Exit, Failure, Screen};
use crate::wire::{Reader, WireError};
use body::Body;

/// What may be decoded at once: more than any broker takes by default (`socket.request.max.bytes`, 100 MiB) is a mistake.
const INPUT_BYTES_MAX: usize = 128 << 20;
/// The size in front of a frame.
const SIZE_BYTES: usize = 4;
/// ApiVersions is answered with the oldest header in every version, since the versions are not agreed on yet (KIP-511).
const API_VERSIONS: i16 = 18;

/// What is decoded, and as what.
#[derive(Clone, Debug, Args)]
pub struct DecodeArgs {
    /// The frames as hex, one behind the other, each with its size in front or one without; `-` reads it from standard input
    #[arg(required_unless_present_any = ["file", "pcap"])]
    pub hex: Option<String>,
    /// Read the frames from a file, as they are on the wire
    #[arg(long, conflicts_with = "hex")]
    pub file: Option<PathBuf>,
    /// Read them from what tcpdump or Wireshark captured (pcap or pcapng), answers too, a line of JSON for each; `-` is standard input
    #[arg(long, conflicts_with_all = ["hex", "file", "api"])]
    pub pcap: Option<PathBuf>,
    /// Only connections to these ports of brokers
    #[arg(long, requires = "pcap", num_args = 1.., value_delimiter = ',')]
    pub port: Vec<u16>,
    /// They are answers of this API, by name or key; without it they are requests
    #[arg(long, requires = "version")]
    pub api: Option<String>,
    /// The version of the request that is answered
    #[arg(long, requires = "api")]
    pub version: Option<i16>,
}

/// As what frames are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum As {
    Request,
    Response { key: i16, version: i16 },
}

pub(super) fn main(args: &DecodeArgs, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    if let Some(path) = &args.pcap {
        let from: Box<dyn Read> = match path.as_os_str() == "-" {
            true => Box::new(std::io::stdin().lock()),
            false => Box::new(BufReader::new(std::fs::File::open(path).map_err(unread)?)),
        };
        let ok = capture::show(from, &args.port, &mut screen.out)?;
        return Ok(if ok { Exit::Ok } else { Exit::NotTrue });
    }
    let kind = match (&args.api, args.version) {
        (Some(api), Some(version)) => {
            let unknown = || Failure::Usage(format!("no API {api:?} is known"));
            As::Response { key: schema::key(api).ok_or_else(unknown)?, version }
        }
        _ => As::Request,
    };
    let input = input(args)?;
    let frames = decode_all(&input, kind);
    let ok = frames.iter().all(is_whole);
    screen.json("strait.proto.decode/1", json!({ "ok": ok, "frames": frames }))?;
    Ok(if ok { Exit::Ok } else { Exit::NotTrue })
}

fn input(args: &DecodeArgs) -> Result<Bytes, Failure> {
    let read = |from: &mut dyn Read, max: usize| {
        let mut all = Vec::new();
        from.take(max as u64 + 1).read_to_end(&mut all).map_err(unread)?;
        match all.len() > max {
            true => Err(Failure::Usage(format!("more than {max} bytes"))),
            false => Ok(all),
        }
    };
    if let Some(path) = &args.file {
        let mut file = std::fs::File::open(path).map_err(unread)?;
        return Ok(read(&mut file, INPUT_BYTES_MAX)?.into());
    }
    match args.hex.as_deref() {
        Some("-") => from_hex(&read(&mut std::io::stdin().lock(), 3 * INPUT_BYTES_MAX)?),
        Some(hex) => from_hex(hex.as_bytes()),
        None => Ok(Bytes::new()),
    }
}

fn unread(error: std::io::Error) -> Failure {
    Failure::Usage(format!("cannot be read: {error}"))
}

/// Hex digits; blanks and colons between them are passed over.
fn from_hex(text: &[u8]) -> Result<Bytes, Failure> {
    let passed = |byte: &u8| byte.is_ascii_whitespace() || *byte == b':';
    let mut digits = text.iter().filter(|byte| !passed(byte)).map(|byte| {
        let digit = char::from(*byte).to_digit(16);
        digit.ok_or_else(|| Failure::Usage(format!("{:?} is no hex digit", char::from(*byte))))
    });
    let mut out = Vec::with_capacity(text.len() / 2);
    while let Some(high) = digits.next() {
        let odd = || Failure::Usage("an odd number of hex digits".to_owned());
        let low = digits.next().ok_or_else(odd)??;
        out.push((high? << 4 | low) as u8);
    }
    Ok(out.into())
}

/// Frames with their sizes in front, or one without. A correlation id, too, may look like a size: if the sizes do not add
/// up, that reading is taken which makes sense from the first frame on.
fn decode_all(input: &Bytes, kind: As) -> Vec<Value> {
    let (frames, rest) = split(input);
    let mut sized = frames.into_iter().map(|frame| decode(frame, kind)).collect::<Vec<_>>();
    if rest.is_empty() {
        return sized;
    }
    let single = decode(input.clone(), kind);
    if is_whole(&single) || !sized.first().is_some_and(is_whole) {
        return vec![single];
    }
    let error = "cut: the frame is shorter than its size";
    sized.push(json!({ "bytes": rest.len(), "error": error }));
    sized
}

fn is_whole(frame: &Value) -> bool {
    frame.get("error").is_none()
}

/// The frames of a stream by their sizes, and what is left behind the last whole one.
fn split(input: &Bytes) -> (Vec<Bytes>, Bytes) {
    let (mut rest, mut frames) = (input.clone(), Vec::new());
    while let Some(len) = size(&rest).filter(|len| *len <= rest.len() - SIZE_BYTES) {
        let mut frame = rest.split_to(SIZE_BYTES + len);
        frames.push(frame.split_off(SIZE_BYTES));
    }
    (frames, rest)
}

fn size(bytes: &Bytes) -> Option<usize> {
    let claimed = i32::from_be_bytes(*bytes.first_chunk::<SIZE_BYTES>()?);
    // An answer's header is a correlation id, at least.
    usize::try_from(claimed).ok().filter(|len| *len >= 4)
}

/// One frame without its size. What was read before it broke is shown too.
fn decode(frame: Bytes, kind: As) -> Value {
    let mut out = json!({ "bytes": frame.len() });
    if let Err(why) = decode_into(&frame, kind, &mut out) {
        out["error"] = why.into();
    }
    out
}

fn decode_into(frame: &Bytes, kind: As, out: &mut Value) -> Result<(), String> {
    let said = |error: WireError| format!("header: {error}");
    let mut reader = Reader::new(frame);
    let (is_request, key, version) = match kind {
        As::Response { key, version } => (false, key, version),
        As::Request => {
            let key = reader.i16("api key").map_err(said)?;
            (true, key, reader.i16("api version").map_err(said)?)
        }
    };
    out["kind"] = if is_request { "request" } else { "response" }.into();
    out["apiKey"] = key.into();
    out["apiVersion"] = version.into();
    out["correlationId"] = reader.i32("correlation id").map_err(said)?.into();
    let message = schema::message(key, is_request).ok_or(format!("no API {key} is known"))?;
    out["api"] = message.name.into();
    if !message.versions.hold(version) {
        let known = message.versions;
        return Err(format!("{} v{version}: {}-{} are known", message.name, known.min, known.max));
    }
    if is_request {
        out["clientId"] = client_id(&mut reader).map_err(said)?;
    }
    if message.is_flexible(version) && (is_request || message.key != API_VERSIONS) {
        reader.skip_tags("header").map_err(said)?;
    }
    let body = frame.slice(frame.len() - reader.left()..);
    match Body::new(&message, version).read(&body) {
        Ok(read) => out["body"] = read,
        Err(broken) => {
            let place = if broken.place.is_empty() { "body" } else { &broken.place };
            return Err(format!("{place}: {}", broken.why));
        }
    }
    Ok(())
}

/// A NULLABLE_STRING of the old encoding, in every version of the header.
fn client_id(reader: &mut Reader<'_>) -> Result<Value, WireError> {
    const WHAT: &str = "client id";
    match reader.i16(WHAT)? {
        -1 => Ok(Value::Null),
        claimed => {
            let left = reader.left();
            let bad = |_| WireError::BadLength { what: WHAT, claimed: claimed.into(), left };
            let raw = reader.take(usize::try_from(claimed).map_err(bad)?, WHAT)?;
            Ok(String::from_utf8_lossy(raw).into())
        }
    }
}

#[cfg(test)]
mod tests;

//! An answer that is about to leave a broker, and what a script does to it.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Decodable, Encodable};

/// One true answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Of which request.
    pub api: ApiKey,
    /// In which version.
    pub version: i16,
    /// The request's.
    pub correlation: i32,
    /// Behind the header.
    pub body: Bytes,
    /// How many answers of this API were tampered with before.
    pub nth: u32,
    /// Which connection it goes to, counted from the start.
    pub connection: u64,
}

/// What leaves the broker instead.
#[derive(Clone, Debug)]
pub enum Deed {
    /// These bytes.
    Send(Vec<u8>),
    /// These bytes, and the connection ends.
    Close(Vec<u8>),
    /// These bytes, and then silence; what else the connection brings is swallowed.
    Stall(Vec<u8>),
    /// These bytes, one at a time with a pause between.
    Drip(Vec<u8>, Duration),
}

impl Answer {
    /// The whole frame as it was meant.
    pub fn frame(&self) -> Vec<u8> {
        self.with(&self.body)
    }

    /// A whole frame with this body.
    pub fn with(&self, body: &[u8]) -> Vec<u8> {
        let mut frame = self.head();
        frame.extend_from_slice(body);
        sized(frame)
    }

    /// The correlation id, and the empty tags where the version has them.
    pub fn head(&self) -> Vec<u8> {
        let mut head = self.correlation.to_be_bytes().to_vec();
        if self.api.response_header_version(self.version) == 1 {
            head.push(0);
        }
        head
    }

    /// The answer changed as its type allows.
    pub fn edit<R: Decodable + Encodable>(&self, edit: impl FnOnce(&mut R)) -> Deed {
        let mut answer = R::decode(&mut self.body.clone(), self.version).expect("a true answer");
        edit(&mut answer);
        let mut body = BytesMut::new();
        answer.encode(&mut body, self.version).expect("what can be written");
        Deed::Send(self.with(&body))
    }

    /// The body with these bytes from `at` on.
    pub fn patched(&self, at: usize, bytes: &[u8]) -> Deed {
        let mut body = self.body.to_vec();
        let end = (at + bytes.len()).min(body.len());
        if at < end {
            body[at..end].copy_from_slice(&bytes[..end - at]);
        }
        Deed::Send(self.with(&body))
    }
}

/// The size before what it is of.
pub fn sized(frame: Vec<u8>) -> Vec<u8> {
    let mut bytes = u32::try_from(frame.len()).expect("small").to_be_bytes().to_vec();
    bytes.extend(frame);
    bytes
}

/// Reads the frames out of a stream of bytes.
#[derive(Default)]
pub(super) struct Frames(BytesMut);

impl Frames {
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole frame, without its size.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let size = u32::from_be_bytes(*self.0.first_chunk()?) as usize;
        if self.0.len() < 4 + size {
            return None;
        }
        self.0.advance(4);
        Some(self.0.split_to(size).freeze())
    }
}

//! An answer in pieces: small things are gathered, records go by reference to a vectored write.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Below this, copying is cheaper than one more piece.
const BY_REFERENCE_MIN: usize = 512;

/// An answer being written.
#[derive(Default)]
pub(super) struct Body {
    done: VecDeque<Bytes>,
    open: BytesMut,
    len: usize,
}

impl Body {
    pub(super) fn i16(&mut self, value: i16) {
        self.slice(&value.to_be_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.slice(&value.to_be_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.slice(&value.to_be_bytes());
    }

    pub(super) fn uvarint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.slice(&[value.to_le_bytes()[0] | 0x80]);
            value >>= 7;
        }
        self.slice(&[value.to_le_bytes()[0]]);
    }

    pub(super) fn slice(&mut self, bytes: &[u8]) {
        self.open.put_slice(bytes);
        self.len += bytes.len();
    }

    /// Bytes that are shared, not copied, when they are many.
    pub(super) fn bytes(&mut self, bytes: Bytes) {
        if bytes.len() < BY_REFERENCE_MIN {
            return self.slice(&bytes);
        }
        if !self.open.is_empty() {
            self.done.push_back(self.open.split().freeze());
        }
        self.len += bytes.len();
        self.done.push_back(bytes);
    }

    /// A length of an array or string: compact plus one in flexible versions.
    pub(super) fn array(&mut self, len: usize, flexible: bool) {
        match flexible {
            true => self.uvarint(len + 1),
            false => self.i32(i32::try_from(len).unwrap_or(i32::MAX)),
        }
    }

    pub(super) fn string(&mut self, text: &str, flexible: bool) {
        match flexible {
            true => self.uvarint(text.len() + 1),
            false => self.i16(i16::try_from(text.len()).unwrap_or(i16::MAX)),
        }
        self.slice(text.as_bytes());
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Everything in one piece, for what is small.
    pub(super) fn into_bytes(self) -> Bytes {
        let parts: Vec<Bytes> = self.done.into_iter().chain([self.open.freeze()]).collect();
        Bytes::from(parts.concat())
    }

    /// Ready to be written behind `head`, with the frame's length in front of both.
    pub(super) fn into_frame(mut self, head: &[u8]) -> Frame {
        if !self.open.is_empty() {
            self.done.push_back(self.open.freeze());
        }
        let len = self.len + head.len();
        let mut front = BytesMut::with_capacity(4 + head.len());
        front.put_i32(i32::try_from(len).unwrap_or(i32::MAX));
        front.put_slice(head);
        self.done.push_front(front.freeze());
        Frame { pieces: self.done, left: len + 4 }
    }
}

/// A frame on its way out.
pub(super) struct Frame {
    pieces: VecDeque<Bytes>,
    left: usize,
}

impl Buf for Frame {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        self.left -= count;
        while let Some(front) = self.pieces.front_mut() {
            if count < front.len() {
                return front.advance(count);
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, piece) in out.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_its_pieces_in_order() {
        let mut body = Body::default();
        body.i16(7);
        body.bytes(Bytes::from(vec![1; 600]));
        body.bytes(Bytes::from_static(b"small"));
        let mut frame = body.into_frame(b"head");
        assert_eq!(frame.pieces.len(), 4, "one of them by reference");
        let all = frame.copy_to_bytes(frame.remaining());
        assert_eq!(all.len(), 4 + 4 + 2 + 600 + 5);
        assert_eq!(&all[..10], b"\0\0\x02\x63head\0\x07");
        assert_eq!(&all[610..], b"small");
    }
}

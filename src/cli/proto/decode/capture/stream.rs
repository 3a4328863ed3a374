//! One direction of a TCP connection, put in order: what comes again is dropped, what comes early is held, and what never
//! comes is a gap. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;

/// What is held for a hole to be filled, in bytes and in segments. A hole that outlives them was lost by the capture.
const EARLY_BYTES_MAX: usize = 1 << 20;
/// See [`EARLY_BYTES_MAX`].
const EARLY_SEGMENTS_MAX: usize = 4096;
/// What a segment takes that is held, besides its bytes.
const EARLY_SEGMENT_BYTES: usize = 128;

/// What comes next in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The payload of one segment, or what was new in it.
    Bytes(Bytes),
    /// So many bytes were not captured.
    Gap(u64),
}

/// A direction.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The place behind what was given out, counted from the stream's beginning; None before the first segment.
    next: Option<u64>,
    /// The number of its SYN.
    begun: Option<u32>,
    /// Early segments by their places.
    early: BTreeMap<u64, Bytes>,
    early_bytes: usize,
}

/// Far enough from nought that nothing comes from in front of it.
const FIRST: u64 = 1 << 32;

impl Stream {
    /// The stream begins behind this SYN.
    pub(super) fn begin(&mut self, sequence: u32) {
        self.begun.get_or_insert(sequence);
        self.next.get_or_insert(FIRST + u64::from(sequence.wrapping_add(1)));
    }

    /// Whether a SYN with this number may be of this stream, and not of the next connection between the same ports.
    pub(super) fn may_begin_with(&self, sequence: u32) -> bool {
        self.next.is_none() || self.begun == Some(sequence)
    }

    /// Memory that waits for holes to be filled.
    pub(super) fn held_bytes(&self) -> usize {
        self.early_bytes + EARLY_SEGMENT_BYTES * self.early.len()
    }

    /// Takes a segment, and gives what is now in order.
    pub(super) fn take(&mut self, sequence: u32, payload: &[u8], out: &mut Vec<Piece>) {
        if payload.is_empty() {
            return;
        }
        let next = *self.next.get_or_insert(FIRST + u64::from(sequence));
        // Sequence numbers go round; what is meant is the nearest place of that number.
        let ahead = i64::from(sequence.wrapping_sub(next as u32).cast_signed());
        let at = next.saturating_add_signed(ahead);
        let held = self.early.entry(at).or_default();
        if payload.len() > held.len() {
            self.early_bytes += payload.len() - held.len();
            *held = Bytes::copy_from_slice(payload);
        }
        self.give(out);
        while self.early_bytes > EARLY_BYTES_MAX || self.early.len() > EARLY_SEGMENTS_MAX {
            self.close_gap(out);
        }
    }

    /// Whether something waits behind a hole.
    pub(super) fn has_gap(&self) -> bool {
        !self.early.is_empty()
    }

    /// Gives the first hole up, and what lies behind it out.
    pub(super) fn close_gap(&mut self, out: &mut Vec<Piece>) {
        if let (Some((at, _)), Some(next)) = (self.early.first_key_value(), self.next.as_mut()) {
            out.push(Piece::Gap(at - *next));
            *next = *at;
        }
        self.give(out);
    }

    fn give(&mut self, out: &mut Vec<Piece>) {
        let Some(next) = self.next.as_mut() else { return };
        while let Some(first) = self.early.first_entry().filter(|first| first.key() <= next) {
            let (at, mut bytes) = first.remove_entry();
            self.early_bytes -= bytes.len();
            // What was given out already came again.
            let old = usize::try_from(*next - at).unwrap_or(usize::MAX).min(bytes.len());
            let new = bytes.split_off(old);
            if !new.is_empty() {
                *next += new.len() as u64;
                out.push(Piece::Bytes(new));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Piece::{Bytes as B, Gap};
    use super::*;

    fn taken(segments: &[(u32, &'static [u8])], first: u32) -> Vec<Piece> {
        let (mut stream, mut out) = (Stream::default(), Vec::new());
        stream.begin(first);
        for (sequence, payload) in segments {
            stream.take(*sequence, payload, &mut out);
        }
        while stream.has_gap() {
            stream.close_gap(&mut out);
        }
        out
    }

    fn bytes(of: &'static [u8]) -> Piece {
        B(Bytes::from_static(of))
    }

    #[test]
    fn segments_come_out_once_in_their_order_over_the_end_of_the_numbers_too() {
        for first in [0, 7, u32::MAX - 2, u32::MAX] {
            let at = |offset: u32| first.wrapping_add(1 + offset);
            let in_order = [bytes(b"abc"), bytes(b"def"), bytes(b"gh")];
            let early = [(at(3), &b"def"[..]), (at(6), b"gh"), (at(0), b"abc")];
            assert_eq!(taken(&early, first), in_order, "{first}");
            let again =
                [(at(0), &b"abc"[..]), (at(0), b"abc"), (at(3), b"def"), (at(2), b"cdefgh")];
            assert_eq!(taken(&again, first), in_order, "{first}");
            let longer = [(at(3), &b"d"[..]), (at(3), b"def"), (at(0), b"abc"), (at(6), b"gh")];
            assert_eq!(taken(&longer, first), in_order, "{first}");
        }
    }

    #[test]
    fn what_never_came_is_a_gap_of_its_length() {
        let out = taken(&[(1, b"abc"), (9, b"xy"), (6, b"n")], 0);
        assert_eq!(out, [bytes(b"abc"), Gap(2), bytes(b"n"), Gap(2), bytes(b"xy")]);
    }

    #[test]
    fn no_more_is_held_than_the_bounds() {
        let (mut stream, mut out) = (Stream::default(), Vec::new());
        stream.begin(0);
        for index in 0..20_000u32 {
            // Every second byte, then blocks behind one hole.
            let (at, len) =
                if index < 10_000 { (2 + 2 * index, 1) } else { (30_000 + index * 1000, 999) };
            stream.take(at, &vec![0; len], &mut out);
            assert!(
                stream.early_bytes <= EARLY_BYTES_MAX && stream.early.len() <= EARLY_SEGMENTS_MAX
            );
        }
        assert!(out.len() > 15_000);
    }
}

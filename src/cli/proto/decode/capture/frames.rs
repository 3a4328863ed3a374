//! The frames of one direction, cut out of the pieces of its stream. Pure.
//!
//! A stream that was captured from its beginning is in step from there. Behind a gap, and where the capture begins in the
//! middle, it comes into step where a segment begins like a frame that can be expected.

use bytes::{Buf, Bytes, BytesMut};

use super::stream::Piece;

/// More than any broker takes (`socket.request.max.bytes`) or sends.
const FRAME_BYTES_MAX: usize = 128 << 20;
/// Behind a frame of this size what has come of the next one gets memory of its own.
const COPIED_BYTES_MIN: usize = 64 << 10;
const SIZE_BYTES: usize = 4;

/// What was found in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A frame, without its size.
    Frame(Bytes),
    /// The front of a frame; behind it something was not captured.
    Holed(Bytes),
    /// So many bytes were not captured.
    Gap(u64),
    /// So many bytes between frames are none.
    Passed(u64),
    /// TLS records; nothing more is found.
    Tls,
}

/// Whether bytes begin like a frame that can be expected, its size in front; None is too few to tell.
pub(super) type Begins<'f> = &'f dyn Fn(&[u8]) -> Option<bool>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Where a frame begins is not known.
    #[default]
    OutOfStep,
    /// The buffer begins with a frame; `sure` if one was seen before.
    InStep { sure: bool },
    /// So much is left of a frame with a hole.
    Holed { left: u64 },
    /// Encrypted.
    Tls,
}

/// A direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    state: State,
    buffer: BytesMut,
    passed: u64,
}

impl Frames {
    /// The stream is captured from here on, its first byte.
    pub(super) fn begin(&mut self) {
        if self.state == State::OutOfStep && self.passed == 0 {
            self.state = State::InStep { sure: false };
        }
    }

    /// Memory that waits for the rest of a frame.
    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// What a piece brings to light.
    pub(super) fn take(&mut self, piece: Piece, begins: Begins<'_>, out: &mut Vec<Found>) {
        match piece {
            Piece::Bytes(bytes) => self.bytes(bytes, begins, out),
            Piece::Gap(_) if self.state == State::Tls => {}
            Piece::Gap(len) => self.gap(len, out),
        }
    }

    /// The stream is at its end.
    pub(super) fn end(&mut self, out: &mut Vec<Found>) {
        if self.claimed().is_some() {
            out.push(Found::Holed(self.buffer.split_off(SIZE_BYTES).freeze()));
            self.buffer.clear();
        }
        self.lose_step();
        self.tell_passed(out);
    }

    fn bytes(&mut self, mut bytes: Bytes, begins: Begins<'_>, out: &mut Vec<Found>) {
        if let State::Holed { left } = self.state {
            let len = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            bytes.advance(len);
            self.state = match left - len as u64 {
                0 => State::InStep { sure: true },
                left => State::Holed { left },
            };
        }
        if self.state == State::OutOfStep {
            self.state = match begins(&bytes) {
                _ if is_tls(&bytes) => State::Tls,
                Some(true) => State::InStep { sure: true },
                _ => State::OutOfStep,
            };
            match self.state {
                State::OutOfStep => self.passed += bytes.len() as u64,
                State::Tls => out.push(Found::Tls),
                _ => self.tell_passed(out),
            }
        }
        if let State::InStep { .. } = self.state {
            self.buffer.extend_from_slice(&bytes);
            self.split(begins, out);
        }
    }

    fn split(&mut self, begins: Begins<'_>, out: &mut Vec<Found>) {
        while self.buffer.len() >= SIZE_BYTES {
            let claimed = self.claimed();
            let is_other = match self.state {
                State::InStep { sure: false } => begins(&self.buffer).map(|begins| !begins),
                _ => Some(false),
            };
            if claimed.is_none() || is_other == Some(true) {
                if is_tls(&self.buffer) {
                    self.state = State::Tls;
                    self.buffer = BytesMut::new();
                    out.push(Found::Tls);
                } else {
                    self.lose_step();
                }
                return;
            }
            let whole = claimed.filter(|len| self.buffer.len() >= SIZE_BYTES + len);
            let (Some(len), Some(false)) = (whole, is_other) else { return };
            self.buffer.advance(SIZE_BYTES);
            out.push(Found::Frame(self.buffer.split_to(len).freeze()));
            // What is left would keep the whole allocation.
            if len > COPIED_BYTES_MIN {
                self.buffer = BytesMut::from(&self.buffer[..]);
            }
            self.state = State::InStep { sure: true };
        }
    }

    /// The size of the frame that the buffer begins with, if it can be one.
    fn claimed(&self) -> Option<usize> {
        let claimed = i32::from_be_bytes(*self.buffer.first_chunk::<SIZE_BYTES>()?);
        // An answer's header is a correlation id, at least.
        usize::try_from(claimed).ok().filter(|len| (4..=FRAME_BYTES_MAX).contains(len))
    }

    fn gap(&mut self, len: u64, out: &mut Vec<Found>) {
        out.push(Found::Gap(len));
        let left = match (self.state, self.claimed()) {
            (State::Holed { left }, _) => left,
            // What is whole and was not cut out is perhaps no frame.
            (State::InStep { .. }, Some(size)) if self.buffer.len() < SIZE_BYTES + size => {
                let front = self.buffer.split_off(SIZE_BYTES).freeze();
                self.buffer.clear();
                let left = (size - front.len()) as u64;
                out.push(Found::Holed(front));
                left
            }
            _ => return self.lose_step(),
        };
        self.state = match left.checked_sub(len) {
            Some(0) => State::InStep { sure: true },
            Some(left) => State::Holed { left },
            None => State::OutOfStep,
        };
    }

    fn lose_step(&mut self) {
        self.passed += self.buffer.len() as u64;
        self.buffer = BytesMut::new();
        self.state = State::OutOfStep;
    }

    fn tell_passed(&mut self, out: &mut Vec<Found>) {
        if self.passed > 0 {
            out.push(Found::Passed(std::mem::take(&mut self.passed)));
        }
    }
}

/// A record of TLS: its type, and a version that begins with 3. As the size of a frame it would be larger than any.
pub(super) fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x14..=0x17, 3, 0..=4, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of these tests are short, and say so in their first byte.
    fn begins(bytes: &[u8]) -> Option<bool> {
        bytes.get(4).map(|first| *first == b'k' && bytes.starts_with(&[0, 0, 0]))
    }

    fn found(is_begun: bool, pieces: &[Piece]) -> Vec<Found> {
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        if is_begun {
            frames.begin();
        }
        pieces.iter().for_each(|piece| frames.take(piece.clone(), &begins, &mut out));
        frames.end(&mut out);
        out
    }

    fn bytes(of: &'static [u8]) -> Piece {
        Piece::Bytes(Bytes::from_static(of))
    }

    fn frame(of: &'static [u8]) -> Found {
        Found::Frame(Bytes::from_static(of))
    }

    const TWO: &[u8] = b"\0\0\0\x05kafka\0\0\0\x04kfka";

    #[test]
    fn frames_come_out_whatever_the_segments() {
        let two = [frame(b"kafka"), frame(b"kfka")];
        for len in 1..=TWO.len() {
            let pieces: Vec<_> = TWO.chunks(len).map(bytes).collect();
            assert_eq!(found(true, &pieces), two, "{len}");
        }
        // In the middle of a stream: from the first segment on that begins with one.
        let late = [bytes(b"fka"), bytes(TWO)];
        assert_eq!(found(false, &late), [&[Found::Passed(3)][..], &two].concat());
    }

    #[test]
    fn a_gap_costs_what_it_cut_and_no_more() {
        let holed = |front| Found::Holed(Bytes::from_static(front));
        let cases: [(&[Piece], &[Found]); 4] = [
            // Within a frame: its size tells where the next one begins.
            (
                &[bytes(&TWO[..6]), Piece::Gap(2), bytes(&TWO[8..])],
                &[Found::Gap(2), holed(b"ka"), frame(b"kfka")],
            ),
            (
                &[bytes(&TWO[..6]), Piece::Gap(3), bytes(&TWO[9..])],
                &[Found::Gap(3), holed(b"ka"), frame(b"kfka")],
            ),
            // Over its end: the next segment that begins with a frame.
            (
                &[bytes(&TWO[..6]), Piece::Gap(5), bytes(&TWO[11..]), bytes(TWO)],
                &[Found::Gap(5), holed(b"ka"), Found::Passed(6), frame(b"kafka"), frame(b"kfka")],
            ),
            // Between two.
            (
                &[bytes(&TWO[..9]), Piece::Gap(8), bytes(TWO)],
                &[frame(b"kafka"), Found::Gap(8), frame(b"kafka"), frame(b"kfka")],
            ),
        ];
        for (pieces, wanted) in cases {
            assert_eq!(found(true, pieces), wanted, "{pieces:?}");
        }
    }

    #[test]
    fn what_is_no_frame_is_counted_and_tls_is_named() {
        assert_eq!(
            found(true, &[bytes(b"GET / HTTP/1.1\r\n\r\n"), bytes(b"x")]),
            [Found::Passed(19)]
        );
        assert_eq!(found(true, &[bytes(b"\0\0\0\x05other"), bytes(TWO)]).len(), 3);
        for is_begun in [true, false] {
            let hello = [bytes(&[0x16, 3, 1, 2, 0, 1]), Piece::Gap(9), bytes(TWO)];
            assert_eq!(found(is_begun, &hello), [Found::Tls]);
        }
        assert_eq!(found(true, &[bytes(&TWO[..7])]), [Found::Holed(Bytes::from_static(b"kaf"))]);
    }

    #[test]
    fn a_hole_behind_what_may_be_no_frame_is_a_hole() {
        // A size of four, more than that, and nobody knows yet whether a request begins so.
        let undecided = |_: &[u8]| None;
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        frames.take(Piece::Gap(0), &undecided, &mut out);
        let mut frames = Frames { state: State::InStep { sure: false }, ..frames };
        frames.take(
            Piece::Bytes(Bytes::from_static(&[0, 0, 0, 4, 1, 2, 3, 4, 5])),
            &undecided,
            &mut out,
        );
        frames.take(Piece::Gap(100), &undecided, &mut out);
        frames.end(&mut out);
        assert!(out.contains(&Found::Gap(100)), "{out:?}");
        assert_eq!(frames.state, State::OutOfStep);
    }
}

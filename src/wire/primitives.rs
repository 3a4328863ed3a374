//! The bounded reader that every decoder stands on, and the few writers that `kafka-protocol` is not used for.

use std::fmt;

use bytes::Bytes;

use super::ErrorCode;
use crate::limits;

/// Bytes that are not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The value ends before it should.
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// A count or length that the remaining bytes cannot hold, or that is negative where that means nothing.
    BadLength {
        /// What was being read.
        what: &'static str,
        /// The claimed length.
        claimed: i64,
        /// The bytes that were left.
        left: usize,
    },
    /// A value outside its range.
    BadValue {
        /// What was being read.
        what: &'static str,
    },
    /// More elements than a frame of this size may become in memory.
    TooMuch {
        /// What was being read.
        what: &'static str,
        /// How many came next.
        elements: usize,
    },
    /// The request could not be written in this version.
    Encode {
        /// What was being written.
        what: &'static str,
    },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { what } => write!(f, "{what}: ends early"),
            Self::BadLength { what, claimed, left } => {
                write!(f, "{what}: claims a length of {claimed} where {left} bytes are left")
            }
            Self::BadValue { what } => write!(f, "{what}: not a legal value"),
            Self::TooMuch { what, elements } => {
                write!(f, "{what}: {elements} elements are too many for a frame of this size")
            }
            Self::Encode { what } => write!(f, "{what}: cannot be written in this version"),
        }
    }
}

impl std::error::Error for WireError {}

/// Reads the flexible (KIP-482) encoding from a frame without copying and without trusting a length.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    /// Bytes of memory that lists may still take. An empty element is 3 bytes on the wire and can be 50 in memory.
    list_bytes_left: usize,
}

macro_rules! fixed {
    ($name:ident, $type:ty, $doc:literal) => {
        #[doc = $doc]
        pub fn $name(&mut self, what: &'static str) -> Result<$type, WireError> {
            const LEN: usize = size_of::<$type>();
            let mut raw = [0; LEN];
            raw.copy_from_slice(self.take(LEN, what)?);
            Ok(<$type>::from_be_bytes(raw))
        }
    };
}

impl<'a> Reader<'a> {
    /// A reader at the start of `frame`.
    pub fn new(frame: &'a Bytes) -> Self {
        let list_bytes_left = frame
            .len()
            .saturating_mul(limits::DECODED_RATIO_MAX)
            .saturating_add(limits::DECODED_BYTES_FREE);
        Self { frame, at: 0, list_bytes_left }
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.frame.len() - self.at
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        if len > self.left() {
            return Err(WireError::Truncated { what });
        }
        let slice = &self.frame[self.at..self.at + len];
        self.at += len;
        Ok(slice)
    }

    fixed!(i8, i8, "An INT8.");
    fixed!(i16, i16, "An INT16.");
    fixed!(i32, i32, "An INT32.");
    fixed!(i64, i64, "An INT64.");
    fixed!(u32, u32, "A UINT32.");

    /// A BOOLEAN.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, WireError> {
        Ok(self.i8(what)? != 0)
    }

    /// A UUID; all zero means none.
    pub fn uuid(&mut self, what: &'static str) -> Result<uuid::Uuid, WireError> {
        let mut raw = [0; 16];
        raw.copy_from_slice(self.take(16, what)?);
        Ok(uuid::Uuid::from_bytes(raw))
    }

    /// An UNSIGNED_VARINT of at most 32 bits.
    pub fn uvarint(&mut self, what: &'static str) -> Result<u32, WireError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1, what)?[0];
            if shift == 28 && byte > 0x0f {
                return Err(WireError::BadValue { what });
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::BadValue { what })
    }

    /// A compact length: None is null. Checked against what is left, each element taking `element_bytes_min`.
    fn compact_len(
        &mut self,
        element_bytes_min: usize,
        what: &'static str,
    ) -> Result<Option<usize>, WireError> {
        let Some(len) = self.uvarint(what)?.checked_sub(1) else { return Ok(None) };
        let len = len as usize;
        if len.saturating_mul(element_bytes_min.max(1)) > self.left() {
            let claimed = i64::try_from(len).unwrap_or(i64::MAX);
            return Err(WireError::BadLength { what, claimed, left: self.left() });
        }
        Ok(Some(len))
    }

    /// The length of a COMPACT_ARRAY whose elements take at least `element_bytes_min` each; null reads as 0.
    pub fn array_len(
        &mut self,
        element_bytes_min: usize,
        what: &'static str,
    ) -> Result<usize, WireError> {
        Ok(self.compact_len(element_bytes_min, what)?.unwrap_or(0))
    }

    /// Makes room in `list` for the `count` elements that come next, a count that was checked against the bytes that are
    /// left. Refused where a frame of this size may not become so much (I5).
    pub(super) fn reserve<T>(
        &mut self,
        list: &mut Vec<T>,
        count: usize,
        what: &'static str,
    ) -> Result<(), WireError> {
        let bytes = count.saturating_mul(size_of::<T>());
        self.list_bytes_left = self
            .list_bytes_left
            .checked_sub(bytes)
            .ok_or(WireError::TooMuch { what, elements: count })?;
        list.reserve(count);
        Ok(())
    }

    /// A COMPACT_ARRAY (null reads as empty) of elements that take at least `element_bytes_min` each.
    pub fn array<T>(
        &mut self,
        element_bytes_min: usize,
        what: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let len = self.array_len(element_bytes_min, what)?;
        let mut elements = Vec::new();
        self.reserve(&mut elements, len, what)?;
        for _ in 0..len {
            elements.push(read(self)?);
        }
        Ok(elements)
    }

    /// A COMPACT_NULLABLE_STRING.
    pub fn nullable_string(&mut self, what: &'static str) -> Result<Option<&'a str>, WireError> {
        let Some(len) = self.compact_len(1, what)? else { return Ok(None) };
        let raw = self.take(len, what)?;
        std::str::from_utf8(raw).map(Some).map_err(|_| WireError::BadValue { what })
    }

    /// A COMPACT_STRING.
    pub fn string(&mut self, what: &'static str) -> Result<&'a str, WireError> {
        self.nullable_string(what)?.ok_or(WireError::BadValue { what })
    }

    /// COMPACT_NULLABLE_BYTES or COMPACT_RECORDS: a slice of the frame, not a copy.
    pub fn nullable_bytes(&mut self, what: &'static str) -> Result<Option<Bytes>, WireError> {
        let Some(len) = self.compact_len(1, what)? else { return Ok(None) };
        let start = self.at;
        self.take(len, what)?;
        Ok(Some(self.frame.slice(start..start + len)))
    }

    /// A STRING of the encoding before KIP-482: an INT16 length. SaslHandshake never became flexible.
    pub fn classic_string(&mut self, what: &'static str) -> Result<&'a str, WireError> {
        let claimed = self.i16(what)?;
        let len = usize::try_from(claimed).map_err(|_| WireError::BadLength {
            what,
            claimed: claimed.into(),
            left: self.left(),
        })?;
        std::str::from_utf8(self.take(len, what)?).map_err(|_| WireError::BadValue { what })
    }

    /// An ARRAY of the encoding before KIP-482: an INT32 count.
    pub fn classic_array<T>(
        &mut self,
        element_bytes_min: usize,
        what: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let claimed = self.i32(what)?;
        let left = self.left();
        let len = usize::try_from(claimed)
            .ok()
            .filter(|len| len.saturating_mul(element_bytes_min.max(1)) <= left)
            .ok_or(WireError::BadLength { what, claimed: claimed.into(), left })?;
        let mut elements = Vec::new();
        self.reserve(&mut elements, len, what)?;
        for _ in 0..len {
            elements.push(read(self)?);
        }
        Ok(elements)
    }

    /// A COMPACT_NULLABLE_STRING as a value of its own.
    pub fn nullable_owned(&mut self, what: &'static str) -> Result<Option<String>, WireError> {
        Ok(self.nullable_string(what)?.map(str::to_owned))
    }

    /// A COMPACT_STRING as a value of its own.
    pub fn owned(&mut self, what: &'static str) -> Result<String, WireError> {
        Ok(self.string(what)?.to_owned())
    }

    /// An error code.
    pub fn error_code(&mut self, what: &'static str) -> Result<ErrorCode, WireError> {
        Ok(ErrorCode(self.i16(what)?))
    }

    /// Tagged fields: `read` gets each tag with a reader over exactly its bytes; a field that lies about its size
    /// cannot move the outer reader.
    pub fn tags(
        &mut self,
        what: &'static str,
        mut read: impl FnMut(u32, &mut Reader<'_>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let count = self.uvarint(what)?;
        for _ in 0..count {
            let tag = self.uvarint(what)?;
            let size = self.uvarint(what)? as usize;
            let start = self.at;
            self.take(size, what)?;
            let field = self.frame.slice(start..start + size);
            read(tag, &mut Reader::new(&field))?;
        }
        Ok(())
    }

    /// Tagged fields that nothing here needs.
    pub fn skip_tags(&mut self, what: &'static str) -> Result<(), WireError> {
        self.tags(what, |_, _| Ok(()))
    }

    /// Refuses bytes after the end: they mean that the two sides disagree about the version.
    pub fn finish(self, what: &'static str) -> Result<(), WireError> {
        if self.left() == 0 { Ok(()) } else { Err(WireError::BadValue { what }) }
    }
}

/// Appends an UNSIGNED_VARINT.
pub fn put_uvarint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the count of a COMPACT_ARRAY, or the length of COMPACT_RECORDS.
pub fn put_len(out: &mut Vec<u8>, len: usize, what: &'static str) -> Result<(), WireError> {
    // The reader at the other end counts in INT32.
    let len = i32::try_from(len).map_err(|_| WireError::Encode { what })?;
    put_uvarint(out, len as u32 + 1);
    Ok(())
}

/// Appends a COMPACT_STRING.
pub fn put_string(out: &mut Vec<u8>, string: &str, what: &'static str) -> Result<(), WireError> {
    // Kafka's strings end at 32767 bytes in every version.
    let len = i16::try_from(string.len()).map_err(|_| WireError::Encode { what })?;
    put_uvarint(out, len as u32 + 1);
    out.extend_from_slice(string.as_bytes());
    Ok(())
}

/// Bytes that [`put_uvarint`] takes for `value`.
pub fn uvarint_len(value: u32) -> usize {
    ((38 - (value | 1).leading_zeros()) / 7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn uvarints(value: u32) {
            let mut out = Vec::new();
            put_uvarint(&mut out, value);
            prop_assert_eq!(out.len(), uvarint_len(value));
            let frame = Bytes::from(out);
            let mut reader = Reader::new(&frame);
            prop_assert_eq!(reader.uvarint("x"), Ok(value));
            prop_assert_eq!(reader.finish("x"), Ok(()));
        }

        #[test]
        fn strings(string in ".{0,300}") {
            let mut out = Vec::new();
            put_string(&mut out, &string, "x").unwrap();
            let frame = Bytes::from(out);
            prop_assert_eq!(Reader::new(&frame).string("x"), Ok(&*string));
        }
    }

    #[test]
    fn uvarints_of_more_than_32_bits() {
        for raw in
            [&[0xff, 0xff, 0xff, 0xff, 0x1f][..], &[0x80; 5], &[0x80, 0x80, 0x80, 0x80, 0x80, 0]]
        {
            let frame = Bytes::copy_from_slice(raw);
            assert!(Reader::new(&frame).uvarint("x").is_err(), "{raw:x?}");
        }
        let edge = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(Reader::new(&edge).uvarint("x"), Ok(u32::MAX));
    }

    #[test]
    fn a_count_is_refused_before_anything_is_reserved() {
        // 2^31 - 1 elements, one byte.
        let compact = Bytes::from_static(&[0x80, 0x80, 0x80, 0x80, 0x08, 7]);
        let refused =
            |result: Result<(), WireError>| matches!(result, Err(WireError::BadLength { .. }));
        let mut reads = 0;
        let array = Reader::new(&compact).array(1, "x", |_| {
            reads += 1;
            Ok([0u64; 1000])
        });
        assert!(refused(array.map(drop)));
        assert!(refused(Reader::new(&compact).array_len(1, "x").map(drop)));
        assert!(refused(Reader::new(&compact).string("x").map(drop)));
        assert!(refused(Reader::new(&compact).nullable_bytes("x").map(drop)));
        let classic = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 7]);
        let array = Reader::new(&classic).classic_array(1, "x", |_| {
            reads += 1;
            Ok(())
        });
        assert!(refused(array.map(drop)));
        assert_eq!(reads, 0);
    }

    #[test]
    fn a_count_is_held_against_the_size_of_its_elements() {
        let frame = Bytes::from_static(&[4, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Reader::new(&frame).array_len(2, "x"), Ok(3));
        assert!(Reader::new(&frame).array_len(3, "x").is_err());
    }

    #[test]
    fn a_frame_becomes_no_more_memory_than_it_may() {
        type Element = [u64; 6];
        // Lists of empty elements, as long as a frame can make them.
        let dense = |len: usize| {
            let mut out = Vec::new();
            put_len(&mut out, len, "x").unwrap();
            out.extend(vec![0; len * 3]);
            Bytes::from(out)
        };
        let read = |frame: &Bytes| {
            let mut reader = Reader::new(frame);
            let list: Vec<Element> = reader.array(3, "x", |reader| {
                reader.take(3, "x")?;
                Ok([0; 6])
            })?;
            Ok::<_, WireError>(list.capacity() * size_of::<Element>())
        };
        assert_eq!(read(&dense(1000)), Ok(48_000));
        let elements = 100_000;
        assert_eq!(read(&dense(elements)), Err(WireError::TooMuch { what: "x", elements }));
        // Many lists have no more than one.
        let frame = Bytes::from(vec![0; 1 << 20]);
        let mut reader = Reader::new(&frame);
        let mut lists = Vec::new();
        let refused = (0..100_000).find(|_| {
            let mut list = Vec::<Element>::new();
            let refused = reader.reserve(&mut list, 10, "x").is_err();
            lists.push(list);
            refused
        });
        assert_eq!(refused, Some((8 * (1 << 20) + (64 << 10)) / 480));
    }

    #[test]
    fn null_is_not_empty() {
        let frame = Bytes::from_static(&[0, 1]);
        let mut reader = Reader::new(&frame);
        assert_eq!(reader.nullable_string("x"), Ok(None));
        assert_eq!(reader.nullable_string("x"), Ok(Some("")));
        assert!(Reader::new(&frame).string("x").is_err());
        assert_eq!(Reader::new(&frame).array_len(1, "x"), Ok(0));
        assert_eq!(Reader::new(&frame).nullable_bytes("x"), Ok(None));
    }

    #[test]
    fn tags_cannot_move_the_outer_reader() {
        // Two tags: 5 of two bytes, 9 of none; then a byte of the outer.
        let frame = Bytes::from_static(&[2, 5, 2, 0xaa, 0xbb, 9, 0, 77]);
        let mut seen = Vec::new();
        let mut reader = Reader::new(&frame);
        reader
            .tags("x", |tag, field| {
                assert!(field.i32("x").is_err(), "beyond the field");
                seen.push((tag, field.left()));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, [(5, 2), (9, 0)]);
        assert_eq!(reader.i8("x"), Ok(77));
        let endless = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 0]);
        assert!(Reader::new(&endless).skip_tags("x").is_err());
    }

    #[test]
    fn strings_are_utf8() {
        let frame = Bytes::from_static(&[3, 0xc3, 0x28]);
        assert_eq!(Reader::new(&frame).string("x"), Err(WireError::BadValue { what: "x" }));
    }

    #[test]
    fn leftovers_are_refused() {
        let frame = Bytes::from_static(&[0]);
        assert!(Reader::new(&frame).finish("x").is_err());
    }

    #[test]
    fn what_kafka_cannot_read_is_not_written() {
        let mut out = Vec::new();
        assert!(put_string(&mut out, &"x".repeat(32_767), "x").is_ok());
        assert!(put_string(&mut out, &"x".repeat(32_768), "x").is_err());
        assert!(put_len(&mut out, i32::MAX as usize + 1, "x").is_err());
    }
}

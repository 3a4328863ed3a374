//! LZ4 frames, opened block by block in memory that is kept.
//!
//! The library's reader clears a whole block's room for each frame, 64 KiB to 4 MiB, which is many times the work of a batch of
//! one record. What is unusual here is left to it. The format is lz4_Frame_format.md of the LZ4 project.

use lz4_flex::block::{DecompressError, decompress_into};
use twox_hash::XxHash32;

use super::batch::Codec;
use super::codec::CodecError;

const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
/// Version 1, blocks that need none before them.
const FLAGS: u8 = 0x60;
const CONTENT_CHECKSUM: u8 = 0x04;
const STORED: u32 = 1 << 31;

const CORRUPT: CodecError = CodecError::Corrupt { codec: Codec::Lz4 };

/// Appends the frames of `payload` to `out`, `max` bytes at most with what it holds. False, with `out` spoilt, if one is of a kind
/// that Kafka's clients do not write: linked blocks, checksums of blocks, a dictionary, a length.
pub(super) fn read(
    payload: &[u8],
    max: usize,
    out: &mut Vec<u8>,
    room: &mut Vec<u8>,
) -> Result<bool, CodecError> {
    let mut left = payload;
    while !left.is_empty() {
        let Some(frame) = head(&mut left)? else { return Ok(false) };
        let begin = out.len();
        loop {
            let size = number(&mut left)?;
            if size == 0 {
                break;
            }
            let len = (size & !STORED) as usize;
            if len > frame.block_bytes_max {
                return Err(CORRUPT);
            }
            let block = take(&mut left, len)?;
            if size & STORED != 0 {
                append(out, block, max)?;
                continue;
            }
            let most = frame.block_bytes_max.min(len.saturating_mul(Codec::Lz4.ratio_max()));
            let allowed = max.saturating_sub(out.len());
            let bytes = most.min(allowed);
            if room.len() < bytes {
                room.resize(bytes, 0);
            }
            let written = decompress_into(block, &mut room[..bytes]);
            let written = written.map_err(|error| match error {
                DecompressError::OutputTooSmall { .. } if allowed < most => too_large(max),
                _ => CORRUPT,
            })?;
            append(out, &room[..written], max)?;
        }
        let content = out.get(begin..).unwrap_or_default();
        if frame.checked && number(&mut left)? != XxHash32::oneshot(0, content) {
            return Err(CORRUPT);
        }
    }
    Ok(true)
}

/// What a frame's header says.
struct Head {
    block_bytes_max: usize,
    checked: bool,
}

fn head(left: &mut &[u8]) -> Result<Option<Head>, CodecError> {
    if !left.starts_with(&MAGIC) {
        return Ok(None);
    }
    take(left, MAGIC.len())?;
    let &[flags, size, check] = take(left, 3)? else { return Err(CORRUPT) };
    let code @ 0x40..=0x70 = size else { return Ok(None) };
    if flags & !CONTENT_CHECKSUM != FLAGS || code & 0x0f != 0 {
        return Ok(None);
    }
    if (XxHash32::oneshot(0, &[flags, size]) >> 8) as u8 != check {
        return Err(CORRUPT);
    }
    // 4 to 7: 64 KiB, 256 KiB, 1 MiB, 4 MiB.
    let block_bytes_max = 1 << (8 + 2 * (code >> 4));
    Ok(Some(Head { block_bytes_max, checked: flags & CONTENT_CHECKSUM != 0 }))
}

fn take<'a>(left: &mut &'a [u8], count: usize) -> Result<&'a [u8], CodecError> {
    let (taken, rest) = left.split_at_checked(count).ok_or(CORRUPT)?;
    *left = rest;
    Ok(taken)
}

fn number(left: &mut &[u8]) -> Result<u32, CodecError> {
    let (number, rest) = left.split_first_chunk().ok_or(CORRUPT)?;
    *left = rest;
    Ok(u32::from_le_bytes(*number))
}

fn too_large(max: usize) -> CodecError {
    CodecError::TooLarge { codec: Codec::Lz4, max }
}

/// A `Vec` left to itself doubles, and would have twice the room that is allowed.
fn append(out: &mut Vec<u8>, bytes: &[u8], max: usize) -> Result<(), CodecError> {
    let needed = out.len().saturating_add(bytes.len());
    if needed > max {
        return Err(too_large(max));
    }
    if needed > out.capacity() {
        let room = out.capacity().saturating_mul(2).clamp(needed, max.max(needed));
        out.reserve_exact(room - out.len());
    }
    out.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    use proptest::prelude::*;
    use std::io::Write;

    fn frame(info: FrameInfo, content: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn usual(size: BlockSize, checked: bool) -> FrameInfo {
        let info = FrameInfo::new().block_mode(BlockMode::Independent);
        info.block_size(size).content_checksum(checked)
    }

    fn opened(payload: &[u8], max: usize) -> Result<Option<Vec<u8>>, CodecError> {
        let mut out = Vec::new();
        let is_usual = read(payload, max, &mut out, &mut Vec::new())?;
        Ok(is_usual.then_some(out))
    }

    const SIZES: [BlockSize; 4] =
        [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn reads_what_the_library_writes_and_no_more_than_allowed(
            content in prop_oneof![
                prop::collection::vec(0u8..4, 0..2000),
                prop::collection::vec(any::<u8>(), 0..2000),
                prop::collection::vec(0u8..3, 60_000..200_000),
            ],
            size in 0usize..4,
            checked: bool,
        ) {
            let payload = frame(usual(SIZES[size], checked), &content);
            let twice = [&payload[..], &payload[..]].concat();
            prop_assert_eq!(opened(&payload, content.len()).unwrap(), Some(content.clone()));
            prop_assert_eq!(opened(&twice, usize::MAX).unwrap(), Some([&content[..], &content[..]].concat()));
            if let Some(less) = content.len().checked_sub(1) {
                prop_assert_eq!(opened(&payload, less), Err(too_large(less)));
            }
        }
    }

    #[test]
    fn each_cut_and_each_bit_of_the_head_and_of_the_sum_is_noticed() {
        let payload = frame(usual(BlockSize::Max64KB, true), &[7; 300]);
        for cut in 1..payload.len() {
            let cut = opened(&payload[..cut], usize::MAX);
            assert!(matches!(cut, Err(CORRUPT) | Ok(None)), "{cut:?}");
        }
        let sum = payload.len() - 4..payload.len();
        for at in (0..7).chain(sum) {
            for bit in 0..8 {
                let mut damaged = payload.clone();
                damaged[at] ^= 1 << bit;
                let read = opened(&damaged, usize::MAX);
                assert!(
                    matches!(read, Err(CORRUPT) | Ok(None)),
                    "bit {bit} of byte {at}: {read:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_the_library() {
        let unusual = [
            FrameInfo::new().block_mode(BlockMode::Linked),
            usual(BlockSize::Max64KB, false).block_checksums(true),
            usual(BlockSize::Max64KB, false).content_size(Some(300)),
        ];
        for info in unusual {
            assert_eq!(opened(&frame(info.clone(), &[7; 300]), usize::MAX), Ok(None), "{info:?}");
        }
    }

    #[test]
    fn a_small_block_needs_little_room_whatever_its_frame_allows() {
        let payload = frame(usual(BlockSize::Max4MB, true), &[7; 300]);
        let (mut out, mut room) = (Vec::new(), Vec::new());
        assert_eq!(read(&payload, 1 << 20, &mut out, &mut room), Ok(true));
        assert!(room.len() < 64 << 10, "{}", room.len());
        assert!(out.capacity() <= 600, "{}", out.capacity());
    }
}

use super::super::tests_support::batch;
use super::*;
use proptest::prelude::*;

fn with(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut out = batch.to_vec();
    out[at..at + bytes.len()].copy_from_slice(bytes);
    out.into()
}

#[test]
fn no_more_records_are_believed_than_the_bytes_can_hold() {
    let batch = batch(0, 4);
    let payload = batch.len() - HEADER_BYTES;
    for (codec, ratio) in [(0, 1), (1, 1032), (2, 22), (3, 256), (4, 32 << 10)] {
        let most = (payload * ratio / 7) as i32;
        for (count, is_held) in [(0, true), (most, true), (most + 1, false), (i32::MAX, false)] {
            let lying = with(&batch, 57, &count.to_be_bytes());
            let header = BatchHeader::parse(&with(&lying, 21, &[0, codec])).unwrap();
            let error = BatchError::Count { claimed: count, bytes: payload };
            let expected = if is_held { Ok(()) } else { Err(error) };
            assert_eq!(header.check_count(), expected, "codec {codec}, {count}");
        }
    }
}

#[test]
fn reads_every_field_and_writes_it_back() {
    let batch = batch(1000, 4);
    let header = BatchHeader::parse(&batch).unwrap();
    let expected = BatchHeader {
        base_offset: 1000,
        batch_length: batch.len() as i32 - 12,
        partition_leader_epoch: 3,
        magic: 2,
        crc: crc32c(&batch[21..]),
        attributes: 0,
        last_offset_delta: 3,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_003,
        producer_id: 77,
        producer_epoch: 2,
        base_sequence: 500,
        records_count: 4,
    };
    assert_eq!(header, expected);
    assert_eq!(header.to_bytes()[..], batch[..61]);
    assert_eq!((header.last_offset(), header.next_offset()), (1003, 1004));
    assert_eq!(header.total_bytes(), batch.len());
    assert!(header.is_contiguous());
    assert_eq!(header.codec(), Ok(Codec::None));
    verify_crc(&batch).unwrap();
}

#[test]
fn attribute_bits() {
    let batch = batch(0, 1);
    let of = |bits: u16| BatchHeader::parse(&with(&batch, 21, &bits.to_be_bytes())).unwrap();
    assert!(of(0x08).is_log_append_time() && !of(!0x08).is_log_append_time());
    assert!(of(0x10).is_transactional() && !of(!0x10).is_transactional());
    assert!(of(0x20).is_control() && !of(!0x20).is_control());
    assert!(of(0x40).has_delete_horizon() && !of(!0x40).has_delete_horizon());
    for (id, codec) in
        [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].into_iter().enumerate()
    {
        assert_eq!(of(0xfff8 | id as u16).codec(), Ok(codec));
    }
    for id in 5..8 {
        assert_eq!(of(id).codec(), Err(BatchError::Codec { id: id as u8 }));
    }
}

#[test]
fn walks_batches_and_stops_at_a_cut_anywhere() {
    let (first, second) = (batch(10, 3), batch(20, 2));
    let all: Bytes = [&first[..], &second[..]].concat().into();
    for len in 0..=all.len() {
        let mut walk = Batches::new(all.slice(..len));
        let whole: Vec<_> = walk.by_ref().map(Result::unwrap).collect();
        let bytes: Vec<_> = whole.iter().map(|(_, bytes)| bytes.clone()).collect();
        if len < first.len() {
            assert!(bytes.is_empty());
            assert_eq!(walk.left(), len);
        } else if len < all.len() {
            assert_eq!(bytes, std::slice::from_ref(&first));
            assert_eq!(walk.left(), len - first.len());
        } else {
            assert_eq!(bytes, [first.clone(), second.clone()]);
            assert_eq!(whole[1].0.base_offset, 20);
            assert_eq!(walk.left(), 0);
        }
        assert_eq!(walk.next(), None);
    }
}

#[test]
fn refuses_what_is_not_a_batch_and_ends_there() {
    let good = batch(10, 3);
    let max = (limits::FETCH_FRAME_BYTES_MAX + 1) as i32;
    let offsets = |base, last_offset_delta, records_count| BatchError::Offsets {
        base,
        last_offset_delta,
        records_count,
    };
    let cases: &[(usize, &[u8], BatchError)] = &[
        (8, &48i32.to_be_bytes(), BatchError::Length { claimed: 48 }),
        (8, &(-1i32).to_be_bytes(), BatchError::Length { claimed: -1 }),
        (8, &i32::MIN.to_be_bytes(), BatchError::Length { claimed: i32::MIN }),
        (8, &i32::MAX.to_be_bytes(), BatchError::Length { claimed: i32::MAX }),
        (8, &max.to_be_bytes(), BatchError::Length { claimed: max }),
        (16, &[0], BatchError::OldMagic { magic: 0 }),
        (16, &[1], BatchError::OldMagic { magic: 1 }),
        (16, &[3], BatchError::Magic { magic: 3 }),
        (16, &[0xff], BatchError::Magic { magic: -1 }),
        (23, &(-1i32).to_be_bytes(), offsets(10, -1, 3)),
        (57, &(-1i32).to_be_bytes(), offsets(10, 2, -1)),
        (0, &(-1i64).to_be_bytes(), offsets(-1, 2, 3)),
        (0, &i64::MAX.to_be_bytes(), offsets(i64::MAX, 2, 3)),
        (0, &(i64::MAX - 2).to_be_bytes(), offsets(i64::MAX - 2, 2, 3)),
    ];
    for (at, bytes, error) in cases {
        let mut walk = Batches::new(with(&good, *at, bytes));
        assert_eq!(walk.next(), Some(Err(*error)));
        assert_eq!(walk.next(), None, "{error}");
    }
    let last_possible = with(&good, 0, &(i64::MAX - 3).to_be_bytes());
    assert_eq!(BatchHeader::parse(&last_possible).unwrap().next_offset(), i64::MAX);
}

#[test]
fn refuses_offsets_that_go_backwards() {
    for (base, good) in [(13, true), (12, false), (10, false), (0, false)] {
        let all: Bytes = [&batch(10, 3)[..], &batch(base, 1)].concat().into();
        let last = Batches::new(all).last().unwrap();
        let refused = last.is_err_and(|error| error == BatchError::Backwards { next: 13, base });
        assert_eq!(refused, !good, "base {base}");
    }
}

#[test]
fn crc_sees_every_bit_it_covers() {
    let batch = batch(5, 2);
    for bit in 0..batch.len() * 8 {
        let mut damaged = batch.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        // Bit 7 makes the offset negative, which is refused on its own.
        let outside = bit != 7 && matches!(bit / 8, 0..8 | 12..16);
        assert_eq!(verify_crc(&damaged).is_ok(), outside, "bit {bit}");
    }
}

#[test]
fn control_batches() {
    for (kind, expected) in [
        (0, ControlType::Abort),
        (1, ControlType::Commit),
        (2, ControlType::Other(2)),
        (-1, ControlType::Other(-1)),
    ] {
        let [high, low] = i16::to_be_bytes(kind);
        // length, attributes, timestamp delta, offset delta, key length 4, version 0, type, value length 6.
        let record = [32, 0, 0, 0, 8, 0, 0, high, low, 12, 0, 0, 0, 0, 0, 0, 0];
        let batch = [&batch(7, 1)[..61], &record].concat();
        assert_eq!(ControlType::of(&batch), Ok(expected));
        for len in 0..70 {
            assert!(ControlType::of(&batch[..len]).is_err(), "cut at {len}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_end_in_a_bounded_walk(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        length in 40i32..200,
        plausible: bool,
    ) {
        if plausible && bytes.len() > 17 {
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[16] = 2;
            bytes[0] = 0;
        }
        let total = bytes.len();
        let walked: usize = Batches::new(bytes.clone().into())
            .map_while(Result::ok)
            .map(|(header, batch)| {
                assert_eq!(header.total_bytes(), batch.len());
                let _ = (header.next_offset(), header.is_contiguous(), ControlType::of(&batch));
                batch.len()
            })
            .sum();
        prop_assert!(walked <= total);
        let _ = (verify_crc(&bytes), BatchHeader::parse(&bytes));
    }
}

//! CRC-32C of record batches: the bulk sum, and the patch of a sum after a header was rewritten.
//!
//! A patch never reads the payload, and never makes a wrong sum right: bytes damaged on their way through this process
//! are still refused by the target (I3).

/// The Castagnoli polynomial, bits reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `X^(8 * 2^k) mod P` for each bit `k` of a length in bytes.
const POWERS: [u32; 32] = {
    let mut powers = [0; 32];
    let mut power = 1 << 23; // X^8: bit 31 is X^0.
    let mut k = 0;
    while k < 32 {
        powers[k] = power;
        power = multiply(power, power);
        k += 1;
    }
    powers
};

/// The CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// `a * b mod P`.
const fn multiply(mut a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    loop {
        if a & 0x8000_0000 != 0 {
            product ^= b;
        }
        a <<= 1;
        if a == 0 {
            return product;
        }
        b = (b >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(b & 1));
    }
}

/// What the difference `x` of two sums becomes when both are carried over the same `len` further bytes.
pub fn shift(x: u32, len: u32) -> u32 {
    let mut shifted = x;
    for (k, &power) in POWERS.iter().enumerate() {
        if len >> k & 1 == 1 {
            shifted = multiply(shifted, power);
        }
    }
    shifted
}

/// The sum after the first bytes changed from `old` to `new` (of one length), with `tail` unchanged bytes behind them.
///
/// CRC is linear: the start value and the final inversion cancel out of the difference. If `sum` was wrong, the result is.
pub fn patched(sum: u32, old: &[u8], new: &[u8], tail: u32) -> u32 {
    debug_assert_eq!(old.len(), new.len(), "the constants cancel only for equal lengths");
    sum ^ shift(crc32c(old) ^ crc32c(new), tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_sum() {
        // The check value of CRC-32C (RFC 3720, appendix B.4 uses the same polynomial).
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn every_short_tail_and_every_power_of_two() {
        let (old, new) = ([0x5a; 40], [0xc3; 40]);
        let lengths = (0..600).chain((10..21).map(|k| 1 << k)).chain([1_048_577, 999_983]);
        for len in lengths {
            let tail: Vec<u8> = (0..len).map(|i: usize| (i * 31 % 251) as u8).collect();
            let before = crc32c(&[&old[..], &tail].concat());
            let after = crc32c(&[&new[..], &tail].concat());
            assert_eq!(patched(before, &old, &new, len as u32), after, "tail of {len}");
        }
    }

    proptest! {
        #[test]
        fn patch_equals_recompute_and_wrong_stays_wrong(
            heads in prop::collection::vec(any::<(u8, u8)>(), 0..64),
            tail in prop::collection::vec(any::<u8>(), 0..5000),
            damage in 1u32..,
        ) {
            let (old, new): (Vec<u8>, Vec<u8>) = heads.into_iter().unzip();
            let before = crc32c(&[&old[..], &tail].concat());
            let after = crc32c(&[&new[..], &tail].concat());
            let len = tail.len() as u32;
            prop_assert_eq!(patched(before, &old, &new, len), after);
            prop_assert_eq!(patched(before ^ damage, &old, &new, len), after ^ damage);
        }

        #[test]
        fn shifts_add_up(x: u32, a in 0u32..1 << 31, b in 0u32..1 << 31) {
            prop_assert_eq!(shift(shift(x, a), b), shift(x, a + b));
            prop_assert_eq!(shift(x, a) == 0, x == 0);
        }
    }
}

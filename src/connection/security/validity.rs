//! From when to when a certificate is valid: the one thing that is read of an X.509 certificate here (RFC 5280, 4.1.2.5).
//! Everything else about it is rustls' to judge.

use std::path::Path;

use super::files::unusable;
use crate::config::values::{date_of, days_since_1970};
use crate::error::Error;

/// Seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT Version`, absent in version 1.
const VERSION: u8 = 0xa0;

impl Validity {
    /// None where it is not a certificate.
    pub(in super::super) fn of(certificate: &[u8]) -> Option<Self> {
        let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
        let (SEQUENCE, mut fields, _) = element(certificate)? else { return None };
        if let (VERSION, _, rest) = element(fields)? {
            fields = rest;
        }
        // Serial number, signature algorithm, issuer.
        for wanted in [INTEGER, SEQUENCE, SEQUENCE] {
            let (tag, _, rest) = element(fields)?;
            fields = (tag == wanted).then_some(rest)?;
        }
        let (SEQUENCE, validity, _) = element(fields)? else { return None };
        let (tag, text, rest) = element(validity)?;
        let not_before = time(tag, text)?;
        let (tag, text, _) = element(rest)?;
        Some(Self { not_before, not_after: time(tag, text)? })
    }

    /// In seconds.
    pub(crate) fn life(self) -> i64 {
        self.not_after - self.not_before
    }

    /// Whether the certificate of this chain may take the place of one that works.
    pub(crate) fn usable(self, chain: &Path, now: i64) -> Result<(), Error> {
        let chain = chain.display();
        if self.not_after <= now {
            return Err(unusable(format!("{chain}: expired on {}", shown(self.not_after))));
        }
        if self.not_before > now {
            let from = shown(self.not_before);
            return Err(unusable(format!("{chain}: not valid before {from}")));
        }
        Ok(())
    }
}

/// Tag, content and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut len = usize::from(first);
    if first & 0x80 != 0 {
        let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        len = digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, as DER has them.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |digits: &[u8]| {
        let digit = |n: i64, d: &u8| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0'));
        digits.iter().try_fold(0, digit)
    };
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(&digits[..2])?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4])?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| number(&rest[at..at + 2]);
    let (month, day) = (part(0)?, part(2)?);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day);
    let seconds = part(4)? * 3600 + part(6)? * 60 + part(8)?;
    in_range.then(|| days_since_1970(year, month, day) * 86_400 + seconds)
}

/// A moment as an operator reads it.
pub(in super::super) fn shown(seconds: i64) -> String {
    let (year, month, day) = date_of(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute) = (of_day / 3600, of_day / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_s_dates_are_read_as_they_were_written() {
        let key = rcgen::KeyPair::generate().unwrap();
        for (from, until, seconds) in [
            ((2024, 2, 29), (2049, 12, 31), (1_709_164_800, 2_524_521_600)),
            ((1999, 12, 31), (2050, 1, 1), (946_598_400, 2_524_608_000)),
            ((1970, 1, 1), (3000, 3, 1), (0, 32_508_777_600)),
        ] {
            let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
            params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
            let certificate = params.self_signed(&key).unwrap();
            let validity = Validity { not_before: seconds.0, not_after: seconds.1 };
            assert_eq!(Validity::of(certificate.der()), Some(validity));
            let (year, month, day) = until;
            let text = format!("{year}-{month:02}-{day:02} 00:00 UTC");
            assert_eq!(shown(validity.not_after), text);
            // What is cut anywhere, or bent, is at worst not one.
            for cut in 0..certificate.der().len() {
                assert!(Validity::of(&certificate.der()[..cut]).is_none());
                let mut bent = certificate.der().to_vec();
                bent[cut] ^= 0xff;
                let _ = Validity::of(&bent);
            }
        }
        for bad in [
            &b""[..],
            b"\x30",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x89\x01\x01\x01\x01\x01\x01\x01\x01\x01",
        ] {
            assert_eq!(Validity::of(bad), None);
        }
    }
}

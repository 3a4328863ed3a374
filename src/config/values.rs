//! Values that are written with a unit or a form of their own: sizes, durations, addresses, times.

use std::net::IpAddr;
use std::time::Duration;

use super::resolved::{Address, Allowed};

const SIZE_UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A number and what follows it, separated.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

/// Bytes: `65536`, `64KiB`, `256MiB`, `1GB`.
///
/// # Errors
/// What is accepted.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let accepted =
        || "a size is a whole number with KiB, MiB or GiB, for instance 256MiB".to_owned();
    let (number, unit) = split_unit(text).ok_or_else(accepted)?;
    let factor = match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => *factor,
        None if unit.is_empty() => 1,
        None => return Err(accepted()),
    };
    number.checked_mul(factor).ok_or_else(accepted)
}

/// Bytes per second: a size with `/s`.
///
/// # Errors
/// What is accepted.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let size = text.strip_suffix("/s").and_then(|size| parse_size(size.trim_end()).ok());
    let accepted = || "a rate is a size with /s, for instance 200MiB/s".to_owned();
    size.ok_or_else(accepted)
}

/// A size in the largest binary unit that it is a multiple of.
pub fn show_size(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// `250ms`, `10s`, `5m`, `1h`, `7d`.
///
/// # Errors
/// What is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let accepted =
        || "a duration is a whole number with ms, s, m, h or d, for instance 10s".to_owned();
    let (number, unit) = split_unit(text).ok_or_else(accepted)?;
    let factor = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(accepted)?.1;
    number.checked_mul(factor).map(Duration::from_millis).ok_or_else(accepted)
}

/// `host:port`, `[::1]:port`.
///
/// # Errors
/// What is wrong, and what to write.
pub fn parse_address(text: &str) -> Result<Address, (String, String)> {
    let wrong = |what: &str, fix: String| (what.to_owned(), fix);
    if let Some((_, rest)) = text.split_once("://") {
        return Err(wrong("a broker is host:port, without a protocol", format!("write {rest}")));
    }
    if text.contains(',') {
        return Err(wrong("more than one broker in one value", "write a list of them".into()));
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        match rest.split_once("]:") {
            Some(parts) => parts,
            None => return Err(wrong("an IPv6 broker is [address]:port", "add the port".into())),
        }
    } else {
        match text.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => {
                let fix = format!("write [{text}]:9092 with the right port");
                return Err(wrong("an IPv6 broker is [address]:port", fix));
            }
            Some(parts) => parts,
            None => return Err(wrong("no port", format!("write {text}:9092 with the right port"))),
        }
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "/[]@".contains(c)) {
        return Err(wrong("no host name before the port", "write host:port".into()));
    }
    match port.parse() {
        Ok(port) if port > 0 => Ok(Address { host: host.to_owned(), port }),
        _ => Err(wrong("the port is not a number from 1 to 65535", "write host:port".into())),
    }
}

/// What may be advertised: an IP address, a network such as `10.0.0.0/8`, or `host:port`.
pub fn parse_allowed(text: &str) -> Result<Allowed, (String, String)> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Allowed::Network(ip, if ip.is_ipv4() { 32 } else { 128 }));
    }
    if let Some((ip, bits)) = text.split_once('/')
        && let Ok(ip) = ip.parse::<IpAddr>()
    {
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.parse().ok().filter(|bits| *bits <= width);
        let fix = format!("write {ip}/0 to {ip}/{width}");
        return bits
            .map(|bits| Allowed::Network(ip, bits))
            .ok_or_else(|| ("the network's bits are out of range".to_owned(), fix));
    }
    let fix = || "write an IP address, a network such as 10.0.0.0/8, or host:port".to_owned();
    parse_address(text).map(Allowed::Address).map_err(|(what, _)| (what, fix()))
}

/// RFC 3339, as milliseconds since 1970: `2026-01-01T00:00:00Z`, `2026-01-01T02:00:00.250+02:00`.
pub fn parse_time(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let is = |at: usize, one_of: &[u8]| text.as_bytes().get(at).is_some_and(|b| one_of.contains(b));
    let marks = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    if !marks {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = &text[19..];
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        if digits == 0 {
            return None;
        }
        millis = format!("{:0<3}", &fraction[..digits.min(3)]).parse().ok()?;
        rest = &fraction[digits..];
    }
    let offset_minutes = match rest.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2]
            if [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) =>
        {
            let two = |tens: &u8, ones: &u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
            let minutes = two(h1, h2) * 60 + two(m1, m2);
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let seconds = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute - offset_minutes)
        * 60
        + second;
    Some(seconds * 1000 + millis)
}

/// Days from 1970-01-01 in the Gregorian calendar, counted in years that begin in March so that the leap day is last.
pub fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// Milliseconds since 1970 as RFC 3339 in UTC, to the second.
pub fn show_time(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (year, month, day) = date_of(seconds.div_euclid(86_400));
    let clock = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day: the inverse of [`days_since_1970`], by eras of 400 years.
pub fn date_of(days_since_1970: i64) -> (i64, i64, i64) {
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("64KiB", 65_536),
            ("256 MiB", 256 << 20),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "-1", "64kib", "1TiB", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(show_size(256 << 20), "256MiB");
        assert_eq!(show_size((1 << 20) + 1), "1048577");
    }

    #[test]
    fn rates() {
        assert_eq!(parse_rate("200MiB/s"), Ok(200 << 20));
        assert_eq!(parse_rate("1GB /s"), Ok(1_000_000_000));
        for text in ["200MiB", "/s", "200Mbit/s", "1MiB/m", "-1KiB/s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for text in ["10", "s", "1.5s", "-1s", "1y"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        for (text, host, port) in [
            ("kafka-1:9092", "kafka-1", 9092),
            ("[::1]:1", "::1", 1),
            ("10.0.0.1:65535", "10.0.0.1", 65535),
        ] {
            assert_eq!(parse_address(text), Ok(Address { host: host.into(), port }));
        }
        for text in [
            "kafka",
            "kafka:",
            ":9092",
            "kafka:0",
            "kafka:65536",
            "::1:9092",
            "[::1]",
            "SSL://a:1",
            "a:1,b:2",
            "a b:1",
        ] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-01T00:00:00Z", 1_767_225_600_000),
            ("2000-02-29T12:30:15.5Z", 951_827_415_500),
            ("2026-01-01T02:00:00+02:00", 1_767_225_600_000),
            ("1969-12-31T23:59:59-00:00", -1000),
        ] {
            assert_eq!(parse_time(text), Some(ms), "{text}");
        }
        for text in [
            "2026-01-01",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T24:00:00Z",
            "yesterday",
            "2026-01-01T00:00:00.Z",
            "+026-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        for ms in [0, 1_767_225_600_000, 951_827_415_000, -1000, 4_102_444_799_000] {
            assert_eq!(parse_time(&show_time(ms)), Some(ms));
        }
    }
}

//! Which advertised addresses are believed. Metadata comes from the other side of a trust boundary: a broker must not
//! be able to make Strait dial this machine's own ports or a cloud's metadata service.

use std::net::IpAddr;

use crate::config::resolved::Address;
use crate::connection::is_link_local;
use crate::error::Code;
use crate::limits;

/// An advertised listener that cannot be used.
pub(super) const CODE: Code = Code(11);

/// `host:port` as it stands in metadata, if it is one.
pub(super) fn address(host: &str, port: i32) -> Option<Address> {
    let port = u16::try_from(port).ok().filter(|&port| port != 0)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    let fits = !host.is_empty() && host.len() <= limits::HOST_CHARS_MAX;
    (fits && host.chars().all(legal)).then(|| Address { host: host.to_owned(), port })
}

/// Whether an advertised address may be dialled: link-local ones never; this machine's own only where the operator
/// bootstraps from this machine.
pub(super) fn dialable(address: &Address, bootstrap: &[Address]) -> Result<(), &'static str> {
    if let Ok(ip) = address.host.parse::<IpAddr>()
        && (is_link_local(ip) || ip.is_unspecified() || ip.is_multicast())
    {
        return Err("which no broker can be reached at");
    }
    if is_loopback(&address.host) && !bootstrap.iter().any(|b| is_loopback(&b.host)) {
        return Err("which is this machine itself, not the broker's");
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let ip = host.parse::<IpAddr>().map(|ip| ip.to_canonical());
    ip.is_ok_and(|ip| ip.is_loopback())
        || host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str) -> Address {
        Address { host: host.to_owned(), port: 9092 }
    }

    #[test]
    fn only_what_can_be_an_address_is_one() {
        assert_eq!(address("kafka-1.west_2.example", 9093).unwrap().port, 9093);
        assert!(address("fe80::1%eth0", 1).is_some());
        for (host, port) in [("", 1), ("a b", 1), ("a\n", 1), ("a", 0), ("a", -1), ("a", 65_536)] {
            assert!(address(host, port).is_none(), "{host:?} {port}");
        }
        assert!(address(&"a".repeat(limits::HOST_CHARS_MAX), 1).is_some());
        assert!(address(&"a".repeat(limits::HOST_CHARS_MAX + 1), 1).is_none());
    }

    #[test]
    fn a_broker_cannot_send_us_to_ourselves_or_to_the_link() {
        let far = [at("kafka-1.example")];
        for host in ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"]
        {
            assert!(dialable(&at(host), &far).is_err(), "{host}");
            assert!(dialable(&at(host), &[at("localhost")]).is_err(), "{host}");
        }
        for host in ["127.0.0.1", "127.9.9.9", "::1", "LOCALHOST", "x.localhost"] {
            assert!(dialable(&at(host), &far).is_err(), "{host}");
            assert!(dialable(&at(host), &[at("127.0.0.1")]).is_ok(), "{host}");
        }
        for host in ["10.0.0.7", "kafka-2.example", "2001:db8::1", "localhost.example"] {
            assert!(dialable(&at(host), &far).is_ok(), "{host}");
        }
    }
}

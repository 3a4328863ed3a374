//! Which advertised addresses are believed. Metadata comes from the other side of a trust boundary: a broker must not
//! be able to make Strait dial this machine's own ports, a cloud's metadata service, or the other cluster under this
//! one's credentials. What counts is the address that is dialled, not only the name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::resolved::{Address, Allowed, Cluster};
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

/// In the place of an address that is none: its broker is known, and is not dialled.
pub(super) fn no_address() -> Address {
    Address { host: "?".to_owned(), port: 0 }
}

/// Why an advertised address is not dialled: what it is, and whether a listed exception may cure it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No legal host and port.
    Illegal,
    /// An address of that kind.
    Kind(Kind),
    /// Of another cluster of the configuration.
    Foreign(String),
}

/// Kinds of addresses where no broker is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// This machine.
    Loopback,
    /// This network segment.
    LinkLocal,
    /// A cloud's service for its machines: credentials are had there.
    CloudMetadata,
    /// No single machine at all.
    NoHost,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Illegal => f.write_str("no legal host and port"),
            Self::Kind(Kind::Loopback) => f.write_str("this machine itself, not the broker's"),
            Self::Kind(Kind::LinkLocal) => f.write_str("link-local, where no broker is"),
            Self::Kind(Kind::CloudMetadata) => f.write_str("a cloud's metadata service"),
            Self::Kind(Kind::NoHost) => f.write_str("where no broker can be reached"),
            Self::Foreign(name) => write!(f, "an address of cluster {name}"),
        }
    }
}

/// Judges by the name alone, before it is resolved.
pub(super) fn by_name(address: &Address, cluster: &Cluster) -> Result<(), Refusal> {
    if address.port == 0 {
        return Err(Refusal::Illegal);
    }
    if let Ok(ip) = address.host.parse() {
        return by_ip(SocketAddr::new(ip, address.port), address, cluster, &[]);
    }
    if is_allowed_name(address, cluster) {
        return Ok(());
    }
    for (foreign, name) in &cluster.advertised.foreign {
        if foreign.port == address.port && is_same_host(&foreign.host, &address.host) {
            return Err(Refusal::Foreign(name.clone()));
        }
    }
    if is_localhost(&address.host)
        && !is_bootstrap(address, cluster)
        && !bootstraps_loopback(cluster)
    {
        return Err(Refusal::Kind(Kind::Loopback));
    }
    Ok(())
}

/// Judges what the name has resolved to; `foreign` are the places of the other clusters' names.
pub(super) fn by_ip(
    at: SocketAddr,
    address: &Address,
    cluster: &Cluster,
    foreign: &[(SocketAddr, String)],
) -> Result<(), Refusal> {
    let ip = plain(at.ip());
    let listed = |allowed: &Allowed| match allowed {
        Allowed::Network(network, bits) => is_within(ip, *network, *bits),
        Allowed::Address(_) => false,
    };
    if is_allowed_name(address, cluster) || cluster.advertised.allow.iter().any(listed) {
        return Ok(());
    }
    let is_here = |there: &SocketAddr| plain(there.ip()) == ip && there.port() == at.port();
    if let Some((_, name)) = foreign.iter().find(|(there, _)| is_here(there)) {
        return Err(Refusal::Foreign(name.clone()));
    }
    for (foreign, name) in &cluster.advertised.foreign {
        let there = foreign.host.parse().map(|ip| SocketAddr::new(ip, foreign.port));
        if there.is_ok_and(|there| is_here(&there)) {
            return Err(Refusal::Foreign(name.clone()));
        }
    }
    let Some(kind) = kind(ip) else { return Ok(()) };
    // What the operator dials the brokers may advertise.
    if is_bootstrap(address, cluster) {
        return Ok(());
    }
    let of_bootstrap = |known: &Address| match known.host.parse().map(plain) {
        Ok(known) => {
            known == ip || (kind != Kind::CloudMetadata && self::kind(known) == Some(kind))
        }
        Err(_) => kind == Kind::Loopback && is_localhost(&known.host),
    };
    if cluster.bootstrap.iter().any(of_bootstrap) { Ok(()) } else { Err(Refusal::Kind(kind)) }
}

/// The names among the other clusters' addresses that a name of this port might be another name of.
pub(super) fn foreign_names(port: u16, cluster: &Cluster) -> Vec<(Address, String)> {
    let foreign = cluster.advertised.foreign.iter();
    let named =
        |(at, _): &&(Address, String)| at.port == port && at.host.parse::<IpAddr>().is_err();
    foreign.filter(named).take(limits::ADDRESSES_PER_NAME_MAX).cloned().collect()
}

fn is_allowed_name(address: &Address, cluster: &Cluster) -> bool {
    cluster.advertised.allow.iter().any(|allowed| match allowed {
        Allowed::Address(at) => at.port == address.port && is_same_host(&at.host, &address.host),
        Allowed::Network(..) => false,
    })
}

fn is_bootstrap(address: &Address, cluster: &Cluster) -> bool {
    cluster.bootstrap.iter().any(|at| is_same_host(&at.host, &address.host))
}

fn bootstraps_loopback(cluster: &Cluster) -> bool {
    let is_loopback = |host: &str| host.parse::<IpAddr>().is_ok_and(|ip| plain(ip).is_loopback());
    cluster.bootstrap.iter().any(|at| is_localhost(&at.host) || is_loopback(&at.host))
}

fn is_same_host(a: &str, b: &str) -> bool {
    a.trim_end_matches('.').eq_ignore_ascii_case(b.trim_end_matches('.'))
}

/// RFC 6761: names that are this machine whatever a name server says.
fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible (RFC 4291), or behind a translator (RFC 6052).
fn plain(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip.to_canonical() else { return ip.to_canonical() };
    let [a, b, c, d, e, f, high, low] = v6.segments();
    let embedded = [c, d, e, f] == [0; 4] && matches!((a, b), (0x64, 0xff9b) | (0, 0));
    let bits = u32::from(high) << 16 | u32::from(low);
    // `::` and `::1` are addresses of their own.
    if embedded && bits > 0xffff { Ipv4Addr::from_bits(bits).into() } else { ip }
}

fn kind(ip: IpAddr) -> Option<Kind> {
    /// Amazon (IPv6, two), Google (IPv6), Azure, Alibaba; Amazon's, Google's and others' IPv4 one is link-local.
    const CLOUD_V6: [Ipv6Addr; 3] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    const CLOUD_V4: [Ipv4Addr; 4] = [
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(169, 254, 170, 2),
        Ipv4Addr::new(168, 63, 129, 16),
        Ipv4Addr::new(100, 100, 100, 200),
    ];
    match ip {
        IpAddr::V4(v4) if CLOUD_V4.contains(&v4) => Some(Kind::CloudMetadata),
        IpAddr::V6(v6) if CLOUD_V6.contains(&v6) => Some(Kind::CloudMetadata),
        IpAddr::V4(v4) if v4.is_link_local() => Some(Kind::LinkLocal),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(Kind::LinkLocal),
        // 0.0.0.0 and ::, which connect to this machine, and the rest of "this network".
        IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.is_broadcast() => Some(Kind::NoHost),
        ip if ip.is_unspecified() || ip.is_multicast() => Some(Kind::NoHost),
        ip if ip.is_loopback() => Some(Kind::Loopback),
        _ => None,
    }
}

fn is_within(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |a: u128, b: u128, width: u32| {
        let shift = width.saturating_sub(bits.into());
        a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
    };
    match (ip, plain(network)) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolved::Advertised;

    fn at(text: &str) -> Address {
        match text.parse::<SocketAddr>() {
            Ok(at) => Address { host: at.ip().to_string(), port: at.port() },
            Err(_) => {
                let (host, port) = text.rsplit_once(':').unwrap();
                Address { host: host.to_owned(), port: port.parse().unwrap() }
            }
        }
    }

    fn cluster(bootstrap: &str, allow: &[Allowed]) -> Cluster {
        let foreign = ["10.0.0.9:9092", "[2001:db8::9]:9092", "kafka.west:9092"];
        let foreign = foreign.map(|text| (at(text), "west".to_owned())).to_vec();
        let advertised = Advertised { allow: allow.to_vec(), foreign };
        let bootstrap = vec![at(bootstrap)];
        Cluster { name: "east".into(), bootstrap, tls: None, sasl: None, advertised }
    }

    /// What becomes of a broker's name that resolves to this.
    fn judged(cluster: &Cluster, host: &str, ip: &str) -> Result<(), Refusal> {
        let address = Address { host: host.to_owned(), port: 9092 };
        let west = [(SocketAddr::from(([10, 0, 0, 8], 9092)), "west".to_owned())];
        by_name(&address, cluster)?;
        by_ip(SocketAddr::new(ip.parse().unwrap(), 9092), &address, cluster, &west)
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
        let none = by_name(&no_address(), &cluster("kafka:9092", &[]));
        assert_eq!(none, Err(Refusal::Illegal));
    }

    #[test]
    fn what_a_broker_s_name_resolves_to_is_judged_like_a_number() {
        let far = cluster("kafka.east:9092", &[]);
        for (ip, kind) in [
            ("127.0.0.1", Kind::Loopback),
            ("127.9.9.9", Kind::Loopback),
            ("::1", Kind::Loopback),
            ("::ffff:127.0.0.1", Kind::Loopback),
            ("::127.0.0.1", Kind::Loopback),
            ("64:ff9b::7f00:1", Kind::Loopback),
            ("169.254.1.1", Kind::LinkLocal),
            ("fe80::1", Kind::LinkLocal),
            ("169.254.169.254", Kind::CloudMetadata),
            ("::ffff:169.254.169.254", Kind::CloudMetadata),
            ("64:ff9b::a9fe:a9fe", Kind::CloudMetadata),
            ("fd00:ec2::254", Kind::CloudMetadata),
            ("168.63.129.16", Kind::CloudMetadata),
            ("0.0.0.0", Kind::NoHost),
            ("0.1.2.3", Kind::NoHost),
            ("::", Kind::NoHost),
            ("224.0.0.1", Kind::NoHost),
            ("255.255.255.255", Kind::NoHost),
            ("ff02::1", Kind::NoHost),
        ] {
            for host in [ip, "kafka-7.east"] {
                assert_eq!(judged(&far, host, ip), Err(Refusal::Kind(kind)), "{host} at {ip}");
            }
        }
        for ip in
            ["10.0.0.7", "192.168.1.1", "100.64.0.1", "2001:db8::1", "fd00::1", "64:ff9b::a00:7"]
        {
            assert_eq!(judged(&far, "kafka-7.east", ip), Ok(()), "{ip}");
        }
        for host in ["localhost", "LOCALHOST.", "x.localhost"] {
            let refused = judged(&far, host, "10.0.0.7");
            assert_eq!(refused, Err(Refusal::Kind(Kind::Loopback)), "{host}");
        }
        assert_eq!(judged(&far, "localhost.example", "10.0.0.7"), Ok(()));
    }

    #[test]
    fn what_the_operator_dials_or_lists_may_be_advertised_and_no_more() {
        let loopback = Refusal::Kind(Kind::Loopback);
        let (link, cloud) = (Refusal::Kind(Kind::LinkLocal), Refusal::Kind(Kind::CloudMetadata));
        for bootstrap in ["localhost:9092", "127.0.0.1:9092", "[::1]:9092"] {
            let here = cluster(bootstrap, &[]);
            for ip in ["127.0.0.2", "::1"] {
                assert_eq!(judged(&here, ip, ip), Ok(()));
                assert_eq!(judged(&here, "kafka-1", ip), Ok(()));
            }
            assert_eq!(judged(&here, "localhost", "127.0.0.1"), Ok(()));
            assert_eq!(judged(&here, "kafka-1", "169.254.3.4"), Err(link.clone()));
            assert_eq!(judged(&here, "kafka-1", "169.254.169.254"), Err(cloud.clone()));
        }
        // The operator's own name, wherever it leads; no other that leads there too.
        let hosts_file = cluster("kafka:9092", &[]);
        assert_eq!(judged(&hosts_file, "kafka", "127.0.0.1"), Ok(()));
        assert_eq!(judged(&hosts_file, "kafka-2", "127.0.0.1"), Err(loopback.clone()));
        let segment = cluster("169.254.7.7:9092", &[]);
        assert_eq!(judged(&segment, "kafka-1", "169.254.7.8"), Ok(()));
        assert_eq!(judged(&segment, "kafka-1", "169.254.169.254"), Err(cloud));
        let network = |ip: &str, bits| Allowed::Network(ip.parse().unwrap(), bits);
        let listed = cluster("kafka:9092", &[network("127.0.0.0", 24), network("fe80::", 10)]);
        for (ip, answer) in [
            ("127.0.0.255", Ok(())),
            ("127.0.1.0", Err(loopback.clone())),
            ("fe80::7", Ok(())),
            ("169.254.0.1", Err(link)),
        ] {
            assert_eq!(judged(&listed, "kafka-1", ip), answer, "{ip}");
        }
        let named = cluster("kafka:9092", &[Allowed::Address(at("kafka-1:9092"))]);
        assert_eq!(judged(&named, "kafka-1", "127.0.0.1"), Ok(()));
        assert_eq!(judged(&named, "kafka-2", "127.0.0.1"), Err(loopback));
    }

    #[test]
    fn no_broker_sends_us_to_the_other_cluster_under_any_name() {
        let east = cluster("kafka.east:9092", &[]);
        let west = Err(Refusal::Foreign("west".to_owned()));
        for (host, ip) in [
            ("kafka.west", "10.0.0.7"),
            ("KAFKA.WEST.", "10.0.0.7"),
            ("10.0.0.9", "10.0.0.9"),
            ("kafka-1", "10.0.0.9"),
            ("kafka-1", "::ffff:10.0.0.9"),
            ("kafka-1", "2001:db8::9"),
            ("kafka-1", "10.0.0.8"),
        ] {
            assert_eq!(judged(&east, host, ip), west, "{host} at {ip}");
        }
        // One machine may carry both, port by port.
        let other_port = Address { host: "kafka.west".to_owned(), port: 9093 };
        assert_eq!(by_name(&other_port, &east), Ok(()));
        let ip = SocketAddr::from(([10, 0, 0, 9], 9093));
        assert_eq!(by_ip(ip, &other_port, &east, &[]), Ok(()));
        assert_eq!(foreign_names(9092, &east), [(at("kafka.west:9092"), "west".to_owned())]);
        assert!(foreign_names(9093, &east).is_empty());
        let both = cluster("kafka.east:9092", &[Allowed::Address(at("kafka.west:9092"))]);
        assert_eq!(judged(&both, "kafka.west", "10.0.0.8"), Ok(()));
    }
}

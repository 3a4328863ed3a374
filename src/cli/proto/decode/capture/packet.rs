//! What TCP says in a captured packet, behind whatever link and network it came over. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];
const PROTOCOL_TCP: u8 = 6;
/// Extension headers of IPv6 that are passed over: hop-by-hop, routing, destination options.
const IPV6_PASSED: [u8; 3] = [0, 43, 60];
const IPV6_FRAGMENT: u8 = 44;
/// Tags and extension headers in front of TCP.
const HEADERS_MAX: usize = 8;

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'p> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// The place of the first byte of `payload`, or of SYN.
    pub(super) sequence: u32,
    pub(super) syn: bool,
    pub(super) ack: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    /// As much as was captured.
    pub(super) payload: &'p [u8],
}

/// Why nothing of TCP is read from a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Passed {
    /// Of another protocol.
    NotTcp,
    /// A part of an IP packet, which is not put together.
    Fragment,
    /// It ends before TCP's header does.
    Cut,
    /// Captured on a link of a type that is not known here.
    UnknownLink,
}

impl Passed {
    /// The key under which it is counted.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NotTcp => "notTcp",
            Self::Fragment => "fragments",
            Self::Cut => "cut",
            Self::UnknownLink => "unknownLink",
        }
    }
}

/// The segment in a packet that begins with a header of type `link`.
pub(super) fn segment(link: u32, packet: &[u8]) -> Result<Segment<'_>, Passed> {
    match link {
        // NULL and LOOP: an address family, of whose numbers there are many. The packet tells.
        0 | 108 => ip(after(packet, 4)?),
        1 => ethernet(u16_at(packet, 12)?, after(packet, 14)?),
        12 | 14 | 101 | 228 | 229 => ip(packet),
        // Linux "cooked": what `tcpdump -i any` writes.
        113 => ethernet(u16_at(packet, 14)?, after(packet, 16)?),
        276 => ethernet(u16_at(packet, 0)?, after(packet, 20)?),
        _ => Err(Passed::UnknownLink),
    }
}

fn after(bytes: &[u8], len: usize) -> Result<&[u8], Passed> {
    bytes.get(len..).ok_or(Passed::Cut)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Passed> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(Passed::Cut)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Passed> {
    array(bytes, at).map(u16::from_be_bytes)
}

fn ethernet(mut ethertype: u16, mut packet: &[u8]) -> Result<Segment<'_>, Passed> {
    for _ in 0..HEADERS_MAX {
        if ETHERTYPES_VLAN.contains(&ethertype) {
            ethertype = u16_at(packet, 2)?;
            packet = after(packet, 4)?;
        } else if [ETHERTYPE_IPV4, ETHERTYPE_IPV6].contains(&ethertype) {
            return ip(packet);
        }
    }
    Err(Passed::NotTcp)
}

fn ip(packet: &[u8]) -> Result<Segment<'_>, Passed> {
    match packet.first().ok_or(Passed::Cut)? >> 4 {
        4 => ipv4(packet),
        6 => ipv6(packet),
        _ => Err(Passed::NotTcp),
    }
}

/// What the header claims, as far as it was captured. Claims nothing: segmented by the card, after it was captured.
fn claimed(packet: &[u8], len: usize) -> &[u8] {
    packet.get(..len).filter(|_| len > 0).unwrap_or(packet)
}

fn ipv4(packet: &[u8]) -> Result<Segment<'_>, Passed> {
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    let [_, _, high, low, ..] = array::<20>(packet, 0)?;
    if packet[9] != PROTOCOL_TCP {
        return Err(Passed::NotTcp);
    }
    // More fragments, or one that is not the first.
    if u16_at(packet, 6)? & 0x3fff != 0 {
        return Err(Passed::Fragment);
    }
    let (from, to) = (array::<4>(packet, 12)?, array::<4>(packet, 16)?);
    let packet = claimed(packet, u16::from_be_bytes([high, low]).into());
    let addresses = [from, to].map(|of| IpAddr::from(Ipv4Addr::from(of)));
    tcp(addresses, after(packet, header_len.max(20))?)
}

fn ipv6(packet: &[u8]) -> Result<Segment<'_>, Passed> {
    let mut next = array::<40>(packet, 0)?[6];
    let addresses = [array::<16>(packet, 8)?, array::<16>(packet, 24)?];
    let addresses = addresses.map(|of| IpAddr::from(Ipv6Addr::from(of)));
    let mut rest = claimed(&packet[40..], u16_at(packet, 4)?.into());
    for _ in 0..HEADERS_MAX {
        if next == PROTOCOL_TCP {
            return tcp(addresses, rest);
        }
        let [following, len] = array(rest, 0)?;
        let header_len = match next {
            // Whole ones, too, may carry the header.
            IPV6_FRAGMENT if u16_at(rest, 2)? & 0xfff9 == 0 => 8,
            IPV6_FRAGMENT => return Err(Passed::Fragment),
            _ if IPV6_PASSED.contains(&next) => 8 + 8 * usize::from(len),
            _ => return Err(Passed::NotTcp),
        };
        (next, rest) = (following, after(rest, header_len)?);
    }
    Err(Passed::NotTcp)
}

fn tcp([from, to]: [IpAddr; 2], bytes: &[u8]) -> Result<Segment<'_>, Passed> {
    let header: [u8; 20] = array(bytes, 0)?;
    let [_, _, _, _, s0, s1, s2, s3, _, _, _, _, offset, flags, ..] = header;
    let flag = |bit: u8| flags & bit != 0;
    Ok(Segment {
        from: SocketAddr::new(from, u16_at(bytes, 0)?),
        to: SocketAddr::new(to, u16_at(bytes, 2)?),
        sequence: u32::from_be_bytes([s0, s1, s2, s3]),
        fin: flag(0x01),
        syn: flag(0x02),
        rst: flag(0x04),
        ack: flag(0x10),
        payload: after(bytes, usize::from(offset >> 4).max(5) * 4)?,
    })
}

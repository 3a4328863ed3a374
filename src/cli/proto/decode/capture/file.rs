//! The packets of a capture file: pcap (what tcpdump writes) and pcapng (what Wireshark writes), of either byte order. Reads
//! as it goes, and holds one packet at a time.

use std::io::{self, Read};

/// The largest packet that is read: Wireshark's own limit on what one may be.
const PACKET_BYTES_MAX: usize = 256 << 10;
/// The largest packet's block, with its options.
const BLOCK_BYTES_MAX: usize = PACKET_BYTES_MAX + (64 << 10);
/// Interfaces of one section of a pcapng file.
const INTERFACES_MAX: usize = 4096;

const PCAPNG_SECTION: u32 = 0x0a0d_0d0a;
const PCAPNG_INTERFACE: u32 = 1;
const PCAPNG_SIMPLE: u32 = 3;
const PCAPNG_ENHANCED: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// The option of an interface that tells the unit of its times.
const IF_TSRESOL: u16 = 9;

/// One captured packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// When, in microseconds since 1970.
    pub(super) time_us: u64,
    /// What stands at its front (`LINKTYPE_...`).
    pub(super) link: u32,
    /// As much as was captured.
    pub(super) bytes: Vec<u8>,
}

/// A unit of time: so many of them are a second.
#[derive(Clone, Copy, Debug)]
struct Unit(u64);

impl Unit {
    /// `if_tsresol`: a power of ten, or of two where the highest bit is set.
    fn parse(byte: u8) -> Self {
        let base: u64 = if byte & 0x80 == 0 { 10 } else { 2 };
        Self(base.checked_pow(u32::from(byte & 0x7f)).unwrap_or(u64::MAX))
    }

    fn micros(self, time: u64) -> u64 {
        let micros = u128::from(time) * 1_000_000 / u128::from(self.0);
        u64::try_from(micros).unwrap_or(u64::MAX)
    }
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Pcap { link: u32, unit: Unit },
    PcapNg,
}

/// A capture file that is being read.
pub(super) struct Capture<R> {
    from: R,
    format: Format,
    is_big: bool,
    /// Of the section of a pcapng file: link types and units.
    interfaces: Vec<(u32, Unit)>,
}

impl<R: Read> Capture<R> {
    /// Reads the file's own header.
    ///
    /// # Errors
    /// The reason, where it is no capture.
    pub(super) fn open(mut from: R) -> Result<Self, String> {
        let mut magic = [0; 4];
        from.read_exact(&mut magic).map_err(|_| "no capture: it has no header".to_owned())?;
        let (is_big, unit) = match u32::from_be_bytes(magic) {
            PCAPNG_SECTION => {
                let interfaces = Vec::new();
                let mut file = Self { from, format: Format::PcapNg, is_big: true, interfaces };
                file.section()?;
                return Ok(file);
            }
            0xa1b2_c3d4 => (true, Unit(1_000_000)),
            0xd4c3_b2a1 => (false, Unit(1_000_000)),
            0xa1b2_3c4d => (true, Unit(1_000_000_000)),
            0x4d3c_b2a1 => (false, Unit(1_000_000_000)),
            other => return Err(format!("neither pcap nor pcapng: it begins with {other:08x}")),
        };
        let format = Format::Pcap { link: 0, unit };
        let mut file = Self { from, format, is_big, interfaces: Vec::new() };
        let header = file.exactly::<20>("file header")?;
        // The upper bits tell of checksums behind Ethernet frames.
        let link = file.u32(&header, 16) & 0xffff;
        file.format = Format::Pcap { link, unit };
        Ok(file)
    }

    /// The next packet; None is the end.
    ///
    /// # Errors
    /// The file breaks here, and how.
    pub(super) fn next(&mut self) -> Result<Option<Packet>, String> {
        match self.format {
            Format::Pcap { link, unit } => self.record(link, unit),
            Format::PcapNg => self.block(),
        }
    }

    fn record(&mut self, link: u32, unit: Unit) -> Result<Option<Packet>, String> {
        let Some(header) = self.exactly_or_end::<16>("packet header")? else { return Ok(None) };
        let (seconds, part) = (self.u32(&header, 0), self.u32(&header, 4));
        let bytes = self.sized(self.u32(&header, 8), PACKET_BYTES_MAX, "packet")?;
        let time_us = u64::from(seconds) * 1_000_000 + unit.micros(part.into());
        Ok(Some(Packet { time_us, link, bytes }))
    }

    fn block(&mut self) -> Result<Option<Packet>, String> {
        loop {
            let Some(kind) = self.exactly_or_end::<4>("block")? else { return Ok(None) };
            let kind = self.u32(&kind, 0);
            // The same in both orders, and the section's own order is told inside.
            if kind == PCAPNG_SECTION {
                self.section()?;
                continue;
            }
            let len = self.exactly::<4>("block")?;
            let len = self.body_len(&len)?;
            if !matches!(kind, PCAPNG_INTERFACE | PCAPNG_SIMPLE | PCAPNG_ENHANCED) {
                self.pass(len + 4)?;
                continue;
            }
            let body = self.sized(len, BLOCK_BYTES_MAX, "block")?;
            self.pass(4)?;
            match kind {
                PCAPNG_INTERFACE => self.interface(&body)?,
                _ => return self.packet(kind, &body).map(Some),
            }
        }
    }

    /// What lies between the two lengths of a block.
    fn body_len(&self, len: &[u8]) -> Result<u32, String> {
        let len = self.u32(len, 0);
        match len.checked_sub(12) {
            Some(body) if len.is_multiple_of(4) => Ok(body),
            _ => Err(format!("a block of {len} bytes cannot be")),
        }
    }

    fn section(&mut self) -> Result<(), String> {
        let header = self.exactly::<8>("section header")?;
        self.is_big = match header[4..].first_chunk().map(|order| u32::from_be_bytes(*order)) {
            Some(BYTE_ORDER) => true,
            Some(order) if order.swap_bytes() == BYTE_ORDER => false,
            _ => return Err("a section without a byte order".to_owned()),
        };
        self.interfaces.clear();
        let body = self.body_len(&header[..4])?;
        let left = body.checked_sub(4).ok_or("a section without a header")?;
        self.pass(left + 4)
    }

    fn interface(&mut self, body: &[u8]) -> Result<(), String> {
        let link = self.u16_at(body, 0).ok_or("an interface without a link type")?;
        let (mut unit, mut at) = (Unit(1_000_000), 8);
        while let (Some(code @ 1..), Some(len)) = (self.u16_at(body, at), self.u16_at(body, at + 2))
        {
            if let (IF_TSRESOL, Some(byte)) = (code, body.get(at + 4)) {
                unit = Unit::parse(*byte);
            }
            at += 4 + usize::from(len).next_multiple_of(4);
        }
        if self.interfaces.len() == INTERFACES_MAX {
            return Err(format!("more than {INTERFACES_MAX} interfaces"));
        }
        self.interfaces.push((link.into(), unit));
        Ok(())
    }

    fn packet(&self, kind: u32, body: &[u8]) -> Result<Packet, String> {
        let word = |place: usize| {
            body.get(4 * place..4 * place + 4).map(|word| self.u32(word, 0)).ok_or("a cut packet")
        };
        let (interface, time, claimed, data) = if kind == PCAPNG_SIMPLE {
            (0, 0, word(0)?.min(body.len() as u32 - 4), &body[4..])
        } else {
            let time = u64::from(word(1)?) << 32 | u64::from(word(2)?);
            word(4)?;
            (word(0)?, time, word(3)?, &body[20..])
        };
        let of = self.interfaces.get(interface as usize);
        let (link, unit) =
            *of.ok_or(format!("a packet of interface {interface}, which is none"))?;
        let bytes = data.get(..claimed as usize);
        let bytes = bytes.ok_or(format!("a packet of {claimed} bytes in {}", data.len()))?.to_vec();
        Ok(Packet { time_us: unit.micros(time), link, bytes })
    }

    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        let word = bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        if self.is_big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    }

    fn u16_at(&self, bytes: &[u8], at: usize) -> Option<u16> {
        let word = *bytes.get(at..)?.first_chunk()?;
        Some(if self.is_big { u16::from_be_bytes(word) } else { u16::from_le_bytes(word) })
    }

    fn exactly<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        self.exactly_or_end(what)?.ok_or_else(|| format!("the file ends before a {what}"))
    }

    /// None where the file ends in front of it.
    fn exactly_or_end<const N: usize>(&mut self, what: &str) -> Result<Option<[u8; N]>, String> {
        let (mut bytes, mut len) = ([0; N], 0);
        while len < N {
            match self.from.read(&mut bytes[len..]) {
                Ok(0) if len == 0 => return Ok(None),
                Ok(0) => return Err(format!("the file ends within a {what}")),
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("a {what} cannot be read: {error}")),
            }
        }
        Ok(Some(bytes))
    }

    /// So many bytes, if they are no more than `max`. Nothing is reserved for what is only claimed.
    fn sized(&mut self, len: u32, max: usize, what: &str) -> Result<Vec<u8>, String> {
        if len as usize > max {
            return Err(format!("a {what} of {len} bytes cannot be"));
        }
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(len.into()).read_to_end(&mut bytes);
        read.map_err(|error| format!("a {what} cannot be read: {error}"))?;
        match bytes.len() == len as usize {
            true => Ok(bytes),
            false => Err(format!("the file ends within a {what}")),
        }
    }

    fn pass(&mut self, len: u32) -> Result<(), String> {
        let passed = io::copy(&mut (&mut self.from).take(len.into()), &mut io::sink());
        match passed.map_err(|error| format!("a block cannot be read: {error}"))? {
            passed if passed == u64::from(len) => Ok(()),
            _ => Err("the file ends within a block".to_owned()),
        }
    }
}

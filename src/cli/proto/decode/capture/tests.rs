//! Captures as tcpdump and Wireshark write them, written here: every link and format, what was lost, and what lies.

use proptest::prelude::*;

use super::*;
use crate::cli::Exit;
use crate::cli::tests::run_in;
use crate::wire::Request;
use crate::wire::frame::request_head;
use crate::wire::metadata::MetadataRequest;

const CLIENT: &str = "10.0.0.1:40000";
const SERVER: &str = "10.0.0.2:9092";
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN: u8 = 0x01;

fn metadata(correlation_id: i32) -> Vec<u8> {
    let mut body = Vec::new();
    MetadataRequest { topics: None }.encode(12, &mut body).unwrap();
    let head = request_head(MetadataRequest::API, 12, correlation_id, "c", body.len()).unwrap();
    [&head[..], &body].concat()
}

/// ApiVersions v0: an error and one range.
fn versions(correlation_id: i32) -> Vec<u8> {
    [&[0, 0, 0, 11, 0, 18, 0, 0][..], &correlation_id.to_be_bytes(), &[0, 1, b'c']].concat()
}

fn versions_answer(correlation_id: i32) -> Vec<u8> {
    let id = correlation_id.to_be_bytes();
    [&[0, 0, 0, 16][..], &id, &[0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2]].concat()
}

/// An IP packet, as on the wire. The checksums are left out: a card fills them in after the capture.
fn ip(from: &str, to: &str, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut tcp = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    tcp.extend(sequence.to_be_bytes());
    tcp.extend([0, 0, 0, 0, 6 << 4, flags, 1, 0, 0, 0, 0, 0]);
    tcp.extend([1, 1, 1, 0]); // An option.
    tcp.extend(payload);
    match (from.ip(), to.ip()) {
        (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => {
            let len = (20 + tcp.len() as u16).to_be_bytes();
            let head = [0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
            [&head[..], &from.octets(), &to.octets(), &tcp].concat()
        }
        (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => {
            // A hop-by-hop header in front.
            let len = (8 + tcp.len() as u16).to_be_bytes();
            let head = [0x60, 0, 0, 0, len[0], len[1], 0, 64];
            let hop = [6, 0, 1, 4, 0, 0, 0, 0];
            [&head[..], &from.octets(), &to.octets(), &hop, &tcp].concat()
        }
        _ => panic!("two families"),
    }
}

/// A file as tcpdump writes it: little-endian, microseconds.
fn pcap(link: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file =
        [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 262_144, link].map(u32::to_le_bytes).concat();
    for (index, packet) in packets.iter().enumerate() {
        let len = packet.len() as u32;
        file.extend([1_790_000_000, index as u32, len, len].map(u32::to_le_bytes).concat());
        file.extend(packet);
    }
    file
}

/// A file as Wireshark writes it: big-endian here, with blocks of other kinds and nanoseconds.
fn pcapng(link: u16, packets: &[Vec<u8>]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let len = (12 + body.len() as u32).to_be_bytes();
        [&kind.to_be_bytes()[..], &len, &body, &len].concat()
    };
    let section = [&0x1a2b_3c4du32.to_be_bytes()[..], &[0, 1, 0, 0], &[0xff; 8]].concat();
    let options = [0, 2, 0, 3, b'l', b'o', b'0', 0, 0, 9, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0];
    let interface = [&link.to_be_bytes()[..], &[0; 6], &options].concat();
    let mut file = [block(0x0a0d_0d0a, &section), block(1, &interface), block(4, &[0; 8])].concat();
    for (index, packet) in packets.iter().enumerate() {
        let time = (1_790_000_000_000_000u64 + index as u64) * 1000;
        let len = packet.len() as u32;
        let head = [0, (time >> 32) as u32, time as u32, len, len].map(u32::to_be_bytes).concat();
        file.extend(block(6, &[&head[..], packet].concat()));
    }
    file
}

fn shown(file: &[u8]) -> (bool, Vec<Value>) {
    let mut out = Vec::new();
    let ok = show(file, &[], &mut out).unwrap();
    let lines = String::from_utf8(out).unwrap();
    (ok, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// A connection from its SYN to its end, with a request and its answer. Numbers go over their end.
fn exchange(client: &str, server: &str) -> Vec<Vec<u8>> {
    let (asked, answered) = (versions(5), versions_answer(5));
    let (first, second) = (u32::MAX - 3, 1000);
    vec![
        ip(client, server, first, SYN, &[]),
        ip(server, client, second, SYN | ACK, &[]),
        ip(client, server, first.wrapping_add(1), ACK, &asked),
        ip(server, client, second + 1, ACK, &answered),
        ip(client, server, first.wrapping_add(1 + asked.len() as u32), ACK | FIN, &[]),
        ip(server, client, second + 1 + answered.len() as u32, ACK | FIN, &[]),
    ]
}

#[track_caller]
fn assert_exchange(file: &[u8], client: &str) {
    let (ok, lines) = shown(file);
    assert!(ok, "{lines:#?}");
    let [request, answer, summary] = &lines[..] else { panic!("{lines:#?}") };
    assert_eq!((&request["kind"], &request["api"]), (&"request".into(), &"ApiVersions".into()));
    assert_eq!((&request["from"], &request["client"]), (&client.into(), &client.into()));
    assert_eq!(request["timeUs"], 1_790_000_000_000_002u64);
    assert_eq!((&answer["kind"], &answer["afterUs"]), (&"response".into(), &1.into()), "{answer}");
    assert_eq!(answer["body"]["error"], "UNSUPPORTED_VERSION");
    assert_eq!((&summary["connections"], &summary["frames"]), (&1.into(), &2.into()));
    assert_eq!(summary["unanswered"], 0);
}

#[test]
fn an_exchange_is_read_from_every_link_in_both_formats() {
    for (client, server) in [(CLIENT, SERVER), ("[fd00::1]:40000", "[fd00::2]:9092")] {
        let ethertype: &[u8] = if client == CLIENT { &[8, 0] } else { &[0x86, 0xdd] };
        let links: [(u16, Vec<u8>); 8] = [
            (0, vec![2, 0, 0, 0]),
            (1, [&[0; 12], ethertype].concat()),
            (1, [&[0; 12], &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 7][..], ethertype].concat()),
            (12, vec![]),
            (101, vec![]),
            (108, vec![0, 0, 0, 2]),
            (113, [&[0; 14], ethertype].concat()),
            (276, [ethertype, &[0; 18]].concat()),
        ];
        for (link, head) in links {
            let packets = exchange(client, server);
            let packets: Vec<_> = packets.iter().map(|ip| [&head[..], ip].concat()).collect();
            assert_exchange(&pcap(link.into(), &packets), client);
            assert_exchange(&pcapng(link, &packets), client);
        }
    }
}

#[test]
fn segments_out_of_order_twice_and_cut_anywhere_make_the_same_frames() {
    let stream = [metadata(1), versions(2)].concat();
    let answers = versions_answer(2);
    for step in [1, 3, 7, 20] {
        let mut packets = vec![ip(CLIENT, SERVER, 99, SYN, &[])];
        let mut segments: Vec<_> = stream.chunks(step).enumerate().collect();
        // Pairs the other way round, and each of them twice.
        segments.chunks_mut(2).for_each(<[_]>::reverse);
        for (index, chunk) in segments {
            let packet = ip(CLIENT, SERVER, 100 + (index * step) as u32, ACK, chunk);
            packets.extend([packet.clone(), packet]);
        }
        packets.push(ip(SERVER, CLIENT, 7, SYN | ACK, &[]));
        packets.push(ip(SERVER, CLIENT, 8, ACK, &answers));
        let (ok, lines) = shown(&pcap(101, &packets));
        let told: Vec<_> = lines
            .iter()
            .map(|line| (line["kind"].as_str(), line["correlationId"].as_i64()))
            .collect();
        let wanted = [
            (Some("request"), Some(1)),
            (Some("request"), Some(2)),
            (Some("response"), Some(2)),
            (None, None),
        ];
        assert_eq!((ok, &told[..]), (true, &wanted[..]), "{lines:#?}");
    }
}

#[test]
fn a_capture_that_begins_in_the_middle_comes_into_step() {
    let packets = [
        ip(SERVER, CLIENT, 1, ACK, b"the rest of an answer"),
        ip(CLIENT, SERVER, 1, ACK, b"the rest of a request"),
        ip(CLIENT, SERVER, 22, ACK, &versions(6)),
        ip(SERVER, CLIENT, 22, ACK, &versions_answer(6)),
    ];
    let (ok, lines) = shown(&pcap(101, &packets));
    assert!(ok, "{lines:#?}");
    let kinds: Vec<_> = lines.iter().map(|line| line["line"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["passed", "frame", "passed", "frame", "summary"], "{lines:#?}");
    assert_eq!((&lines[1]["client"], &lines[3]["api"]), (&CLIENT.into(), &"ApiVersions".into()));
}

#[test]
fn what_was_not_captured_is_named_and_the_rest_is_read() {
    let first = metadata(1);
    let behind = first.len() as u32;
    // Of the first request the middle is missing, of the connection's answers the first.
    let packets = [
        ip(CLIENT, SERVER, 99, SYN, &[]),
        ip(SERVER, CLIENT, 7, SYN | ACK, &[]),
        ip(CLIENT, SERVER, 100, ACK, &first[..12]),
        ip(CLIENT, SERVER, 116, ACK, &first[16..]),
        ip(CLIENT, SERVER, 100 + behind, ACK, &versions(2)),
        ip(SERVER, CLIENT, 108, ACK, &versions_answer(2)),
    ];
    let (ok, lines) = shown(&pcap(101, &packets));
    assert!(!ok, "{lines:#?}");
    let told: Vec<_> =
        lines.iter().map(|line| (line["line"].as_str().unwrap(), line["bytes"].as_u64())).collect();
    let (gap, size) = (("gap", Some(4)), Some(first.len() as u64 - 4));
    assert_eq!(told[..2], [gap, ("frame", Some(8))], "{size:?} {lines:#?}");
    assert_eq!(
        (&lines[1]["correlationId"], &lines[1]["error"]),
        (&1.into(), &"a part of it was not captured".into())
    );
    assert_eq!(lines[2]["correlationId"], 2, "{lines:#?}");
    assert_eq!(told[3], ("gap", Some(100)), "{lines:#?}");
    assert_eq!(lines[4]["body"]["error"], "UNSUPPORTED_VERSION", "{lines:#?}");
    let summary = lines.last().unwrap();
    assert_eq!((&summary["gaps"], &summary["broken"]), (&2.into(), &1.into()));
    // Packets that were captured in part: the lengths are told, the bytes are not.
    let packets: Vec<_> =
        exchange(CLIENT, SERVER).iter().map(|ip| ip[..ip.len().min(50)].to_vec()).collect();
    let (ok, lines) = shown(&pcap(101, &packets));
    assert!(!ok && lines[0]["error"] == "a part of it was not captured", "{lines:#?}");
}

#[test]
fn an_answer_to_what_was_not_captured_and_an_old_one_without_an_answer_are_told() {
    let no_ack =
        [&[0, 0, 0, 23, 0, 0, 0, 3][..], &[0, 0, 0, 1, 0xff, 0xff], &[0xff, 0xff, 0, 0], &[0; 9]]
            .concat();
    let packets = [
        ip(CLIENT, SERVER, 99, SYN, &[]),
        ip(SERVER, CLIENT, 7, SYN | ACK, &[]),
        ip(CLIENT, SERVER, 100, ACK, &no_ack),
        ip(
            CLIENT,
            SERVER,
            100 + no_ack.len() as u32,
            ACK,
            &[versions(2), versions(3), versions(4)].concat(),
        ),
        ip(SERVER, CLIENT, 8, ACK, &[versions_answer(3), versions_answer(9)].concat()),
    ];
    let (ok, lines) = shown(&pcap(101, &packets));
    let summary = lines.last().unwrap();
    assert_eq!((ok, &summary["unanswered"]), (false, &1.into()), "{lines:#?}");
    assert_eq!(lines[5]["error"], "its request was not captured", "{lines:#?}");
}

#[test]
fn tls_other_protocols_and_other_connections_are_named_and_no_secret_is_shown() {
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let packets = [
        ip(CLIENT, SERVER, 9, SYN, &[]),
        ip(CLIENT, SERVER, 10, ACK, &hello),
        ip(CLIENT, SERVER, 21, ACK, &hello),
    ];
    let (ok, lines) = shown(&pcap(101, &packets));
    assert_eq!((ok, lines.len(), &lines[1]["encrypted"]), (false, 2, &1.into()), "{lines:#?}");
    assert!(lines[0]["error"].as_str().unwrap().starts_with("TLS: "), "{lines:#?}");

    // PLAIN, in the frames of KIP-152 and before.
    let login =
        [&[0, 36, 0, 0, 0, 0, 0, 1, 0xff, 0xff][..], &[0, 0, 0, 13], b"\0bob\0hunter42"].concat();
    let login = [&(login.len() as u32).to_be_bytes()[..], &login].concat();
    let token = [&[0, 0, 0, 13][..], b"\0bob\0hunter42"].concat();
    let web =
        |port: u16, flags: u8, said: &[u8]| ip(CLIENT, &format!("10.0.0.2:{port}"), 1, flags, said);
    let packets = [
        web(80, ACK, b"GET / HTTP/1.1\r\n\r\n"),
        web(9092, ACK, &login),
        ip(CLIENT, SERVER, 1 + login.len() as u32, ACK, &token),
        [&[0x45; 9][..], &[17; 30]].concat(),
        ip(CLIENT, SERVER, 1, ACK, &[])[..30].to_vec(),
    ];
    let mut out = Vec::new();
    show(&pcap(101, &packets)[..], &[], &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    let secret: String = b"hunter42".iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!out.contains(&secret) && !out.contains("hunter42"), "{out}");
    assert!(
        out.contains(r#""authBytes":{"bytes":13}"#) && out.contains("no request that is known"),
        "{out}"
    );
    assert!(out.contains(r#""line":"passed""#) && out.contains(r#"{"cut":1,"notTcp":1}"#), "{out}");
    // The port of the broker alone.
    let mut out = Vec::new();
    show(&pcap(101, &packets[..2])[..], &[9092], &mut out).unwrap();
    assert!(!String::from_utf8(out).unwrap().contains("10.0.0.2:80\""));
}

#[test]
fn what_a_broker_is_set_to_is_not_shown() {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let resource = |kind: u8, value: &str| {
        let config = [text("some.config"), vec![0], text(value)].concat();
        [vec![kind], text("1"), vec![0, 0, 0, 1], config].concat()
    };
    let head = [0, 44, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 2];
    let request = [&head[..], &resource(4, "hunter42"), &resource(2, "compact"), &[0]].concat();
    let sized = [&(request.len() as u32).to_be_bytes()[..], &request].concat();
    let (_, lines) = shown(&pcap(101, &[ip(CLIENT, SERVER, 1, ACK, &sized)]));
    let resources = &lines[0]["body"]["resources"];
    assert_eq!(resources[0]["configs"][0]["value"]["bytes"], 8, "{lines:#?}");
    assert_eq!(resources[1]["configs"][0]["value"], "compact", "{lines:#?}");
}

#[test]
fn the_verb_reads_a_file_and_its_exit_tells_whether_all_was_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = pcap(101, &exchange(CLIENT, SERVER));
    for (len, wanted) in [(file.len(), Exit::Ok), (file.len() - 1, Exit::NotTrue)] {
        std::fs::write(directory.path().join("some.pcap"), &file[..len]).unwrap();
        let line = "strait proto decode --pcap @some.pcap --port 9092";
        let (exit, out, err) = run_in(directory.path(), line);
        assert_eq!((exit, out.lines().count()), (wanted, 3), "{out}{err}");
    }
    let (exit, _, err) = run_in(directory.path(), "strait proto decode --pcap @none");
    assert!(exit == Exit::Usage && err.contains("cannot be read"), "{err}");
}

#[test]
fn a_port_that_is_used_again_is_another_connection() {
    let mut packets = exchange(CLIENT, SERVER);
    packets.truncate(4); // It never ends.
    packets.push(ip(CLIENT, SERVER, 5_000, SYN, &[]));
    packets.push(ip(CLIENT, SERVER, 5_001, ACK, &versions(1)));
    let (ok, lines) = shown(&pcap(101, &packets));
    let summary = lines.last().unwrap();
    assert_eq!(
        (ok, &summary["connections"], &summary["frames"]),
        (true, &2.into(), &3.into()),
        "{lines:#?}"
    );
}

#[test]
fn a_file_that_is_cut_anywhere_or_lies_is_read_up_to_there() {
    let packets: Vec<_> = exchange(CLIENT, SERVER);
    for file in [pcap(101, &packets), pcapng(101, &packets)] {
        let whole = shown(&file).1.len();
        for len in 0..file.len() {
            let (_, lines) = shown(&file[..len]);
            assert!(lines.len() <= whole && lines.last().unwrap()["line"] == "summary", "{len}");
        }
        let (ok, lines) = shown(&file[..file.len() - 1]);
        assert!(!ok && lines[2]["error"].as_str().unwrap().contains("ends within"), "{lines:#?}");
    }
    // Lengths that no file has: nothing is reserved for them.
    let mut lies = pcap(101, &packets);
    lies[32..36].copy_from_slice(&[0xff; 4]);
    let (ok, lines) = shown(&lies);
    assert!(!ok && lines[0]["error"] == "a packet of 4294967295 bytes cannot be", "{lines:#?}");
    let (ok, lines) = shown(b"PK\x03\x04 a zip");
    assert!(!ok && lines[0]["error"].as_str().unwrap().contains("neither pcap nor pcapng"));
}

#[test]
fn what_is_held_is_bounded_whatever_is_claimed() {
    // Frames that never end on many connections, behind holes that nothing fills.
    let claim = [&(100i32 << 20).to_be_bytes()[..], &metadata(1)[4..14]].concat();
    let mut out = std::io::sink();
    let mut reading = Reading::new(&[], &mut out);
    let block = vec![7; 60_000];
    for port in 0..200u16 {
        let client = format!("10.0.0.1:{}", 20_000 + port);
        let mut packets =
            vec![ip(&client, SERVER, 0, SYN, &[]), ip(&client, SERVER, 1, ACK, &claim)];
        let begin = 1 + claim.len() as u32;
        packets.extend((0..40).map(|n| ip(&client, SERVER, begin + n * 60_000, ACK, &block)));
        packets.extend((0..15).map(|n| ip(&client, SERVER, 9_000_000 + n * 60_001, ACK, &block)));
        for bytes in packets {
            reading.packet(&Packet { time_us: 0, link: 101, bytes });
            let held: usize = reading.talks.values().map(Talk::held_bytes).sum();
            assert!(held == reading.held && held <= HELD_BYTES_MAX, "{held}");
        }
    }
    assert!(reading.told.tally.broken > 50, "some were given up");
}

proptest! {
    #[test]
    fn damage_never_panics(damage in prop::collection::vec((0usize..2000, any::<u8>()), 1..6), cut in 0usize..600) {
        let packets = exchange(CLIENT, SERVER);
        for file in [pcap(101, &packets), pcapng(101, &packets), pcap(1, &packets), pcap(276, &packets)] {
            let (mut file, len) = (file.clone(), file.len());
            damage.iter().for_each(|(at, byte)| file[at % len] = *byte);
            file.truncate(len - cut % len);
            shown(&file);
        }
    }

    #[test]
    fn noise_never_panics(
        noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 0..20),
        segments in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u8>(), 0usize..60), 0..20),
        link in prop::sample::select(vec![0u32, 1, 101, 113, 276, 999]),
    ) {
        shown(&pcap(link, &noise));
        shown(&pcapng(link as u16, &noise));
        // Legal packets in any order, of any numbers.
        let said = [versions(1), metadata(2), versions_answer(1)].concat();
        let packets: Vec<_> = segments
            .into_iter()
            .map(|(is_client, sequence, flags, from)| {
                let (a, b) = if is_client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
                ip(a, b, 0xffff_ffe0u32.wrapping_add(sequence % 80), flags & 0x17, &said[from.min(said.len())..])
            })
            .collect();
        shown(&pcap(101, &packets));
    }
}

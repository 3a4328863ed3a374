//! Where an answer begins and ends: sizes that lie, answers that stop anywhere, other protocols.

use std::time::Duration;

use kafka_protocol::messages::ApiKey;

use super::DATA;
use crate::hostile::answer::{Answer, Deed};
use crate::hostile::case::Case;

/// The true frame behind another size.
fn of_size(answer: &Answer, size: i32) -> Vec<u8> {
    let mut frame = answer.frame();
    frame[..4].copy_from_slice(&size.to_be_bytes());
    frame
}

fn size_of(answer: &Answer) -> i32 {
    i32::try_from(answer.frame().len() - 4).expect("small")
}

fn with(what: &str, bytes: &[&[u8]], more: impl Fn(&str, Vec<u8>) -> Case) -> Case {
    more(what, bytes.concat())
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (stage, apis) in [("an answer", &DATA[..]), ("the first answer", &[ApiKey::ApiVersions])] {
        let first = apis == [ApiKey::ApiVersions];
        let slow = ["stalls", "silence", "never comes", "noise"];
        let finish = |case: Case| {
            let late = slow.iter().any(|word| case.name.contains(word));
            let case = if late { case.slowly() } else { case };
            if first { case.anew() } else { case }
        };
        let mut add = |what: &str, deed: fn(&Answer) -> Deed| {
            all.push(finish(Case::new(format!("{stage} {what}"), apis, deed)));
        };
        add("of size -1", |a| Deed::Send(of_size(a, -1)));
        add("of size 0", |a| Deed::Send(of_size(a, 0)));
        add("of size 3", |a| Deed::Send(of_size(a, 3)));
        add("of the least size", |a| Deed::Send(of_size(a, i32::MIN)));
        add("of the greatest size", |a| Deed::Send(of_size(a, i32::MAX)));
        add("beyond what may be sent", |a| Deed::Send(of_size(a, (128 << 20) + 1)));
        add("one byte shorter than it says, then the end", |a| {
            Deed::Close(of_size(a, size_of(a) + 1))
        });
        add("one byte longer than it says", |a| Deed::Send(of_size(a, size_of(a) - 1)));
        add("that promises 100 MiB and stalls", |a| Deed::Stall(of_size(a, 100 << 20)));
        add("that promises 100 MiB and ends", |a| Deed::Close(of_size(a, 100 << 20)));
        add("of which half comes, then silence", |a| {
            let frame = a.frame();
            Deed::Stall(frame[..frame.len() / 2].to_vec())
        });
        add("that never comes", |_| Deed::Stall(Vec::new()));
        add("without a body", |a| Deed::Send(a.with(&[])));
        add("of zeros", |a| Deed::Send(a.with(&vec![0; a.body.len()])));
        add("of ones", |a| Deed::Send(a.with(&vec![0xff; a.body.len()])));
        add("with a byte behind its body", |a| Deed::Send(a.with(&[&a.body[..], &[0]].concat())));
        add("twice", |a| Deed::Send([a.frame(), a.frame()].concat()));
        add("and four bytes more", |a| Deed::Send([a.frame(), vec![0; 4]].concat()));
        add("in HTTP", |_| Deed::Close(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()));
        add("in SSH", |_| Deed::Close(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()));
        add("as a TLS alert", |_| Deed::Close(vec![0x15, 3, 3, 0, 2, 2, 40]));
        add("as 64 KiB of noise", |a| {
            let noise = |at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ a.nth as u8;
            Deed::Send((0..64 << 10).map(noise).collect())
        });
        for cut in [0usize, 1, 3, 4, 7, 8, 9, 20] {
            let name = format!("{stage} that ends behind byte {cut}");
            let case = Case::new(name, apis, move |a| {
                let frame = a.frame();
                Deed::Close(frame[..cut.min(frame.len() - 1)].to_vec())
            });
            all.push(finish(case));
        }
        let slow = format!("{stage} byte by byte");
        let slow = Case::new(slow, apis, |a| Deed::Drip(a.frame(), Duration::from_millis(20)));
        all.push(finish(slow.harmless()));
    }
    let flood =
        |what: &str, bytes: Vec<u8>| Case::new(what, &DATA, move |_| Deed::Send(bytes.clone()));
    all.push(with("a flood of empty frames", &[&[0; 40_000]], flood));
    all
}

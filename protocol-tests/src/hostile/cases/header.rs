//! Which request an answer is to, and the tags behind that.

use std::sync::Mutex;

use kafka_protocol::messages::ApiKey;

use super::DATA;
use crate::hostile::answer::{Answer, Deed, sized};
use crate::hostile::case::{Case, Where};

/// The answer to another request.
fn to(answer: &Answer, correlation: i32) -> Deed {
    Deed::Send(Answer { correlation, ..answer.clone() }.frame())
}

/// The body behind these bytes in the place of the header's tags.
fn tagged(answer: &Answer, tags: &[u8]) -> Deed {
    let head = answer.correlation.to_be_bytes();
    Deed::Send(sized([&head[..], tags, &answer.body].concat()))
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (of, apis) in [("data", &DATA[..]), ("Metadata", &[ApiKey::Metadata])] {
        let mut add = |what: &str, deed: fn(&Answer) -> Deed| {
            all.push(Case::new(format!("{of}: {what}"), apis, deed));
        };
        add("to the request before", |a| to(a, a.correlation.wrapping_sub(1)));
        add("to the request behind", |a| to(a, a.correlation.wrapping_add(1)));
        add("to request -1", |a| to(a, -1));
        add("to the least request", |a| to(a, i32::MIN));
        add("without the tags of its header", |a| tagged(a, &[]));
        add("with more tags than there are bytes", |a| tagged(a, &[0xff, 0xff, 0xff, 0xff, 7]));
        add("with a count of tags that does not end", |a| tagged(a, &[0xff; 12]));
        add("with a tag that is longer than all", |a| {
            tagged(a, &[1, 0, 0xff, 0xff, 0xff, 0xff, 7])
        });
    }
    for (of, apis) in [("data", &DATA[..]), ("Metadata", &[ApiKey::Metadata])] {
        let flood =
            Case::new(format!("{of}: with ten thousand tags that nobody knows"), apis, |a| {
                let tags = (0..10_000u32).flat_map(|tag| {
                    let tag = tag + 100;
                    [
                        0x80 | (tag & 0x7f) as u8,
                        0x80 | (tag >> 7 & 0x7f) as u8,
                        (tag >> 14) as u8,
                        0,
                    ]
                });
                let tags: Vec<u8> = [0x90, 0x4e].into_iter().chain(tags).collect();
                tagged(a, &tags)
            });
        all.push(flood.harmless());
        let ahead = |a: &Answer| {
            let next = Answer { correlation: a.correlation + 1, ..a.clone() };
            Deed::Send([a.frame(), next.frame()].concat())
        };
        let ahead = Case::new(format!("{of}: and an answer to the next request"), apis, ahead);
        // Between two looks at the metadata, the connection that it costs is not missed.
        all.push(if of == "data" { ahead } else { ahead.harmless() });
        let disordered = |a: &Answer| tagged(a, &[2, 7, 1, 0, 3, 1, 0]);
        all.push(Case::new(format!("{of}: with tags out of order"), apis, disordered).harmless());
    }
    let held = Mutex::new(None::<(u64, Vec<u8>)>);
    let swap = Case::new("two answers in the wrong order", &[ApiKey::Produce], move |a| {
        let mut held = held.lock().expect("one thread");
        match held.take() {
            Some((connection, before)) if connection == a.connection => {
                Deed::Send([a.frame(), before].concat())
            }
            _ => {
                *held = Some((a.connection, a.frame()));
                Deed::Send(Vec::new())
            }
        }
    });
    all.push(swap.only(Where::Target));
    all
}

//! What a broker says while it is logged in to, by SCRAM-SHA-256. Nothing but the login may be heard from us meanwhile.

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, SaslAuthenticateResponse, SaslHandshakeResponse};
use kafka_protocol::protocol::StrBytes;

use crate::hostile::answer::{Answer, Deed};
use crate::hostile::case::Case;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The server's message changed: the first (`r=`) or the last (`v=`).
fn message(answer: &Answer, which: &str, edit: impl Fn(&str) -> String) -> Deed {
    answer.edit(|answer: &mut SaslAuthenticateResponse| {
        let said = String::from_utf8_lossy(&answer.auth_bytes).into_owned();
        if said.starts_with(which) {
            answer.auth_bytes = Bytes::from(edit(&said));
        }
    })
}

/// One attribute of the first message replaced.
fn attribute(said: &str, name: char, value: &str) -> String {
    let parts = said.split(',').map(|part| {
        if part.starts_with(name) { format!("{name}={value}") } else { part.to_owned() }
    });
    parts.collect::<Vec<_>>().join(",")
}

/// What is said instead of a message.
type Said = (&'static str, fn(&str) -> String);

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let handshakes: [super::Named<SaslHandshakeResponse>; 7] = [
        ("no mechanism", |a| (a.error_code, a.mechanisms) = (33, vec![])),
        ("PLAIN only", |a| (a.error_code, a.mechanisms) = (33, vec![text("PLAIN")])),
        ("mechanisms with escape sequences", |a| {
            (a.error_code, a.mechanisms) = (33, vec![text("\u{1b}[2J"); 50]);
        }),
        ("a state that is illegal", |a| a.error_code = 34),
        ("an error that does not exist", |a| a.error_code = 31_999),
        ("error -1", |a| a.error_code = -1),
        ("thirty thousand mechanisms and error 33", |a| {
            (a.error_code, a.mechanisms) = (33, vec![text("X"); 30_000]);
        }),
    ];
    for (what, edit) in handshakes {
        let deed = move |a: &Answer| a.edit(edit);
        all.push(Case::new(format!("offers {what}"), &[ApiKey::SaslHandshake], deed));
    }
    let firsts: [Said; 17] = [
        ("a nonce that is not ours", |s| attribute(s, 'r', "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
        ("our nonce alone", |s| {
            let ours = s.trim_start_matches("r=").chars().take(16).collect::<String>();
            attribute(s, 'r', &ours)
        }),
        ("no nonce", |s| attribute(s, 'r', "")),
        ("a nonce of 4 KB", |s| {
            let own = s.split(',').next().unwrap_or_default().trim_start_matches("r=").to_owned();
            attribute(s, 'r', &(own + &"x".repeat(4000)))
        }),
        ("no iterations", |s| attribute(s, 'i', "0")),
        ("one iteration", |s| attribute(s, 'i', "1")),
        ("4095 iterations", |s| attribute(s, 'i', "4095")),
        ("100001 iterations", |s| attribute(s, 'i', "100001")),
        ("4294967296 iterations", |s| attribute(s, 'i', "4294967296")),
        ("iterations below zero", |s| attribute(s, 'i', "-4096")),
        ("iterations that are no number", |s| attribute(s, 'i', "many")),
        ("no salt", |s| attribute(s, 's', "")),
        ("a salt that is no base64", |s| attribute(s, 's', "!!!")),
        ("a salt of 3 KB", |s| attribute(s, 's', &"QUFB".repeat(1000))),
        ("an extension that must be known", |s| format!("m=x,{s}")),
        ("nothing", |_| String::new()),
        ("an error in its message", |_| "e=other-error".to_owned()),
    ];
    for (what, edit) in firsts {
        let deed = move |a: &Answer| message(a, "r=", edit);
        all.push(Case::new(format!("first says {what}"), &[ApiKey::SaslAuthenticate], deed));
    }
    let lasts: [Said; 6] = [
        ("a wrong signature", |_| "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned()),
        ("a short signature", |_| "v=AAAA".to_owned()),
        ("no signature", |_| "v=".to_owned()),
        ("nothing", |_| String::new()),
        ("the first message again", |_| "r=abc,s=QUFB,i=4096".to_owned()),
        ("success and an error", |s| format!("e=no,{s}")),
    ];
    for (what, edit) in lasts {
        let deed = move |a: &Answer| message(a, "v=", edit);
        all.push(Case::new(format!("last says {what}"), &[ApiKey::SaslAuthenticate], deed));
    }
    let authenticate = [ApiKey::SaslAuthenticate];
    let codes = [(58, "SASL_AUTHENTICATION_FAILED"), (31_999, "an error that does not exist")];
    for (code, name) in codes {
        let deed = move |a: &Answer| {
            a.edit(|answer: &mut SaslAuthenticateResponse| {
                answer.error_code = code;
                answer.error_message = Some(text("\u{1b}[2J\nERROR all is lost"));
            })
        };
        all.push(Case::new(format!("answers {name}"), &authenticate, deed));
    }
    let mut raw = |what: &str, api: ApiKey, deed: fn(&Answer) -> Deed| {
        all.push(Case::new(what, &[api], deed));
    };
    raw("two thousand million mechanisms", ApiKey::SaslHandshake, |a| {
        Deed::Send(a.with(&[&[0, 0][..], &i32::MAX.to_be_bytes()].concat()))
    });
    raw("a mechanism list below zero", ApiKey::SaslHandshake, |a| {
        Deed::Send(a.with(&[0, 0, 0xff, 0xff, 0xff, 0xf0]))
    });
    raw("success at the first word", ApiKey::SaslAuthenticate, |a| {
        a.edit(|answer: &mut SaslAuthenticateResponse| {
            answer.auth_bytes = Bytes::from_static(b"v=AAAA");
        })
    });
    raw("a message of 200 KB", ApiKey::SaslAuthenticate, |a| {
        a.edit(|answer: &mut SaslAuthenticateResponse| {
            answer.auth_bytes = Bytes::from(vec![b'r'; 200_000]);
        })
    });
    raw("noise", ApiKey::SaslAuthenticate, |a| {
        Deed::Send(a.with(&(0..999u32).map(|n| ((n * 37) >> 1) as u8).collect::<Vec<_>>()))
    });
    raw("silence after the first word", ApiKey::SaslAuthenticate, |_| Deed::Stall(Vec::new()));
    raw("silence after the offer", ApiKey::SaslHandshake, |_| Deed::Stall(Vec::new()));
    raw("the end after the first word", ApiKey::SaslAuthenticate, |_| Deed::Close(Vec::new()));
    let mut harmless = |what: &str, edit: fn(&mut SaslAuthenticateResponse)| {
        let case = Case::new(what, &authenticate, move |a: &Answer| a.edit(edit));
        all.push(case.harmless());
    };
    harmless("a session that ends at once", |a| a.session_lifetime_ms = 1);
    harmless("a session that ended", |a| a.session_lifetime_ms = -1);
    harmless("a session that never ends", |a| a.session_lifetime_ms = i64::MAX);
    all.into_iter().map(Case::with_login).collect()
}

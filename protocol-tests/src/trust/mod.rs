//! Listeners that are not to be trusted: each shows a certificate, speaks TLS or answers a login in a way of its own, and
//! writes down what it hears. A case is one of them with what the operator must be told; the runner says what was wrong:
//! another error, a connection that came about, a byte of a secret or of anything but a login on the wire, or in the log.

mod certificates;
mod identity;
pub mod jdk;
mod login;
pub mod openssl;
mod peer;
mod run;
mod sasl;
mod tls;

pub use certificates::{Ca, Own, Pki};
pub use peer::Heard;
pub use run::{PASSWORD, play};

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use peer::Line;
use strait::config::resolved::Cluster;

type Listening = Pin<Box<dyn Future<Output = ()>>>;
type Listens = dyn Fn(&Pki, Line) -> Listening;

/// What must come of it.
#[derive(Clone, Copy, Debug)]
pub enum Wants {
    /// This `ST` code, and words of its text.
    Error(u16, &'static str),
    /// A connection.
    Opens,
}

/// What a listener may hear at most.
#[derive(Clone, Copy, Debug)]
pub enum Hears {
    /// No plaintext at all: the handshake does not come to its end.
    Nothing,
    /// ApiVersions, which tells nothing.
    Greeting,
    /// A login, of so many messages, none of which holds the password.
    Login(usize),
    /// The same, where the password is meant for it.
    Password,
}

/// One listener, and what must come of it.
pub struct Case {
    /// In words.
    pub name: String,
    /// The host that is dialled.
    pub host: &'static str,
    /// What the operator has written.
    pub client: fn(&Pki) -> Cluster,
    /// What it does with a connection.
    pub listener: Rc<Listens>,
    /// What must come of it.
    pub wants: Wants,
    /// What it may hear.
    pub hears: Hears,
}

/// Cases of TLS, then of SASL.
pub fn cases() -> (Vec<Case>, Vec<Case>) {
    (tls::cases(), sasl::cases())
}

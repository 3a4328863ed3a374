//! When to warn of a certificate that ends: thirty days, seven and one before, and at its end; sooner where it lives for so
//! short a time that it is renewed every day. Pure.

use std::collections::BTreeMap;

use super::validity;
use crate::error::{Action, Code, Error, Side};

const CODE: Code = Code(86);
const DAY: i64 = 86_400;
/// Seconds before the end, and the part of its whole life that must have begun to run out.
const STEPS: [(i64, i64); 4] = [(0, 1), (DAY, 16), (7 * DAY, 8), (30 * DAY, 4)];

/// What was warned of already: by whose certificate it is, its end and how far that was.
#[derive(Default)]
pub(crate) struct Told(BTreeMap<Whose, (i64, usize)>);

/// One certificate that is in use.
pub(crate) struct InUse {
    pub(crate) whose: Whose,
    pub(crate) not_after: i64,
    /// How long it is valid in all; none where only the end is known.
    pub(crate) life: Option<i64>,
}

/// Who shows a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    /// A broker, to us.
    Broker(String),
    /// We, to a cluster's brokers.
    Client,
    /// We, to who asks for telemetry.
    Telemetry,
}

impl Told {
    /// A warning that was not given yet; each step of each certificate once.
    pub(crate) fn warning(&mut self, certificate: &InUse, now: i64) -> Option<Error> {
        let left = certificate.not_after - now;
        let of_life = |part: i64| certificate.life.map_or(i64::MAX, |life| life / part);
        let reached = |&(before, part): &(i64, i64)| left <= before.min(of_life(part));
        let step = STEPS.iter().position(reached)?;
        let told = self.0.get(&certificate.whose);
        if told.is_some_and(|(end, told)| *end == certificate.not_after && *told <= step) {
            return None;
        }
        self.0.insert(certificate.whose.clone(), (certificate.not_after, step));
        Some(text(certificate, left))
    }

    /// Forgets those that are in use no more.
    pub(super) fn keep(&mut self, in_use: impl Fn(&Whose) -> bool) {
        self.0.retain(|whose, _| in_use(whose));
    }
}

fn text(certificate: &InUse, left: i64) -> Error {
    let end = validity::shown(certificate.not_after);
    let when = match left {
        ..=0 => format!("has expired ({end})"),
        _ if left < 2 * DAY => format!("expires in {} hours ({end})", left / 3600),
        _ => format!("expires in {} days ({end})", left / DAY),
    };
    let own = |text: String, keys: &str| {
        let fix =
            format!("write the new certificate and key to {keys}; they are taken while it runs");
        Error::new(CODE, Side::Local, Action::Retry, text).fix(fix)
    };
    match &certificate.whose {
        Whose::Client => own(format!("our client certificate {when}"), "`tls.cert` and `tls.key`"),
        Whose::Telemetry => own(
            format!("the certificate of the telemetry listener {when}"),
            "`telemetry.tls.cert` and `telemetry.tls.key`",
        ),
        Whose::Broker(broker) => {
            let text = format!("the certificate that it showed last {when}");
            Error::new(CODE, Side::Local, Action::Retry, text)
                .broker(broker.as_str())
                .fix("renew it on the broker; where that was done, this passes with the next new connection")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(life: Option<i64>, seconds_left: &[i64]) -> Vec<bool> {
        let mut told = Told::default();
        let certificate = InUse { whose: Whose::Client, not_after: 1_000_000_000, life };
        let warns = |left: &i64| told.warning(&certificate, 1_000_000_000 - left).is_some();
        seconds_left.iter().map(warns).collect()
    }

    #[test]
    fn each_step_is_told_once() {
        let left = [31 * DAY, 30 * DAY, 29 * DAY, 7 * DAY, 6 * DAY, DAY, 5, 0, -5];
        let wanted = [false, true, false, true, false, true, false, true, false];
        assert_eq!(steps(None, &left), wanted);
        // Whoever starts late is told where it stands, once.
        assert_eq!(steps(None, &[3 * DAY, 2 * DAY, DAY]), [true, false, true]);
        assert_eq!(steps(None, &[-DAY, -2 * DAY]), [true, false]);
    }

    #[test]
    fn a_certificate_of_a_day_is_no_worry_for_most_of_it() {
        let hour = 3600;
        let left = [24 * hour, 8 * hour, 6 * hour, 3 * hour, hour, 0];
        assert_eq!(steps(Some(DAY), &left), [false, false, true, true, true, true]);
        assert_eq!(steps(Some(90 * DAY), &[30 * DAY, 22 * DAY]), [false, true]);
    }

    #[test]
    fn a_new_certificate_begins_anew() {
        let mut told = Told::default();
        let whose = Whose::Broker("b:1".to_owned());
        let old = InUse { whose, not_after: 10 * DAY, life: None };
        let error = told.warning(&old, 9 * DAY).unwrap();
        assert_eq!(error.code, CODE);
        assert!(
            error.to_string().contains("expires in 24 hours (1970-01-11 00:00 UTC)"),
            "{error}"
        );
        assert!(error.to_string().contains("broker b:1"), "{error}");
        let new = InUse { not_after: 100 * DAY, ..old };
        assert!(told.warning(&new, 9 * DAY).is_none());
        assert!(told.warning(&new, 99 * DAY).unwrap().to_string().contains("24 hours"));
        told.keep(|whose| *whose == Whose::Client);
        assert!(told.warning(&new, 99 * DAY).is_some());
    }

    #[test]
    fn one_s_own_certificate_is_told_with_where_the_next_one_goes() {
        for (whose, what, key) in [
            (Whose::Client, "our client certificate has expired", "`tls.key`"),
            (
                Whose::Telemetry,
                "the certificate of the telemetry listener has expired",
                "`telemetry.tls.key`",
            ),
        ] {
            let in_use = InUse { whose, not_after: 0, life: None };
            let error = Told::default().warning(&in_use, 1).unwrap();
            assert!(error.message.starts_with(what), "{error}");
            assert!(error.fix.contains(key), "{error}");
        }
    }
}

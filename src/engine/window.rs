//! When a mirror may send its next batch: the rules W1-W4, under which nothing is ever appended behind a batch that was
//! refused. PURE.
//!
//! A broker orders the batches of a producer id only while it holds state for that id on that partition. Without state
//! it takes any first sequence (`ProducerAppendInfo.checkSequence`), so of two batches in flight the second may be
//! appended although the first was refused: a hole. Therefore the window is one batch until the target has proved that
//! it holds state, and one again after any doubt:
//!
//! - W1: one batch until one was acknowledged on *this* connection.
//! - W2: one batch while the newest acknowledged one, or any that would be in flight, is older than half of the broker's
//!   `producer.id.expiration.ms`: state expires by the records' own time.
//! - W3: any answer but success closes the window: all outstanding answers are read, then the target is read back, then
//!   it starts at one. Success behind a *refusal* in one window means that the target appended over a hole, or that a late
//!   request of a former life filled it: nothing counts, and the read-back stops at a hole. Behind
//!   an answer that leaves the append in doubt (REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS_AFTER_APPEND) it means nothing: the
//!   batch is in the log, and only the read-back tells whether it stays.
//! - W4: base offsets of acks increase. A smaller one means that the target was truncated or re-created.

use std::collections::VecDeque;

use super::spec::TargetFacts;
use crate::canary::{Canary, planted};

/// What the target answered is impossible under the rules: the mirror stops and nothing is committed past it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A later batch was appended although an earlier one was refused (W3).
    SuccessAfterFailure,
    /// An ack's base offset is below the end of the last one (W4).
    OffsetWentBack {
        /// The ack's base offset.
        base_offset: i64,
        /// The lowest that was possible.
        expected: i64,
    },
    /// More answers than requests.
    Unasked,
}

/// A batch that was sent and is not resolved yet.
#[derive(Clone, Debug, Hash)]
struct Sent {
    bytes: usize,
    state_time: i64,
    /// The target may have held no state when it came: it was not the only batch that could be appended.
    unfenced: bool,
}

/// What an ack says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acked {
    /// The batch is settled.
    Yes,
    /// The same; and between it and the last one the target appended something while nothing kept a late request of ours
    /// out.
    BehindOthers,
    /// Behind one in doubt: only the resync says so.
    Perhaps,
}

/// The window of one mirror.
#[derive(Clone, Debug, Hash)]
pub struct Window {
    bytes_max: usize,
    bytes: usize,
    sent: VecDeque<Sent>,
    /// W1: state is known to be there, on this connection.
    proven: bool,
    /// W1: what is outstanding went over another connection than the next batch will.
    moved: bool,
    /// W2: the time by which the state that the newest acknowledged batch left will expire.
    acked_state_time: i64,
    /// W3: closed by a failure or a doubt, until the resync.
    failed: bool,
    /// W3: a batch was refused, so nothing behind it may be appended.
    refused: bool,
    /// W4: the lowest base offset that the next ack may have.
    target_next: i64,
}

/// The time from which a batch's producer state ages on the target (W2): the newest record's, or that of the append where
/// the topic has LogAppendTime. A batch whose times are not known is as old as can be.
pub fn state_time(target: &TargetFacts, max_timestamp: i64, wall_clock_ms: i64) -> i64 {
    if target.log_append_time() { wall_clock_ms } else { max_timestamp }
}

/// State from before this time may be gone (W2).
pub fn oldest_trusted(target: &TargetFacts, wall_clock_ms: i64) -> i64 {
    wall_clock_ms.saturating_sub(target.producer_state_trusted_ms())
}

impl Window {
    /// An unproven window; acks below `target_next` are violations.
    pub fn new(bytes_max: usize, target_next: i64) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            sent: VecDeque::new(),
            proven: false,
            moved: false,
            // A first batch that is young repeats, if anything, what was young: a late request of it was fenced off.
            acked_state_time: i64::MAX,
            failed: false,
            refused: false,
            target_next,
        }
    }

    /// Whether a batch of this size and state time may be sent now.
    pub fn is_open(&self, bytes: usize, state_time: i64, oldest_trusted: i64) -> bool {
        if self.failed {
            return false;
        }
        if self.sent.is_empty() {
            return true;
        }
        let trusted = |time: i64| time >= oldest_trusted || planted(Canary::WindowWhileOld);
        let unproven = planted(Canary::WindowWithoutProof) && !self.moved;
        let has_state = unproven || (self.proven && !self.moved && trusted(self.acked_state_time));
        let keeps_state = trusted(state_time) && self.sent.iter().all(|s| trusted(s.state_time));
        has_state && keeps_state && self.bytes + bytes <= self.bytes_max
    }

    /// Notes a batch as sent.
    pub fn on_sent(&mut self, bytes: usize, state_time: i64, oldest_trusted: i64) {
        debug_assert!(!self.failed, "sent into a closed window (W3)");
        debug_assert!(self.sent.is_empty() || !self.moved, "sent beside another connection's (W1)");
        self.moved = false;
        self.bytes += bytes;
        let unfenced = state_time.min(self.acked_state_time) < oldest_trusted;
        self.sent.push_back(Sent { bytes, state_time, unfenced });
    }

    /// The oldest outstanding batch was appended at `base_offset`, `records` long.
    pub fn on_success(&mut self, base_offset: i64, records: i32) -> Result<Acked, Violation> {
        let sent = self.sent.pop_front().ok_or(Violation::Unasked)?;
        self.bytes -= sent.bytes;
        if self.refused {
            return Err(Violation::SuccessAfterFailure);
        }
        if self.failed {
            return Ok(Acked::Perhaps);
        }
        if base_offset < self.target_next {
            let expected = self.target_next;
            return Err(Violation::OffsetWentBack { base_offset, expected });
        }
        let jumps = base_offset > self.target_next;
        self.target_next = base_offset.saturating_add(i64::from(records));
        self.acked_state_time = sent.state_time;
        self.proven = !self.moved;
        Ok(if jumps && sent.unfenced { Acked::BehindOthers } else { Acked::Yes })
    }

    /// The oldest outstanding batch was refused.
    pub fn on_refusal(&mut self) -> Result<(), Violation> {
        self.on_doubt()?;
        self.refused = true;
        Ok(())
    }

    /// Whether the oldest outstanding batch was appended, or stays so, is not known.
    pub fn on_doubt(&mut self) -> Result<(), Violation> {
        let sent = self.sent.pop_front().ok_or(Violation::Unasked)?;
        self.bytes -= sent.bytes;
        self.failed = true;
        Ok(())
    }

    /// Another connection, or another broker, from the next batch on: it waits for all outstanding answers, and has proved
    /// nothing (W1).
    pub fn on_moved(&mut self) {
        self.proven = false;
        self.moved = true;
    }

    /// A transaction begins: its first batch goes alone.
    pub fn on_unproven(&mut self) {
        self.proven = false;
    }

    /// The only batch without an answer was refused, and is sent again as if it had not been sent.
    pub fn on_taken_back(&mut self) {
        if let Some(sent) = self.sent.pop_back() {
            self.bytes -= sent.bytes;
        }
    }

    /// Nothing is sent any more.
    pub fn close(&mut self) {
        self.failed = true;
    }

    /// All answers are in and the target was read back up to `target_next`: one batch, then by proof.
    pub fn on_resynced(&mut self, target_next: i64) {
        debug_assert!(self.sent.is_empty(), "resynced with answers outstanding (R1)");
        self.proven = false;
        self.failed = false;
        self.refused = false;
        self.moved = false;
        self.target_next = target_next;
    }

    /// Whether a failure closed it.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Batches without an answer.
    pub fn outstanding(&self) -> usize {
        self.sent.len()
    }

    /// Bytes that a batch may have beside what is outstanding; one batch may always be as large as it is.
    pub fn room_bytes(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes)
    }

    /// Bytes without an answer.
    pub fn outstanding_bytes(&self) -> usize {
        self.bytes
    }

    /// The target offset after the last acknowledged batch.
    pub fn target_next(&self) -> i64 {
        self.target_next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// State from before this is not trusted.
    const OLDEST: i64 = 1_000;
    const YOUNG: i64 = 2_000;
    const OLD: i64 = 999;

    fn is_open(window: &Window, bytes: usize, state_time: i64) -> bool {
        window.is_open(bytes, state_time, OLDEST)
    }

    fn proven() -> Window {
        let mut window = Window::new(100, 0);
        window.on_sent(10, YOUNG, OLDEST);
        window.on_success(0, 1).expect("in order");
        window
    }

    #[test]
    fn w1_one_batch_until_an_ack_on_this_connection() {
        let mut window = Window::new(100, 0);
        assert!(is_open(&window, 10, YOUNG));
        window.on_sent(10, YOUNG, OLDEST);
        assert!(!is_open(&window, 10, YOUNG), "the second could land behind a refused first");
        window.on_success(0, 1).expect("in order");
        window.on_sent(10, YOUNG, OLDEST);
        assert!(is_open(&window, 10, YOUNG), "proven");
        window.on_success(1, 1).expect("in order");
        window.on_moved();
        window.on_sent(10, YOUNG, OLDEST);
        assert!(!is_open(&window, 10, YOUNG), "another connection has proved nothing");
    }

    #[test]
    fn w1_a_move_waits_for_what_is_outstanding_and_takes_no_proof_from_it() {
        let mut window = proven();
        window.on_sent(10, YOUNG, OLDEST);
        window.on_sent(10, YOUNG, OLDEST);
        window.on_moved();
        assert!(!is_open(&window, 10, YOUNG));
        window.on_success(1, 1).expect("an ack on the old connection is an ack");
        assert!(!is_open(&window, 10, YOUNG));
        window.on_success(2, 1).expect("in order");
        assert!(is_open(&window, 10, YOUNG));
        window.on_sent(10, YOUNG, OLDEST);
        assert!(!is_open(&window, 10, YOUNG), "the old connection's acks prove nothing here");
    }

    #[test]
    fn w2_one_batch_while_records_are_old() {
        let mut window = proven();
        window.on_sent(10, OLD, OLDEST);
        assert!(!is_open(&window, 10, YOUNG), "an old batch in flight keeps the window at one");
        window.on_success(1, 1).expect("in order");
        window.on_sent(10, YOUNG, OLDEST);
        assert!(!is_open(&window, 10, YOUNG), "the state that an old batch left may expire");
        window.on_success(2, 1).expect("in order");
        window.on_sent(10, YOUNG, OLDEST);
        assert!(is_open(&window, 10, YOUNG), "a young batch renewed the state");
        assert!(!is_open(&window, 10, OLD), "an old one may not join it");
    }

    #[test]
    fn w2_state_ages_while_the_mirror_is_idle() {
        let mut window = proven();
        let a_day_later = OLDEST + 86_400_000;
        window.on_sent(10, a_day_later + 1, OLDEST);
        assert!(!window.is_open(10, a_day_later + 1, a_day_later), "nobody renewed the state");
        window.on_success(1, 1).expect("in order");
        window.on_sent(10, a_day_later + 1, OLDEST);
        assert!(window.is_open(10, a_day_later + 1, a_day_later));
    }

    #[test]
    fn w2_age_counts_from_half_the_expiry_and_from_the_append_where_that_is_kept() {
        let now = 1_800_000_000_000;
        let facts = TargetFacts::default();
        assert_eq!(oldest_trusted(&facts, now), now - facts.producer_state_trusted_ms());
        assert_eq!(state_time(&facts, -1, now), -1);
        facts.set_topic(1 << 20, true, false);
        assert_eq!(state_time(&facts, -1, now), now);
    }

    #[test]
    fn w3_any_failure_closes_the_window_until_the_resync() {
        let mut window = proven();
        for _ in 0..3 {
            window.on_sent(10, YOUNG, OLDEST);
        }
        window.on_success(1, 1).expect("in order");
        window.on_refusal().expect("outstanding");
        assert!(!is_open(&window, 10, YOUNG));
        window.on_refusal().expect("outstanding");
        assert_eq!(window.outstanding(), 0);
        assert!(!is_open(&window, 10, YOUNG), "drained is not resynced");
        window.on_resynced(2);
        window.on_sent(10, YOUNG, OLDEST);
        assert!(!is_open(&window, 10, YOUNG), "back to one");
    }

    #[test]
    fn w3_success_after_failure_is_a_violation() {
        let mut window = proven();
        window.on_sent(10, YOUNG, OLDEST);
        window.on_sent(10, YOUNG, OLDEST);
        window.on_refusal().expect("outstanding");
        assert_eq!(window.on_success(1, 1), Err(Violation::SuccessAfterFailure));
    }

    #[test]
    fn w3_success_behind_a_doubt_is_no_violation_and_counts_only_by_the_resync() {
        let mut window = proven();
        window.on_sent(10, YOUNG, OLDEST);
        window.on_sent(10, YOUNG, OLDEST);
        window.on_doubt().expect("outstanding");
        assert_eq!(window.on_success(2, 1), Ok(Acked::Perhaps));
        assert!(!is_open(&window, 10, YOUNG));
        assert_eq!(window.target_next(), 1, "nothing is acknowledged past the doubt");
    }

    #[test]
    fn w4_a_base_offset_may_jump_but_not_go_back() {
        let mut window = proven();
        window.on_sent(10, YOUNG, OLDEST);
        window.on_success(50, 5).expect("a foreign writer came between");
        window.on_sent(10, YOUNG, OLDEST);
        let expected = Err(Violation::OffsetWentBack { base_offset: 54, expected: 55 });
        assert_eq!(window.on_success(54, 1), expected);
    }

    #[test]
    fn w4_a_jump_is_to_be_looked_at_where_a_late_request_could_have_been_appended() {
        let ack = |window: &mut Window, state_time, base_offset| {
            window.on_sent(10, state_time, OLDEST);
            window.on_success(base_offset, 1).expect("in order")
        };
        let mut window = Window::new(100, 0);
        assert_eq!(ack(&mut window, YOUNG, 5), Acked::Yes, "state kept everything of ours out");
        assert_eq!(ack(&mut window, OLD, 6), Acked::Yes, "it follows");
        assert_eq!(ack(&mut window, OLD, 15), Acked::BehindOthers);
        assert_eq!(ack(&mut window, YOUNG, 20), Acked::BehindOthers, "the state before was old");
        assert_eq!(ack(&mut window, YOUNG, 25), Acked::Yes);
    }

    #[test]
    fn bytes_bound_the_window_but_one_batch_always_fits() {
        let mut window = proven();
        window.on_sent(60, YOUNG, OLDEST);
        assert!(is_open(&window, 40, YOUNG));
        assert!(!is_open(&window, 41, YOUNG));
        window.on_success(1, 1).expect("in order");
        assert!(is_open(&window, 1_000, YOUNG));
        assert_eq!(window.on_refusal(), Err(Violation::Unasked));
    }
}

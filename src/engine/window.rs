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
//!   it starts at one. Success after a failure in one window means the target appended over a hole: stop.
//! - W4: base offsets of acks increase. A smaller one means that the target was truncated or re-created.

use std::collections::VecDeque;

use super::spec::TargetFacts;

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
#[derive(Debug)]
struct Sent {
    bytes: usize,
    old: bool,
}

/// The window of one mirror.
#[derive(Debug)]
pub struct Window {
    bytes_max: usize,
    bytes: usize,
    sent: VecDeque<Sent>,
    /// W1: state is known to be there, on this connection.
    proven: bool,
    /// W2: the newest acknowledged batch was old, so the state may go at any scan.
    acked_old: bool,
    /// W3: closed by a failure, until the resync.
    failed: bool,
    /// W4: the lowest base offset that the next ack may have.
    target_next: i64,
}

/// Whether producer state left on the target by a batch of this `max_timestamp` may have expired, or may soon (W2). A topic
/// with LogAppendTime keeps its state by the time of the append: it does not age with the records.
pub fn is_old(target: &TargetFacts, max_timestamp: i64, wall_clock_ms: i64) -> bool {
    let oldest = wall_clock_ms.saturating_sub(target.producer_state_trusted_ms());
    !target.log_append_time() && max_timestamp < oldest
}

impl Window {
    /// An unproven window; acks below `target_next` are violations.
    pub fn new(bytes_max: usize, target_next: i64) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            sent: VecDeque::new(),
            proven: false,
            acked_old: false,
            failed: false,
            target_next,
        }
    }

    /// Whether a batch of this size and age may be sent now.
    pub fn is_open(&self, bytes: usize, old: bool) -> bool {
        if self.failed {
            return false;
        }
        if self.sent.is_empty() {
            return true;
        }
        let may_be_deep =
            self.proven && !self.acked_old && !old && !self.sent.iter().any(|s| s.old);
        may_be_deep && self.bytes + bytes <= self.bytes_max
    }

    /// Notes a batch as sent.
    pub fn on_sent(&mut self, bytes: usize, old: bool) {
        debug_assert!(self.is_open(bytes, old), "sent into a closed window (W1-W3)");
        self.bytes += bytes;
        self.sent.push_back(Sent { bytes, old });
    }

    /// The oldest outstanding batch was appended at `base_offset`, `records` long.
    pub fn on_success(&mut self, base_offset: i64, records: i32) -> Result<(), Violation> {
        let sent = self.sent.pop_front().ok_or(Violation::Unasked)?;
        self.bytes -= sent.bytes;
        if self.failed {
            return Err(Violation::SuccessAfterFailure);
        }
        if base_offset < self.target_next {
            let expected = self.target_next;
            return Err(Violation::OffsetWentBack { base_offset, expected });
        }
        self.target_next = base_offset.saturating_add(i64::from(records));
        self.acked_old = sent.old;
        self.proven = true;
        Ok(())
    }

    /// The oldest outstanding batch was refused, or its fate is unknown.
    pub fn on_failure(&mut self) -> Result<(), Violation> {
        let sent = self.sent.pop_front().ok_or(Violation::Unasked)?;
        self.bytes -= sent.bytes;
        self.failed = true;
        Ok(())
    }

    /// Closes the window for a reason other than an answer: the mirror has to read the target back.
    pub fn close(&mut self) {
        self.failed = true;
    }

    /// Another connection, or another broker, from the next batch on (W1). Only while nothing is outstanding.
    pub fn on_moved(&mut self) {
        self.proven = false;
    }

    /// All answers are in and the target was read back up to `target_next`: one batch, then by proof.
    pub fn on_resynced(&mut self, target_next: i64) {
        debug_assert!(self.sent.is_empty(), "resynced with answers outstanding (R1)");
        self.proven = false;
        self.failed = false;
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

    fn proven() -> Window {
        let mut window = Window::new(100, 0);
        window.on_sent(10, false);
        window.on_success(0, 1).expect("in order");
        window
    }

    #[test]
    fn w1_one_batch_until_an_ack_on_this_connection() {
        let mut window = Window::new(100, 0);
        assert!(window.is_open(10, false));
        window.on_sent(10, false);
        assert!(
            !window.is_open(10, false),
            "unproven: the second batch could fill a hole's far side"
        );
        window.on_success(0, 1).expect("in order");
        window.on_sent(10, false);
        assert!(window.is_open(10, false), "proven");
        window.on_success(1, 1).expect("in order");
        window.on_moved();
        window.on_sent(10, false);
        assert!(!window.is_open(10, false), "another connection has proved nothing");
    }

    #[test]
    fn w2_one_batch_while_records_are_old() {
        let mut window = proven();
        window.on_sent(10, true);
        assert!(!window.is_open(10, false), "an old batch in flight keeps the window at one");
        window.on_success(1, 1).expect("in order");
        window.on_sent(10, false);
        assert!(!window.is_open(10, false), "the state that an old batch left may expire");
        window.on_success(2, 1).expect("in order");
        window.on_sent(10, false);
        assert!(window.is_open(10, false), "a young batch renewed the state");
        assert!(!window.is_open(10, true), "an old one may not join it");
    }

    #[test]
    fn w2_age_counts_from_half_the_expiry_and_unknown_times_are_old() {
        let now = 1_800_000_000_000;
        let facts = TargetFacts::default();
        let limit = now - facts.producer_state_trusted_ms();
        assert!(!is_old(&facts, limit, now));
        assert!(is_old(&facts, limit - 1, now));
        assert!(is_old(&facts, -1, now));
        facts.set_topic(1 << 20, true, false);
        assert!(!is_old(&facts, -1, now), "append time does not age");
    }

    #[test]
    fn w3_any_failure_closes_the_window_until_the_resync() {
        let mut window = proven();
        for _ in 0..3 {
            window.on_sent(10, false);
        }
        window.on_success(1, 1).expect("in order");
        window.on_failure().expect("outstanding");
        assert!(!window.is_open(10, false));
        window.on_failure().expect("outstanding");
        assert_eq!(window.outstanding(), 0);
        assert!(!window.is_open(10, false), "drained is not resynced");
        window.on_resynced(2);
        window.on_sent(10, false);
        assert!(!window.is_open(10, false), "back to one");
    }

    #[test]
    fn w3_success_after_failure_is_a_violation() {
        let mut window = proven();
        window.on_sent(10, false);
        window.on_sent(10, false);
        window.on_failure().expect("outstanding");
        assert_eq!(window.on_success(1, 1), Err(Violation::SuccessAfterFailure));
    }

    #[test]
    fn w4_a_base_offset_may_jump_but_not_go_back() {
        let mut window = proven();
        window.on_sent(10, false);
        window.on_success(50, 5).expect("a foreign writer came between");
        window.on_sent(10, false);
        let expected = Err(Violation::OffsetWentBack { base_offset: 54, expected: 55 });
        assert_eq!(window.on_success(54, 1), expected);
    }

    #[test]
    fn bytes_bound_the_window_but_one_batch_always_fits() {
        let mut window = proven();
        window.on_sent(60, false);
        assert!(window.is_open(40, false));
        assert!(!window.is_open(41, false));
        window.on_success(1, 1).expect("in order");
        assert!(window.is_open(1_000, false));
        assert_eq!(window.on_failure(), Err(Violation::Unasked));
    }
}

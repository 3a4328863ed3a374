//! The target's leader in the model: its log, its memory of producers, requests that wait, answers on their way.
//!
//! Its memory is the embedded broker's own, which is held against real brokers (`parity`). Followers are one number: how
//! much of the log they have.

use std::collections::VecDeque;

use bytes::Bytes;
use protocol_tests::checker::{Content, Copied};
use protocol_tests::raw::parse;
use strait::embedded::Producers;
use strait::engine::anchor::Numbering;
use strait::engine::lineage::State;
use strait::engine::walk::{Hole, Seen, Walk};
use strait::wire::batch::{BatchHeader, Batches};
use strait::wire::error_code::ErrorCode;

/// What the broker says of a batch, once its followers have so much of the log.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Answer {
    pub error: ErrorCode,
    pub base_offset: i64,
    /// Batches.
    needs: usize,
}

#[derive(Clone, Debug, Default, Hash)]
pub struct Broker {
    log: Vec<Bytes>,
    end: i64,
    /// Batches that the followers have.
    replicated: usize,
    producers: Producers,
    /// Of the connection that is open.
    requests: VecDeque<Bytes>,
    answers: VecDeque<Answer>,
    /// Of connections that are dead to us, and whose they were: the broker may still work on them, in their order.
    late: Vec<(u8, VecDeque<Bytes>)>,
}

impl Broker {
    pub fn request(&mut self, batch: Bytes) {
        self.requests.push_back(batch);
    }

    pub fn has_request(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Works on the oldest request of the open connection.
    pub fn work(&mut self, replicates: bool) {
        let Some(batch) = self.requests.pop_front() else { return };
        let answer = self.append(&batch, replicates);
        self.answers.push_back(answer);
    }

    /// The same, and the answer leaves it in doubt; or does not look at it and refuses.
    pub fn work_badly(&mut self, appends: bool, error: ErrorCode, replicates: bool) {
        let Some(batch) = self.requests.pop_front() else { return };
        if appends {
            self.append(&batch, replicates);
        }
        self.answers.push_back(Answer { error, base_offset: -1, needs: 0 });
    }

    fn append(&mut self, batch: &[u8], replicates: bool) -> Answer {
        let answer = |error, base_offset, needs| Answer { error, base_offset, needs };
        match self.producers.append(batch, self.end) {
            Ok((base, stored)) => {
                if let Some(stored) = stored {
                    self.end += i64::from(header(&stored).records_count);
                    self.log.push(stored);
                }
                if replicates {
                    self.replicated = self.log.len();
                }
                // A twin's ack waits for the followers as the first one's does.
                answer(ErrorCode::NONE, base, self.log.len())
            }
            Err(error) => answer(error, -1, 0),
        }
    }

    pub fn may_answer(&self) -> bool {
        self.answers.front().is_some_and(|answer| answer.needs <= self.replicated)
    }

    pub fn answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// The open connection is dead to us.
    pub fn cut(&mut self, life: u8) {
        self.answers.clear();
        let rest = std::mem::take(&mut self.requests);
        if !rest.is_empty() {
            self.late.push((life, rest));
        }
    }

    /// What lives before this one left behind is over.
    pub fn grow_quiet(&mut self, life: u8) {
        self.late.retain(|(of, _)| *of == life);
    }

    /// Whether a connection of this life is among the dead ones.
    pub fn has_late_of(&self, life: u8) -> bool {
        self.late.iter().any(|(of, _)| *of == life)
    }

    pub fn dead_connections(&self) -> usize {
        self.late.len()
    }

    /// Works on the oldest request of a dead connection.
    pub fn work_late(&mut self, at: usize, replicates: bool) {
        if let Some(batch) = self.late[at].1.pop_front() {
            self.append(&batch, replicates);
        }
        if self.late[at].1.is_empty() {
            self.late.remove(at);
        }
    }

    /// Sees that a connection is dead.
    pub fn forget_late(&mut self, at: usize) {
        self.late.remove(at);
    }

    pub fn is_replicated(&self) -> bool {
        self.replicated == self.log.len()
    }

    pub fn replicate(&mut self) {
        self.replicated = self.log.len();
    }

    /// A follower leads: what it has is the log, and what it remembers is in it. Every connection ends.
    pub fn fail_over(&mut self) {
        self.log.truncate(self.replicated);
        self.end = self.log.last().map_or(0, |batch| header(batch).next_offset());
        self.producers = Producers::default();
        self.log.iter().for_each(|batch| self.producers.reload(batch));
        self.requests.clear();
        self.answers.clear();
        self.late.clear();
    }

    /// Whether the newest batch is so old that the memory of its producer may be gone.
    pub fn may_forget(&self, oldest_kept: i64) -> bool {
        let last = self.log.last().map(|batch| header(batch).max_timestamp);
        self.producers.states().next().is_some() && last.is_some_and(|time| time < oldest_kept)
    }

    pub fn forget(&mut self) {
        self.producers = Producers::default();
    }

    pub fn end(&self) -> i64 {
        self.end
    }

    /// DescribeProducers.
    pub fn states(&self, oldest_trusted: i64) -> Vec<State> {
        let is_young = !self.may_forget(oldest_trusted);
        let state = |(producer_id, epoch, last_sequence)| State {
            producer_id,
            epoch,
            last_sequence,
            is_young,
        };
        self.producers.states().map(state).collect()
    }

    /// Reads the log as a read-back does.
    pub fn read_back(&self, from: i64, numberings: &[Numbering]) -> Result<Seen, Hole> {
        let mut walk = Walk::new(numberings, false, self.end);
        for batch in self.log.iter().filter(|batch| header(batch).base_offset >= from) {
            walk.take(&header(batch), batch)?;
        }
        Ok(walk.finish())
    }

    /// What readers see, by the kit's own parser.
    pub fn copies(&self) -> Vec<Copied> {
        let batches = self.log.iter().flat_map(|bytes| parse(bytes).0);
        let copied = |batch: protocol_tests::raw::Parsed| {
            let (base, time) = (batch.base_offset, batch.base_timestamp);
            let copy = |record: protocol_tests::raw::RawRecord| Copied {
                offset: base + record.offset_delta,
                batch: base,
                content: Content {
                    time: time + record.timestamp_delta,
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                },
            };
            batch.records().into_iter().map(copy).collect::<Vec<_>>()
        };
        batches.flat_map(copied).collect()
    }
}

fn header(batch: &Bytes) -> BatchHeader {
    Batches::new(batch.clone()).next().unwrap().unwrap().0
}

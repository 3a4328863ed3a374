//! The deciding half of the engine: the fate of batches, and fetch sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use strait::config::resolved::{Isolation, Timestamps};
use strait::engine::admit::{Rules, Step, admit};
use strait::engine::identity::{self, Origin, Writer};
use strait::engine::route::{Forwarding, Route};
use strait::engine::session::{Delta, Session, SourcePartition, Wish};
use strait::engine::stats::Fate;
use strait::wire::ErrorCode;
use strait::wire::batch::{BatchHeader, Batches};
use strait::wire::codec::CodecError;
use strait::wire::fetch::AbortedTransaction;
use strait::wire::records::{OpenBatch, RecordsError};
use strait::wire::stamp::{Stamp, stamp};
use tokio::time::Instant;
use uuid::Uuid;

use super::batches::{OPENED_BYTES_MAX, repaired};

const OURS: Stamp =
    Stamp { producer_id: 1 << 62, producer_epoch: 1, base_sequence: 7, transactional: false };

/// Whether the sums are made right, the rules, the size limit, the aborted transactions (each two bytes: producer, first
/// offset), the wanted offset; then a partition's records.
pub(super) fn admitted(data: &Bytes) {
    let Some((&[sums, rules, size, aborted, wanted], _)) = data.split_first_chunk() else { return };
    let aborted_end = 5 + usize::from(aborted % 4) * 2;
    if data.len() < aborted_end {
        return;
    }
    let aborted: Vec<_> = data[5..aborted_end]
        .chunks_exact(2)
        .map(|pair| AbortedTransaction {
            producer_id: pair[0].into(),
            first_offset: pair[1].into(),
        })
        .collect();
    let mut records = data.slice(aborted_end..);
    if sums > 0 {
        records = repaired(&records);
    }
    if holds_a_bomb(&records) {
        return;
    }
    let rules = Rules {
        isolation: if rules & 1 == 0 {
            Isolation::ReadCommitted
        } else {
            Isolation::ReadUncommitted
        },
        timestamps: if rules & 2 == 0 { Timestamps::AsRead } else { Timestamps::Producer },
        batch_bytes_max: if size == 0 { usize::MAX } else { usize::from(size) * 16 },
    };
    let mut next = i64::from(wanted);
    let origins = vec![Origin::of_cluster("east")];
    let forwarding = Forwarding { local: true, origins, copies_max: 3, ..Forwarding::default() };
    let route = Route::new(Writer::new("fuzz", Uuid::nil(), 0), Arc::new(forwarding));
    let outcome = admit(records, &aborted, next, &rules, &route, Instant::now(), |step| {
        let (fate, step_next) = match &step {
            Step::Take(outgoing, fate) => {
                let header = BatchHeader::parse(&outgoing.batch).expect("a whole batch");
                assert!(stamp(&outgoing.batch, OURS).is_ok());
                assert!(header.is_contiguous() && !header.is_control() && header.records_count > 0);
                // What no Strait wrote, and what one brought from the origin that is named.
                assert!(identity::is_ours(outgoing.producer_id));
                let from = identity::origin_of(header.producer_id).map(|(origin, _)| origin);
                assert!(from.is_none_or(|origin| origin == Origin::of_cluster("east")));
                assert_eq!(header.records_count, outgoing.records);
                // The producers' times are not in the header where the broker has set its own.
                let known = if header.is_log_append_time() { -1 } else { header.max_timestamp };
                assert_eq!(outgoing.max_timestamp, known);
                assert!(outgoing.batch.len() <= rules.batch_bytes_max);
                assert!(!header.is_log_append_time() || rules.timestamps == Timestamps::Producer);
                assert!(*fate != Fate::Stamped || header.base_offset >= next);
                (*fate, outgoing.next_offset)
            }
            Step::Skip { next_offset, fate, .. } => (*fate, *next_offset),
        };
        let is_taken = matches!(step, Step::Take(..));
        assert_eq!(is_taken, matches!(fate, Fate::Stamped | Fate::Recoded));
        assert!(step_next > next, "{fate:?} goes from {next} to {step_next}");
        next = step_next;
    });
    if let Err(refusal) = outcome {
        assert!(!refusal.cause.to_string().is_empty());
    }
}

fn holds_a_bomb(records: &Bytes) -> bool {
    Batches::new(records.clone()).flatten().any(|(_, batch)| {
        let opened = OpenBatch::open(&batch, OPENED_BYTES_MAX);
        matches!(opened, Err(RecordsError::Codec(CodecError::TooLarge { .. })))
    })
}

/// What the broker remembers of a session.
struct Memory {
    id: i32,
    epoch: i32,
    wishes: BTreeMap<SourcePartition, Wish>,
}

impl Memory {
    /// Follows a request; None where the broker would answer with an error.
    fn follow(memory: Option<Self>, new_id: i32, delta: Delta) -> Option<Self> {
        let mut memory = match memory {
            _ if delta.session_id == 0 => Self { id: new_id, epoch: 0, wishes: BTreeMap::new() },
            Some(known) if (known.id, known.epoch) == (delta.session_id, delta.session_epoch) => {
                known
            }
            _ => return None,
        };
        memory.epoch += 1;
        memory.wishes.extend(delta.wanted);
        for partition in delta.forgotten {
            assert!(memory.wishes.remove(&partition).is_some(), "forgets what was not known");
        }
        Some(memory)
    }
}

/// Three bytes a step: what happens, and two that say more.
pub(super) fn session(data: &Bytes) {
    let mut session = Session::new();
    let mut wishes = BTreeMap::new();
    let mut broker: Option<Memory> = None;
    for step in data.chunks_exact(3) {
        let partition =
            SourcePartition { topic_id: Uuid::from_u128(1), partition: i32::from(step[1] % 8) };
        match step[0] % 8 {
            0..=2 => {
                let wish = Wish {
                    offset: step[2].into(),
                    last_fetched_epoch: 0,
                    current_leader_epoch: 0,
                    bytes_max: 1,
                };
                session.set(partition, Some(wish));
                wishes.insert(partition, wish);
            }
            3 => {
                session.set(partition, None);
                wishes.remove(&partition);
            }
            // An answer. A broker without a slot gives session 0 and remembers nothing.
            4 | 5 => {
                let delta = session.advance();
                let memory = Memory::follow(broker.take(), (step[2] % 4).into(), delta);
                let memory = memory.expect("a session that the broker has");
                assert_eq!(memory.wishes, wishes);
                assert_eq!(session.on_answer(ErrorCode::NONE, memory.id), Ok(()));
                broker = (memory.id != 0).then_some(memory);
            }
            // The broker lost the session.
            6 => {
                let _ = session.advance();
                let error = ErrorCode::FETCH_SESSION_ID_NOT_FOUND;
                assert_eq!(session.on_answer(error, 0), Err(error));
                broker = None;
            }
            // The request or its answer is lost, or the answer is of another session.
            _ => {
                let delta = session.advance();
                let named = delta.session_id;
                broker = Memory::follow(broker.take(), 9, delta);
                if step[2] & 1 == 0 || named == 0 {
                    session.reset();
                } else {
                    assert_eq!(session.on_answer(ErrorCode::NONE, named + 1), Ok(()));
                }
            }
        }
        assert_eq!(session.is_empty(), wishes.is_empty());
    }
}

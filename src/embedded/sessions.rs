//! Fetch sessions (KIP-227; `FetchManager`, `FetchContext`): a reader names its partitions once.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::wire::error_code::ErrorCode;

/// A full cache keeps sessions that were used less than this ago (`max.incremental.fetch.session...evict`).
const EVICT_AFTER_MS: i64 = 120_000;

/// One partition of a fetch, with what its session last said about it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Empty when the id means no topic.
    pub(super) topic: String,
    /// Nil when the reader names topics.
    pub(super) id: Uuid,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) last_fetched_epoch: i32,
    pub(super) bytes_max: usize,
    pub(super) said_high_watermark: i64,
    pub(super) said_log_start: i64,
}

/// A partition within a session: by id where the reader names ids, else by name.
type Key = (String, Uuid, i32);

impl Wanted {
    fn key(&self) -> Key {
        let name = if self.id.is_nil() { self.topic.clone() } else { String::new() };
        (name, self.id, self.partition)
    }
}

struct Session {
    /// The epoch that the next request must carry.
    epoch: i32,
    by_id: bool,
    /// By their place in the order that they are served in.
    partitions: BTreeMap<u64, Wanted>,
    places: HashMap<Key, u64>,
    next_place: u64,
    used_ms: i64,
}

impl Session {
    /// Takes a partition in at the end, or changes what is wanted of it where it stands.
    fn put(&mut self, wanted: Wanted) {
        let place = *self.places.entry(wanted.key()).or_insert_with(|| {
            self.next_place += 1;
            self.next_place
        });
        let known = self.partitions.get(&place);
        let said = known.map_or((-1, -1), |k| (k.said_high_watermark, k.said_log_start));
        let (said_high_watermark, said_log_start) = said;
        self.partitions.insert(place, Wanted { said_high_watermark, said_log_start, ..wanted });
    }

    /// Notes what the reader was told.
    fn say(&mut self, told: &Wanted) {
        let place = self.places.get(&told.key());
        if let Some(known) = place.and_then(|place| self.partitions.get_mut(place)) {
            known.said_high_watermark = told.said_high_watermark;
            known.said_log_start = told.said_log_start;
        }
    }

    fn take(&mut self, key: &Key) -> Option<Wanted> {
        self.partitions.remove(&self.places.remove(key)?)
    }
}

/// A broker's sessions.
#[derive(Default)]
pub(super) struct Sessions {
    slots: usize,
    sessions: BTreeMap<i32, Session>,
}

/// How a fetch relates to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// No session, now or later.
    Alone,
    /// Everything is answered, and a session begins if there is room.
    Begin,
    /// Only what changed is answered.
    Continue(i32),
}

/// What a request says about sessions.
pub(super) struct Claim {
    pub(super) id: i32,
    pub(super) epoch: i32,
    pub(super) by_id: bool,
    pub(super) partitions: Vec<Wanted>,
    pub(super) forgotten: Vec<Wanted>,
}

fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

impl Sessions {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots, sessions: BTreeMap::new() }
    }

    /// Forgets all of them, as a restart or a crowd of other readers would.
    pub(super) fn clear(&mut self) {
        self.sessions.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// The partitions to serve, in order.
    pub(super) fn claim(
        &mut self,
        claim: Claim,
        now_ms: i64,
    ) -> Result<(Mode, Vec<Wanted>), ErrorCode> {
        if claim.epoch <= 0 {
            self.sessions.remove(&claim.id);
            let mode = if claim.epoch == 0 { Mode::Begin } else { Mode::Alone };
            return Ok((mode, claim.partitions));
        }
        let session = self.sessions.get_mut(&claim.id);
        let session = session.ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        if session.epoch != claim.epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if session.by_id != claim.by_id {
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        session.epoch = next_epoch(session.epoch);
        session.used_ms = now_ms;
        for wanted in claim.partitions {
            session.put(wanted);
        }
        for forgotten in &claim.forgotten {
            session.take(&forgotten.key());
        }
        if session.partitions.is_empty() {
            self.sessions.remove(&claim.id);
            return Ok((Mode::Alone, Vec::new()));
        }
        Ok((Mode::Continue(claim.id), session.partitions.values().cloned().collect()))
    }

    /// Begins a session under `id`; 0 when there is no room.
    pub(super) fn begin(&mut self, id: i32, by_id: bool, now_ms: i64, all: &[Wanted]) -> i32 {
        if all.is_empty() || self.sessions.contains_key(&id) {
            return 0;
        }
        if self.sessions.len() >= self.slots {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used_ms);
            match oldest.map(|(id, session)| (*id, session.used_ms)) {
                Some((old, used)) if now_ms - used > EVICT_AFTER_MS => self.sessions.remove(&old),
                _ => return 0,
            };
        }
        let mut session = Session {
            epoch: 1,
            by_id,
            partitions: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
            used_ms: now_ms,
        };
        for wanted in all {
            session.put(wanted.clone());
            session.say(wanted);
        }
        self.sessions.insert(id, session);
        id
    }

    /// Notes what a reader was told of a partition. One that got data goes to the end of the order.
    pub(super) fn said(&mut self, id: i32, wanted: &Wanted, got_data: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.say(wanted);
        if got_data && let Some(served) = session.take(&wanted.key()) {
            session.put(served);
            session.say(wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(partition: i32, offset: i64) -> Wanted {
        Wanted {
            topic: "t".into(),
            id: Uuid::nil(),
            partition,
            offset,
            leader_epoch: -1,
            last_fetched_epoch: -1,
            bytes_max: 1024,
            said_high_watermark: -1,
            said_log_start: -1,
        }
    }

    fn claim(id: i32, epoch: i32, partitions: Vec<Wanted>) -> Claim {
        Claim { id, epoch, by_id: false, partitions, forgotten: Vec::new() }
    }

    #[test]
    fn a_session_keeps_what_is_left_out_until_it_is_forgotten() {
        let mut sessions = Sessions::new(1);
        let both = vec![wanted(0, 0), wanted(1, 0)];
        assert_eq!(sessions.claim(claim(0, 0, both.clone()), 0).unwrap().0, Mode::Begin);
        assert_eq!(sessions.begin(9, false, 0, &both), 9);
        let (mode, all) = sessions.claim(claim(9, 1, vec![wanted(1, 5)]), 0).unwrap();
        assert_eq!(mode, Mode::Continue(9));
        assert_eq!(all.iter().map(|w| w.offset).collect::<Vec<_>>(), [0, 5]);
        let forget = Claim { forgotten: vec![wanted(0, 0)], ..claim(9, 2, Vec::new()) };
        assert_eq!(sessions.claim(forget, 0).unwrap().1.len(), 1);
    }

    #[test]
    fn the_three_errors() {
        let mut sessions = Sessions::new(1);
        sessions.begin(9, false, 0, &[wanted(0, 0)]);
        let err = |result: Result<(Mode, Vec<Wanted>), ErrorCode>| result.map(|_| ()).unwrap_err();
        let unknown = err(sessions.claim(claim(8, 1, Vec::new()), 0));
        assert_eq!(unknown, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        let stale = err(sessions.claim(claim(9, 2, Vec::new()), 0));
        assert_eq!(stale, ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        let mixed = err(sessions.claim(Claim { by_id: true, ..claim(9, 1, Vec::new()) }, 0));
        assert_eq!(mixed, ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
    }

    #[test]
    fn who_got_data_goes_last() {
        let mut sessions = Sessions::new(1);
        sessions.begin(9, false, 0, &[wanted(0, 0), wanted(1, 0)]);
        sessions.said(9, &wanted(0, 0), true);
        let (_, order) = sessions.claim(claim(9, 1, Vec::new()), 0).unwrap();
        assert_eq!(order.iter().map(|w| w.partition).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_full_cache_refuses_until_its_oldest_is_old() {
        let mut sessions = Sessions::new(1);
        assert_eq!(sessions.begin(1, false, 0, &[wanted(0, 0)]), 1);
        assert_eq!(sessions.begin(2, false, EVICT_AFTER_MS, &[wanted(0, 0)]), 0);
        assert_eq!(sessions.begin(2, false, EVICT_AFTER_MS + 1, &[wanted(0, 0)]), 2);
        assert_eq!(sessions.len(), 1);
    }
}

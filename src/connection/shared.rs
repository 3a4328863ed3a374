//! What the handles of a connection and its task share: what is queued, what is pending and in which order, and why it ended.
//! Owns the order on the wire; never touches the socket.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::CallError;
use super::diagnosis::{Peer, Stage};
use super::waits::RoomWaits;
use crate::error::Error;
use crate::limits;
use crate::wire::{ApiKey, WireError};

/// What the handles of a connection and its task share. Single-threaded.
pub(super) struct Shared {
    pub(super) peer: Peer,
    pub(super) stage: Cell<Stage>,
    /// Frames that are larger than what was asked for wait until their lane has room.
    pub(super) waits_for_room: Cell<bool>,
    /// The one that does.
    pub(super) room_waits: Arc<RoomWaits>,
    /// Wakes those that wait for room.
    pub(super) room: Notify,
    pub(super) state: RefCell<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: VecDeque<Bytes>,
    pub(super) queued_bytes: usize,
    pub(super) pending: VecDeque<Request>,
    /// While the session is renewed: nothing but the login may go out, the rest waits its turn behind it (KIP-368).
    pub(super) is_held: bool,
    pub(super) held: VecDeque<(Vec<Bytes>, Request)>,
    /// Not after the earliest deadline of `pending` and `held`.
    pub(super) alarm: Option<Instant>,
    pub(super) next_correlation_id: i32,
    pub(super) closing: bool,
    pub(super) closed: Option<Arc<Error>>,
    pub(super) task: Option<Waker>,
}

/// A request that was queued or sent.
pub(super) struct Request {
    pub(super) correlation_id: i32,
    pub(super) api: ApiKey,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Bytes, CallError>>,
}

impl Shared {
    pub(super) fn new(peer: Peer, stage: Stage) -> Rc<Self> {
        let (stage, room, state) = (Cell::new(stage), Notify::new(), RefCell::default());
        let (waits_for_room, room_waits) = (Cell::new(false), Arc::default());
        Rc::new(Self { peer, stage, waits_for_room, room_waits, room, state })
    }

    pub(super) fn closed(&self) -> Option<Arc<Error>> {
        self.state.borrow().closed.clone()
    }

    pub(super) fn in_flight(&self) -> usize {
        let state = self.state.borrow();
        state.pending.len() + state.held.len()
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.state.borrow().queued_bytes
    }

    pub(super) fn has_room(&self) -> bool {
        self.state.borrow().has_room()
    }

    /// Queues one request; `frame` makes its bytes, size first, from the correlation id that it gets.
    pub(super) fn enqueue(
        &self,
        api: ApiKey,
        deadline: Instant,
        frame: impl FnOnce(i32) -> Result<Vec<Bytes>, WireError>,
    ) -> Result<oneshot::Receiver<Result<Bytes, CallError>>, CallError> {
        let mut state = self.state.borrow_mut();
        if let Some(error) = &state.closed {
            return Err(CallError::Closed(error.clone()));
        }
        // A login is a few small frames, and what fills the connection waits for it.
        if !state.has_room() && !is_login(api) {
            return Err(CallError::Full);
        }
        let correlation_id = state.next_correlation_id;
        state.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        let pieces = frame(correlation_id).map_err(CallError::Wire)?;
        state.queued_bytes += pieces.iter().map(Bytes::len).sum::<usize>();
        let (reply, answer) = oneshot::channel();
        let request = Request { correlation_id, api, deadline, reply };
        if state.is_held && !is_login(api) {
            state.held.push_back((pieces, request));
        } else {
            state.queue.extend(pieces);
            state.pending.push_back(request);
        }
        state.alarm = Some(state.alarm.map_or(deadline, |alarm| alarm.min(deadline)));
        if let Some(task) = state.task.take() {
            task.wake();
        }
        Ok(answer)
    }

    /// Holds back what is queued from now on, but for a login.
    pub(super) fn hold(&self) {
        self.state.borrow_mut().is_held = true;
    }

    /// Sends what was held back, in its order.
    pub(super) fn release(&self) {
        let mut state = self.state.borrow_mut();
        state.is_held = false;
        for (pieces, request) in std::mem::take(&mut state.held) {
            state.queue.extend(pieces);
            state.pending.push_back(request);
        }
        if let Some(task) = state.task.take() {
            task.wake();
        }
    }

    /// Waits until it is closed.
    pub(super) async fn ended(&self) {
        loop {
            let news = self.room.notified();
            if self.closed().is_some() {
                return;
            }
            news.await;
        }
    }

    /// Closes because of what the peer sent; the error is what later calls see.
    pub(super) fn refuse(&self, error: Error) {
        self.fail(error);
        self.close();
    }

    /// What a failed call was, as an operator reads it.
    pub(super) fn error_of(&self, error: &CallError) -> Error {
        match (error, self.closed()) {
            (CallError::Closed(error), _) => (**error).clone(),
            (CallError::Wire(_) | CallError::Deadline, Some(error)) => (*error).clone(),
            (other, _) => self.peer.error(super::diagnosis::PROTOCOL, other.to_string()),
        }
    }

    /// Asks the task to end.
    pub(super) fn close(&self) {
        let mut state = self.state.borrow_mut();
        state.closing = true;
        if let Some(task) = state.task.take() {
            task.wake();
        }
    }

    /// Ends all that is pending, in order. The first error stays.
    pub(super) fn fail(&self, error: Error) {
        let mut state = self.state.borrow_mut();
        let error = state.closed.get_or_insert_with(|| Arc::new(error)).clone();
        state.queue.clear();
        state.queued_bytes = 0;
        let held = std::mem::take(&mut state.held).into_iter().map(|(_, request)| request);
        for request in std::mem::take(&mut state.pending).into_iter().chain(held) {
            let _ = request.reply.send(Err(CallError::Closed(error.clone())));
        }
        drop(state);
        self.room.notify_waiters();
    }
}

/// Whether it is part of a login, and so of its renewal.
pub(super) fn is_login(api: ApiKey) -> bool {
    matches!(api, ApiKey::SaslHandshake | ApiKey::SaslAuthenticate)
}

impl State {
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() + self.held.len() < limits::REQUESTS_IN_FLIGHT_MAX
            && self.queued_bytes < limits::CONNECTION_QUEUE_BYTES_MAX
    }

    /// All that is pending may take so much longer.
    pub(super) fn postpone(&mut self, by: Duration) {
        let held = self.held.iter_mut().map(|(_, request)| request);
        for request in self.pending.iter_mut().chain(held) {
            request.deadline += by;
        }
        self.alarm = self.alarm.map(|alarm| alarm + by);
    }

    /// Forgets `written` bytes at the front of the queue; frames that they were slices of may return to their pools.
    pub(super) fn advance(&mut self, mut written: usize) {
        self.queued_bytes -= written;
        while let Some(front) = self.queue.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.queue.pop_front();
        }
    }
}

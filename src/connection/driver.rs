//! The task that owns both directions of one socket: it writes what was queued, in order and by reference, cuts the
//! answers into frames and gives each to the request it belongs to.
//!
//! Kafka answers the requests of a connection in their order, so the front of the queue of pending requests says what
//! the next frame must be: its correlation id, how large it may be, how its header is laid out. Anything else ends the
//! connection with a named error. Never decodes a body.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::CallError;
use super::diagnosis::Stage;
use super::pool::{Block, FramePool, SMALL_BYTES};
use super::shared::{Shared, is_login};
use super::transport::Transport;
use super::waits::RoomWait;
use crate::error::Error;
use crate::limits;
use crate::wire::ApiKey;
use crate::wire::frame::{self, FrameSize};

/// Pieces that go into one vectored write: a full rustls buffer is 64 records.
const SLICES_PER_WRITE: usize = 64;

/// The task. Ends when the connection is closed, by either side; then nothing is pending any more.
pub(super) struct Driver {
    shared: Rc<Shared>,
    transport: Transport,
    pool: FramePool,
    /// Bytes read and not yet given to a frame: several small answers come in one read.
    ahead: Box<[u8; SMALL_BYTES]>,
    ahead_start: usize,
    ahead_end: usize,
    frame: Option<Partial>,
    /// Since when it waits for the room of that: the peer has all the time.
    waits_since: Option<Instant>,
    /// How often the peer has answered.
    answers: u64,
    unflushed: bool,
    alarm: Option<Pin<Box<Sleep>>>,
}

/// A frame of which `filled` of `size` bytes have arrived.
struct Partial {
    size: usize,
    filled: usize,
    block: Block,
}

impl Driver {
    pub(super) fn new(shared: Rc<Shared>, transport: Transport, pool: FramePool) -> Self {
        Self {
            shared,
            transport,
            pool,
            ahead: Box::new([0; SMALL_BYTES]),
            ahead_start: 0,
            ahead_end: 0,
            frame: None,
            waits_since: None,
            answers: 0,
            unflushed: false,
            alarm: None,
        }
    }

    /// Writes until the queue is empty or the socket full.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let mut state = self.shared.state.borrow_mut();
            let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&state.queue) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            if count == 0 {
                break;
            }
            let write = Pin::new(&mut self.transport).poll_write_vectored(cx, &slices[..count]);
            let written = match ready!(write) {
                Ok(0) => return Poll::Ready(Err(self.lost(&io::ErrorKind::WriteZero.into()))),
                Ok(written) => written,
                Err(error) => return Poll::Ready(Err(self.lost(&error))),
            };
            self.unflushed = true;
            let had_room = state.has_room();
            state.advance(written);
            if !had_room && state.has_room() {
                self.shared.room.notify_waiters();
            }
        }
        if self.unflushed {
            let flush = ready!(Pin::new(&mut self.transport).poll_flush(cx));
            flush.map_err(|error| self.lost(&error))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads until the socket is empty. Only ever ready with an error.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        loop {
            let step = match self.frame.take() {
                Some(frame) if frame.filled == frame.size => self.deliver(frame),
                Some(frame) => ready!(self.poll_fill(cx, frame)),
                None if self.ahead_end - self.ahead_start >= 4 => self.begin(),
                None => ready!(self.poll_ahead(cx)),
            };
            if let Err(error) = step {
                return Poll::Ready(error);
            }
        }
    }

    /// Reads more of the next frame's head.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.ahead.copy_within(self.ahead_start..self.ahead_end, 0);
        self.ahead_end -= self.ahead_start;
        self.ahead_start = 0;
        let mut buffer = ReadBuf::new(&mut self.ahead[self.ahead_end..]);
        let read = ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buffer));
        let len = buffer.filled().len();
        Poll::Ready(match read {
            Ok(()) if len == 0 => Err(self.ended()),
            Ok(()) => {
                self.ahead_end += len;
                Ok(())
            }
            Err(error) => Err(self.lost(&error)),
        })
    }

    /// The peer closed between two frames.
    fn ended(&self) -> Error {
        let peer = &self.shared.peer;
        match self.shared.stage.get() {
            // Its answer is there; whoever waits for it has only not run yet.
            Stage::ApiVersions if self.answers > 0 => peer.ended(Stage::Ready, &[]),
            Stage::Ready if self.answers == 1 && self.shared.in_flight() > 0 => peer.wants_sasl(),
            stage => peer.ended(stage, &self.ahead[..self.ahead_end]),
        }
    }

    /// Starts a frame from its size, which is checked against what the request it answers may be answered with.
    fn begin(&mut self) -> Result<(), Error> {
        let ahead = &self.ahead[self.ahead_start..self.ahead_end];
        let head = [ahead[0], ahead[1], ahead[2], ahead[3]];
        let state = self.shared.state.borrow();
        let stage = self.shared.stage.get();
        let Some(request) = state.pending.front() else {
            return Err(self.shared.peer.unsolicited(stage, head));
        };
        let bytes_max = match request.api {
            api if stage != Stage::Ready || is_login(api) => limits::HANDSHAKE_FRAME_BYTES_MAX,
            ApiKey::Fetch => limits::FETCH_FRAME_BYTES_MAX,
            _ => limits::CONTROL_FRAME_BYTES_MAX,
        };
        let size = FrameSize::check(i32::from_be_bytes(head), bytes_max)
            .map_err(|error| self.shared.peer.bad_frame(stage, head, request.api, error))?;
        drop(state);
        let mut block = self.pool.take(size.min(limits::FRAME_STEP_BYTES));
        let filled = (ahead.len() - 4).min(size).min(block.as_ref().len());
        block.as_mut()[..filled].copy_from_slice(&ahead[4..4 + filled]);
        self.ahead_start += 4 + filled;
        self.frame = Some(Partial { size, filled, block });
        Ok(())
    }

    /// Reads straight into the frame. One that is larger than the first step takes the room of all of it, and may
    /// have to wait for that.
    fn poll_fill(&mut self, cx: &mut Context<'_>, mut frame: Partial) -> Poll<Result<(), Error>> {
        if frame.filled == frame.block.as_ref().len() {
            if !frame.block.has_room(frame.size) {
                let claim = match self.shared.waits_for_room.get() {
                    true => self.pool.poll_claim(frame.size, cx),
                    false => Poll::Ready(self.pool.claim(frame.size)),
                };
                let Poll::Ready(claim) = claim else {
                    if self.waits_since.is_none() {
                        let (since, bytes) = (Instant::now(), frame.size);
                        self.waits_since = Some(since);
                        self.shared.room_waits.set(Some(RoomWait { since, bytes }));
                    }
                    self.frame = Some(frame);
                    return Poll::Pending;
                };
                frame.block.move_into(claim);
                if let Some(since) = self.waits_since.take() {
                    self.shared.room_waits.set(None);
                    self.shared.state.borrow_mut().postpone(since.elapsed());
                }
            }
            frame.block.grow(frame.size);
        }
        let end = frame.size.min(frame.block.as_ref().len());
        let mut buffer = ReadBuf::new(&mut frame.block.as_mut()[frame.filled..end]);
        let read = Pin::new(&mut self.transport).poll_read(cx, &mut buffer);
        let len = buffer.filled().len();
        let result = match read {
            Poll::Ready(Ok(())) if len == 0 => {
                let stage = self.shared.stage.get();
                Poll::Ready(Err(self.shared.peer.ended_within(stage, frame.filled, frame.size)))
            }
            Poll::Ready(Ok(())) => {
                frame.filled += len;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.lost(&error))),
            Poll::Pending => Poll::Pending,
        };
        self.frame = Some(frame);
        result
    }

    /// Gives a whole frame to the request that it answers.
    fn deliver(&mut self, partial: Partial) -> Result<(), Error> {
        let bytes = partial.block.freeze(partial.size);
        let peer = &self.shared.peer;
        let mut state = self.shared.state.borrow_mut();
        let had_room = state.has_room();
        let Some(request) = state.pending.front() else {
            return Err(peer.unsolicited(self.shared.stage.get(), [0; 4]));
        };
        let (api, wanted) = (request.api, request.correlation_id);
        let undecodable = |error| peer.undecodable(api, error);
        let id = frame::correlation_id(&bytes).map_err(undecodable)?;
        if id != wanted {
            return Err(peer.wrong_correlation_id(api, wanted, id));
        }
        let body = frame::response_body(api, &bytes).map_err(undecodable)?;
        if let Some(request) = state.pending.pop_front() {
            // Nobody may be waiting any more.
            let _ = request.reply.send(Ok(body));
            self.answers += 1;
        }
        if !had_room && state.has_room() {
            self.shared.room.notify_waiters();
        }
        Ok(())
    }

    /// Ready when a request is overdue. The answers behind an overdue one are behind it on the wire too, so the
    /// connection is of no more use.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        if self.waits_since.is_some() {
            return Poll::Pending;
        }
        loop {
            let mut state = self.shared.state.borrow_mut();
            let Some(at) = state.alarm else {
                self.alarm = None;
                return Poll::Pending;
            };
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if alarm.deadline() != at {
                alarm.as_mut().reset(at);
            }
            ready!(alarm.as_mut().poll(cx));
            // The request that the alarm was set for may have been answered since.
            let held = state.held.iter().map(|(_, request)| request);
            let waiting = state.pending.iter().chain(held).map(|request| request.deadline);
            let earliest = waiting.enumerate().min_by_key(|(_, deadline)| *deadline);
            state.alarm = earliest.map(|(_, deadline)| deadline);
            let Some((index, deadline)) = earliest else { continue };
            if deadline > Instant::now() {
                continue;
            }
            let sent = state.pending.len();
            let overdue = match index.checked_sub(sent) {
                None => state.pending.remove(index),
                Some(index) => state.held.remove(index).map(|(_, request)| request),
            };
            let Some(overdue) = overdue else { continue };
            let stage = self.shared.stage.get();
            let arrived = self.frame.as_ref().map(|frame| (frame.filled, frame.size));
            let error = self.shared.peer.overdue(stage, overdue.api, arrived);
            let _ = overdue.reply.send(Err(CallError::Deadline));
            return Poll::Ready(error);
        }
    }

    fn lost(&self, error: &io::Error) -> Error {
        self.shared.peer.io(self.shared.stage.get(), error)
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let closing = {
            let mut state = this.shared.state.borrow_mut();
            state.task = Some(cx.waker().clone());
            state.closing
        };
        let error = 'ended: {
            if closing {
                break 'ended this.shared.peer.closed_by_us();
            }
            if let Poll::Ready(Err(error)) = this.poll_write(cx) {
                // What the peer said before it closed tells more than that it closed.
                match this.poll_read(cx) {
                    Poll::Ready(said) => break 'ended said,
                    Poll::Pending => break 'ended error,
                }
            }
            if let Poll::Ready(error) = this.poll_read(cx) {
                break 'ended error;
            }
            ready!(this.poll_deadline(cx))
        };
        // One try at a TLS close_notify; a peer that does not read must not hold the task.
        let _ = Pin::new(&mut this.transport).poll_shutdown(cx);
        this.shared.fail(error);
        Poll::Ready(())
    }
}

impl Drop for Driver {
    /// Also when the runtime ends or the task panics: nobody is left waiting.
    fn drop(&mut self) {
        self.shared.room_waits.set(None);
        self.shared.fail(self.shared.peer.closed_by_us());
    }
}

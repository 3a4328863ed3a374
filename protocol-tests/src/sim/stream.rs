//! One side of a simulated connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::network::{Net, Network, QUEUE_BYTES_MAX, close};

/// Dropping it closes the side, as a process that dies does.
pub(super) struct SimStream {
    network: Network,
    connection: u64,
    side: usize,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl SimStream {
    pub(super) fn new(network: Network, connection: u64, side: usize) -> Self {
        Self { network, connection, side, alarm: None }
    }

    /// Has the task come again at that time; true when it is there already.
    fn wait_until(&mut self, cx: &mut Context<'_>, at: Instant) -> bool {
        if at <= Instant::now() {
            return true;
        }
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(at)));
        alarm.as_mut().reset(at);
        alarm.as_mut().poll(cx).is_ready()
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        close(&mut self.network.lock(), self.connection, self.side);
    }
}

/// What a read finds.
enum Found {
    Bytes(Bytes),
    End,
    Reset,
    /// Nothing, and nothing before this if it is known.
    Later(Option<Instant>),
}

fn find(net: &mut Net, connection: u64, side: usize, cx: &Context<'_>, room: usize) -> Found {
    let blocked = net.is_blocked(connection) || net.is_dead(connection, side);
    // A read may end anywhere: the reader must not count on the writer's bounds.
    let room = if net.rng.chance(10) { 1 + net.rng.below(room) } else { room };
    let Some(at) = net.connections.get_mut(&connection) else { return Found::Reset };
    let incoming = &mut at.directions[1 - side];
    incoming.reader = Some(cx.waker().clone());
    let now = Instant::now();
    if let Some(until) = incoming.stalled_until.filter(|until| *until > now) {
        return Found::Later(Some(until));
    }
    if blocked {
        return Found::Later(None);
    }
    if let Some((arrives, chunk)) = incoming.chunks.front_mut() {
        if *arrives > now {
            return Found::Later(Some(*arrives));
        }
        let bytes = chunk.split_to(room.min(chunk.len()));
        if !chunk.has_remaining() {
            incoming.chunks.pop_front();
        }
        incoming.queued_bytes -= bytes.len();
        incoming.writer.take().into_iter().for_each(std::task::Waker::wake);
        net.note("read", connection << 1 | side as u64, &bytes);
        return Found::Bytes(bytes);
    }
    match incoming.ends_at {
        _ if incoming.reset => Found::Reset,
        Some(ends) if ends <= now => Found::End,
        ends => Found::Later(ends),
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let room = buffer.remaining().max(1);
            let found = find(&mut self.network.lock(), self.connection, self.side, cx, room);
            match found {
                Found::Bytes(bytes) => {
                    buffer.put_slice(&bytes);
                    return Poll::Ready(Ok(()));
                }
                Found::End => return Poll::Ready(Ok(())),
                Found::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Found::Later(None) => return Poll::Pending,
                Found::Later(Some(at)) => {
                    if !self.wait_until(cx, at) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut guard = self.network.lock();
        let net = &mut *guard;
        let (now, delay) = (Instant::now(), net.latency());
        let split = net.rng.chance(5);
        if net.is_dead(self.connection, self.side) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let Some(at) = net.connections.get_mut(&self.connection) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        // Whether the other side is still there is known only once word of it has come.
        let gone = at.directions[1 - self.side].ends_at;
        let reset = at.directions[self.side].reset || gone.is_some_and(|gone| gone <= now);
        if reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let out = &mut at.directions[self.side];
        let room = QUEUE_BYTES_MAX.saturating_sub(out.queued_bytes);
        if room == 0 {
            out.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut taken = Vec::with_capacity(slices.iter().map(|s| s.len()).sum::<usize>().min(room));
        for slice in slices {
            let part = slice.len().min(room - taken.len());
            taken.extend_from_slice(&slice[..part]);
        }
        let len = taken.len();
        if gone.is_none() && !at.closed[1 - self.side] {
            let arrives = out.last_at.unwrap_or(now).max(now + delay);
            let mut rest = Bytes::from(taken);
            if split && len > 1 {
                let first = rest.split_to(1 + net.rng.below(len - 1));
                let out = &mut at.directions[self.side];
                out.chunks.push_back((arrives, first));
                out.chunks.push_back((arrives + delay, rest));
                out.last_at = Some(arrives + delay);
            } else {
                out.chunks.push_back((arrives, rest));
                out.last_at = Some(arrives);
            }
            let out = &mut at.directions[self.side];
            out.queued_bytes += len;
            out.reader.take().into_iter().for_each(std::task::Waker::wake);
        }
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut net = self.network.lock();
        let delay = net.latency();
        if let Some(at) = net.connections.get_mut(&self.connection) {
            let out = &mut at.directions[self.side];
            let last = out.last_at.unwrap_or_else(Instant::now).max(Instant::now());
            out.ends_at.get_or_insert(last + delay);
            out.wake();
        }
        Poll::Ready(Ok(()))
    }
}

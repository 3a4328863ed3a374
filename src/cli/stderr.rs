//! Standard error behind a queue: who logs never waits for who reads.
//!
//! A pipe that nobody reads is full after 64 KiB, and then a write to it takes for ever: on a lane it would end the
//! copying. Here one thread writes, a bounded queue is before it, and what finds no room is left out and counted.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::limits::LOG_QUEUE_BYTES_MAX;

/// Clones write to the same queue. Writing never waits and never fails: where nobody reads, nobody can be told.
#[derive(Clone, Debug)]
pub struct Stderr(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Since the last time that all was written.
    lines_left_out: u64,
    writing: bool,
}

impl Stderr {
    /// Over the process's own.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> io::Result<Self> {
        Self::over(io::stderr())
    }

    fn over(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writing = shared.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writing.write(out))?;
        Ok(Self(shared))
    }

    /// Waits until all is written, at most for `patience`.
    pub fn finish(&self, patience: Duration) {
        let left = |queue: &mut Queue| queue.writing || !queue.bytes.is_empty();
        drop(self.0.written.wait_timeout_while(self.0.lock(), patience, left));
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut queue = self.0.lock();
        if queue.bytes.len() + bytes.len() > LOG_QUEUE_BYTES_MAX {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            queue.lines_left_out += lines as u64;
        } else {
            queue.bytes.extend_from_slice(bytes);
            self.0.filled.notify_one();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: it ends with the process.
    fn write(&self, mut out: impl Write) {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let mut queue = self.lock();
            while queue.bytes.is_empty() {
                queue.writing = false;
                self.written.notify_all();
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            queue.writing = true;
            std::mem::swap(&mut bytes, &mut queue.bytes);
            drop(queue);
            // A reader that is gone, or a full disk, must not end what is being copied.
            let _ = out.write_all(&bytes).and_then(|()| out.flush());
            // Only now is there a reader who could be told.
            let lines = std::mem::take(&mut self.lock().lines_left_out);
            if lines > 0 {
                tracing::warn!(lines, "lines of the log were left out: nobody read them in time");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    /// Takes a write when it is let, and shows it.
    struct Slow {
        gate: Receiver<()>,
        taken: SyncSender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.gate.recv().map_err(io::Error::other)?;
            self.taken.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_waits_holds_up_nobody_and_what_has_no_room_is_counted() {
        let (open, gate) = sync_channel(8);
        let (taken, seen) = sync_channel(8);
        let mut err = Stderr::over(Slow { gate, taken }).unwrap();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let fits = LOG_QUEUE_BYTES_MAX / line.len();
        // Some may be with the writer, the queue holds as many again.
        for _ in 0..3 * fits {
            err.write_all(&line).unwrap();
        }
        assert!(err.0.lock().lines_left_out >= fits as u64);
        assert!(err.0.lock().bytes.len() <= LOG_QUEUE_BYTES_MAX);
        err.finish(Duration::from_millis(10));
        (0..2).for_each(|_| open.send(()).unwrap());
        let written: usize = (0..2).map(|_| seen.recv().unwrap().len()).sum();
        err.finish(Duration::from_secs(10));
        let queue = err.0.lock();
        assert!(queue.bytes.is_empty() && !queue.writing);
        assert_eq!(written % line.len(), 0, "whole lines");
    }

    #[test]
    fn a_reader_that_is_gone_is_no_failure() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut err = Stderr::over(writer).unwrap();
        for _ in 0..3 {
            err.write_all(b"a line\n").unwrap();
            err.finish(Duration::from_secs(10));
        }
        assert!(err.0.lock().bytes.is_empty());
    }
}

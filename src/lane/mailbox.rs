//! The way into a lane: a bounded channel and a wake-up. The sender waits when it is full (I4); the lane never waits for
//! the sender.

use std::sync::Arc;

use crossbeam_channel as channel;
use tokio::sync::Notify;

use super::Command;
use crate::limits;

/// The control thread's end.
pub(super) struct Sender {
    commands: channel::Sender<Command>,
    wake: Arc<Notify>,
}

/// The lane's end.
pub(super) struct Mailbox {
    commands: channel::Receiver<Command>,
    wake: Arc<Notify>,
}

/// Both ends.
pub(super) fn mailbox() -> (Sender, Mailbox) {
    let (sender, receiver) = channel::bounded(limits::MAILBOX_COMMANDS_MAX);
    let wake = Arc::new(Notify::new());
    (Sender { commands: sender, wake: wake.clone() }, Mailbox { commands: receiver, wake })
}

impl Sender {
    /// Tells the lane. A lane that has ended is told nothing.
    pub(super) fn send(&self, command: Command) {
        let _ = self.commands.send(command);
        self.wake.notify_one();
    }
}

impl Mailbox {
    /// What comes next; [`Command::Stop`] when nobody can send any more.
    pub(super) async fn next(&self) -> Command {
        loop {
            match self.commands.try_recv() {
                Ok(command) => return command,
                Err(channel::TryRecvError::Disconnected) => return Command::Stop,
                Err(channel::TryRecvError::Empty) => self.wake.notified().await,
            }
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // Wakes the lane so that it sees that nobody is left; the channel itself closes right after.
        let _ = self.commands.try_send(Command::Stop);
        self.wake.notify_one();
    }
}

//! The way into a lane: a queue and a wake-up. Nobody waits: neither the lane for the sender, nor the control thread, which
//! has other lanes to see to, for a lane that is busy.
//!
//! What is in it is bounded by what exists (I4): a mirror is begun once and ended once, and where more than
//! [`limits::MAILBOX_COMMANDS_MAX`] commands wait, an end takes away the beginning that the lane has not seen.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::thread::Command;
use crate::limits;

#[derive(Default)]
struct Queue {
    commands: Mutex<VecDeque<Command>>,
    wake: Notify,
}

impl Queue {
    fn commands(&self) -> MutexGuard<'_, VecDeque<Command>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The control thread's end.
pub(super) struct Sender(Arc<Queue>);

/// The lane's end.
pub(super) struct Mailbox(Arc<Queue>);

/// Both ends.
pub(super) fn mailbox() -> (Sender, Mailbox) {
    let queue = Arc::<Queue>::default();
    (Sender(queue.clone()), Mailbox(queue))
}

impl Sender {
    /// Tells the lane; returns at once. A lane that has ended is told nothing.
    pub(super) fn send(&self, command: Command) {
        if Arc::strong_count(&self.0) == 1 {
            return;
        }
        let mut commands = self.0.commands();
        let unseen = match &command {
            Command::Remove(id, ..) if commands.len() >= limits::MAILBOX_COMMANDS_MAX => {
                commands.iter().rposition(|c| matches!(c, Command::Add(spec, _) if spec.id == *id))
            }
            _ => None,
        };
        match unseen {
            Some(at) => drop(commands.remove(at)),
            None => commands.push_back(command),
        }
        drop(commands);
        self.0.wake.notify_one();
    }
}

impl Mailbox {
    /// What comes next; [`Command::Stop`] when nobody can send any more.
    pub(super) async fn next(&self) -> Command {
        loop {
            if let Some(command) = self.0.commands().pop_front() {
                return command;
            }
            if Arc::strong_count(&self.0) == 1 {
                return Command::Stop;
            }
            self.0.wake.notified().await;
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.commands().push_back(Command::Stop);
        self.0.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::spec::Leave;
    use crate::engine::spec::tests::spec;
    use crate::engine::stats::MirrorStats;
    use tokio::sync::oneshot;

    fn add(partition: i32) -> Command {
        let spec = spec(partition);
        let (link, topic) = (spec.id.link.clone(), spec.id.topic.clone());
        let stats = MirrorStats::new(link, topic.clone(), topic, partition);
        Command::Add(spec, Arc::new(stats))
    }

    #[tokio::test]
    async fn a_lane_that_is_busy_holds_up_nobody_and_hears_everything_in_order() {
        let (sender, mailbox) = mailbox();
        let count = 2 * limits::MAILBOX_COMMANDS_MAX as i32;
        // On one thread: a queue that filled up would wait for itself.
        (0..count).for_each(|partition| sender.send(add(partition)));
        for expected in 0..count {
            let Command::Add(spec, _) = mailbox.next().await else { panic!("{expected}") };
            assert_eq!(spec.id.partition, expected);
        }
        drop(sender);
        assert!(matches!(mailbox.next().await, Command::Stop));
    }

    #[tokio::test]
    async fn beginnings_and_ends_that_a_lane_does_not_hear_do_not_pile_up() {
        let (sender, mailbox) = mailbox();
        (0..limits::MAILBOX_COMMANDS_MAX as i32).for_each(|partition| sender.send(add(partition)));
        let mut waits = Vec::new();
        for _ in 0..1000 {
            sender.send(add(7_000_000));
            let (done, left) = oneshot::channel();
            sender.send(Command::Remove(spec(7_000_000).id, Leave::AtOnce, done));
            waits.push(left);
        }
        assert_eq!(mailbox.0.commands().len(), limits::MAILBOX_COMMANDS_MAX);
        for left in waits {
            assert!(left.await.is_err(), "as good as let go");
        }
    }
}

//! A bounded queue from one thread's runtime to another's: a crossbeam channel with a wake-up on each side. Nobody blocks
//! and nobody spins: who finds it full, or empty, waits as a task does.

use std::sync::Arc;

use crossbeam_channel::{TryRecvError, TrySendError};
use tokio::sync::Notify;

#[derive(Default)]
struct Bells {
    /// Something was put in.
    filled: Notify,
    /// Something was taken out.
    emptied: Notify,
}

/// Rings when it is dropped, on both sides: an end that is gone is news to the other.
struct End(Arc<Bells>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.filled.notify_one();
        self.0.emptied.notify_waiters();
    }
}

/// Puts in. The fields are dropped in their order: whoever is woken finds the other end gone.
pub struct Sender<T> {
    items: crossbeam_channel::Sender<T>,
    bells: End,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), bells: End(self.bells.0.clone()) }
    }
}

/// Takes out; there is one.
pub struct Receiver<T> {
    items: crossbeam_channel::Receiver<T>,
    bells: End,
}

/// Both ends of a queue that holds `bound` items.
pub fn channel<T>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = crossbeam_channel::bounded(bound.max(1));
    let bells = Arc::<Bells>::default();
    let sender = Sender { items: sender, bells: End(bells.clone()) };
    (sender, Receiver { items: receiver, bells: End(bells) })
}

impl<T> Sender<T> {
    /// Puts an item in, when there is room. False if nobody takes out any more.
    pub async fn send(&self, mut item: T) -> bool {
        loop {
            // Made before the look, so that room that comes between the two is heard of.
            let room = self.bells.0.emptied.notified();
            match self.items.try_send(item) {
                Ok(()) => {
                    self.bells.0.filled.notify_one();
                    return true;
                }
                Err(TrySendError::Full(back)) => item = back,
                Err(TrySendError::Disconnected(_)) => return false,
            }
            room.await;
        }
    }
}

impl<T> Receiver<T> {
    /// The next item, in the order that they were put in; none when nobody puts in any more.
    pub async fn next(&mut self) -> Option<T> {
        loop {
            match self.items.try_recv() {
                Ok(item) => {
                    self.bells.0.emptied.notify_waiters();
                    return Some(item);
                }
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
            self.bells.0.filled.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a future on a thread and a runtime of its own.
    fn elsewhere<T: Send + 'static>(
        future: impl Future<Output = T> + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
        })
    }

    #[tokio::test]
    async fn a_full_queue_is_waited_for_and_everything_arrives_in_order() {
        let (sender, mut receiver) = channel(2);
        let numbers = elsewhere(async move {
            let mut numbers = Vec::new();
            while let Some(number) = receiver.next().await {
                numbers.push(number);
            }
            numbers
        });
        for number in 0..10_000 {
            assert!(sender.send(number).await);
        }
        drop(sender);
        assert_eq!(numbers.join().unwrap(), Vec::from_iter(0..10_000));
    }

    #[tokio::test]
    async fn many_that_wait_for_room_all_get_it() {
        let (sender, mut receiver) = channel(1);
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let sender = sender.clone();
                elsewhere(async move {
                    for _ in 0..1000 {
                        assert!(sender.send(()).await);
                    }
                })
            })
            .collect();
        drop(sender);
        let mut count = 0;
        while receiver.next().await.is_some() {
            count += 1;
        }
        assert_eq!(count, 4000);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }

    #[tokio::test]
    async fn an_end_that_goes_wakes_the_other() {
        let (sender, mut receiver) = channel::<()>(1);
        assert!(sender.send(()).await);
        let waits = elsewhere(async move { sender.send(()).await });
        assert!(receiver.next().await.is_some());
        assert!(receiver.next().await.is_some());
        assert!(waits.join().unwrap());
        assert!(receiver.next().await.is_none());

        let (sender, receiver) = channel::<()>(1);
        assert!(sender.send(()).await);
        let waits = elsewhere(async move { sender.send(()).await });
        drop(receiver);
        assert!(!waits.join().unwrap());
    }
}

//! The second thread of a lane whose engine is `split`: it dials the source's brokers, decrypts what they send and cuts it
//! into answers, while the lane's core is free to do the rest. Decrypting one hot mirror's source and encrypting to its
//! target is then no longer one core's work.
//!
//! Owns the lane's data connections to the source, each with a task of its own. Holds nothing of a mirror: what comes next
//! and in which order is decided on the lane alone (I1, I2), which asks for one answer at a time, and what an answer stands
//! in is of the lane's own pool (I5).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;

use super::handoff::{self, Receiver, Sender};
use super::share::Share;
use super::stats::Board;
use super::tasks;
use crate::cluster::ClusterHandle;
use crate::connection::{CallError, Connection, RoomWait, RoomWaits, SessionEnd};
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use crate::limits;
use crate::wire::fetch::{FetchRequest, FetchResponse};

/// A lane's way to its reader.
#[derive(Clone)]
pub struct Reader(Sender<Dial>);

/// What a reader is told.
pub struct Dial {
    cluster: ClusterHandle,
    broker: i32,
    reply: oneshot::Sender<Result<Line, Error>>,
}

/// A request to go out over a line.
struct Call {
    request: FetchRequest,
    deadline: Duration,
    reply: oneshot::Sender<Result<FetchResponse, CallError>>,
}

/// The lane's end of a connection that its reader holds; dropping it closes that.
pub(super) struct Line {
    calls: Sender<Call>,
    session: Arc<SessionEnd>,
    room_waits: Arc<RoomWaits>,
    closed: Arc<OnceLock<Arc<Error>>>,
}

/// What a fetcher reads from.
pub(super) enum SourceConnection {
    /// On the lane itself.
    OfLane(Connection),
    /// On its reader.
    OfReader(Line),
}

/// A reader's two ends: the lane's, and what [`serve`] takes.
pub fn reader() -> (Reader, Receiver<Dial>) {
    let (sender, receiver) = handoff::channel(limits::READER_DIALS_MAX);
    (Reader(sender), receiver)
}

/// Reads for a lane, until that is gone.
pub async fn serve(env: Env, board: Arc<Board>, mut dials: Receiver<Dial>) {
    while let Some(dial) = dials.next().await {
        spawn(&board, hold(env.clone(), dial));
    }
}

fn spawn(board: &Arc<Board>, task: impl Future<Output = ()> + 'static) {
    tasks::spawn(board, "a reader".to_owned(), task);
}

/// A connection for data, on whichever thread.
async fn connect(cluster: &ClusterHandle, env: &Env, broker: i32) -> Result<Connection, Error> {
    let connection = cluster.connect(env, broker).await?;
    connection.wait_for_room();
    Ok(connection)
}

/// Holds one connection, from its dialling until the lane lets go of it.
async fn hold(env: Env, dial: Dial) {
    let Dial { cluster, broker, mut reply } = dial;
    let opened = tokio::select! {
        biased;
        () = reply.closed() => return,
        opened = connect(&cluster, &env, broker) => opened,
    };
    let connection = match opened {
        Ok(connection) => connection,
        Err(error) => {
            // The lane may have gone on meanwhile; so below.
            let _ = reply.send(Err(error));
            return;
        }
    };
    let (calls, mut waiting) = handoff::channel::<Call>(limits::READER_CALLS_MAX);
    let closed = Arc::<OnceLock<_>>::default();
    let (session, room_waits) = (connection.session(), connection.room_waits());
    let line = Line { calls, session, room_waits, closed: closed.clone() };
    if reply.send(Ok(line)).is_err() {
        return;
    }
    let tell = async {
        connection.ended().await;
        if let Some(error) = connection.closed() {
            // It ends once.
            let _ = closed.set(error);
        }
        std::future::pending().await
    };
    let answer_all = async {
        while let Some(call) = waiting.next().await {
            answer(&connection, call).await;
        }
    };
    tokio::select! {
        biased;
        () = tell => {}
        () = answer_all => {}
    }
}

/// Asks what the lane wants to know, unless that is gone.
async fn answer(connection: &Connection, call: Call) {
    let Call { request, deadline, mut reply } = call;
    let answer = tokio::select! {
        biased;
        // Whoever asked is gone.
        () = reply.closed() => return,
        answer = connection.call(&request, deadline) => answer,
    };
    let _ = reply.send(answer);
}

/// The reader's thread has ended: so does the engine.
fn gone() -> Error {
    Error::new(Code(72), Side::Local, Action::Stop, "the lane's reader has ended")
}

impl Reader {
    async fn dial(&self, cluster: ClusterHandle, broker: i32) -> Result<Line, Error> {
        let (reply, line) = oneshot::channel();
        self.0.send(Dial { cluster, broker, reply }).await;
        line.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl SourceConnection {
    /// Whether it is closed, or its SASL session ends soon: nothing more is asked over it.
    pub(super) fn is_ending(&self) -> bool {
        match self {
            Self::OfLane(connection) => connection.is_ending(),
            Self::OfReader(line) => line.closed.get().is_some() || line.session.is_near(),
        }
    }

    /// Which answer waits for its lane's memory, if one does.
    pub(super) fn room_wait(&self) -> Option<RoomWait> {
        match self {
            Self::OfLane(connection) => connection.room_waits().get(),
            Self::OfReader(line) => line.room_waits.get(),
        }
    }

    /// Why it can no longer be used.
    pub(super) fn closed(&self) -> Option<Arc<Error>> {
        match self {
            Self::OfLane(connection) => connection.closed(),
            Self::OfReader(line) => line.closed.get().cloned(),
        }
    }

    /// Asks, and waits for the answer.
    pub(super) async fn fetch(
        &self,
        request: FetchRequest,
        deadline: Duration,
    ) -> Result<FetchResponse, CallError> {
        match self {
            Self::OfLane(connection) => connection.call(&request, deadline).await,
            Self::OfReader(line) => {
                let (reply, answer) = oneshot::channel();
                line.calls.send(Call { request, deadline, reply }).await;
                answer.await.unwrap_or_else(|_| Err(CallError::Closed(Arc::new(gone()))))
            }
        }
    }
}

impl Share {
    /// A connection to fetch from a source broker, where the lane's arrangement wants it.
    pub(super) async fn dial_source(&self, broker: i32) -> Result<SourceConnection, Error> {
        let source = &self.link.source;
        match &self.reader {
            None => connect(source, &self.env, broker).await.map(SourceConnection::OfLane),
            Some(reader) => {
                reader.dial(source.clone(), broker).await.map(SourceConnection::OfReader)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::common::Isolation;
    use tokio::task::LocalSet;
    use tokio::time::Instant;

    #[tokio::test]
    async fn a_panic_of_a_reader_ends_the_engine() {
        let board = Arc::new(Board::default());
        let local = LocalSet::new();
        local.run_until(async { spawn(&board, async { panic!("a test's own") }) }).await;
        local.await;
        assert_eq!(board.failure().map(|error| error.code), Some(Code(72)));
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_is_an_error_and_no_standstill() {
        let (calls, waiting) = handoff::channel(1);
        let (session, room_waits, closed) = (Arc::default(), Arc::default(), Arc::default());
        let line = SourceConnection::OfReader(Line { calls, session, room_waits, closed });
        drop(waiting);
        let request = FetchRequest {
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: 1,
            isolation: Isolation::ReadCommitted,
            session_id: 0,
            session_epoch: 0,
            topics: Vec::new(),
            forgotten: Vec::new(),
            rack: String::new(),
        };
        let error = line.fetch(request, Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(&error, CallError::Closed(error) if error.code == Code(72)), "{error}");
        assert!(!line.is_ending());
        let session = Arc::<SessionEnd>::default();
        session.leave(Some(Instant::now()));
        let (calls, _waiting) = handoff::channel(1);
        let (room_waits, closed) = (Arc::default(), Arc::default());
        let line = Line { calls, session, room_waits, closed };
        assert!(SourceConnection::OfReader(line).is_ending());
    }
}

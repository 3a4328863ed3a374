//! Tasks whose panic nobody may miss: one that is gone leaves its mirrors silent while everything looks well.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use super::stats::Board;
use crate::error::{Action, Code, Error, Side};

/// Runs a task of `whose` on the calling thread; a panic in it ends the engine.
pub(super) fn spawn(board: &Arc<Board>, whose: String, task: impl Future<Output = ()> + 'static) {
    let board = board.clone();
    tokio::task::spawn_local(async move {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            let message = format!("a task of {whose} panicked; this is a bug in Strait");
            board.fail(Error::new(Code(72), Side::Local, Action::Stop, message));
        }
    });
}

//! `mortal CONFIG MOMENT TIMES`: the engine, which dies without a word when it reaches a moment for so many times; or
//! drains at SIGTERM, if it gets so far.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper fails the test")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use strait::config;
use strait::env::{BoxFuture, Env, Listener, Moment, Stream, World};
use strait::strait::Strait;
use tokio::signal::unix::{SignalKind, signal};

/// The real world, up to a moment.
struct Mortal {
    real: Env,
    moment: Moment,
    times_left: AtomicU32,
}

impl World for Mortal {
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.real.world().resolve(host, port)
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        self.real.world().connect(to)
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.real.world().listen(at)
    }

    fn wall_clock_ms(&self) -> i64 {
        self.real.wall_clock_ms()
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        self.real.world().fill_random(buffer);
    }

    fn reached(&self, moment: Moment) {
        if moment == self.moment && self.times_left.fetch_sub(1, Relaxed) == 1 {
            eprintln!("dies at {moment:?}");
            // Like SIGKILL: nothing is unwound, flushed or said.
            std::process::abort();
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, path, moment, times] = &arguments[..] else { panic!("mortal CONFIG MOMENT TIMES") };
    let moment = Moment::ALL.into_iter().find(|m| format!("{m:?}") == *moment).expect("a moment");
    let times_left = AtomicU32::new(times.parse().expect("a number"));
    let env = Env::of(Arc::new(Mortal { real: Env::real(), moment, times_left }));
    let config = config::load(path.as_ref()).expect("a configuration").config;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        let handle = Strait::builder(config).env(env).start().expect("an engine");
        terminate.recv().await;
        handle.drain(Duration::from_secs(9)).await;
    });
}

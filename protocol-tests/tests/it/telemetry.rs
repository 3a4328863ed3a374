//! The telemetry listener of a running process: who is let in, and what a crowd of peers that mean no good costs.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ::strait::env::Env;
use protocol_tests::certs::{Authority, Leaf};
use protocol_tests::copying::sized;
use protocol_tests::ports;
use protocol_tests::process::Guarded;
use protocol_tests::strait;
use protocol_tests::wait::{wait_for, wait_until};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use crate::stage::Stage;

#[test]
fn telemetry_is_not_opened_to_others_without_tls_and_a_token() {
    let stage = Stage::new("open");
    let port = ports::free();
    let own = format!("listen: \"127.0.0.1:{port}\"");
    let text = stage.config.yaml(port).replace(&own, &format!("listen: \"0.0.0.0:{port}\""));
    for verb in [&["run"][..], &["check"], &["check", "--offline"]] {
        let output = strait::run(&text, verb);
        assert_eq!(output.code, 78, "{verb:?}: {output:?}");
        let said = format!("{}{}", output.out, output.err);
        assert!(said.contains("is open to others without TLS and a token"), "{said}");
        assert!(said.contains("or listen at 127.0.0.1"), "{said}");
    }
}

/// A process whose telemetry has TLS and a token, all in files.
struct Closed {
    folder: TempDir,
    text: String,
    port: u16,
}

impl Closed {
    fn new(stage: &Stage) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), ports::free());
        let at = |name: &str| folder.path().join(name).display().to_string();
        let tls = format!(
            "hosts: [strait.example], token_file: \"{}\", tls: {{ cert: \"{}\", key: \"{}\", ca: \"{}\" }}",
            at("token"),
            at("own.pem"),
            at("own.key"),
            at("ca.pem")
        );
        let own = format!("listen: \"127.0.0.1:{port}\"");
        let text = stage.config.yaml(port).replace(&own, &format!("{own}, {tls}"));
        fs::write(folder.path().join("strait.yaml"), &text).unwrap();
        Self { folder, text, port }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts these in place, as whoever renews them does.
    fn renew(&self, authority: &Authority, token: &str) {
        self.renew_until(authority, None, token);
    }

    /// The same, with a certificate that ends at a second since 1970.
    fn renew_until(&self, authority: &Authority, end: Option<u64>, token: &str) {
        let Leaf { cert, key, .. } =
            authority.leaf(&["strait.example", "127.0.0.1"], "telemetry", |params| {
                if let Some(end) = end {
                    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
                }
            });
        for (from, to) in [(cert, "own.pem"), (key, "own.key"), (authority.ca(), "ca.pem")] {
            fs::copy(from, self.path(to)).unwrap();
        }
        fs::write(self.path("token"), token).unwrap();
    }

    /// What `strait status` says with these arguments.
    fn status(&self, arguments: &[&str]) -> strait::Output {
        let output = strait::run(&self.text, &[&["status", "-o", "json"], arguments].concat());
        assert!(!format!("{output:?}").contains("canary"), "a token is told: {output:?}");
        output
    }

    /// What it says of its own listener.
    fn own(&self) -> serde_json::Value {
        let status: serde_json::Value = serde_json::from_str(&self.status(&[]).out).unwrap();
        status["telemetry"].clone()
    }

    fn wait_status(&self) {
        wait_for("status over TLS", 20, || match self.status(&[]) {
            output if output.code == 0 && output.out.contains("strait.status/1") => Ok(()),
            output => Err(output),
        });
    }
}

#[test]
fn status_is_told_over_tls_to_who_has_the_token_and_both_are_taken_anew() {
    let stage = Stage::new("closed");
    let closed = Closed::new(&stage);
    let first = Authority::new("first");
    closed.renew(&first, "canary-0123456789abcdef");
    let command = [strait::binary().display().to_string(), "run".into(), "-c".into()];
    let command = [&command[..], &[closed.path("strait.yaml").display().to_string()]].concat();
    let log = closed.path("log");
    let mut process = Guarded::start(&command, &log, &[]);
    closed.wait_status();

    let (ca, token) = (first.ca(), closed.path("token"));
    let stranger = Authority::new("stranger");
    let wrong = closed.path("wrong");
    fs::write(&wrong, "canary-0123456789abcdeg").unwrap();
    let url = format!("https://127.0.0.1:{}", closed.port);
    let ask = |url: &str, ca: &PathBuf, token: &PathBuf| {
        let (ca, token) = (ca.to_str().unwrap(), token.to_str().unwrap());
        closed.status(&["--telemetry", url, "--telemetry-ca", ca, "--telemetry-token-file", token])
    };
    assert_eq!(ask(&url, &ca, &token).code, 0);
    for (output, says) in [
        (ask(&url, &ca, &wrong), "401"),
        (ask(&url, &stranger.ca(), &token), "certificate"),
        (ask(&url.replace("https", "http"), &ca, &token), "ST-007"),
    ] {
        assert!(output.code == 1 && output.err.contains(says), "{says}: {output:?}");
    }
    // No token is needed to hear that it lives, and none is told.
    closed.renew(&Authority::new("second"), "canary-fedcba9876543210");
    closed.wait_status();
    assert_eq!(ask(&url, &ca, &token).code, 1, "the first certificate is shown no more");
    assert_eq!(ask(&url, &closed.path("ca.pem"), &wrong).code, 1);

    fs::write(closed.path("own.key"), "no key").unwrap();
    wait_until("a word on the key", 20, || {
        fs::read_to_string(&log).unwrap().contains("telemetry does not use a changed file")
    });
    closed.wait_status();
    process.signal("TERM");
    assert_eq!(process.wait(20), 0);
    assert!(!fs::read_to_string(&log).unwrap().contains("canary"));
}

#[test]
fn the_end_of_the_listener_s_own_certificate_is_told_ahead() {
    let stage = Stage::new("listener-ends");
    let closed = Closed::new(&stage);
    let (authority, token) = (Authority::new("ends"), "canary-0123456789abcdef");
    closed.renew(&authority, token);
    let command = [strait::binary().display().to_string(), "run".into(), "-c".into()];
    let command = [&command[..], &[closed.path("strait.yaml").display().to_string()]].concat();
    let log = closed.path("log");
    let read_log = || fs::read_to_string(&log).unwrap();
    let mut process = Guarded::start(&command, &log, &[]);
    closed.wait_status();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let first = closed.own()["certificate_expires_ms"].as_u64().unwrap();
    assert!(first > (now + 30 * 86_400) * 1000, "{first}");

    let soon = now + 5 * 86_400;
    closed.renew_until(&authority, Some(soon), token);
    wait_until("the warning", 20, || read_log().contains("ST-086"));
    let told = "the certificate of the telemetry listener expires in 4 days";
    assert!(read_log().contains(told), "{}", read_log());
    assert_eq!(closed.own()["certificate_expires_ms"], soon * 1000);
    assert_eq!(closed.own()["reloads"], 1);

    // One that has ended does not take the place of one that works.
    closed.renew_until(&authority, Some(now - 86_400), token);
    wait_until("the refusal", 20, || read_log().contains("ST-085"));
    let own = closed.own();
    assert_eq!(own["certificate_expires_ms"], soon * 1000);
    assert_eq!((&own["reloads"], &own["reloads_refused"]), (&1.into(), &1.into()));
    let refused = own["files_refused"]["message"].as_str().unwrap();
    assert!(refused.contains("own.pem: expired on"), "{refused}");
    let table = strait::run(&closed.text, &["status"]);
    assert!(table.out.contains("! telemetry  FILES NOT USED"), "{table:?}");

    process.signal("TERM");
    assert_eq!(process.wait(20), 0);
    assert_eq!(read_log().matches("ST-086").count(), 1, "each step is told once");
}

/// Peers that begin a request, send a byte of it each second, and come again when they are cut.
struct Flood {
    stop: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(port: u16, peers: usize) -> Self {
        let (stop, came) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (is_over, counted) = (stop.clone(), came.clone());
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                for _ in 0..peers {
                    let counted = counted.clone();
                    tokio::spawn(async move {
                        loop {
                            if let Ok(mut peer) = Env::real().world().connect(at).await {
                                counted.fetch_add(1, Ordering::Relaxed);
                                let mut says: &[u8] = b"GET /metrics HTTP/1.1\r\nX: ";
                                while peer.write_all(says).await.is_ok() {
                                    says = b"a";
                                    sleep(Duration::from_secs(1)).await;
                                }
                            }
                            sleep(Duration::from_millis(100)).await;
                        }
                    });
                }
                while !is_over.load(Ordering::Relaxed) {
                    sleep(Duration::from_millis(20)).await;
                }
            });
        });
        Self { stop, came, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_flood_of_slow_peers_stops_neither_a_scrape_nor_copying() {
    let peers = sized(500, 10_000);
    let stage = Stage::new("flood");
    let strait = stage.start();
    stage.append_many(0..100);
    stage.wait_committed(&strait, 30);
    let before = strait.usage();
    let flood = Flood::start(strait.telemetry_port(), peers);
    wait_until("as many peers", 120, || flood.came.load(Ordering::Relaxed) >= peers);
    let (mut slowest_scrape, mut slowest_copy) = (Duration::ZERO, Duration::ZERO);
    for round in 1..=sized(3, 20) {
        let began = Instant::now();
        let (code, metrics) = wait_for("a scrape", 20, || strait.get("/metrics"));
        assert!(code == 200 && metrics.contains("strait_build_info"), "{code}");
        slowest_scrape = slowest_scrape.max(began.elapsed());
        let began = Instant::now();
        stage.append_many(round * 100..(round + 1) * 100);
        let arrived = usize::try_from((round + 1) * 100).unwrap();
        wait_until("the records of a round", 20, || stage.arrived().len() == arrived);
        slowest_copy = slowest_copy.max(began.elapsed());
    }
    let grown = strait.usage().rss_bytes.saturating_sub(before.rss_bytes);
    let came = flood.came.load(Ordering::Relaxed);
    eprintln!(
        "{peers} peers, {came} connections: slowest scrape {slowest_scrape:?}, slowest copy \
         {slowest_copy:?}, {} KiB more",
        grown >> 10
    );
    drop(flood);
    assert!(slowest_scrape < Duration::from_secs(10), "{slowest_scrape:?}");
    assert!(slowest_copy < Duration::from_secs(5), "{slowest_copy:?}");
    assert!(grown < 16 << 20, "{grown} bytes more");
}

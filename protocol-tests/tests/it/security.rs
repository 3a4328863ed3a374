//! Certificates and secrets that change under load, and SASL sessions that end, between embedded brokers and the real binary.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use protocol_tests::certs::{Authority, Leaf};
use protocol_tests::copying::sized;
use protocol_tests::raw::Batch;
use protocol_tests::strait::{Config, Strait};
use protocol_tests::wait::{wait_pacing, wait_until};
use strait::embedded::{EmbeddedCluster, Listener, Mechanism, Options, User};
use strait::env::Env;

use crate::stage::seen;

const PASSWORD: &str = "canary-Passw0rd+42";
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// Two clusters that want to know who comes, and the files that say so.
struct Guarded {
    source: EmbeddedCluster,
    target: EmbeddedCluster,
    config: Config,
    files: tempfile::TempDir,
    written: u32,
}

impl Guarded {
    /// Over TLS and SASL: SCRAM on the source, PLAIN on the target, the password in a file.
    fn with_sasl(name: &str, authority: &Authority, max_reauth: Option<Duration>) -> Self {
        let server = authority.server(&NAMES).server_config();
        let files = tempfile::tempdir().unwrap();
        fs::write(files.path().join("password"), PASSWORD).unwrap();
        let options = |mechanism| Options {
            listeners: vec![Listener::tls(server.clone()).with_sasl()],
            users: vec![User { name: "strait".into(), password: PASSWORD.into() }],
            mechanisms: vec![mechanism],
            max_reauth,
            auto_create_topics: false,
            ..Options::default()
        };
        let scram = EmbeddedCluster::start(Env::real(), options(Mechanism::ScramSha512)).unwrap();
        let plain = EmbeddedCluster::start(Env::real(), options(Mechanism::Plain)).unwrap();
        let (ca, password) = (authority.ca(), files.path().join("password"));
        let entry = |cluster: &EmbeddedCluster, mechanism: &str| {
            format!(
                "{{ bootstrap: [\"{}\"], tls: {{ ca: \"{}\" }}, sasl: {{ mechanism: {mechanism}, username: strait, \
                 password_file: \"{}\" }} }}",
                cluster.bootstrap(),
                ca.display(),
                password.display()
            )
        };
        let config = Config::between(
            name,
            entry(&scram, "SCRAM-SHA-512"),
            entry(&plain, "PLAIN"),
            &["topic"],
        );
        Self::of(scram, plain, config, files)
    }

    fn of(
        source: EmbeddedCluster,
        target: EmbeddedCluster,
        config: Config,
        files: tempfile::TempDir,
    ) -> Self {
        source.create_topic("topic", 1, -1, &[]).unwrap();
        Self { source, target, config, files, written: 0 }
    }

    fn write(&mut self, count: u32) {
        for value in self.written..self.written + count {
            let mut batch = Batch::small(1);
            batch.records[0].value = Some(value.to_string().into_bytes());
            self.source.append("topic", 0, &Bytes::from(batch.bytes())).unwrap();
        }
        self.written += count;
    }

    fn arrived(&self) -> Vec<u32> {
        let values = seen(&self.target, "topic", 0).into_iter();
        values.map(|(_, value)| value.unwrap().parse().unwrap()).collect()
    }

    /// Everything that was written is there once, in order.
    #[track_caller]
    fn all_is_there(&self) {
        let wanted: Vec<u32> = (0..self.written).collect();
        wait_until("all records", 60, || self.arrived().len() >= wanted.len());
        assert_eq!(self.arrived(), wanted);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }
}

fn renews_under_load(name: &str, arrangement: &str) {
    let authority = Authority::new("renewal");
    let mut stage = Guarded::with_sasl(name, &authority, Some(Duration::from_secs(2)));
    stage.config =
        stage.config.clone().top(&format!("engine: {{ lanes: 1, arrangement: {arrangement} }}"));
    let strait = Strait::start(&stage.config);
    stage.write(100);
    stage.all_is_there();
    let before = [stage.source.logins(), stage.target.logins()];
    let renewals = sized(5, 100);
    wait_pacing("renewals", 20 * renewals, Duration::from_millis(5), || {
        stage.write(1);
        [&stage.source, &stage.target].iter().zip(&before).all(|(cluster, before)| {
            // A connection at least, as often as that.
            cluster.logins().renewed >= before.renewed + renewals * before.done
        })
    });
    stage.all_is_there();
    for (cluster, before) in [&stage.source, &stage.target].into_iter().zip(&before) {
        let after = cluster.logins();
        assert_eq!(
            (after.done, after.refused, after.expired),
            (before.done, 0, 0),
            "no connection was lost, and none was opened in its place"
        );
    }
    let renewed = strait.metric("strait_sasl_reauthentications_total", &["result=\"ok\""]);
    assert!(renewed >= 10.0, "{renewed}");
    strait.assert_clean_log();
}

#[test]
fn sessions_are_renewed_under_load_and_no_connection_is_lost() {
    renews_under_load("renewed", "fused");
}

#[test]
fn sessions_of_a_reader_are_renewed_under_load_and_no_connection_is_lost() {
    renews_under_load("renewed-split", "split");
}

#[test]
fn a_password_that_changes_on_both_ends_costs_no_record() {
    let authority = Authority::new("password");
    let mut stage = Guarded::with_sasl("password", &authority, Some(Duration::from_secs(2)));
    let mut strait = Strait::start(&stage.config);
    strait.expect_in_log("ST-022");
    stage.write(20);
    stage.all_is_there();
    for round in 0..2 {
        let new = format!("canary-{round}-Passw0rd+42");
        fs::write(stage.path("password"), format!("{new}\n")).unwrap();
        for cluster in [&stage.source, &stage.target] {
            cluster.set_password("strait", &new);
        }
        let taken = f64::from(2 * (round + 1));
        wait_until("the new password", 20, || {
            strait.metric("strait_security_reloads_total", &["result=\"ok\""]) >= taken
        });
        let before = stage.target.logins();
        wait_until("sessions under the new password", 20, || {
            let after = stage.target.logins();
            after.renewed + after.done > before.renewed + before.done + 2
        });
        stage.write(20);
        stage.all_is_there();
    }
    assert!(!strait.log().contains("canary"), "a password is in the log");
    strait.assert_clean_log();
}

/// Mutual TLS on the target, its files in the stage's folder: `own.pem` and `own.key` are links into `..data`.
struct Rotation {
    stage: Guarded,
    strait: Strait,
    generation: u32,
    taken: f64,
    refused: f64,
}

impl Rotation {
    fn new(name: &str, authority: &Authority) -> Self {
        let files = tempfile::tempdir().unwrap();
        let at = |name: &str| files.path().join(name);
        fs::copy(authority.ca(), at("ca.pem")).unwrap();
        place(files.path(), 0, &authority.client("strait"));
        for name in ["own.pem", "own.key"] {
            symlink(Path::new("..data").join(name), at(name)).unwrap();
        }
        let source = EmbeddedCluster::start(Env::real(), Options::default()).unwrap();
        let tls = authority.server(&NAMES).server_config_for(authority);
        let listeners = vec![Listener::tls(tls)];
        let target =
            EmbeddedCluster::start(Env::real(), Options { listeners, ..Options::default() });
        let target = target.unwrap();
        let entry = format!(
            "{{ bootstrap: [\"{}\"], tls: {{ ca: \"{}\", cert: \"{}\", key: \"{}\" }} }}",
            target.bootstrap(),
            at("ca.pem").display(),
            at("own.pem").display(),
            at("own.key").display()
        );
        let here = format!("{{ bootstrap: [\"{}\"] }}", source.bootstrap());
        let config = Config::between(name, here, entry, &["topic"]);
        let stage = Guarded::of(source, target, config, files);
        let mut strait = Strait::start(&stage.config);
        // Each round cuts all connections to the target; what must not be there is looked for below.
        for code in ["ST-015", "ST-027", "target connection lost", "ST-085"] {
            strait.expect_in_log(code);
        }
        Self { stage, strait, generation: 0, taken: 0.0, refused: 0.0 }
    }

    fn reloads(&self, result: &str) -> f64 {
        let labels = ["cluster=\"target\"", &format!("result=\"{result}\"")];
        self.strait.metric("strait_security_reloads_total", &labels)
    }

    #[track_caller]
    fn is_taken(&mut self) {
        self.taken += 1.0;
        wait_until("the files to be taken", 10, || self.reloads("ok") >= self.taken);
        assert_eq!((self.reloads("ok"), self.reloads("failed")), (self.taken, self.refused));
        assert_eq!(self.strait.metric("strait_security_files_refused", &[]), 0.0);
    }

    #[track_caller]
    fn is_refused(&mut self, says: &str) {
        self.refused += 1.0;
        wait_until("the files to be refused", 15, || self.reloads("failed") >= self.refused);
        assert_eq!((self.reloads("ok"), self.reloads("failed")), (self.taken, self.refused));
        let status = self.strait.status();
        let cluster =
            status["clusters"].as_array().unwrap().iter().find(|c| c["cluster"] == "target");
        let told = &cluster.unwrap()["files_refused"];
        assert_eq!(told["code"], "ST-085", "{status}");
        assert!(told["message"].as_str().unwrap().contains(says), "{told}");
        let warned = self.strait.log().matches("ST-085").count();
        assert_eq!(warned as f64, self.refused, "each is told once");
    }

    /// The swap of Kubernetes.
    fn swap(&mut self, own: &Leaf) {
        self.generation += 1;
        place(self.stage.files.path(), self.generation, own);
    }

    /// Cuts all connections to the target, which asks for what it asks for by now, and copies on.
    #[track_caller]
    fn goes_on(&mut self) {
        let before = self.strait.metric("strait_connections_total", &["target"]);
        self.stage.target.kill_broker(1);
        self.stage.target.restart_broker(1);
        self.stage.write(20);
        self.stage.all_is_there();
        let after = self.strait.metric("strait_connections_total", &["target"]);
        assert!(after > before, "by new connections");
    }
}

fn place(folder: &Path, generation: u32, own: &Leaf) {
    let real = folder.join(format!("data-{generation}"));
    fs::create_dir(&real).unwrap();
    fs::copy(&own.cert, real.join("own.pem")).unwrap();
    fs::copy(&own.key, real.join("own.key")).unwrap();
    symlink(&real, folder.join("..tmp")).unwrap();
    fs::rename(folder.join("..tmp"), folder.join("..data")).unwrap();
}

#[test]
fn certificates_that_rotate_under_load_cost_no_record_and_bad_ones_are_not_used() {
    let mut authority = Authority::new("first");
    let mut rotation = Rotation::new("rotation", &authority);
    rotation.stage.write(20);
    rotation.stage.all_is_there();
    for round in 0..sized(5, 50) {
        let serve = |rotation: &Rotation, server: &Authority, clients: &Authority| {
            let config = server.server(&NAMES).server_config_for(clients);
            rotation.stage.target.set_tls(0, config);
        };
        match round % 5 {
            0 => {
                // A new pair of the same authority, by a swap.
                rotation.swap(&authority.client("strait"));
                rotation.is_taken();
            }
            1 => {
                // The key of another: the pair before stays in use, and the right key cures it.
                let (own, other) = (authority.client("own"), authority.client("other"));
                let data = rotation.stage.path("..data");
                fs::copy(&own.cert, data.join("own.pem")).unwrap();
                fs::copy(&other.key, data.join("own.key")).unwrap();
                rotation.is_refused("does not belong to the first certificate in");
                rotation.goes_on();
                fs::copy(&own.key, data.join("own.key")).unwrap();
                rotation.is_taken();
            }
            2 => {
                let expired = authority.leaf(&[], "expired", |params| {
                    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
                });
                rotation.swap(&expired);
                rotation.is_refused("expired on 2020-01-01");
                rotation.goes_on();
                rotation.swap(&authority.client("strait"));
                rotation.is_taken();
            }
            3 => {
                // Another authority for the brokers: first both are trusted, then the new one alone.
                let next = Authority::new("next");
                let ca = |authority: &Authority| fs::read(authority.ca()).unwrap();
                fs::write(rotation.stage.path("ca.pem"), [ca(&authority), ca(&next)].concat())
                    .unwrap();
                rotation.is_taken();
                serve(&rotation, &next, &authority);
                rotation.goes_on();
                fs::write(rotation.stage.path("ca.pem"), ca(&next)).unwrap();
                rotation.is_taken();
                rotation.goes_on();
                // And for the clients: the brokers take the new one alone from here on.
                rotation.swap(&next.client("strait"));
                rotation.is_taken();
                serve(&rotation, &next, &next);
                authority = next;
            }
            _ => {
                fs::write(rotation.stage.path("ca.pem"), "").unwrap();
                rotation.is_refused("ca.pem: is empty");
                rotation.goes_on();
                fs::copy(authority.ca(), rotation.stage.path("ca.pem")).unwrap();
                wait_until("what is in use", 10, || {
                    rotation.strait.metric("strait_security_files_refused", &[]) == 0.0
                });
            }
        }
        rotation.goes_on();
    }
    let status = rotation.strait.status().to_string();
    assert!(status.contains("client_certificate_expires_ms"), "{status}");
    let log = rotation.strait.log();
    for never in ["ST-017", "ST-019", "ST-020", "BEGIN"] {
        assert!(!log.contains(never), "{never}: {log}");
    }
    rotation.strait.assert_clean_log();
}

#[test]
fn a_certificate_that_ends_soon_is_told_ahead() {
    let authority = Authority::new("ends");
    let mut rotation = Rotation::new("ends", &authority);
    rotation.strait.expect_in_log("ST-086");
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let end = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((now + 5 * 86_400) as u64);
    rotation.swap(&authority.leaf(&[], "soon", |params| params.not_after = end));
    rotation.is_taken();
    wait_until("the warning", 10, || rotation.strait.log().contains("ST-086"));
    let log = rotation.strait.log();
    assert!(log.contains("our client certificate expires in 4 days"), "{log}");
    let metric =
        |of: &str| rotation.strait.metric("strait_certificate_expiry_timestamp_seconds", &[of]);
    assert_eq!(metric("of=\"client\""), (now + 5 * 86_400) as f64);
    assert!(metric("of=\"broker\"") > (now + 30 * 86_400) as f64);
    assert_eq!(log.matches("ST-086").count(), 1);
    rotation.strait.assert_clean_log();
}

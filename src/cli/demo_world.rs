//! What the demo runs in: a source and a target cluster in this process, a certificate of their own, and records.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Failure;
use crate::config::resolved::Config;
use crate::config::{Surroundings, parse};
use crate::embedded::{EmbeddedCluster, Listener, Options};
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use crate::wire::batch::{Codec, HEADER_BYTES};
use crate::wire::records::{BatchBuilder, OpenBatch};

/// Partitions of the demo's topic.
pub(super) const PARTITIONS: i32 = 8;
const TOPIC: &str = "demo";
const GROUP: &str = "strait.demo";
/// How often records are made: a batch for each partition.
const TICK: Duration = Duration::from_millis(10);
/// Bytes of a record's value.
const VALUE_BYTES: usize = 200;
/// Records of each partition that stay: the clusters keep them in memory.
const RETAINED: i64 = 25_000;
/// Decoded size of one of our batches.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Both clusters and the certificate's directory; all of it goes when this does.
pub(super) struct World {
    source: EmbeddedCluster,
    target: EmbeddedCluster,
    directory: Directory,
    made: u64,
}

/// What the comparison found.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) made: u64,
    pub(super) copied: u64,
    /// Records that were compared one by one.
    pub(super) compared: u64,
    pub(super) equal: bool,
    pub(super) difference: String,
}

/// A directory of a name of its own that is removed at the end.
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn make(env: &Env, what: &str) -> Result<Self, Failure> {
        let name = format!("strait-{what}-{:016x}", env.random_u64());
        let directory = Self(std::env::temp_dir().join(name));
        std::fs::create_dir(&directory.0).map_err(|e| failed("temporary directory", e))?;
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Error::new(Code(6), Side::Local, Action::Stop, format!("{what}: {error}")).into()
}

impl World {
    pub(super) fn open(env: &Env) -> Result<Self, Failure> {
        let directory = Directory::make(env, "demo")?;
        let tls = certificate(directory.path())?;
        let start = |options| {
            EmbeddedCluster::start(env.clone(), options).map_err(|e| failed("cluster", e))
        };
        let source = start(Options::default())?;
        let target = start(Options { listeners: vec![Listener::tls(tls)], ..Options::default() })?;
        source
            .create_topic(TOPIC, PARTITIONS, 1, &[])
            .map_err(|code| failed("topic", code.name()))?;
        Ok(Self { source, target, directory, made: 0 })
    }

    /// Source and target, as a client would dial them.
    pub(super) fn addresses(&self) -> (String, String) {
        (self.source.bootstrap(), self.target.bootstrap())
    }

    /// The configuration, as an operator would write it.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let (source, target) = self.addresses();
        let text = format!(
            "version: 1
clusters:
  source: {{ bootstrap: [\"{source}\"] }}
  target: {{ bootstrap: [\"{target}\"], tls: {{ ca: ca.pem }} }}
links:
  demo: {{ from: source, to: target, topics: {{ include: [{TOPIC}] }} }}
engine: {{ memory: 64MiB }}
telemetry: {{ listen: \"127.0.0.1:0\" }}
"
        );
        let around = Surroundings { directory: &self.directory.0, variable: &|_| None };
        Ok(parse(&text, "demo", &around).map_err(Failure::Config)?.config)
    }

    /// Makes records at a rate for ever, and lets go of those that arrived.
    pub(super) async fn make_records(&mut self, env: &Env, rate: u32) -> Infallible {
        let started = env.now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut trimmed = started;
        loop {
            ticks.tick().await;
            let due = (f64::from(rate) * (env.now() - started).as_secs_f64()) as u64;
            // After a pause of the machine there is no use in a burst of seconds.
            let missing = due.saturating_sub(self.made).min(u64::from(rate));
            for partition in 0..PARTITIONS {
                let share = missing / PARTITIONS as u64
                    + u64::from((partition as u64) < missing % PARTITIONS as u64);
                self.append(env, partition, share);
            }
            if env.now() - trimmed >= Duration::from_secs(1) {
                self.trim();
                trimmed = env.now();
            }
        }
    }

    fn append(&mut self, env: &Env, partition: i32, count: u64) {
        if count == 0 {
            return;
        }
        let mut builder = BatchBuilder::new(Codec::None);
        for _ in 0..count {
            let number = self.made.to_be_bytes();
            let mut value = [0; VALUE_BYTES];
            for (byte, i) in value.iter_mut().zip(0u64..) {
                *byte = (self.made.wrapping_mul(31).wrapping_add(i) >> 3) as u8;
            }
            builder.push(env.wall_clock_ms(), Some(&number), Some(&value), &[]);
            self.made += 1;
        }
        let appended = builder.finish().map(|batch| self.source.append(TOPIC, partition, &batch));
        debug_assert!(matches!(appended, Ok(Ok(_))), "{appended:?}");
    }

    /// Retention: what was copied and committed goes, but for the newest.
    fn trim(&self) {
        let committed = self.source.committed(GROUP);
        for partition in 0..PARTITIONS {
            if let Some(position) = committed.get(&(TOPIC.to_owned(), partition)) {
                let before = position.offset - RETAINED;
                if before > 0 {
                    let _ = self.source.delete_records(TOPIC, partition, before);
                    let _ = self.target.delete_records(TOPIC, partition, before);
                }
            }
        }
    }

    fn ends(cluster: &EmbeddedCluster) -> Vec<i64> {
        let end = |partition| cluster.dump(TOPIC, partition).map_or(0, |dump| dump.high_watermark);
        (0..PARTITIONS).map(end).collect()
    }

    /// The end of each partition of the source.
    pub(super) fn source_ends(&self) -> Vec<i64> {
        Self::ends(&self.source)
    }

    /// Both sides: counts, positions, and what is retained record by record.
    pub(super) fn compare(&self, drained: bool) -> Verdict {
        let (made, copied) = (Self::ends(&self.source), Self::ends(&self.target));
        let sum = |ends: &[i64]| u64::try_from(ends.iter().sum::<i64>()).unwrap_or(0);
        let mut verdict = Verdict {
            made: sum(&made),
            copied: sum(&copied),
            compared: 0,
            equal: false,
            difference: String::new(),
        };
        let committed = self.source.committed(GROUP);
        for partition in 0..PARTITIONS {
            let end = made[partition as usize];
            let position = committed.get(&(TOPIC.to_owned(), partition)).map(|at| at.offset);
            if copied[partition as usize] != end {
                verdict.difference = format!("partition {partition} differs in length");
            } else if end > 0 && position != Some(end) {
                verdict.difference =
                    format!("partition {partition}: committed {position:?}, end {end}");
            }
            match (self.retained(&self.source, partition), self.retained(&self.target, partition)) {
                (Ok(there), Ok(here)) => {
                    // The two sides drop whole batches, which may differ in their bounds.
                    let first = there.first().zip(here.first()).map(|(a, b)| a.0.max(b.0));
                    let common = |records: Vec<Kept>| {
                        records.into_iter().filter(|r| Some(r.0) >= first).collect::<Vec<_>>()
                    };
                    let (there, here) = (common(there), common(here));
                    verdict.compared += there.len() as u64;
                    if there != here {
                        verdict.difference = format!("partition {partition} differs in content");
                    }
                }
                (Err(error), _) | (_, Err(error)) => verdict.difference = error,
            }
        }
        if !drained {
            verdict.difference = "not everything was committed in time".into();
        }
        verdict.equal = verdict.difference.is_empty();
        verdict
    }

    fn retained(&self, cluster: &EmbeddedCluster, partition: i32) -> Result<Vec<Kept>, String> {
        let dump = cluster.dump(TOPIC, partition).map_err(|code| code.name().to_owned())?;
        let mut records = Vec::new();
        for batch in dump.batches.iter().filter(|batch| batch.len() > HEADER_BYTES) {
            let open = OpenBatch::open(batch, BATCH_BYTES_MAX).map_err(|e| e.to_string())?;
            for record in open.records() {
                let record = record.map_err(|e| e.to_string())?;
                let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
                records.push((
                    record.offset,
                    record.timestamp,
                    copy(record.key),
                    copy(record.value),
                ));
            }
        }
        Ok(records)
    }
}

/// Offset, timestamp, key, value.
type Kept = (i64, i64, Option<Bytes>, Option<Bytes>);

/// A certificate for loopback, its own authority: `ca.pem` in the directory, and the server's half.
pub(super) fn certificate(directory: &Path) -> Result<Arc<rustls::ServerConfig>, Failure> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(|e| failed("certificate", e))?;
    std::fs::write(directory.join("ca.pem"), made.cert.pem())
        .map_err(|e| failed("certificate", e))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)
        })
        .map_err(|e| failed("TLS", e))?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(world: &World, partition: i32) {
        if !world.target.topics().contains(&TOPIC.to_owned()) {
            world.target.create_topic(TOPIC, PARTITIONS, 1, &[]).unwrap();
        }
        for batch in world.source.dump(TOPIC, partition).unwrap().batches {
            world.target.append(TOPIC, partition, &batch).unwrap();
        }
    }

    #[test]
    fn what_is_missing_or_changed_is_seen() {
        let env = Env::real();
        let mut world = World::open(&env).unwrap();
        world.append(&env, 0, 5);
        world.append(&env, 1, 5);
        let verdict = world.compare(true);
        assert!(!verdict.equal && verdict.made == 10 && verdict.copied == 0, "{verdict:?}");
        copied(&world, 0);
        copied(&world, 1);
        // Equal in content, and no position is committed: not good enough.
        let verdict = world.compare(true);
        assert!(verdict.difference.contains("committed None, end 5"), "{verdict:?}");
        // As many records, others.
        world.append(&env, 2, 5);
        let other = world.target.dump(TOPIC, 0).unwrap().batches.remove(0);
        world.target.append(TOPIC, 2, &other).unwrap();
        let verdict = world.compare(true);
        assert!(verdict.difference.contains("partition 2 differs in content"), "{verdict:?}");
    }

    #[test]
    fn the_directory_goes_with_the_world() {
        let world = World::open(&Env::real()).unwrap();
        let path = world.directory.0.clone();
        assert!(path.join("ca.pem").exists());
        drop(world);
        assert!(!path.exists());
    }
}

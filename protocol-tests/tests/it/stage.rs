//! Two embedded clusters and the real binary between them, over TLS to the target: for cases that a real broker cannot
//! be made to show on demand.

use std::fmt;
use std::path::Path;

use bytes::Bytes;
use protocol_tests::certs::Authority;
use protocol_tests::raw::{Batch, Parsed, parse};
use protocol_tests::strait::{Config, Strait};
use protocol_tests::wait::wait_for;
use strait::config;
use strait::embedded::{Cluster, EmbeddedCluster, Listener, Options};
use strait::env::Env;

/// One topic, `topic`, of one partition unless the case makes more.
pub struct Stage {
    pub source: EmbeddedCluster,
    pub target: EmbeddedCluster,
    pub config: Config,
    _authority: Authority,
}

/// A record as its readers see it: time and value.
pub type Seen = (i64, Option<String>);

impl Stage {
    /// One broker each.
    pub fn new(name: &str) -> Self {
        Self::with(name, Options::default(), Options::default())
    }

    /// With these clusters; the target's listeners are the stage's own.
    pub fn with(name: &str, source: Options, target: Options) -> Self {
        Self::secured(name, source, target, false)
    }

    /// The same over TLS to the source too, whose listeners are the stage's own then.
    pub fn over_tls(name: &str, source: Options, target: Options) -> Self {
        Self::secured(name, source, target, true)
    }

    fn secured(name: &str, source: Options, target: Options, source_tls: bool) -> Self {
        let authority = Authority::new("stage");
        let server = authority.server(&["localhost", "127.0.0.1"]).server_config();
        let plain_first = vec![Listener::plain(), Listener::tls(server)];
        let start = |options: Options, tls: bool| {
            let listeners = if tls { plain_first.clone() } else { options.listeners.clone() };
            let options = Options { auto_create_topics: false, listeners, ..options };
            EmbeddedCluster::start(Env::real(), options).unwrap()
        };
        let (source, target) = (start(source, source_tls), start(target, true));
        let ca = |tls: bool| tls.then_some(&authority);
        let (here, there) = (entry(&source, ca(source_tls)), entry(&target, ca(true)));
        let config = Config::between(name, here, there, &["topic.*"]);
        source.create_topic("topic", 1, -1, &[]).unwrap();
        Self { source, target, config, _authority: authority }
    }

    /// The target is talked to without TLS.
    pub fn without_tls(&mut self) {
        self.config.target = entry(&self.target, None);
    }

    /// The configuration, for an engine in this process: without telemetry.
    pub fn resolved(&self) -> config::resolved::Config {
        let around = config::Surroundings { directory: Path::new("."), variable: &|_| None };
        let mut config = config::parse(&self.config.yaml(0), "stage", &around).unwrap().config;
        config.telemetry = None;
        config
    }

    /// Starts Strait, which may warn.
    #[track_caller]
    pub fn start(&self) -> Strait {
        let mut strait = Strait::start(&self.config);
        strait.expect_in_log("WARN");
        strait.expect_in_log("ERROR");
        strait
    }

    /// Puts a batch at the end of the source partition, unchecked; gives its base offset.
    #[track_caller]
    pub fn append(&self, batch: &Batch) -> i64 {
        self.source.append("topic", 0, &Bytes::from(batch.bytes())).unwrap()
    }

    /// So many small batches of one record each.
    #[track_caller]
    pub fn append_many(&self, values: impl IntoIterator<Item = u32>) {
        for value in values {
            let mut batch = Batch::small(1);
            batch.records[0].value = Some(value.to_string().into_bytes());
            self.append(&batch);
        }
    }

    /// What readers of the target see.
    pub fn arrived(&self) -> Vec<Seen> {
        seen(&self.target, "topic", 0)
    }

    /// The values alone, as numbers.
    pub fn arrived_numbers(&self) -> Vec<u32> {
        let values = self.arrived().into_iter().map(|(_, value)| value.unwrap());
        values.map(|value| value.parse().unwrap()).collect()
    }

    /// The link's position on the source partition.
    pub fn committed(&self) -> Option<i64> {
        let offsets = self.source.committed(&self.config.group());
        offsets.get(&("topic".to_owned(), 0)).map(|committed| committed.offset)
    }

    /// Waits until the position is at the source's end.
    #[track_caller]
    pub fn wait_committed(&self, strait: &Strait, seconds: u64) {
        wait_for("the position at the source's end", seconds, || {
            let end = self.source.ends("topic", 0).unwrap().last_stable;
            let committed = self.committed();
            if committed == Some(end) { Ok(()) } else { Err(Behind { committed, end, strait }) }
        });
    }

    /// Waits until the status says all of this.
    #[track_caller]
    pub fn wait_status(&self, strait: &Strait, words: &[&str]) {
        wait_for(&format!("status with {words:?}"), 30, || {
            let status = strait.status().to_string();
            if words.iter().all(|word| status.contains(word)) { Ok(()) } else { Err(status) }
        });
    }
}

/// A position that is not at the end. The status is asked for when it is shown, not at each look.
struct Behind<'a> {
    committed: Option<i64>,
    end: i64,
    strait: &'a Strait,
}

impl fmt::Debug for Behind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.strait.get("/status").map(|(_, status)| status);
        write!(f, "{:?} of {}; {status:?}", self.committed, self.end)
    }
}

/// What a configuration says of a cluster, by its first listener, or by its second over TLS.
fn entry(cluster: &EmbeddedCluster, tls: Option<&Authority>) -> String {
    let addresses = cluster.bootstrap_of(usize::from(tls.is_some()));
    let quoted: Vec<_> = addresses.split(',').map(|a| format!("\"{a}\"")).collect();
    let bootstrap = format!("bootstrap: [{}]", quoted.join(", "));
    let ca = tls.map(|authority| format!(", tls: {{ ca: \"{}\" }}", authority.ca().display()));
    format!("{{ {bootstrap}{} }}", ca.unwrap_or_default())
}

/// Records of a partition, as a reader of committed records sees them.
pub fn seen(cluster: &Cluster, topic: &str, partition: i32) -> Vec<Seen> {
    seen_of(cluster, topic, partition, |_| true)
}

/// The same, of the batches that are to be read.
pub fn seen_of(
    cluster: &Cluster,
    topic: &str,
    partition: i32,
    mut is_read: impl FnMut(&Parsed) -> bool,
) -> Vec<Seen> {
    let Ok((_, batches)) = cluster.committed_from(topic, partition, 0) else { return Vec::new() };
    let mut all = Vec::new();
    for bytes in &batches {
        for batch in parse(bytes).0 {
            assert!(batch.crc_valid);
            if !is_read(&batch) {
                continue;
            }
            if batch.attributes & 32 != 0 {
                continue;
            }
            let append_time = batch.attributes & 8 != 0;
            for record in batch.records() {
                let time = batch.base_timestamp + record.timestamp_delta;
                let value = record.value.map(|value| String::from_utf8(value).unwrap());
                all.push((if append_time { batch.max_timestamp } else { time }, value));
            }
        }
    }
    all
}

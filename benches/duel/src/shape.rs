//! What is copied: the shape of the batches, the partitions, the distance, and how the source is reached.

use std::fmt;
use std::fs;
use std::str::FromStr;
use std::time::Duration;

use protocol_tests::lab::{Cluster, Listener};
use serde_json::json;

/// One shape of traffic, written as `BATCH/CODEC/PARTITIONS/ROUND-TRIP/SOURCE`, such as `256KiB/zstd/8/0ms/plain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How records are batched.
    pub batch: Batch,
    /// As `compression.type` names it.
    pub codec: Codec,
    /// Of the topic.
    pub partitions: i32,
    /// To the target, by a proxy.
    pub round_trip: Duration,
    /// Whether the source is read over TLS too.
    pub source_tls: bool,
}

/// How records are batched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Every record of so many bytes is a batch: `1x300`.
    One {
        /// Of the value.
        record_bytes: u32,
    },
    /// Records of 1,000 bytes, in batches of about so many KiB: `256KiB`.
    Kib(u32),
}

/// A compression codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Uncompressed.
    None,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// The cells of a run that names none: about ten minutes on two cores.
pub const SUBSET: [&str; 7] = [
    "256KiB/none/8/0ms/plain",
    "256KiB/none/8/0ms/tls",
    "256KiB/zstd/8/0ms/plain",
    "1x300/none/8/0ms/plain",
    "1x300/lz4/8/0ms/plain",
    "1x1000/none/8/100ms/plain",
    "256KiB/none/1/100ms/plain",
];

/// Every cell of the whole table.
pub fn all() -> Vec<Shape> {
    let mut cells = Vec::new();
    for batch in
        [Batch::One { record_bytes: 1000 }, Batch::Kib(16), Batch::Kib(256), Batch::Kib(1024)]
    {
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
            for partitions in [1, 8, 100, 1000] {
                for round_trip in [0, 20, 100].map(Duration::from_millis) {
                    for source_tls in [false, true] {
                        cells.push(Shape { batch, codec, partitions, round_trip, source_tls });
                    }
                }
            }
        }
    }
    cells
}

impl Codec {
    /// As Kafka names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.batch {
            Batch::One { record_bytes } => write!(f, "1x{record_bytes}")?,
            Batch::Kib(1024) => f.write_str("1MiB")?,
            Batch::Kib(kib) => write!(f, "{kib}KiB")?,
        }
        let source = if self.source_tls { "tls" } else { "plain" };
        let round_trip = self.round_trip.as_millis();
        write!(f, "/{}/{}/{round_trip}ms/{source}", self.codec.name(), self.partitions)
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let [batch, codec, partitions, round_trip, source] = parts[..] else {
            return Err(format!("`{text}` is not BATCH/CODEC/PARTITIONS/ROUND-TRIP/SOURCE"));
        };
        let number = |text: &str| text.parse::<u32>().map_err(|error| format!("`{text}`: {error}"));
        let batch = match (batch.strip_prefix("1x"), batch.strip_suffix("KiB")) {
            (Some(bytes), _) => Batch::One { record_bytes: number(bytes)? },
            (_, Some(kib)) => Batch::Kib(number(kib)?),
            _ if batch == "1MiB" => Batch::Kib(1024),
            _ => return Err(format!("batch `{batch}`: 1xBYTES, nKiB or 1MiB")),
        };
        let codec = [Codec::None, Codec::Lz4, Codec::Zstd]
            .into_iter()
            .find(|known| known.name() == codec)
            .ok_or_else(|| format!("codec `{codec}`: none, lz4 or zstd"))?;
        let ms = number(round_trip.trim_end_matches("ms"))?;
        let source_tls = match source {
            "plain" => false,
            "tls" => true,
            _ => return Err(format!("source `{source}`: plain or tls")),
        };
        let partitions = i32::try_from(number(partitions)?).map_err(|error| error.to_string())?;
        let round_trip = Duration::from_millis(ms.into());
        Ok(Self { batch, codec, partitions, round_trip, source_tls })
    }
}

/// A topic that was filled.
#[derive(Clone, Debug)]
pub struct Filled {
    /// Its name.
    pub topic: String,
    /// Its records.
    pub records: u64,
    /// Of the records' values, uncompressed: what "MB" means in every figure.
    pub value_bytes: u64,
    /// As the broker stores them: what travels.
    pub stored_bytes: u64,
}

impl Shape {
    /// A name that is fit for a topic.
    pub fn slug(&self) -> String {
        self.to_string().replace('/', "-")
    }

    fn record_bytes(&self) -> u64 {
        match self.batch {
            Batch::One { record_bytes } => record_bytes.into(),
            Batch::Kib(_) => 1000,
        }
    }

    /// Creates the topic on a cluster, with room for the largest batches.
    pub fn create(&self, cluster: &Cluster, topic: &str) {
        let configs = json!({ "max.message.bytes": "8388608", "segment.bytes": "1073741824" });
        cluster.admin().create_topic(topic, self.partitions, configs);
    }

    /// Fills a new topic with about `megabytes` of values by Kafka's own producer.
    pub fn fill(&self, source: &Cluster, megabytes: u64) -> Filled {
        let topic = self.slug();
        self.create(source, &topic);
        let records = megabytes * 1_000_000 / self.record_bytes();
        let (batch_bytes, linger_ms, buffer_bytes) = match self.batch {
            // A small buffer: each record in it is an object of its own in the producer's heap.
            Batch::One { .. } => (0, 0, 8 << 20),
            // 1 MiB with its overhead is above the broker's own limit of a message.
            Batch::Kib(kib) => (u64::from(kib.min(1000)) << 10, 1000, 256 << 20),
        };
        let partitions: Vec<i32> = (0..self.partitions).collect();
        let kind = if self.codec == Codec::None { "plain" } else { "lines" };
        let written = source.admin().produce(
            &topic,
            json!({
                "count": records, "size": self.record_bytes(), "kind": kind,
                "partitions": partitions,
                "props": {
                    "batch.size": batch_bytes.to_string(), "linger.ms": linger_ms.to_string(),
                    "compression.type": self.codec.name(), "buffer.memory": buffer_bytes.to_string(),
                    "max.request.size": "8388608", "acks": "all",
                }
            }),
        );
        assert_eq!(written, records, "the source took all records");
        let folders = partitions.iter().map(|p| source.nodes[0].partition_folder(&topic, *p));
        let segments = folders.flat_map(|folder| segments(&folder));
        let stored_bytes =
            segments.map(|file| fs::metadata(file).map_or(0, |meta| meta.len())).sum();
        Filled { topic, records, value_bytes: records * self.record_bytes(), stored_bytes }
    }

    /// Where contestants read.
    pub fn source_listener(&self) -> Listener {
        if self.source_tls { Listener::Tls } else { Listener::Plain }
    }

    /// Where they write: always TLS, behind the proxy if there is a distance.
    pub fn target_listener(&self) -> Listener {
        if self.round_trip.is_zero() { Listener::Tls } else { Listener::ProxiedTls }
    }
}

/// The log segments in a partition's folder, oldest first.
pub fn segments(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_log = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "log");
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(is_log).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_reads_back_as_it_is_written() {
        for shape in all() {
            assert_eq!(shape.to_string().parse(), Ok(shape));
        }
        for text in SUBSET {
            assert_eq!(text.parse::<Shape>().map(|shape| shape.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_bad_shape_says_what_is_wrong() {
        for (text, word) in [
            ("256KiB", "BATCH/CODEC"),
            ("9/none/8/0ms/plain", "batch"),
            ("1x9/brotli/8/0ms/plain", "codec"),
        ] {
            let error = text.parse::<Shape>().expect_err("bad");
            assert!(error.contains(word), "{error}");
        }
    }
}

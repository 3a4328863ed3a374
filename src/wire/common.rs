//! What several APIs share: how a topic is named, and who leads a partition.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::error_code::ErrorCode;
use super::primitives::{Reader, WireError, put_string};

/// What a consumer gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark, aborted transactions included.
    ReadUncommitted = 0,
    /// Up to the last stable offset, with the list of aborted transactions.
    ReadCommitted = 1,
}

/// A topic in a request. Which of the two goes on the wire is a matter of the version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicRef {
    /// The name.
    pub name: Arc<str>,
    /// The id (KIP-516); nil where it is not known, and then only versions that send names work.
    pub id: Uuid,
}

impl TopicRef {
    /// A topic by name and id.
    pub fn new(name: impl Into<Arc<str>>, id: Uuid) -> Self {
        Self { name: name.into(), id }
    }

    /// What an answer calls this topic, in versions `with_ids` or without.
    pub fn key(&self, with_ids: bool) -> TopicKey {
        if with_ids { TopicKey::Id(self.id) } else { TopicKey::Name(self.name.to_string()) }
    }

    pub(super) fn put(
        &self,
        with_ids: bool,
        out: &mut Vec<u8>,
        what: &'static str,
    ) -> Result<(), WireError> {
        if !with_ids {
            return put_string(out, &self.name, what);
        }
        if self.id.is_nil() {
            return Err(WireError::Encode { what });
        }
        out.extend_from_slice(self.id.as_bytes());
        Ok(())
    }
}

/// A topic in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicKey {
    /// Versions without topic ids.
    Name(String),
    /// Versions with topic ids.
    Id(Uuid),
}

impl fmt::Display for TopicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Id(id) => write!(f, "topic id {id}"),
        }
    }
}

impl TopicKey {
    pub(super) fn read(
        reader: &mut Reader<'_>,
        with_ids: bool,
        what: &'static str,
    ) -> Result<Self, WireError> {
        Ok(match with_ids {
            true => Self::Id(reader.uuid(what)?),
            false => Self::Name(reader.owned(what)?),
        })
    }
}

/// Partitions under the name of their topic, as most APIs list them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPartitions<P> {
    /// The topic.
    pub topic: String,
    /// What is said of each partition.
    pub partitions: Vec<P>,
}

impl<P> TopicPartitions<P> {
    /// One topic.
    pub fn new(topic: impl Into<String>, partitions: Vec<P>) -> Self {
        Self { topic: topic.into(), partitions }
    }

    /// Partitions put under the names of their topics.
    pub fn gather<'a>(all: impl IntoIterator<Item = (&'a str, P)>) -> Vec<Self> {
        let mut topics: BTreeMap<&str, Vec<P>> = BTreeMap::new();
        for (topic, partition) in all {
            topics.entry(topic).or_default().push(partition);
        }
        topics.into_iter().map(|(topic, partitions)| Self::new(topic, partitions)).collect()
    }

    /// Every partition beside its topic.
    pub fn flat(all: &[Self]) -> impl Iterator<Item = (&str, &P)> {
        all.iter().flat_map(|of| of.partitions.iter().map(|partition| (&*of.topic, partition)))
    }

    /// Reads an array of topics, whose partitions take at least `partition_bytes_min` each and whose tags `read` leaves.
    pub(super) fn read_all(
        reader: &mut Reader<'_>,
        partition_bytes_min: usize,
        what: &'static str,
        mut read: impl FnMut(&mut Reader<'_>) -> Result<P, WireError>,
    ) -> Result<Vec<Self>, WireError> {
        reader.array(3, what, |reader| {
            let topic = reader.owned(what)?;
            let partitions = reader.array(partition_bytes_min + 1, what, |reader| {
                let partition = read(reader)?;
                reader.skip_tags(what)?;
                Ok(partition)
            })?;
            reader.skip_tags(what)?;
            Ok(Self { topic, partitions })
        })
    }
}

impl TopicPartitions<(i32, ErrorCode)> {
    /// Reads an array of topics with the index and the error of each partition, and nothing more.
    pub(super) fn read_errors(
        reader: &mut Reader<'_>,
        what: &'static str,
    ) -> Result<Vec<Self>, WireError> {
        Self::read_all(reader, 6, what, |reader| {
            Ok((reader.i32("partition index")?, reader.error_code("partition error")?))
        })
    }
}

/// Who leads a partition now (KIP-951): saves a Metadata round trip after NOT_LEADER_OR_FOLLOWER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentLeader {
    /// The broker; -1 where it is not known.
    pub id: i32,
    /// Its epoch; -1 where it is not known.
    pub epoch: i32,
}

impl CurrentLeader {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let leader = Self { id: reader.i32("leader id")?, epoch: reader.i32("leader epoch")? };
        reader.skip_tags("leader")?;
        Ok(leader)
    }
}

/// The address of a leader that an answer names (KIP-951).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The broker.
    pub id: i32,
    /// Its advertised host: the peer's word, not to be dialled unchecked.
    pub host: String,
    /// Its advertised port.
    pub port: i32,
}

impl NodeEndpoint {
    pub(super) fn read_all(reader: &mut Reader<'_>) -> Result<Vec<Self>, WireError> {
        reader.array(11, "node endpoints", |reader| {
            let id = reader.i32("node id")?;
            let host = reader.owned("node host")?;
            let port = reader.i32("node port")?;
            reader.nullable_string("node rack")?;
            reader.skip_tags("node endpoint")?;
            Ok(Self { id, host, port })
        })
    }
}

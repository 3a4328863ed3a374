//! What members of a classic `consumer` group tell each other through the broker, which only carries it: subscriptions
//! (v0-3) and assignments (v0). The encoding is the one before KIP-482, so that Kafka's own tools can show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{Reader, TOPIC_NAME_BYTES_MAX, WireError};

/// Topic and partition. A list of them is a set: it is written topic by topic, in the order of their names. What is read
/// has each topic's name once, however many partitions a member says that it holds.
pub type TopicPartition = (Arc<str>, i32);

/// What a member tells the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Topics that it takes partitions of.
    pub topics: Vec<String>,
    /// For the assignor; tells one kind of client from another.
    pub user_data: Bytes,
    /// What it holds.
    pub owned: Vec<TopicPartition>,
    /// The generation in which it got that; -1 if it holds nothing.
    pub generation: i32,
}

/// What the leader gives a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// What it shall hold.
    pub partitions: Vec<TopicPartition>,
    /// From the assignor.
    pub user_data: Bytes,
}

impl Subscription {
    /// Version 2: the first with a generation.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        const WHAT: &str = "subscription";
        let mut out = 2i16.to_be_bytes().to_vec();
        put_count(&mut out, self.topics.len(), WHAT)?;
        for topic in &self.topics {
            put_string(&mut out, topic, WHAT)?;
        }
        put_bytes(&mut out, &self.user_data, WHAT)?;
        put_partitions(&mut out, &self.owned, WHAT)?;
        out.extend(self.generation.to_be_bytes());
        Ok(out.into())
    }

    /// Reads any version; what a later one adds at the end is not looked at.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let version = version(&mut reader, "subscription version")?;
        let topics = reader.classic_array(2, "subscribed topics", |reader| {
            Ok(reader.classic_string("topic")?.to_owned())
        })?;
        let user_data = read_bytes(&mut reader, "user data")?;
        let owned =
            if version >= 1 { read_partitions(&mut reader, "owned partitions")? } else { vec![] };
        let generation = if version >= 2 { reader.i32("generation")? } else { -1 };
        Ok(Self { topics, user_data, owned, generation })
    }
}

impl Assignment {
    /// Version 0.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        const WHAT: &str = "assignment";
        let mut out = 0i16.to_be_bytes().to_vec();
        put_partitions(&mut out, &self.partitions, WHAT)?;
        put_bytes(&mut out, &self.user_data, WHAT)?;
        Ok(out.into())
    }

    /// Reads any version. No byte at all means nothing: a broker gives that to a member that the leader left out.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        if bytes.is_empty() {
            return Ok(Self { partitions: vec![], user_data: Bytes::new() });
        }
        let mut reader = Reader::new(bytes);
        version(&mut reader, "assignment version")?;
        let partitions = read_partitions(&mut reader, "assigned partitions")?;
        let user_data = read_bytes(&mut reader, "user data")?;
        Ok(Self { partitions, user_data })
    }
}

fn version(reader: &mut Reader<'_>, what: &'static str) -> Result<i16, WireError> {
    let version = reader.i16(what)?;
    if version < 0 { Err(WireError::BadValue { what }) } else { Ok(version) }
}

fn read_partitions(
    reader: &mut Reader<'_>,
    what: &'static str,
) -> Result<Vec<TopicPartition>, WireError> {
    let topics = reader.classic_array(6, what, |reader| {
        let topic = reader.classic_string(what)?;
        if topic.len() > TOPIC_NAME_BYTES_MAX {
            return Err(WireError::BadValue { what });
        }
        let topic = Arc::<str>::from(topic);
        let partitions = reader.classic_array(4, what, |reader| reader.i32(what))?;
        Ok((topic, partitions))
    })?;
    let flat = topics.into_iter().flat_map(|(topic, partitions)| {
        partitions.into_iter().map(move |partition| (topic.clone(), partition))
    });
    Ok(flat.collect())
}

/// BYTES with an INT32 length; -1 is none.
fn read_bytes(reader: &mut Reader<'_>, what: &'static str) -> Result<Bytes, WireError> {
    match reader.i32(what)? {
        -1 => Ok(Bytes::new()),
        len => {
            let len = usize::try_from(len).map_err(|_| WireError::BadLength {
                what,
                claimed: len.into(),
                left: reader.left(),
            })?;
            Ok(Bytes::copy_from_slice(reader.take(len, what)?))
        }
    }
}

fn put_count(out: &mut Vec<u8>, count: usize, what: &'static str) -> Result<(), WireError> {
    let count = i32::try_from(count).map_err(|_| WireError::Encode { what })?;
    out.extend(count.to_be_bytes());
    Ok(())
}

fn put_string(out: &mut Vec<u8>, string: &str, what: &'static str) -> Result<(), WireError> {
    let len = i16::try_from(string.len()).map_err(|_| WireError::Encode { what })?;
    out.extend(len.to_be_bytes());
    out.extend(string.as_bytes());
    Ok(())
}

fn put_bytes(out: &mut Vec<u8>, bytes: &Bytes, what: &'static str) -> Result<(), WireError> {
    put_count(out, bytes.len(), what)?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn put_partitions(
    out: &mut Vec<u8>,
    partitions: &[TopicPartition],
    what: &'static str,
) -> Result<(), WireError> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    put_count(out, topics.len(), what)?;
    for (topic, partitions) in topics {
        put_string(out, topic, what)?;
        put_count(out, partitions.len(), what)?;
        partitions.iter().for_each(|partition| out.extend(partition.to_be_bytes()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::crate_bytes;
    use super::super::write::{text, topic_name};
    use super::*;
    use kafka_protocol::messages as kafka;
    use kafka_protocol::protocol::Decodable;

    fn subscription() -> Subscription {
        Subscription {
            topics: vec!["a".to_owned(), "b".to_owned()],
            user_data: Bytes::from_static(b"strait"),
            owned: vec![("a".into(), 0), ("a".into(), 2), ("b".into(), 1)],
            generation: 7,
        }
    }

    fn assignment() -> Assignment {
        let Subscription { owned, user_data, .. } = subscription();
        Assignment { partitions: owned, user_data }
    }

    #[test]
    fn a_name_that_no_topic_has_is_refused_and_any_other_is_held_once() {
        for (bytes, is_read) in [(TOPIC_NAME_BYTES_MAX, true), (TOPIC_NAME_BYTES_MAX + 1, false)] {
            let name: Arc<str> = "t".repeat(bytes).into();
            let partitions = (0..3).map(|index| (name.clone(), index)).collect();
            let written = Assignment { partitions, ..assignment() }.encode().unwrap();
            let read = Assignment::decode(&written);
            assert_eq!(read.is_ok(), is_read, "{bytes}");
            if let Ok(Assignment { partitions, .. }) = read {
                assert!(partitions.iter().all(|(topic, _)| Arc::ptr_eq(topic, &partitions[0].0)));
            }
        }
    }

    #[test]
    fn the_crate_reads_what_is_written() {
        let bytes = subscription().encode().unwrap();
        let mut body = bytes.slice(2..);
        let read = kafka::ConsumerProtocolSubscription::decode(&mut body, 2).unwrap();
        assert!(body.is_empty());
        assert_eq!(read.topics, [text("a"), text("b")]);
        assert_eq!((read.generation_id, read.user_data.as_deref()), (7, Some(&b"strait"[..])));
        assert_eq!(read.owned_partitions.len(), 2);
        assert_eq!(read.owned_partitions[0].partitions, [0, 2]);

        let bytes = assignment().encode().unwrap();
        let mut body = bytes.slice(2..);
        let read = kafka::ConsumerProtocolAssignment::decode(&mut body, 0).unwrap();
        assert!(body.is_empty());
        assert_eq!(read.assigned_partitions[1].topic, topic_name("b"));
        assert_eq!(read.assigned_partitions[1].partitions, [1]);
    }

    #[test]
    fn every_version_of_a_subscription_is_read() {
        use kafka::consumer_protocol_subscription::TopicPartition as Owned;
        for version in 0..=3i16 {
            let owned =
                vec![Owned::default().with_topic(topic_name("a")).with_partitions(vec![0, 2])];
            let owned = if version >= 1 { owned } else { vec![] };
            let message = kafka::ConsumerProtocolSubscription::default()
                .with_topics(vec![text("a")])
                .with_user_data(Some(Bytes::from_static(b"x")))
                .with_owned_partitions(owned)
                .with_generation_id(if version >= 2 { 4 } else { -1 })
                .with_rack_id((version >= 3).then(|| text("r")));
            let bytes = [&version.to_be_bytes()[..], &crate_bytes(&message, version)].concat();
            let read = Subscription::decode(&bytes.into()).unwrap();
            assert_eq!(read.topics, ["a"]);
            assert_eq!(read.owned.len(), if version >= 1 { 2 } else { 0 });
            assert_eq!(read.generation, if version >= 2 { 4 } else { -1 });
        }
    }

    #[test]
    fn each_topic_of_a_set_is_written_once() {
        let of = |names: [(&str, i32); 3]| names.map(|(name, at)| (name.into(), at)).to_vec();
        let partitions = of([("b", 1), ("", 3), ("b", 0)]);
        let bytes = Assignment { partitions, user_data: Bytes::new() }.encode().unwrap();
        let read = Assignment::decode(&bytes).unwrap();
        assert_eq!(read.partitions, of([("", 3), ("b", 1), ("b", 0)]));
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_refused() {
        let (subscribed, assigned) =
            (subscription().encode().unwrap(), assignment().encode().unwrap());
        assert_eq!(Subscription::decode(&subscribed), Ok(subscription()));
        assert_eq!(Assignment::decode(&assigned), Ok(assignment()));
        assert_eq!(Assignment::decode(&Bytes::new()).unwrap().partitions, []);
        for len in 0..subscribed.len() {
            assert!(Subscription::decode(&subscribed.slice(..len)).is_err(), "{len}");
        }
        for len in 1..assigned.len() {
            assert!(Assignment::decode(&assigned.slice(..len)).is_err(), "{len}");
        }
        for at in 0..subscribed.len() {
            for bad in [[0xff; 4], [0x7f, 0xff, 0xff, 0xff]] {
                let mut bytes = subscribed.to_vec();
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&bad[..end - at]);
                let _ = Subscription::decode(&bytes.clone().into());
                let _ = Assignment::decode(&bytes.into());
            }
        }
    }
}

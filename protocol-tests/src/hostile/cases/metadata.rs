//! Who the brokers are, and what they lead.

use bytes::Bytes;
use kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{ApiKey, BrokerId, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::hostile::answer::{Answer, Deed};
use crate::hostile::case::Case;

type Edit = fn(&mut MetadataResponse);

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Both topics' partitions.
fn partitions(answer: &mut MetadataResponse, edit: fn(&mut MetadataResponsePartition)) {
    answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(edit);
}

fn topics(answer: &mut MetadataResponse, edit: fn(&mut MetadataResponseTopic)) {
    answer.topics.iter_mut().for_each(edit);
}

/// Broker 1 says that it is there.
fn moves_to(answer: &mut MetadataResponse, host: &str, port: i32) {
    let liar = answer.brokers.iter_mut().find(|broker| broker.node_id == BrokerId(1));
    let liar = liar.expect("broker 1");
    (liar.host, liar.port) = (text(host), port);
}

pub(super) fn cases() -> Vec<Case> {
    let apis = [ApiKey::Metadata];
    // The answer is refused as a whole, and another broker is asked.
    let refused: [(&str, &str, Edit); 15] = [
        ("no brokers", "lists 0 brokers", |a| a.brokers.clear()),
        ("a broker twice", "that cannot be", |a| a.brokers.push(a.brokers[0].clone())),
        ("a broker -7", "that cannot be", |a| a.brokers[0].node_id = BrokerId(-7)),
        ("another cluster's id", "another cluster", |a| a.cluster_id = Some(text("elsewhere"))),
        ("an empty cluster id", "another cluster", |a| a.cluster_id = Some(text(""))),
        ("a topic twice", "twice", |a| a.topics.push(a.topics[0].clone())),
        ("a partition twice", "cannot be", |a| {
            topics(a, |topic| topic.partitions.push(topic.partitions[0].clone()));
        }),
        ("partition -1", "cannot be", |a| partitions(a, |p| p.partition_index = -1)),
        ("partition 2147483647", "cannot be", |a| {
            partitions(a, |p| p.partition_index = i32::MAX);
        }),
        ("a hole in the partitions", "cannot be", |a| partitions(a, |p| p.partition_index += 1)),
        ("a topic that is a path", "not legal", |a| {
            topics(a, |topic| topic.name = Some(TopicName(text("../sim-0"))));
        }),
        ("a topic with an escape sequence", "not legal", |a| {
            topics(a, |topic| topic.name = Some(TopicName(text("sim-\u{1b}[2J"))));
        }),
        ("a topic without a name", "", |a| topics(a, |topic| topic.name = None)),
        ("eleven thousand brokers", "lists", |a| {
            let broker = a.brokers[0].clone();
            let many = (0..11_000).map(|id| broker.clone().with_node_id(BrokerId(id)));
            a.brokers = many.collect();
        }),
        ("a refusal", "metadata refused", |a| a.error_code = 31),
    ];
    let mut all: Vec<Case> = refused
        .into_iter()
        .map(|(what, words, edit)| {
            Case::new(what, &apis, move |a: &Answer| a.edit(edit)).says(words)
        })
        .collect();
    // The same for a process that knows nothing yet, and asks the liar first.
    all.extend(refused.into_iter().filter(|(_, words, _)| *words != "another cluster").map(
        |(what, words, edit)| {
            let what = format!("{what}, at the start");
            Case::new(what, &apis, move |a: &Answer| a.edit(edit)).says(words).at_start()
        },
    ));
    let mut add = |what: &str, deed: fn(&Answer) -> Deed| all.push(Case::new(what, &apis, deed));
    add("two thousand million brokers", |a| {
        Deed::Send(a.with(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 7]))
    });
    add("54 million brokers", |a| Deed::Send(a.with(&[0, 0, 0, 0, 0x81, 0xf6, 0xdf, 0x19])));
    add("an answer cut in its middle", |a| Deed::Send(a.with(&a.body[..a.body.len() / 2])));
    add("a megabyte of noise", |a| {
        let noise = (0..1u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8);
        Deed::Send(a.with(&Bytes::from_iter(noise)))
    });
    // Broker 1 cannot be dialled any more by who believes it: it is said why, and broker 2 goes on.
    let astray: [(&str, &str, Edit); 12] = [
        ("itself at 127.0.0.1", "this machine itself", |a| moves_to(a, "127.0.0.1", 22)),
        ("itself at ::1", "this machine itself", |a| moves_to(a, "::1", 22)),
        ("itself at a mapped loopback", "this machine", |a| moves_to(a, "::ffff:127.0.0.1", 22)),
        ("itself at a cloud's metadata", "metadata service", |a| {
            moves_to(a, "169.254.169.254", 80)
        }),
        ("itself at a cloud's metadata by IPv6", "metadata service", |a| {
            moves_to(a, "fd00:ec2::254", 80);
        }),
        ("itself on the link", "link-local", |a| moves_to(a, "169.254.7.7", 80)),
        ("itself at nowhere", "no broker can be reached", |a| moves_to(a, "0.0.0.0", 80)),
        ("itself at a group of machines", "no broker can be reached", |a| {
            moves_to(a, "224.0.0.1", 80);
        }),
        ("itself at no host", "no legal host and port", |a| moves_to(a, "", 80)),
        ("itself at port 0", "no legal host and port", |a| moves_to(a, "10.0.9.9", 0)),
        ("itself at port 70000", "no legal host and port", |a| moves_to(a, "10.0.9.9", 70_000)),
        ("itself at a host of 30 KB", "no legal host and port", |a| {
            moves_to(a, &"h".repeat(30_000), 9092);
        }),
    ];
    all.extend(astray.into_iter().map(|(what, words, edit)| {
        Case::new(what, &apis, move |a: &Answer| a.edit(edit)).at_start().says(words)
    }));
    // What a cluster may say of itself.
    let harmless: [(&str, Edit); 8] = [
        ("no cluster id", |a| a.cluster_id = None),
        ("a controller that is no broker", |a| a.controller_id = BrokerId(i32::MIN)),
        ("a throttle of 24 days", |a| a.throttle_time_ms = i32::MAX),
        ("leader epochs that go back", |a| partitions(a, |p| p.leader_epoch -= 1)),
        ("the least leader epochs", |a| partitions(a, |p| p.leader_epoch = i32::MIN)),
        ("a leader that is no broker", |a| partitions(a, |p| p.leader_id = BrokerId(99))),
        ("no leader", |a| {
            partitions(a, |p| (p.leader_id, p.error_code) = (BrokerId(-1), 5));
        }),
        ("the brokers' numbers exchanged", |a| {
            a.brokers.iter_mut().for_each(|broker| broker.node_id = BrokerId(3 - broker.node_id.0));
        }),
    ];
    all.extend(harmless.into_iter().map(|(what, edit)| {
        Case::new(what, &apis, move |a: &Answer| a.edit(edit)).harmless().of_the_cluster()
    }));
    let elsewhere: [(&str, &[u16], Edit); 6] = [
        ("other topic ids", &[47, 48, 49, 63, 66], |a| {
            topics(a, |topic| topic.topic_id = Uuid::from_u128(77));
        }),
        ("no topic ids", &[47, 48, 49, 63, 66], |a| {
            topics(a, |topic| topic.topic_id = Uuid::nil())
        }),
        ("no topics", &[47, 48, 49, 63, 66], |a| a.topics.clear()),
        ("topics that may not be seen", &[], |a| topics(a, |topic| topic.error_code = 29)),
        ("topics that do not exist", &[], |a| topics(a, |topic| topic.error_code = 3)),
        ("fewer partitions", &[47, 48, 49, 63, 66], |a| {
            topics(a, |topic| topic.partitions.retain(|p| p.partition_index == 0));
        }),
    ];
    all.extend(elsewhere.into_iter().map(|(what, codes, edit)| {
        let case = Case::new(what, &apis, move |a: &Answer| a.edit(edit));
        case.harmless().of_the_cluster().parks(codes)
    }));
    all.push(
        Case::new("topics that are not of the link", &apis, |a| {
            a.edit(|answer: &mut MetadataResponse| {
                let named = |name: &str, id: u128| {
                    let mut topic = answer.topics[0].clone();
                    topic.name = Some(TopicName(text(name)));
                    topic.topic_id = Uuid::from_u128(id);
                    topic
                };
                let more = [named("evil", 5), named("strait.bench.x", 6), named("__consumer_x", 7)];
                answer.topics.extend(more);
            })
        })
        .harmless(),
    );
    all
}

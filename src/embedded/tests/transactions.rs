//! Transactions: markers, the last stable offset, aborted lists, fencing, offsets inside them.

use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic,
};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponsePartitions;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, EndTxnRequest, GroupId, InitProducerIdRequest, ProducerId,
    TransactionalId,
};

use super::super::batch::{CONTROL, Head, TRANSACTIONAL};
use super::super::{EmbeddedCluster, Options};
use super::kit::{Client, Craft, cluster, partitions, produce, text, topic_name, transactional};

struct Producer {
    client: Client,
    id: i64,
    epoch: i16,
    sequence: i32,
}

fn x() -> TransactionalId {
    TransactionalId(text("x"))
}

async fn init(client: &mut Client, timeout_ms: i32) -> (i16, i64, i16) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(x()))
        .with_transaction_timeout_ms(timeout_ms)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let answer = client.call(4, &request).await;
    (answer.error_code, answer.producer_id.0, answer.producer_epoch)
}

impl Producer {
    async fn new(cluster: &EmbeddedCluster) -> Self {
        let mut client = Client::to(cluster).await;
        let (code, id, epoch) = init(&mut client, 60_000).await;
        assert_eq!(code, 0);
        Self { client, id, epoch, sequence: 0 }
    }

    async fn add(&mut self, partition: i32) -> i16 {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(x())
            .with_v3_and_below_producer_id(ProducerId(self.id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![topic]);
        let answer = self.client.call(3, &request).await;
        answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
    }

    async fn write(&mut self, version: i16) -> i16 {
        let batch = Craft::records(1)
            .producer(self.id, self.epoch, self.sequence)
            .with(|head| head.attributes |= TRANSACTIONAL);
        let request = transactional(produce("t", &[(0, batch.build())]), "x");
        let code = partitions(self.client.call(version, &request).await)[0].error_code;
        self.sequence += i32::from(code == 0);
        code
    }

    /// With transactions V2; takes what the next one is written under.
    async fn end_v2(&mut self, committed: bool) -> i16 {
        let request = EndTxnRequest::default()
            .with_transactional_id(x())
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_committed(committed);
        let answer = self.client.call(5, &request).await;
        if answer.error_code == 0 {
            (self.id, self.epoch) = (answer.producer_id.0, answer.producer_epoch);
            self.sequence = 0;
        }
        answer.error_code
    }

    async fn end(&mut self, committed: bool) -> i16 {
        let request = EndTxnRequest::default()
            .with_transactional_id(x())
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_committed(committed);
        self.client.call(3, &request).await.error_code
    }
}

async fn read_committed(client: &mut Client, offset: i64) -> PartitionData {
    let partition =
        FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic_name("t")).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_isolation_level(1)
        .with_topics(vec![topic]);
    client.call(12, &request).await.responses.remove(0).partitions.remove(0)
}

#[tokio::test]
async fn an_open_transaction_holds_the_stable_offset_and_an_abort_is_listed() {
    let cluster = cluster(Options::default(), &[]);
    let mut producer = Producer::new(&cluster).await;
    let mut client = Client::to(&cluster).await;
    client.produce_one(super::kit::batch(5)).await;
    producer.add(0).await;
    for _ in 0..3 {
        assert_eq!(producer.write(9).await, 0);
    }
    client.produce_one(super::kit::batch(1)).await;
    let part = read_committed(&mut client, 5).await;
    assert_eq!((part.high_watermark, part.last_stable_offset), (9, 5));
    assert_eq!(part.records.unwrap().len(), 0);

    assert_eq!(producer.end(false).await, 0);
    let stored = cluster.dump("t", 0).unwrap();
    let marker = Head::read(stored.batches.last().unwrap()).unwrap();
    assert_eq!(marker.attributes, CONTROL | TRANSACTIONAL);
    assert_eq!((marker.producer_id, marker.base_offset), (producer.id, 9));
    assert!(super::super::batch::crc_holds(stored.batches.last().unwrap(), &marker));
    assert_eq!(stored.batches.last().unwrap().len(), 78, "as long as the real one");
    for offset in [0, 6, 9] {
        let part = read_committed(&mut client, offset).await;
        assert_eq!(part.last_stable_offset, 10);
        let aborted = &part.aborted_transactions.unwrap()[0];
        assert_eq!((aborted.producer_id.0, aborted.first_offset), (producer.id, 5));
    }
    assert_eq!(read_committed(&mut client, 10).await.aborted_transactions, Some(vec![]));
}

#[tokio::test]
async fn a_partition_must_be_added_first() {
    let cluster = cluster(Options::default(), &[]);
    let mut producer = Producer::new(&cluster).await;
    assert_eq!(producer.write(10).await, 48);
    assert_eq!(producer.write(11).await, 120);
    assert_eq!(producer.add(9).await, 3);
    assert_eq!(producer.add(0).await, 0);
    assert_eq!(producer.write(11).await, 0);
    assert_eq!(producer.end(true).await, 0);
    assert_eq!(producer.end(true).await, 0, "asked again");
    assert_eq!(producer.end(false).await, 48, "asked otherwise");
}

#[tokio::test]
async fn a_new_instance_aborts_and_fences_the_old() {
    let cluster = cluster(Options::default(), &[]);
    let mut old = Producer::new(&cluster).await;
    old.add(0).await;
    old.write(9).await;
    let mut client = Client::to(&cluster).await;
    assert_eq!(init(&mut client, 60_000).await.0, 51, "while it aborts");
    let (code, id, epoch) = init(&mut client, 60_000).await;
    assert_eq!((code, id, epoch), (0, old.id, old.epoch + 2));
    let dump = cluster.dump("t", 0).unwrap();
    assert_eq!((dump.last_stable, dump.aborted.len()), (2, 1));
    assert_eq!(old.write(9).await, 47);
    assert_eq!(old.add(0).await, 90);
    assert_eq!(old.end(true).await, 90);
    assert_eq!(init(&mut client, 900_001).await.0, 50);
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_is_aborted() {
    let cluster = cluster(Options::default(), &[]);
    let mut producer = Producer::new(&cluster).await;
    let (code, id, epoch) = init(&mut producer.client, 100).await;
    assert_eq!(code, 0);
    (producer.id, producer.epoch) = (id, epoch);
    producer.add(0).await;
    producer.write(9).await;
    let clock = tokio::time::Instant::now();
    while cluster.dump("t", 0).unwrap().aborted.is_empty() {
        assert!(clock.elapsed().as_secs() < 10, "never aborted");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(producer.write(9).await, 47);
}

async fn committed(client: &mut Client, stable: bool) -> OffsetFetchResponsePartitions {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(topic_name("t"))
        .with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(Some(vec![topic]));
    let request =
        OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(stable);
    let mut answer = client.call(8, &request).await;
    answer.groups.remove(0).topics.remove(0).partitions.remove(0)
}

#[tokio::test]
async fn offsets_in_a_transaction_appear_with_its_commit() {
    let cluster = cluster(Options::default(), &[]);
    let mut producer = Producer::new(&cluster).await;
    let commit = |producer: &Producer, partition| {
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(1 << 62)
            .with_committed_leader_epoch(4)
            .with_committed_metadata(Some(text("here")));
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        TxnOffsetCommitRequest::default()
            .with_transactional_id(x())
            .with_group_id(GroupId(text("g")))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_generation_id(-1)
            .with_topics(vec![topic])
    };
    let code = |answer: kafka_protocol::messages::TxnOffsetCommitResponse| {
        answer.topics[0].partitions[0].error_code
    };
    let before = commit(&producer, 0);
    assert_eq!(code(producer.client.call(3, &before).await), 48, "the group was not added");
    let add = AddOffsetsToTxnRequest::default()
        .with_transactional_id(x())
        .with_group_id(GroupId(text("g")))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch);
    assert_eq!(producer.client.call(3, &add).await.error_code, 0);
    let missing = commit(&producer, 9);
    assert_eq!(code(producer.client.call(3, &missing).await), 3);
    let right = commit(&producer, 0);
    assert_eq!(code(producer.client.call(3, &right).await), 0);

    let mut client = Client::to(&cluster).await;
    assert_eq!(committed(&mut client, true).await.error_code, 88);
    assert_eq!(committed(&mut client, false).await.committed_offset, -1);
    assert_eq!(producer.end(true).await, 0);
    let found = committed(&mut client, true).await;
    assert_eq!((found.committed_offset, found.committed_leader_epoch), (1 << 62, 4));
    assert_eq!(found.metadata, Some(text("here")));
}

#[tokio::test]
async fn with_transactions_v2_the_leaders_add_partitions_and_every_end_takes_an_epoch() {
    let cluster = cluster(Options::default(), &[]);
    let mut producer = Producer::new(&cluster).await;
    producer.sequence = 3;
    assert_eq!(producer.write(12).await, 45, "without state only the first number is taken");
    producer.sequence = 0;
    assert_eq!(producer.end_v2(true).await, 48, "nothing is open");
    for transaction in 0..2 {
        let (id, epoch) = (producer.id, producer.epoch);
        assert_eq!(epoch, transaction);
        assert_eq!((producer.write(12).await, producer.write(12).await), (0, 0));
        assert_eq!(producer.end_v2(true).await, 0);
        assert_eq!((producer.id, producer.epoch), (id, epoch + 1));
        // Asked again, because the answer was lost.
        producer.epoch = epoch;
        assert_eq!(producer.end_v2(true).await, 0);
        assert_eq!((producer.id, producer.epoch), (id, epoch + 1));
        let stored = cluster.dump("t", 0).unwrap();
        let marker = Head::read(stored.batches.last().unwrap()).unwrap();
        assert_eq!(
            (marker.attributes, marker.producer_epoch),
            (CONTROL | TRANSACTIONAL, epoch + 1)
        );
    }
    assert_eq!(cluster.dump("t", 0).unwrap().last_stable, 6);
    producer.epoch -= 1;
    assert_eq!(producer.write(12).await, 47, "of a transaction that is over");
}

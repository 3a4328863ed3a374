//! A blocking connection that sends what it is told to and waits for nothing else.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, BrokerId, CreateTopicsRequest, DeleteRecordsRequest, FetchRequest,
    FindCoordinatorRequest, GroupId, JoinGroupRequest, ListOffsetsRequest, MetadataRequest,
    MetadataResponse, OffsetFetchRequest, ProduceRequest, ProduceResponse, RequestHeader,
    ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use super::{Parsed, parse};

/// One connection to one broker.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    correlation: i32,
    versions: HashMap<i16, i16>,
}

/// A broker's answer for one partition of a Produce request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Kafka's error code; 0 is success.
    pub error: i16,
    /// Offset of the first record.
    pub base_offset: i64,
    /// Indexes of the records at fault.
    pub records_at_fault: Vec<i32>,
    /// The broker's words.
    pub message: String,
}

/// A broker's answer for one partition of a Fetch request.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Kafka's error code; 0 is success.
    pub error: i16,
    /// Whole batches.
    pub batches: Vec<Parsed>,
    /// Bytes of a cut batch at the end.
    pub cut: usize,
    /// High watermark.
    pub high_watermark: i64,
    /// Last stable offset.
    pub last_stable: i64,
    /// Log start.
    pub log_start: i64,
    /// Producer id and first offset of aborted transactions.
    pub aborted: Vec<(i64, i64)>,
}

fn invalid(error: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// A topic's name as the protocol crate wants it.
pub fn topic_name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.into()))
}

impl RawClient {
    /// Connects; a failure fails the test.
    #[track_caller]
    pub fn connect(address: &str) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// Connects and asks for the broker's versions.
    pub fn try_connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut client = Self { stream, correlation: 0, versions: HashMap::new() };
        let answer = client.try_call_at(0, &ApiVersionsRequest::default())?;
        for api in answer.api_keys {
            client.versions.insert(api.api_key, api.max_version);
        }
        Ok(client)
    }

    /// The same connection for another thread: one sends, the other receives.
    pub fn split(&self) -> io::Result<Self> {
        let (stream, versions) = (self.stream.try_clone()?, self.versions.clone());
        Ok(Self { stream, correlation: self.correlation, versions })
    }

    /// Highest version that the broker and the protocol crate both have.
    pub fn version<R: Request>(&self) -> i16 {
        let broker = self.versions.get(&R::KEY).copied().unwrap_or(-1);
        let ours = ApiKey::try_from(R::KEY).unwrap().valid_versions().max;
        broker.min(ours)
    }

    /// Writes a request and returns without its answer.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("raw")));
        let mut frame = BytesMut::zeroed(4);
        header.encode(&mut frame, R::header_version(version)).map_err(invalid)?;
        request.encode(&mut frame, version).map_err(invalid)?;
        let length = u32::try_from(frame.len() - 4).map_err(invalid)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame)
    }

    /// Reads the next answer.
    pub fn receive<R: Request>(&mut self, version: i16) -> io::Result<R::Response> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame)?;
        let mut frame = Bytes::from(frame);
        ResponseHeader::decode(&mut frame, R::Response::header_version(version))
            .map_err(invalid)?;
        R::Response::decode(&mut frame, version).map_err(invalid)
    }

    /// A request of a given version and its answer.
    pub fn try_call_at<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> io::Result<R::Response> {
        self.send(version, request)?;
        self.receive::<R>(version)
    }

    /// A request of the highest common version and its answer; a failure fails the test.
    #[track_caller]
    pub fn call<R: Request>(&mut self, request: &R) -> R::Response {
        let version = self.version::<R>();
        self.try_call_at(version, request).unwrap_or_else(|error| panic!("api {}: {error}", R::KEY))
    }

    /// Metadata of all topics or one.
    pub fn try_metadata(&mut self, topic: Option<&str>) -> io::Result<MetadataResponse> {
        use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
        let topics = topic
            .map(|topic| vec![MetadataRequestTopic::default().with_name(Some(topic_name(topic)))]);
        let request =
            MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
        // 12 is in both releases and has topic ids.
        self.try_call_at(12, &request)
    }

    /// A Produce request for these partitions, each with these bytes.
    pub fn produce_request(parts: &[(&str, i32, Vec<u8>)]) -> ProduceRequest {
        let mut topics: Vec<TopicProduceData> = Vec::new();
        for (topic, partition, records) in parts {
            let data = PartitionProduceData::default()
                .with_index(*partition)
                .with_records(Some(Bytes::copy_from_slice(records)));
            topics.push(
                TopicProduceData::default()
                    .with_name(topic_name(topic))
                    .with_partition_data(vec![data]),
            );
        }
        ProduceRequest::default().with_acks(-1).with_timeout_ms(15_000).with_topic_data(topics)
    }

    /// Sends bytes as the records of one partition, by name (Produce v11), all replicas acknowledge.
    #[track_caller]
    pub fn produce(&mut self, topic: &str, partition: i32, records: Vec<u8>) -> Produced {
        self.send_produce(topic, partition, records);
        self.receive_produce()
    }

    /// Writes a Produce request and returns without its answer.
    #[track_caller]
    pub fn send_produce(&mut self, topic: &str, partition: i32, records: Vec<u8>) {
        let request = Self::produce_request(&[(topic, partition, records)]);
        self.send(11, &request).unwrap_or_else(|error| panic!("produce: {error}"));
    }

    /// The next answer to a Produce request of one partition.
    #[track_caller]
    pub fn receive_produce(&mut self) -> Produced {
        let answer = self.receive::<ProduceRequest>(11);
        Self::produced(answer.unwrap_or_else(|error| panic!("produce: {error}"))).remove(0)
    }

    /// The partitions of an answer, in order.
    pub fn produced(answer: ProduceResponse) -> Vec<Produced> {
        let partitions = answer.responses.into_iter().flat_map(|topic| topic.partition_responses);
        partitions
            .map(|partition| Produced {
                error: partition.error_code,
                base_offset: partition.base_offset,
                records_at_fault: partition.record_errors.iter().map(|e| e.batch_index).collect(),
                message: partition.error_message.map(|m| m.to_string()).unwrap_or_default(),
            })
            .collect()
    }

    /// Fetches one partition by name (Fetch v12): `committed` reads to the last stable offset only.
    #[track_caller]
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64, committed: bool) -> Fetched {
        self.fetch_bytes(topic, partition, offset, committed, 4 << 20)
    }

    /// The same with a limit on bytes.
    #[track_caller]
    pub fn fetch_bytes(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        committed: bool,
        bytes: i32,
    ) -> Fetched {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(bytes);
        let topic =
            FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![wanted]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_max_bytes(64 << 20)
            .with_isolation_level(i8::from(committed))
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let answer =
            self.try_call_at(12, &request).unwrap_or_else(|error| panic!("fetch: {error}"));
        let data = &answer.responses[0].partitions[0];
        let (batches, cut) = parse(data.records.as_deref().unwrap_or_default());
        let aborted = data.aborted_transactions.iter().flatten();
        Fetched {
            error: data.error_code,
            batches,
            cut,
            high_watermark: data.high_watermark,
            last_stable: data.last_stable_offset,
            log_start: data.log_start_offset,
            aborted: aborted.map(|a| (a.producer_id.0, a.first_offset)).collect(),
        }
    }

    /// The bytes of batches behind these offsets of partitions 0 and up, in one request as a consumer sends it: it waits for
    /// the first byte. An error of the broker's is an error here.
    pub fn fetch_each(&mut self, topic: &str, offsets: &[i64]) -> io::Result<Vec<(i32, Bytes)>> {
        let wanted = (0..).zip(offsets).map(|(partition, offset)| {
            FetchPartition::default()
                .with_partition(partition)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(1 << 20)
        });
        let topic =
            FetchTopic::default().with_topic(topic_name(topic)).with_partitions(wanted.collect());
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(50 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let answer = self.try_call_at(12, &request)?;
        let partitions = answer.responses.into_iter().flat_map(|topic| topic.partitions);
        let bytes = partitions.map(|data| match data.error_code {
            0 => Ok((data.partition_index, data.records.unwrap_or_default())),
            code => Err(invalid(format!("fetch: error {code}"))),
        });
        bytes.collect()
    }

    /// All batches of a partition as the broker stores them, control batches and aborted data included.
    #[track_caller]
    pub fn read_log(&mut self, topic: &str, partition: i32) -> Vec<Parsed> {
        let mut offset = self.list_offset(topic, partition, -2);
        let mut all: Vec<Parsed> = Vec::new();
        loop {
            let fetched = self.fetch(topic, partition, offset, false);
            assert_eq!(fetched.error, 0, "fetch of {topic}-{partition} at {offset}");
            let Some(last) = fetched.batches.last() else {
                return all;
            };
            offset = last.last_offset() + 1;
            all.extend(fetched.batches);
        }
    }

    /// Whether a group's coordinator is known and, if it is this broker, loaded.
    #[track_caller]
    pub fn has_coordinator(&mut self, group: &str) -> bool {
        let key = StrBytes::from_string(group.to_owned());
        let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![key.clone()]);
        if self.try_call_at(4, &find).is_ok_and(|answer| answer.coordinators[0].error_code != 0) {
            return false;
        }
        let fetch = OffsetFetchRequest::default().with_group_id(GroupId(key)).with_topics(None);
        // 14 is loading; 16 is another broker's group, whose coordinator is asked there.
        self.try_call_at(7, &fetch).is_ok_and(|answer| [0, 16].contains(&answer.error_code))
    }

    /// Joins a group as a consumer that says nothing more, for as long as its session lasts (6 s). This broker must be
    /// the group's coordinator.
    #[track_caller]
    pub fn join_group(&mut self, group: &str) {
        use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(Bytes::from_static(&[0; 10]));
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_session_timeout_ms(6_000)
            .with_rebalance_timeout_ms(6_000)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        // From 4 on a member must ask for its id first.
        let answer = self.try_call_at(3, &request).unwrap();
        assert_eq!(answer.error_code, 0, "join {group}");
    }

    /// Creates a topic with one replica on a cluster of one broker, and waits until that broker knows that it leads: else it
    /// refuses the first batch and takes the next, which is then the first that it knows.
    #[track_caller]
    pub fn create_topic(&mut self, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
        use kafka_protocol::messages::create_topics_request::{
            CreatableTopic, CreatableTopicConfig,
        };
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let configs = configs.iter().map(|(name, value)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        });
        let new = CreatableTopic::default()
            .with_name(topic_name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_timeout_ms(15_000).with_topics(vec![new]);
        let answer = self.call(&request);
        let refused = &answer.topics[0];
        assert_eq!(refused.error_code, 0, "create {topic}: {:?}", refused.error_message);
        crate::wait::wait_until(&format!("leaders of {topic}"), 30, || {
            let metadata = self.try_metadata(Some(topic)).unwrap();
            let partitions_now = &metadata.topics[0].partitions;
            partitions_now.len() == partitions as usize
                && partitions_now.iter().all(|p| p.error_code == 0 && p.leader_id.0 >= 0)
                && (0..partitions).all(|p| self.try_list_offset(-1, topic, p, -1).is_ok())
        });
    }

    /// DeleteRecords: the log starts at `offset`; gives the error code.
    #[track_caller]
    pub fn delete_records(&mut self, topic: &str, partition: i32, offset: i64) -> i16 {
        use kafka_protocol::messages::delete_records_request::{
            DeleteRecordsPartition, DeleteRecordsTopic,
        };
        let wanted =
            DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![wanted]);
        let request =
            DeleteRecordsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
        self.call(&request).topics[0].partitions[0].error_code
    }

    /// ListOffsets: -1 is the end, -2 the start, else a time.
    #[track_caller]
    pub fn list_offset(&mut self, topic: &str, partition: i32, time: i64) -> i64 {
        self.try_list_offset(-1, topic, partition, time).expect("list offsets")
    }

    /// The ends of partitions 0 to `partitions` of a topic, all in one request; none while a partition has no leader here.
    pub fn ends(&mut self, topic: &str, partitions: i32) -> Option<Vec<i64>> {
        use kafka_protocol::messages::list_offsets_request::{
            ListOffsetsPartition, ListOffsetsTopic,
        };
        let wanted = |index| {
            ListOffsetsPartition::default()
                .with_partition_index(index)
                .with_current_leader_epoch(-1)
                .with_timestamp(-1)
        };
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions((0..partitions).map(wanted).collect());
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let answer = self.try_call_at(7, &request).ok()?;
        let ends = answer.topics.first()?.partitions.iter();
        ends.map(|partition| (partition.error_code == 0).then_some(partition.offset)).collect()
    }

    /// The log's end as its leader sees it, replicated or not (replica id 2147483647).
    #[track_caller]
    pub fn leader_end(&mut self, topic: &str, partition: i32) -> i64 {
        self.try_list_offset(i32::MAX, topic, partition, -1).expect("list offsets")
    }

    #[track_caller]
    fn try_list_offset(
        &mut self,
        replica: i32,
        topic: &str,
        partition: i32,
        time: i64,
    ) -> Result<i64, i16> {
        use kafka_protocol::messages::list_offsets_request::{
            ListOffsetsPartition, ListOffsetsTopic,
        };
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(time);
        let topic =
            ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(replica))
            .with_topics(vec![topic]);
        let answer =
            self.try_call_at(7, &request).unwrap_or_else(|error| panic!("list offsets: {error}"));
        let partition = &answer.topics[0].partitions[0];
        if partition.error_code == 0 { Ok(partition.offset) } else { Err(partition.error_code) }
    }
}

//! Frames that are right, and frames of anyone.

use super::body::VALUES_MAX;
use super::*;
use crate::wire::batch::Codec;
use crate::wire::common::{Isolation, TopicRef};
use crate::wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use crate::wire::metadata::MetadataRequest;
use crate::wire::records::BatchBuilder;
use crate::wire::{Request, frame};
use kafka_protocol::messages::{self as kafka, ApiKey as KafkaKey};
use kafka_protocol::protocol::{Encodable, Request as KafkaRequest};
use proptest::prelude::*;

/// A request as Strait sends it, without its size.
fn request<R: Request>(request: &R, version: i16) -> Bytes {
    let mut body = Vec::new();
    request.encode(version, &mut body).unwrap();
    let head = frame::request_head(R::API, version, 7, "strait", body.len()).unwrap();
    [&head[SIZE_BYTES..], &body].concat().into()
}

fn fetch() -> FetchRequest {
    let partition = FetchPartition {
        index: 3,
        current_leader_epoch: 1,
        fetch_offset: 17,
        last_fetched_epoch: -1,
        max_bytes: 1 << 20,
    };
    let topic = TopicRef::new("orders", uuid::Uuid::from_u128(9));
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 8 << 20,
        isolation: Isolation::ReadCommitted,
        session_id: 5,
        session_epoch: 6,
        topics: vec![FetchTopic { topic, partitions: vec![partition] }],
        forgotten: Vec::new(),
        rack: "r1".to_owned(),
    }
}

#[test]
fn a_request_is_told_field_by_field() {
    for version in FetchRequest::VERSIONS {
        let out = decode(request(&fetch(), version), As::Request);
        assert_eq!(out.get("error"), None, "{out:#}");
        assert_eq!((&out["api"], &out["apiVersion"]), (&"Fetch".into(), &version.into()));
        assert_eq!((&out["correlationId"], &out["clientId"]), (&7.into(), &"strait".into()));
        let body = &out["body"];
        assert_eq!((&body["sessionEpoch"], &body["rackId"]), (&6.into(), &"r1".into()), "{body}");
        let topic = &body["topics"][0];
        assert_eq!(topic["topic"].is_null(), version >= 13, "{topic}");
        assert_eq!(topic["partitions"][0]["fetchOffset"], 17);
    }
    let out = decode(request(&MetadataRequest { topics: None }, 12), As::Request);
    assert_eq!(out["body"]["topics"], Value::Null, "{out:#}");
}

#[test]
fn batches_are_shown_by_their_headers_and_checksums() {
    let mut builder = BatchBuilder::new(Codec::Gzip);
    builder.push(1_000, Some(b"k"), Some(b"v"), &[]);
    builder.push(1_005, None, None, &[]);
    let good = builder.finish().unwrap();
    let mut bad = good.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    let all = [&good, &bad[..], &good[..30]].concat();
    let partition = kafka::fetch_response::PartitionData::default()
        .with_records(Some(all.into()))
        .with_error_code(6);
    let topic =
        kafka::fetch_response::FetchableTopicResponse::default().with_partitions(vec![partition]);
    let message = kafka::FetchResponse::default().with_responses(vec![topic]);
    let mut frame = vec![0, 0, 0, 9, 0];
    message.encode(&mut frame, 16).unwrap();
    let out = decode(frame.into(), As::Response { key: 1, version: 16 });
    let partition = &out["body"]["responses"][0]["partitions"][0];
    assert_eq!(partition["error"], "NOT_LEADER_OR_FOLLOWER", "{out:#}");
    let records = &partition["records"];
    assert_eq!(records["bytes_left"], 30, "{records:#}");
    let [first, second] = &records["batches"].as_array().unwrap()[..] else { panic!("{records}") };
    assert_eq!((&first["crcOk"], &second["crcOk"]), (&true.into(), &false.into()));
    assert_eq!((&first["codec"], &first["recordsCount"]), (&"gzip".into(), &2.into()));
    assert_eq!(first["maxTimestamp"], 1_005);
}

/// What `kafka-protocol` writes of a request and its answer, with nothing in them, is read to its last byte in every version
/// that both know; how many.
fn read_of<R>() -> usize
where
    R: KafkaRequest + Default + Encodable,
    R::Response: Default + Encodable,
{
    let key = KafkaKey::try_from(R::KEY).unwrap();
    let versions = key.valid_versions();
    let mut read = 0;
    for version in versions.min..=versions.max {
        for is_request in [true, false] {
            let message = schema::message(R::KEY, is_request).unwrap();
            let mut body = Vec::new();
            let written = match is_request {
                true => R::default().encode(&mut body, version),
                false => R::Response::default().encode(&mut body, version),
            };
            if written.is_err() || !message.versions.hold(version) {
                continue;
            }
            let shown = Body::new(&message, version).read(&body.clone().into());
            assert!(shown.is_ok(), "{key:?} v{version}: {shown:?} of {body:02x?}");
            read += 1;
        }
    }
    read
}

macro_rules! read_of {
    ($($request:ident)*) => { 0 $(+ read_of::<kafka::$request>())* };
}

#[test]
fn every_version_of_every_api_is_read_as_the_crate_writes_it() {
    let read = read_of!(
        ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest
        OffsetFetchRequest FindCoordinatorRequest JoinGroupRequest HeartbeatRequest
        LeaveGroupRequest SyncGroupRequest DescribeGroupsRequest ListGroupsRequest
        SaslHandshakeRequest ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest
        DeleteRecordsRequest InitProducerIdRequest OffsetForLeaderEpochRequest
        AddPartitionsToTxnRequest AddOffsetsToTxnRequest EndTxnRequest TxnOffsetCommitRequest
        DescribeAclsRequest DescribeConfigsRequest SaslAuthenticateRequest CreatePartitionsRequest
        DeleteGroupsRequest IncrementalAlterConfigsRequest DescribeClusterRequest
        DescribeProducersRequest ListTransactionsRequest ConsumerGroupHeartbeatRequest
    );
    assert!(read > 250, "{read}");
}

/// A Fetch answer with something in every field that it has.
fn answer(version: i16) -> Bytes {
    use kafka::fetch_response::{
        AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
        PartitionData,
    };
    let batch = BatchBuilder::new(Codec::None).finish().unwrap();
    let partition = PartitionData::default()
        .with_aborted_transactions(Some(vec![AbortedTransaction::default(); 2]))
        .with_diverging_epoch(EpochEndOffset::default().with_epoch(4).with_end_offset(40))
        .with_current_leader(LeaderIdAndEpoch::default().with_leader_epoch(8))
        .with_records(Some(batch));
    let topic = FetchableTopicResponse::default().with_partitions(vec![partition; 2]);
    let endpoint = NodeEndpoint::default().with_port(9092);
    let mut message = kafka::FetchResponse::default().with_responses(vec![topic]);
    if version >= 16 {
        message = message.with_node_endpoints(vec![endpoint]);
    }
    let mut frame = vec![0, 0, 0, 9, 0];
    message.encode(&mut frame, version).unwrap();
    frame.into()
}

#[test]
fn tagged_fields_have_their_names() {
    let out = decode(answer(16), As::Response { key: 1, version: 16 });
    assert_eq!(out.get("error"), None, "{out:#}");
    let partition = &out["body"]["responses"][0]["partitions"][1];
    assert_eq!(partition["divergingEpoch"], json!({ "epoch": 4, "endOffset": 40 }));
    assert_eq!(partition["abortedTransactions"].as_array().map(Vec::len), Some(2));
    assert_eq!(out["body"]["nodeEndpoints"][0]["port"], 9092);
}

#[test]
fn hostile_counts_are_refused_before_anything_is_made_of_them() {
    // ApiVersions v3 whose array claims 2^31: what aborts a decoder that reserves it.
    let frame = [&[0, 0, 0, 1, 0, 0][..], &[0xff, 0xff, 0xff, 0xff, 0x07]].concat();
    let out = decode(frame.into(), As::Response { key: 18, version: 3 });
    let error = out["error"].as_str().unwrap();
    assert!(error.contains("apiKeys: ") && error.contains("elements"), "{error}");
    // Metadata v0 by the old encoding; and as many empty topics as there are bytes, which is more than is shown.
    let frame = [&[0, 0, 0, 1][..], &i32::MAX.to_be_bytes()].concat();
    let out = decode(frame.into(), As::Response { key: 3, version: 0 });
    assert!(out["error"].as_str().unwrap().contains("elements"), "{out}");
    let many = vec![1; 3 * VALUES_MAX];
    let frame = [&[0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0][..], &[0x81, 0x89, 0x7a], &many].concat();
    let out = decode(frame.into(), As::Request);
    assert!(out["error"].as_str().unwrap().contains("values"), "{}", out["error"]);
}

#[test]
fn what_cannot_be_read_says_where_it_breaks() {
    let frame = request(&fetch(), 17);
    for len in 0..frame.len() {
        let out = decode(frame.slice(..len), As::Request);
        assert!(out.get("error").is_some(), "{len}: {out}");
    }
    let out = decode(frame.slice(..frame.len() - 20), As::Request);
    let error = out["error"].as_str().unwrap();
    assert!(error.starts_with("topics[0].partitions[0]."), "{error}");
    assert_eq!(out["correlationId"], 7, "what was read is shown");
    let out = decode([&frame[..], &[0]].concat().into(), As::Request);
    assert!(out["error"].as_str().unwrap().contains("1 bytes are left"), "{out}");
    let out = decode(Bytes::from_static(&[0, 1, 0, 99, 0, 0, 0, 1]), As::Request);
    assert!(out["error"].as_str().unwrap().contains("4-18 are known"), "{out}");
}

proptest! {
    #[test]
    fn damage_never_panics(at in 0usize..400, byte: u8, version in 12i16..=17, cut in 0usize..400) {
        for (frame, kind) in [
            (answer(version), As::Response { key: 1, version }),
            (request(&fetch(), version), As::Request),
        ] {
            let mut frame = frame.to_vec();
            let len = frame.len();
            frame[at % len] = byte;
            frame.truncate(len - cut % len);
            decode(frame.into(), kind);
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200), key in 0i16..70, version in 0i16..18) {
        let noise = Bytes::from(noise);
        decode_all(&noise, As::Request);
        let head = [&key.to_be_bytes()[..], &version.to_be_bytes(), &noise].concat();
        decode(head.into(), As::Request);
        decode(noise, As::Response { key, version });
    }
}

#[test]
fn frames_are_told_apart_by_their_sizes_and_one_may_come_without() {
    let frame = request(&MetadataRequest { topics: None }, 12);
    let sized = [&(frame.len() as i32).to_be_bytes()[..], &frame].concat();
    let two = Bytes::from([&sized[..], &sized].concat());
    let whole = |input: &Bytes| {
        let frames = decode_all(input, As::Request);
        frames.iter().map(is_whole).collect::<Vec<_>>()
    };
    assert_eq!(whole(&frame), [true]);
    assert_eq!(whole(&sized.into()), [true]);
    assert_eq!(whole(&two), [true, true]);
    assert_eq!(whole(&two.slice(..two.len() - 1)), [true, false]);
    assert_eq!(whole(&frame.slice(1..)), [false]);
    // The correlation id looks like the size of the first five bytes.
    let answer = Bytes::from_static(&[0, 0, 0, 5, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2]);
    let frames = decode_all(&answer, As::Response { key: 18, version: 0 });
    assert_eq!((frames.len(), is_whole(&frames[0])), (1, true), "{frames:?}");
}

#[test]
fn hex_is_read_with_blanks_and_colons() {
    assert_eq!(from_hex(b"00:1f aB\n").unwrap(), &[0, 0x1f, 0xab][..]);
    assert!(from_hex(b"0").is_err() && from_hex(b"0g").is_err());
}

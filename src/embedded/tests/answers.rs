//! Every API in every version that is offered: the answer can be read by a client, and hostile frames end the
//! connection, not the broker.

use kafka_protocol::messages::*;
use kafka_protocol::protocol::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::{ApiKey, Generation, Options, versions};
use super::kit::{Client, batch, cluster, produce, text};
use crate::env::Env;

async fn sweep<R: Request>(client: &mut Client, generation: Generation, request: &R) {
    let api = ApiKey::try_from(R::KEY).unwrap();
    for version in 0..=30 {
        if versions::serves(generation, api, version) {
            client.call(version, request).await;
        }
    }
}

#[tokio::test]
async fn every_offered_version_is_answered() {
    for generation in [Generation::Kafka39, Generation::Kafka43] {
        let options = Options { generation, ..Options::default() };
        let cluster = cluster(options, &[]);
        let mut client = Client::to(&cluster).await;
        let client = &mut client;
        let g = generation;
        client.produce_one(batch(3)).await;
        sweep(client, g, &produce("t", &[(0, batch(1)), (7, batch(1))])).await;
        sweep(client, g, &FetchRequest::default()).await;
        sweep(client, g, &ListOffsetsRequest::default()).await;
        sweep(client, g, &MetadataRequest::default().with_topics(Some(Vec::new()))).await;
        sweep(client, g, &OffsetCommitRequest::default()).await;
        sweep(client, g, &OffsetFetchRequest::default()).await;
        sweep(client, g, &FindCoordinatorRequest::default()).await;
        sweep(client, g, &JoinGroupRequest::default().with_group_id(GroupId(text("g")))).await;
        sweep(client, g, &HeartbeatRequest::default()).await;
        sweep(client, g, &LeaveGroupRequest::default()).await;
        sweep(client, g, &SyncGroupRequest::default()).await;
        let groups = vec![GroupId(text("g"))];
        sweep(client, g, &DescribeGroupsRequest::default().with_groups(groups)).await;
        sweep(client, g, &ListGroupsRequest::default()).await;
        sweep(client, g, &SaslHandshakeRequest::default()).await;
        sweep(client, g, &SaslAuthenticateRequest::default()).await;
        sweep(client, g, &ApiVersionsRequest::default()).await;
        sweep(client, g, &CreateTopicsRequest::default()).await;
        sweep(client, g, &DeleteTopicsRequest::default()).await;
        sweep(client, g, &DeleteRecordsRequest::default()).await;
        sweep(client, g, &InitProducerIdRequest::default().with_transactional_id(None)).await;
        sweep(client, g, &OffsetForLeaderEpochRequest::default()).await;
        sweep(client, g, &AddPartitionsToTxnRequest::default()).await;
        sweep(client, g, &AddOffsetsToTxnRequest::default()).await;
        sweep(client, g, &EndTxnRequest::default()).await;
        sweep(client, g, &TxnOffsetCommitRequest::default()).await;
        sweep(client, g, &DescribeAclsRequest::default()).await;
        sweep(client, g, &DescribeConfigsRequest::default()).await;
        sweep(client, g, &CreatePartitionsRequest::default()).await;
        sweep(client, g, &DeleteGroupsRequest::default()).await;
        sweep(client, g, &IncrementalAlterConfigsRequest::default()).await;
        sweep(client, g, &DescribeClusterRequest::default()).await;
        sweep(client, g, &DescribeProducersRequest::default()).await;
    }
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_told_which_there_are() {
    let cluster = cluster(Options::default(), &[]);
    let mut stream = Env::real().world().connect(cluster.address(1)).await.unwrap();
    stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff]).await.unwrap();
    let mut frame = vec![0; usize::try_from(stream.read_u32().await.unwrap()).unwrap()];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[..6], [0, 0, 0, 7, 0, 35]);
}

#[tokio::test]
async fn what_is_no_request_closes_that_connection_only() {
    let cluster = cluster(Options::default(), &[]);
    let frames: [&[u8]; 6] = [
        &[0xff, 0xff, 0xff, 0xff],
        &[0x7f, 0xff, 0xff, 0xff, 0, 0],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0, 0, 0, 4, 0, 0, 0, 9],
        &[0, 0, 0, 10, 0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
        &[0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff],
    ];
    for frame in frames {
        let mut stream = Env::real().world().connect(cluster.address(1)).await.unwrap();
        stream.write_all(frame).await.unwrap();
        let mut rest = Vec::new();
        // Closed with or without a reset; in either case nothing was answered.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{frame:?}");
    }
    assert_eq!(Client::to(&cluster).await.produce_one(batch(1)).await.0, 0);
}

//! Connections against scripted peers: what is refused, what it is called, and that pipelining keeps its order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::tests_support::{
    OFFERED, Script, Seen, address, answer, greet, offer, on_a_lane, open_against, read_request,
    security,
};
use super::{Beyond, CallError, Connection, FramePool};
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use crate::limits;
use crate::wire::ApiKey;
use crate::wire::metadata::MetadataRequest;
use crate::wire::produce::ProduceRequest;
use crate::wire::sasl_handshake::SaslHandshakeRequest;

const SOON: Duration = Duration::from_secs(5);

/// Opens a plaintext connection to a broker that greets and then runs `then`.
async fn greeted<F>(then: impl FnOnce(DuplexStream) -> F + 'static) -> Connection
where
    F: Future<Output = ()> + 'static,
{
    let broker = |mut stream: DuplexStream| async move {
        greet(&mut stream).await;
        then(stream).await;
    };
    open_against(&security(None, None), broker).await.unwrap()
}

/// What `open` says to a plaintext peer that behaves like this.
async fn refused<F>(broker: impl FnOnce(DuplexStream) -> F) -> Error
where
    F: Future<Output = ()> + 'static,
{
    open_against(&security(None, None), broker).await.unwrap_err()
}

fn heartbeat(connection: &Connection, deadline: Duration) -> super::Pending {
    let body = vec![Bytes::from_static(b"abc")];
    connection.send(ApiKey::Heartbeat, 4, body, deadline).unwrap()
}

fn closed(error: CallError) -> Arc<Error> {
    match error {
        CallError::Closed(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn answers_come_back_in_order_and_the_bodies_are_what_was_sent() {
    on_a_lane(async {
        let connection = greeted(|mut stream| async move {
            let mut seen = Vec::new();
            // All three are on the wire before the first is answered.
            for _ in 0..3 {
                seen.push(read_request(&mut stream).await.unwrap());
            }
            for request in &seen {
                stream.write_all(&answer(request, &request.body)).await.unwrap();
            }
            std::future::pending().await
        })
        .await;
        let large = Bytes::from(vec![7; 30_000]);
        let bodies = [
            vec![Bytes::from_static(b"one")],
            vec![Bytes::from_static(b"head"), large.clone(), Bytes::from_static(b"tail")],
            vec![],
        ];
        let mut pending = Vec::new();
        for body in bodies {
            pending.push(connection.send(ApiKey::Produce, 9, body, SOON).unwrap());
        }
        assert_eq!(connection.in_flight(), 3);
        let answers = futures_util::future::join_all(pending).await;
        let answers: Vec<Bytes> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers[0], "one");
        assert_eq!(answers[1], [b"head", &large[..], b"tail"].concat());
        assert_eq!(answers[2], "");
        assert_eq!((connection.in_flight(), connection.bytes_queued()), (0, 0));
        assert!(!connection.is_closed());
    });
}

#[test]
fn one_byte_at_a_time_is_as_good_as_all_at_once() {
    on_a_lane(async {
        let (mut script, mut accepted) = Script::new();
        script.pipe_bytes = 1;
        let env = Env::of(Arc::new(script));
        let (at, security) = (address(), security(None, None));
        let broker = async {
            let mut stream = accepted.recv().await.unwrap();
            greet(&mut stream).await;
            let request = read_request(&mut stream).await.unwrap();
            assert_eq!(request.body.len(), 5_000);
            stream.write_all(&answer(&request, &[9; 5_000])).await.unwrap();
            stream
        };
        let client = async {
            let connection = Connection::open(&env, &at, &security, Side::Source).await.unwrap();
            let body = vec![Bytes::from(vec![1; 5_000])];
            connection.send(ApiKey::Fetch, 12, body, SOON).unwrap().await.unwrap()
        };
        let (stream, body) = tokio::join!(broker, client);
        assert_eq!(body, vec![9; 5_000]);
        drop(stream);
    });
}

#[test]
fn a_large_frame_comes_in_steps_and_goes_back_to_the_pool() {
    on_a_lane(async {
        let connection = greeted(|mut stream| async move {
            while let Some(request) = read_request(&mut stream).await {
                let body: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
                stream.write_all(&answer(&request, &body)).await.unwrap();
            }
        })
        .await;
        let pool = FramePool::of_this_thread();
        let before = pool.live_bytes();
        let fetch = connection.send(ApiKey::Fetch, 12, vec![], SOON).unwrap();
        let body = fetch.await.unwrap();
        assert_eq!(body.len(), 5_000_000);
        assert!(body.iter().enumerate().all(|(i, &byte)| byte == (i % 251) as u8));
        assert_eq!(pool.live_bytes() - before, 5_000_005, "itself, and no more");
        drop(body);
        assert_eq!(pool.live_bytes(), before);
    });
}

#[test]
fn a_frame_that_waits_for_room_is_not_overdue() {
    on_a_lane(async {
        let connection = greeted(|mut stream| async move {
            while let Some(request) = read_request(&mut stream).await {
                stream.write_all(&answer(&request, &vec![7; 5_000_000])).await.unwrap();
            }
        })
        .await;
        connection.wait_for_room();
        let (pool, elsewhere, beyond) =
            (FramePool::of_this_thread(), FramePool::new(), Beyond::default());
        pool.keep_within(12 << 20, beyond.clone());
        elsewhere.keep_within(0, beyond);
        let cx = Context::from_waker(Waker::noop());
        let taken = || match elsewhere.poll_claim(1 << 20, &cx) {
            Poll::Ready(claim) => claim,
            Poll::Pending => panic!("the place beyond is free"),
        };
        let mut place = Some(taken());
        for room_comes_from_its_lane in [true, false] {
            let used = pool.take(4 << 20);
            let mut fetch = connection.send(ApiKey::Fetch, 12, vec![], SOON).unwrap();
            let waits = tokio::time::timeout(SOON * 3, &mut fetch).await;
            assert!(waits.is_err(), "{waits:?}");
            let wait = connection.room_waits().get().expect("told");
            assert_eq!(wait.bytes, 5_000_005);
            assert!(wait.since.elapsed() > SOON * 2);
            let used = if room_comes_from_its_lane {
                drop(used);
                None
            } else {
                place = None;
                Some(used)
            };
            let body = fetch.await.unwrap();
            assert_eq!(body.len(), 5_000_000);
            assert_eq!(connection.room_waits().get(), None);
            assert_eq!(pool.beyond_bytes() > 0, !room_comes_from_its_lane);
            drop((used, body));
            assert_eq!((pool.live_bytes(), pool.beyond_bytes()), (0, 0));
        }
        assert!(place.is_none());
    });
}

#[test]
fn a_claim_without_bytes_costs_one_step_and_its_deadline() {
    on_a_lane(async {
        let connection = greeted(|mut stream| async move {
            let request = read_request(&mut stream).await.unwrap();
            stream.write_all(&(100i32 << 20).to_be_bytes()).await.unwrap();
            stream.write_all(&request.id.to_be_bytes()).await.unwrap();
            std::future::pending().await
        })
        .await;
        let pool = FramePool::of_this_thread();
        let before = pool.live_bytes();
        let started = Instant::now();
        let fetch = connection.send(ApiKey::Fetch, 12, vec![], SOON).unwrap();
        let behind = heartbeat(&connection, SOON * 10);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(pool.live_bytes() - before, 17 << 16);
        assert!(matches!(fetch.await, Err(CallError::Deadline)));
        assert_eq!(started.elapsed().as_secs(), SOON.as_secs());
        let error = closed(behind.await.unwrap_err());
        assert_eq!(error.code, Code(16));
        assert!(error.message.contains("4 of 104857600 bytes"), "{error}");
        assert_eq!(error.action, Action::Reconnect);
        assert!(connection.is_closed());
        assert_eq!(pool.live_bytes(), before);
    });
}

#[test]
fn the_earliest_deadline_counts_wherever_it_stands() {
    on_a_lane(async {
        let connection = greeted(|mut stream| async move {
            let first = read_request(&mut stream).await.unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
            stream.write_all(&answer(&first, b"")).await.unwrap();
            std::future::pending().await
        })
        .await;
        let started = Instant::now();
        let first = heartbeat(&connection, Duration::from_secs(3));
        let second = heartbeat(&connection, Duration::from_secs(60));
        let third = heartbeat(&connection, Duration::from_secs(20));
        first.await.unwrap();
        assert!(matches!(third.await, Err(CallError::Deadline)));
        assert_eq!(started.elapsed().as_secs(), 20);
        closed(second.await.unwrap_err());
    });
}

#[test]
fn an_answer_for_another_request_closes_the_connection() {
    on_a_lane(async {
        let connection = greeted(|mut stream| async move {
            let first = read_request(&mut stream).await.unwrap();
            let second = read_request(&mut stream).await.unwrap();
            for request in [second, first] {
                stream.write_all(&answer(&request, b"")).await.unwrap();
            }
            std::future::pending().await
        })
        .await;
        let (first, second) = (heartbeat(&connection, SOON), heartbeat(&connection, SOON));
        let error = closed(first.await.unwrap_err());
        assert_eq!(error.code, Code(26));
        assert_eq!(error.message, "answered Heartbeat with correlation id 2, not 1");
        assert_eq!(*closed(second.await.unwrap_err()), *error);
        let refused = connection.send(ApiKey::Heartbeat, 4, vec![], SOON);
        assert_eq!(*closed(refused.unwrap_err()), *error);
        assert_eq!(connection.in_flight(), 0);
    });
}

#[test]
fn a_size_that_cannot_be_is_refused_before_anything_is_reserved() {
    for (api, size) in [
        (ApiKey::Heartbeat, -1),
        (ApiKey::Heartbeat, 0),
        (ApiKey::Heartbeat, 3),
        (ApiKey::Heartbeat, i32::MAX),
        (ApiKey::Heartbeat, limits::CONTROL_FRAME_BYTES_MAX as i32 + 1),
        (ApiKey::Fetch, limits::FETCH_FRAME_BYTES_MAX as i32 + 1),
    ] {
        on_a_lane(async {
            let connection = greeted(move |mut stream| async move {
                read_request(&mut stream).await.unwrap();
                stream.write_all(&size.to_be_bytes()).await.unwrap();
                std::future::pending().await
            })
            .await;
            let pending = connection.send(api, 4, vec![], SOON).unwrap();
            let error = closed(pending.await.unwrap_err());
            assert_eq!(error.code, Code(26), "{error}");
            assert!(error.message.contains(&size.to_string()), "{error}");
            assert_eq!(FramePool::of_this_thread().live_bytes(), 0);
        });
    }
}

#[test]
fn bytes_that_nobody_asked_for_close_the_connection() {
    on_a_lane(async {
        let connection = greeted(|mut stream| async move {
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 9]).await.unwrap();
            std::future::pending().await
        })
        .await;
        tokio::time::sleep(SOON).await;
        let error = connection.closed().unwrap();
        assert_eq!(error.code, Code(26));
        assert!(error.message.contains("no request asked for"), "{error}");
    });
}

#[test]
fn a_header_that_floods_with_tags_is_refused() {
    on_a_lane(async {
        let connection = greeted(|mut stream| async move {
            let Seen { id, .. } = read_request(&mut stream).await.unwrap();
            let mut frame = vec![0, 0, 0, 9];
            frame.extend_from_slice(&id.to_be_bytes());
            frame.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
            stream.write_all(&frame).await.unwrap();
            std::future::pending().await
        })
        .await;
        let error = closed(heartbeat(&connection, SOON).await.unwrap_err());
        assert_eq!(error.code, Code(26));
        assert!(error.message.contains("response header"), "{error}");
    });
}

#[test]
fn a_peer_that_closes_fails_what_is_pending_and_says_how_far_it_got() {
    on_a_lane(async {
        // A listener with SASL answers ApiVersions and nothing else.
        let connection = greeted(|mut stream| async move {
            read_request(&mut stream).await.unwrap();
        })
        .await;
        let error = closed(heartbeat(&connection, SOON).await.unwrap_err());
        assert_eq!(error.code, Code(23), "{error}");
        assert!(error.fix.contains("set `sasl:` for west"), "{error}");

        let connection = greeted(|mut stream| async move {
            let request = read_request(&mut stream).await.unwrap();
            let whole = answer(&request, &[1; 100]);
            stream.write_all(&whole[..50]).await.unwrap();
        })
        .await;
        let (first, second) = (heartbeat(&connection, SOON), heartbeat(&connection, SOON));
        let error = closed(first.await.unwrap_err());
        assert_eq!(error.code, Code(27));
        assert!(error.message.contains("46 of 105 bytes"), "{error}");
        closed(second.await.unwrap_err());

        // Right after the greeting: a lost connection, not a TLS listener.
        let connection = greeted(|_| async {}).await;
        tokio::time::sleep(SOON).await;
        let refused = connection.send(ApiKey::Heartbeat, 4, vec![], SOON);
        let error = closed(refused.unwrap_err());
        assert_eq!((error.code, error.message.as_str()), (Code(27), "closed the connection"));
    });
}

#[test]
fn a_full_connection_says_so_and_tells_when_there_is_room() {
    on_a_lane(async {
        let connection = greeted(|mut stream| async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            while let Some(request) = read_request(&mut stream).await {
                stream.write_all(&answer(&request, b"")).await.unwrap();
            }
        })
        .await;
        let started = Instant::now();
        let mut pending = Vec::new();
        for _ in 0..limits::REQUESTS_IN_FLIGHT_MAX {
            pending.push(heartbeat(&connection, SOON));
        }
        let refused = connection.send(ApiKey::Heartbeat, 4, vec![], SOON);
        assert!(matches!(refused, Err(CallError::Full)));
        connection.ready().await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 3);
        for answer in futures_util::future::join_all(pending).await {
            answer.unwrap();
        }
        // By bytes: one request may pass the bound, the next waits.
        let large = Bytes::from(vec![0; limits::CONNECTION_QUEUE_BYTES_MAX + 1]);
        let first = connection.send(ApiKey::Produce, 9, vec![large], SOON).unwrap();
        let refused = connection.send(ApiKey::Produce, 9, vec![], SOON);
        assert!(matches!(refused, Err(CallError::Full)));
        connection.ready().await.unwrap();
        first.await.unwrap();
    });
}

#[test]
fn dropping_the_last_handle_closes_the_socket_and_fails_what_is_pending() {
    on_a_lane(async {
        let (ended, mut end) = tokio::sync::mpsc::channel(1);
        let connection = greeted(|mut stream| async move {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            ended.send(rest.len()).await.unwrap();
        })
        .await;
        let pending = heartbeat(&connection, SOON);
        let clone = connection.clone();
        drop(connection);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(end.try_recv().is_err());
        drop(clone);
        assert_eq!(closed(pending.await.unwrap_err()).code, Code(27));
        assert_eq!(end.recv().await, Some(4 + 10 + 6 + 1 + 3));
    });
}

#[test]
fn what_is_not_kafka_is_named() {
    on_a_lane(async {
        for (bytes, code, word) in [
            (&[0x15, 3, 3, 0, 2, 2, 80][..], 12, "TLS alert"),
            (&[0x15, 3, 1, 0, 2, 2, 70][..], 12, "TLS alert"),
            (&[0x16, 3, 3, 0, 5][..], 12, "TLS handshake"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", 14, "HTTP"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", 14, "SSH"),
            (&[0x7f, 0xff, 0xff, 0xff][..], 26, "2147483647"),
        ] {
            let error = refused(|mut stream| async move {
                stream.write_all(bytes).await.unwrap();
                std::future::pending().await
            })
            .await;
            assert_eq!(error.code, Code(code), "{error}");
            assert!(error.message.contains(word), "{error}");
        }
        // A TLS listener may also just hang up, with or without two bytes of its alert.
        let error = refused(|_| async {}).await;
        assert_eq!(error.code, Code(12), "{error}");
        assert!(error.fix.contains("`tls:` for cluster west"), "{error}");
        let error = refused(|mut stream| async move {
            stream.write_all(&[0x15, 3]).await.unwrap();
        })
        .await;
        assert!(error.message.contains("alert"), "{error}");
    });
}

#[test]
fn silence_is_named_by_its_stage() {
    on_a_lane(async {
        let started = Instant::now();
        let error = refused(|stream| async move {
            let _held = stream;
            std::future::pending().await
        })
        .await;
        assert_eq!(error.code, Code(16));
        assert!(error.message.contains("ApiVersions"), "{error}");
        assert_eq!(started.elapsed(), limits::CONNECT_TIMEOUT);
    });
}

#[test]
fn names_and_ports_that_lead_nowhere_are_named() {
    on_a_lane(async {
        let (mut script, _accepted) = Script::new();
        script.addresses = None;
        let env = Env::of(Arc::new(script));
        let (at, security) = (address(), security(None, None));
        let error = Connection::open(&env, &at, &security, Side::Source).await.unwrap_err();
        assert_eq!((error.code, error.side), (Code(10), Side::Source));
        assert!(error.message.contains("bootstrap host \"kafka-1.example\""), "{error}");
        let open =
            Connection::open_advertised(&env, &at, 7, &security, Side::Source, &|_| Ok(())).await;
        let error = open.unwrap_err();
        assert_eq!(error.code, Code(11));
        assert!(error.message.contains("broker 7 advertises kafka-1.example:9093"), "{error}");
        assert!(error.fix.contains("advertised.listeners"), "{error}");

        // What the name resolves to is screened, and nothing else is dialled.
        let (mut script, mut accepted) = Script::new();
        script.addresses = Some(vec![([169, 254, 169, 254], 80).into()]);
        let env = Env::of(Arc::new(script));
        let screen = |at: SocketAddr| {
            assert_eq!(at, SocketAddr::from(([169, 254, 169, 254], 80)));
            Err(Error::new(Code(11), Side::Source, Action::Retry, "not there"))
        };
        let open =
            Connection::open_advertised(&env, &at, 7, &security, Side::Source, &screen).await;
        assert_eq!(open.unwrap_err().message, "not there");
        assert!(accepted.try_recv().is_err());

        let (mut script, _accepted) = Script::new();
        script.peers = None;
        let env = Env::of(Arc::new(script));
        let error = Connection::open(&env, &at, &security, Side::Source).await.unwrap_err();
        assert_eq!(error.code, Code(15));
        assert!(error.message.contains("refused"), "{error}");
    });
}

#[test]
fn versions_are_the_highest_that_both_have_and_what_is_lacking_is_named() {
    on_a_lane(async {
        let connection = greeted(|_| std::future::pending()).await;
        assert_eq!(connection.version::<ProduceRequest>(), Some(12));
        assert_eq!(connection.version::<MetadataRequest>(), Some(13));
        assert_eq!(connection.version::<SaslHandshakeRequest>(), Some(1));

        let broker = |mut stream: DuplexStream| async move {
            let request = read_request(&mut stream).await.unwrap();
            stream.write_all(&answer(&request, &offer(&[(0, 0, 8), (18, 0, 3)]))).await.unwrap();
            std::future::pending().await
        };
        let connection = open_against(&security(None, None), broker).await.unwrap();
        let error = connection.require::<ProduceRequest>().unwrap_err();
        assert_eq!(error.code, Code(25));
        assert!(error.message.ends_with("the broker offers 0-8"), "{error}");
        let error = connection.require::<MetadataRequest>().unwrap_err();
        assert!(error.message.ends_with("the broker does not offer it"), "{error}");
        let call = connection.call(&MetadataRequest::default(), SOON).await;
        assert!(matches!(call, Err(CallError::Unsupported { api: ApiKey::Metadata })));
    });
}

#[test]
fn a_broker_that_does_not_know_our_question_is_asked_again_in_its_version() {
    on_a_lane(async {
        let broker = |mut stream: DuplexStream| async move {
            let first = read_request(&mut stream).await.unwrap();
            assert_eq!(first.version, 4);
            // Error 35 in the layout of version 0, whatever was asked.
            let body = [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 3];
            stream.write_all(&answer(&first, &body)).await.unwrap();
            let second = read_request(&mut stream).await.unwrap();
            assert_eq!(second.version, 3);
            stream.write_all(&answer(&second, &offer(OFFERED))).await.unwrap();
            std::future::pending().await
        };
        let connection = open_against(&security(None, None), broker).await.unwrap();
        assert_eq!(connection.version::<ProduceRequest>(), Some(12));

        let error = refused(|mut stream| async move {
            let first = read_request(&mut stream).await.unwrap();
            let body = [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2];
            stream.write_all(&answer(&first, &body)).await.unwrap();
            std::future::pending().await
        })
        .await;
        assert_eq!(error.code, Code(25));
        assert!(error.message.ends_with("the broker offers 0-2"), "{error}");
    });
}

#[test]
fn an_offer_that_lies_about_its_length_is_refused() {
    on_a_lane(async {
        for lie in [vec![0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f], vec![0, 35, 0x7f, 0xff, 0xff, 0xff]] {
            let error = refused(|mut stream| async move {
                let request = read_request(&mut stream).await.unwrap();
                stream.write_all(&answer(&request, &lie)).await.unwrap();
                std::future::pending().await
            })
            .await;
            assert_eq!(error.code, Code(26), "{error}");
            assert!(error.message.contains("ApiVersions"), "{error}");
        }
    });
}

//! Sessions that are renewed on their connection (KIP-368), by what the broker hears and in which order.

use bytes::Bytes;
use tokio::time::sleep;

use super::*;
use crate::connection::tests_support::Seen;
use crate::connection::{CallError, Pending};
use crate::wire::ApiKey;

const SOON: Duration = Duration::from_secs(30);

fn heartbeat(connection: &Connection, body: &'static [u8]) -> Pending {
    connection.send(ApiKey::Heartbeat, 4, vec![Bytes::from_static(body)], SOON).unwrap()
}

impl Broker {
    async fn reads(&mut self) -> Seen {
        read_request(&mut self.0).await.unwrap()
    }

    async fn answers(&mut self, request: &Seen) {
        assert_eq!(request.api, ApiKey::Heartbeat as i16);
        self.0.write_all(&answer(request, &request.body)).await.unwrap();
    }

    /// A login by PLAIN from its offer on, and how long it lasts.
    async fn logs_in(mut stream: DuplexStream, lifetime_ms: i64) -> Self {
        greet(&mut stream).await;
        Self(stream).renews(lifetime_ms).await
    }

    async fn renews(self, lifetime_ms: i64) -> Self {
        let mut broker = self.agreed("PLAIN").await;
        broker.turn(|_| authenticate_answer(0, None, b"", lifetime_ms)).await.unwrap();
        broker
    }
}

async fn opened<F: Future<Output = ()> + 'static>(
    broker: impl FnOnce(DuplexStream) -> F,
) -> Connection {
    open_against(&security(None, Some(plain(true))), broker).await.unwrap()
}

/// Until the renewal is nearly due: 40 s into a session of 60.
async fn until_due(connection: &Connection) {
    let due = connection.leave_at().unwrap() - limits::SESSION_END_MARGIN;
    tokio::time::sleep_until(due - Duration::from_millis(1)).await;
}

#[test]
fn a_renewal_goes_behind_what_is_on_its_way_and_before_what_follows() {
    on_a_lane(async {
        let connection = opened(|stream| async {
            let mut broker = Broker::logs_in(stream, 60_000).await;
            // As a broker does: one after the other, and late.
            let before = broker.reads().await;
            assert_eq!(before.body, "before");
            sleep(Duration::from_secs(3)).await;
            broker.answers(&before).await;
            let mut broker = broker.renews(60_000).await;
            for body in ["amid", "after"] {
                let request = broker.reads().await;
                assert_eq!(request.body, body, "held back, and in order");
                broker.answers(&request).await;
            }
            broker.renews(0).await.rests().await;
        })
        .await;
        let first_end = connection.leave_at().unwrap();
        until_due(&connection).await;
        let before = heartbeat(&connection, b"before");
        sleep(Duration::from_secs(1)).await;
        let (amid, after) = (heartbeat(&connection, b"amid"), heartbeat(&connection, b"after"));
        assert_eq!(connection.in_flight(), 4, "the renewal is one of them");
        assert_eq!(before.await.unwrap(), "before");
        assert_eq!((amid.await.unwrap(), after.await.unwrap()), ("amid".into(), "after".into()));
        let second_end = connection.leave_at().unwrap();
        assert!(second_end > first_end + Duration::from_secs(30), "{second_end:?}");
        assert!(!connection.is_ending());
        sleep(Duration::from_secs(60)).await;
        // The second renewal was told no end.
        assert_eq!((connection.leave_at(), connection.is_closed()), (None, false));
    });
}

#[test]
fn a_connection_that_is_full_logs_in_again_all_the_same() {
    on_a_lane(async {
        let connection = opened(|stream| async {
            let mut broker = Broker::logs_in(stream, 60_000).await;
            let mut heard = Vec::new();
            for _ in 0..limits::REQUESTS_IN_FLIGHT_MAX {
                heard.push(broker.reads().await);
            }
            sleep(Duration::from_secs(3)).await;
            for request in &heard {
                broker.answers(request).await;
            }
            broker.renews(0).await.rests().await;
        })
        .await;
        until_due(&connection).await;
        let most = 0..limits::REQUESTS_IN_FLIGHT_MAX;
        let pending: Vec<_> = most.map(|_| heartbeat(&connection, b"one")).collect();
        assert_eq!(connection.in_flight(), limits::REQUESTS_IN_FLIGHT_MAX);
        for answer in pending {
            assert_eq!(answer.await.unwrap(), "one");
        }
        sleep(Duration::from_secs(5)).await;
        assert_eq!((connection.leave_at(), connection.is_closed()), (None, false));
    });
}

#[test]
fn a_renewal_that_is_refused_ends_the_connection_and_what_it_held_back_was_never_sent() {
    on_a_lane(async {
        let connection = opened(|stream| async {
            let broker = Broker::logs_in(stream, 60_000).await;
            let mut broker = broker.agreed("PLAIN").await;
            sleep(Duration::from_secs(1)).await;
            broker.turn(|_| authenticate_answer(58, Some(PASSWORD), b"", 0)).await;
            assert!(read_request(&mut broker.0).await.is_none(), "nothing else is heard");
        })
        .await;
        until_due(&connection).await;
        sleep(Duration::from_millis(500)).await;
        let held = heartbeat(&connection, b"held");
        let CallError::Closed(error) = held.await.unwrap_err() else { panic!() };
        assert_eq!(error.code, Code(22), "{error}");
        shows_no_secret(&error);
        assert!(connection.is_closed());
    });
}

#[test]
fn a_renewal_that_is_not_answered_leaves_in_time_and_ends_by_its_deadline() {
    on_a_lane(async {
        let connection = opened(|stream| async {
            Broker::logs_in(stream, 60_000).await.rests().await;
        })
        .await;
        until_due(&connection).await;
        sleep(Duration::from_secs(1)).await;
        let held = heartbeat(&connection, b"held");
        sleep(Duration::from_secs(10)).await;
        assert!(connection.is_ending() && !connection.is_closed());
        assert!(matches!(held.await, Err(CallError::Closed(error)) if error.code == Code(16)));
    });
}

#[test]
fn a_request_that_is_held_back_for_too_long_is_overdue_as_any_other() {
    on_a_lane(async {
        let connection = opened(|stream| async {
            Broker::logs_in(stream, 60_000).await.rests().await;
        })
        .await;
        until_due(&connection).await;
        sleep(Duration::from_secs(1)).await;
        let (api, deadline) = (ApiKey::Heartbeat, Duration::from_secs(2));
        let held = connection.send(api, 4, vec![], deadline).unwrap();
        assert!(matches!(held.await, Err(CallError::Deadline)));
        assert!(connection.is_closed());
    });
}

#[test]
fn without_a_token_nothing_is_held_up_and_with_one_the_session_goes_on() {
    on_a_lane(async {
        for comes in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let authority = Authority::new("idp CA");
            let source = TokenSource::ClientCredentials {
                token_endpoint: "https://idp.example/".to_owned(),
                client_id: "x".to_owned(),
                client_secret: Secret::new(PASSWORD),
                scope: None,
                ca: Some(file(&dir, "ca.pem", &authority.pem)),
            };
            let security = security(None, Some(Sasl::OAuthBearer(source)));
            let acceptor = authority.issue(&["idp.example"], |_| {}).acceptor(&[&TLS13], None);
            let (script, mut accepted) = Script::new();
            let env = Env::of(Arc::new(script));
            let tokens = async move |stream: DuplexStream| {
                let mut idp = acceptor.accept(stream).await.unwrap();
                let json = format!(r#"{{"access_token":"{TOKEN}","expires_in":30}}"#);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", json.len());
                idp.write_all(format!("{head}{json}").as_bytes()).await.unwrap();
                idp.flush().await.unwrap();
                let _ = idp.read_to_end(&mut Vec::new()).await;
            };
            let broker = async move {
                let mut stream = accepted.recv().await.unwrap();
                greet(&mut stream).await;
                tokens(accepted.recv().await.unwrap()).await;
                let mut broker = Broker(stream).agreed("OAUTHBEARER").await;
                let lasts = |_: &str| authenticate_answer(0, None, b"", 60_000);
                broker.turn(lasts).await.unwrap();
                // The endpoint is away at first.
                drop(accepted.recv().await.unwrap());
                let request = broker.reads().await;
                assert_eq!(request.body, "on");
                broker.answers(&request).await;
                if !comes {
                    while let Some(endpoint) = accepted.recv().await {
                        drop(endpoint);
                    }
                    return;
                }
                tokens(accepted.recv().await.unwrap()).await;
                let mut broker = broker.agreed("OAUTHBEARER").await;
                broker.turn(lasts).await.unwrap();
                broker.rests().await;
            };
            tokio::task::spawn_local(broker);
            let at = address();
            let connection = Connection::open(&env, &at, &security, Side::Target).await.unwrap();
            let end = connection.leave_at().unwrap();
            until_due(&connection).await;
            sleep(Duration::from_millis(300)).await;
            assert_eq!(heartbeat(&connection, b"on").await.unwrap(), "on");
            tokio::time::sleep_until(end + Duration::from_secs(1)).await;
            assert_eq!(connection.is_ending(), !comes);
            assert!(!connection.is_closed());
            assert_eq!(connection.leave_at().unwrap() > end, comes);
        }
    });
}

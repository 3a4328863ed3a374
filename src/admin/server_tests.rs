use super::*;
use crate::admin::{Endpoint, Place};
use crate::config::resolved::{ListenerTls, Secret};
use crate::connection::tests_support::{Authority, file};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TOKEN: &str = "canary-0123456789abcdef";

/// What listens at a port of the system's choice.
fn anywhere() -> Telemetry {
    Telemetry::plain(SocketAddr::from(([127, 0, 0, 1], 0)))
}

async fn start_as(telemetry: &Telemetry, board: Arc<Board>) -> (Env, SocketAddr) {
    let env = Env::real();
    let (addr, server) = serve(env.clone(), telemetry, board).await.unwrap();
    tokio::spawn(server);
    (env, addr)
}

async fn start(board: Arc<Board>) -> (Env, SocketAddr) {
    start_as(&anywhere(), board).await
}

/// As `strait status --telemetry` asks.
async fn get(env: &Env, addr: SocketAddr, path: &str) -> Result<String, Error> {
    let place: Place = addr.to_string().parse().unwrap();
    crate::admin::get(env, &Endpoint::at(place, None, None).unwrap(), path).await
}

/// Writes, and reads until the end; what came before an abort counts.
async fn exchange(env: &Env, addr: SocketAddr, request: &[u8]) -> String {
    let mut stream = env.world().connect(addr).await.unwrap();
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(n @ 1..)) = timeout(Duration::from_secs(30), stream.read(&mut buffer)).await {
        answer.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn every_path_answers() {
    let board = Arc::new(Board::default());
    let (env, addr) = start(board.clone()).await;
    assert!(get(&env, addr, "/metrics").await.unwrap().contains("strait_build_info"));
    let status: Status = serde_json::from_str(&get(&env, addr, "/status").await.unwrap()).unwrap();
    assert_eq!(status, Status::of(&board));
    assert_eq!(get(&env, addr, "/healthz").await.unwrap(), "ok\n");
    assert_eq!(get(&env, addr, "/readyz").await.unwrap(), "ok\n");
    assert!(get(&env, addr, "/").await.unwrap().contains("/metrics"));
    let refused = get(&env, addr, "/../etc/passwd").await.unwrap_err();
    assert!(refused.message.contains("404"), "{refused}");
}

#[tokio::test]
async fn a_draining_process_is_not_ready_and_lives() {
    let board = Arc::new(Board::default());
    let (env, addr) = start(board.clone()).await;
    board.set_draining();
    let refused = get(&env, addr, "/readyz").await.unwrap_err();
    assert!(refused.message.contains("503"), "{refused}");
    assert_eq!(get(&env, addr, "/healthz").await.unwrap(), "ok\n");
}

#[tokio::test]
async fn what_is_not_a_get_is_refused() {
    let (env, addr) = start(Arc::new(Board::default())).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"] {
        let target = if method == "CONNECT" { "a:1" } else { "/status" };
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        let answer = exchange(&env, addr, request.as_bytes()).await;
        let first = answer.lines().next().unwrap_or_default();
        let refused = [" 405 ", " 400 ", " 421 "].iter().any(|status| first.contains(status));
        assert!(refused, "{method}: {answer}");
    }
    let head = exchange(&env, addr, b"HEAD /status HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(head.contains(" 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn garbage_is_cut_and_the_next_is_served() {
    let (env, addr) = start(Arc::new(Board::default())).await;
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(10_000));
    let cases: [&[u8]; 8] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ];
    for case in cases {
        let answer = exchange(&env, addr, case).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(get(&env, addr, "/healthz").await.unwrap(), "ok\n");
}

#[tokio::test]
async fn pipelined_requests_get_one_answer() {
    let (env, addr) = start(Arc::new(Board::default())).await;
    let one = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = exchange(&env, addr, one.repeat(3).as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}

/// Whatever a proxy before us took it for: one answer at most, and none of a second request within.
#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused_or_read_once() {
    let (env, addr) = start(Arc::new(Board::default())).await;
    let within = "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let refused = [
        (
            "two lengths",
            "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 45\r\n\r\n",
        ),
        (
            "two equal lengths",
            "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 45\r\nContent-Length: 45\r\n\r\n",
        ),
        ("a list of lengths", "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0, 45\r\n\r\n"),
        ("a signed length", "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +45\r\n\r\n"),
        (
            "length and chunks",
            "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 45\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunks",
            "GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunks in disguise",
            "GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunks of 1.0",
            "GET / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("a folded line", "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n"),
        (
            "a space before the colon",
            "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length : 45\r\n\r\n",
        ),
        ("a bare CR", "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rContent-Length: 45\r\n\r\n"),
        ("a zero byte", "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("another host", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        (
            "another host in the target",
            "GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        ("an upgrade", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ];
    for (what, request) in refused {
        let answer = exchange(&env, addr, format!("{request}{within}").as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
        assert!(!answer.contains("strait.status"), "{what}: {answer}");
    }
    let once = [
        ("bare LF", "GET /healthz HTTP/1.1\nHost: localhost\n\n"),
        (
            "a length of nought",
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "keep-alive",
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            "h2c",
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        ),
    ];
    for (what, request) in once {
        let answer = exchange(&env, addr, format!("{request}{within}").as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{what}: {answer}");
        assert!(answer.ends_with("ok\n"), "{what}: {answer}");
    }
}

#[tokio::test]
async fn without_the_token_one_hears_whether_it_is_well_and_no_more() {
    let board = Arc::new(Board::default());
    let telemetry = Telemetry { token: Some(Secret::new(TOKEN)), ..anywhere() };
    let (env, addr) = start_as(&telemetry, board.clone()).await;
    let ask = async |path: &str, token: Option<&str>| {
        let place: Place = format!("http://{addr}").parse().unwrap();
        let endpoint = Endpoint::at(place, None, token.map(Secret::new)).unwrap();
        crate::admin::get(&env, &endpoint, path).await
    };
    for path in ["/", "/metrics", "/status"] {
        assert!(ask(path, Some(TOKEN)).await.is_ok(), "{path}");
    }
    for path in ["/", "/metrics", "/status", "/no", "/healthz/../status", "//healthz"] {
        for token in [None, Some("canary-0123456789abcdeg")] {
            let refused = ask(path, token).await.unwrap_err();
            assert!(refused.message.contains("401"), "{path}: {refused}");
            assert!(!refused.to_string().contains("canary"), "{path}: {refused}");
        }
    }
    assert_eq!(ask("/healthz", None).await.unwrap(), "ok\n");
    assert_eq!(ask("/readyz", None).await.unwrap(), "ok\n");
    let link = crate::engine::stats::LinkEntry::new("canary-link", "east", "west", true);
    link.fail(Error::new(Code(29), Side::Local, Action::Stop, "x"));
    board.add_link(Arc::new(link));
    let readyz = |authorization: String| {
        format!("GET /readyz HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n")
    };
    let blind = exchange(&env, addr, readyz(String::new()).as_bytes()).await;
    assert!(blind.contains(" 503 ") && blind.ends_with("not ready\n"), "{blind}");
    let seen = readyz(format!("Authorization: Bearer {TOKEN}\r\n"));
    let seen = exchange(&env, addr, seen.as_bytes()).await;
    assert!(seen.contains(" 503 ") && seen.contains("canary-link failed"), "{seen}");
    let wants = exchange(&env, addr, b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(wants.contains("www-authenticate: Bearer\r\n"), "{wants}");
}

#[tokio::test]
async fn over_tls_it_is_asked_by_who_trusts_it_and_not_in_plain() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ops CA");
    let own = authority.issue(&["strait.example", "127.0.0.1"], |_| {});
    let ca = file(&dir, "ca.pem", &authority.pem);
    let stranger = file(&dir, "stranger.pem", &Authority::new("stranger").pem);
    let cert = file(&dir, "own.pem", &own.certificate.pem());
    let key = file(&dir, "own.key", &own.key.serialize_pem());
    let telemetry = Telemetry {
        hosts: vec!["strait.example".to_owned()],
        tls: Some(ListenerTls { cert, key, ca: Some(ca.clone()) }),
        token: Some(Secret::new(TOKEN)),
        ..anywhere()
    };
    let (env, addr) = start_as(&telemetry, Arc::new(Board::default())).await;
    // As `strait status` asks by the same configuration, once the port is known.
    let listens = Telemetry { listen: addr, ..telemetry.clone() };
    let own = Endpoint::of(&listens).unwrap();
    let status = crate::admin::get(&env, &own, "/status").await.unwrap();
    let status: Status = serde_json::from_str(&status).unwrap();
    // rcgen's own end, where none is given.
    let end = rcgen::date_time_ymd(4096, 1, 1).unix_timestamp();
    assert_eq!(status.telemetry.certificate_expires_ms, Some(end * 1000));
    let metrics = crate::admin::get(&env, &own, "/metrics").await.unwrap();
    for line in [
        format!("strait_certificate_expiry_timestamp_seconds{{of=\"telemetry\"}} {end}"),
        "strait_security_files_refused{of=\"telemetry\"} 0".to_owned(),
        "strait_security_reloads_total{of=\"telemetry\",result=\"ok\"} 0".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    let ask = async |url: &str, ca| {
        let place: Place = url.parse().unwrap();
        let endpoint = Endpoint::at(place, Some(ca), Some(Secret::new(TOKEN))).unwrap();
        crate::admin::get(&env, &endpoint, "/status").await
    };
    assert!(ask(&format!("https://{addr}"), &ca).await.is_ok());
    let untrusted = ask(&format!("https://{addr}"), &stranger).await.unwrap_err();
    assert!(untrusted.message.contains("certificate"), "{untrusted}");
    // Whoever speaks plain HTTP to it is not heard, and what is no TLS is not waited for.
    let plain = ask(&format!("http://{addr}"), &ca).await.unwrap_err();
    assert!(!plain.to_string().contains("canary"), "{plain}");
    let answer = exchange(&env, addr, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1"), "{answer}");
    let wrong_name = Telemetry { hosts: vec!["other.example".to_owned()], ..listens };
    let other = Endpoint::of(&wrong_name).unwrap();
    let refused = crate::admin::get(&env, &other, "/status").await.unwrap_err();
    assert!(refused.message.contains("certificate"), "{refused}");
}

#[tokio::test]
async fn silent_and_slow_peers_are_cut_in_time_and_bounded_in_number() {
    let env = Env::real();
    let listener = env.world().listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let addr = listener.local_addr();
    let patience =
        Patience { header: Duration::from_millis(300), whole: Duration::from_millis(600) };
    let (guard, _) = Guard::load(&anywhere()).unwrap();
    tokio::spawn(accept(listener, Arc::new(Site::new(Arc::default(), guard)), patience));
    let started = tokio::time::Instant::now();
    // More than the bound, each with half a header, and one that sends a byte now and then.
    let mut silent = Vec::new();
    for _ in 0..limits::TELEMETRY_CONNECTIONS_MAX + 8 {
        let mut stream = env.world().connect(addr).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
        silent.push(stream);
    }
    let mut slow = silent.remove(0);
    let dripping = async {
        while slow.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(3), dripping).await.expect("a slow peer is cut");
    assert_eq!(get(&env, addr, "/healthz").await.unwrap(), "ok\n");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let (env, addr) = start(Arc::new(Board::default())).await;
    let taken = Telemetry::plain(addr);
    let error = serve(env, &taken, Arc::new(Board::default())).await.err().unwrap();
    assert!(error.message.contains("telemetry cannot listen"), "{error}");
}

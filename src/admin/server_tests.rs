use super::*;
use crate::admin::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn start(board: Arc<Board>) -> (Env, SocketAddr) {
    let env = Env::real();
    let (addr, server) =
        serve(env.clone(), SocketAddr::from(([127, 0, 0, 1], 0)), board).await.unwrap();
    tokio::spawn(server);
    (env, addr)
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
        let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let answer = exchange(&env, addr, request.as_bytes()).await;
        let first = answer.lines().next().unwrap_or_default();
        assert!(first.contains(" 405 ") || first.contains(" 400 "), "{method}: {answer}");
    }
    let head = exchange(&env, addr, b"HEAD /status HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.contains(" 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn garbage_is_cut_and_the_next_is_served() {
    let (env, addr) = start(Arc::new(Board::default())).await;
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(10_000));
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
    let one = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = exchange(&env, addr, one.repeat(3).as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}

#[tokio::test]
async fn silent_and_slow_peers_are_cut_in_time_and_bounded_in_number() {
    let env = Env::real();
    let listener = env.world().listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let addr = listener.local_addr();
    let patience =
        Patience { header: Duration::from_millis(300), whole: Duration::from_millis(600) };
    tokio::spawn(accept(listener, Arc::new(Board::default()), patience));
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
    let error = serve(env, addr, Arc::new(Board::default())).await.err().unwrap();
    assert!(error.message.contains("telemetry cannot listen"), "{error}");
}

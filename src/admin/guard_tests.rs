use hyper::header::HeaderValue;

use super::*;
use crate::config::resolved::{Secret, SecretPart};
use crate::connection::tests_support::on_a_lane;
use crate::limits;

const TOKEN: &str = "canary-0123456789abcdef";

fn guard(listen: &str, hosts: &[&str], token: Option<Secret>) -> Guard {
    let mut settings = Telemetry::plain(listen.parse().unwrap());
    settings.hosts = hosts.iter().map(ToString::to_string).collect();
    settings.token = token;
    Guard::load(&settings).unwrap().0
}

fn request(target: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn told(guard: &Guard, target: &str, headers: &[(&str, &str)]) -> u16 {
    let admitted = guard.admit(&request(target, headers));
    admitted.map_or_else(|(status, _)| status.as_u16(), |()| 200)
}

#[test]
fn a_request_for_another_host_is_refused() {
    let loopback = guard("127.0.0.1:9660", &[], None);
    let one = guard("192.0.2.7:9660", &["strait.example"], None);
    let all = guard("0.0.0.0:9660", &["strait.example"], None);
    let all_v6 = guard("[::]:9660", &[], None);
    for (host, statuses) in [
        ("localhost", [200, 200, 200, 200]),
        ("LOCALHOST.:9660", [200, 200, 200, 200]),
        ("127.0.0.1:9660", [200, 200, 200, 200]),
        ("[::1]:1234", [200, 200, 200, 200]),
        ("192.0.2.7:9660", [421, 200, 200, 200]),
        ("192.0.2.8", [421, 421, 200, 200]),
        ("[2001:db8::1]:9660", [421, 421, 200, 200]),
        ("strait.example:443", [421, 200, 200, 421]),
        ("Strait.Example.", [421, 200, 200, 421]),
        // What a rebinding page would send, and what is made to look like one of ours.
        ("evil.example:9660", [421, 421, 421, 421]),
        ("localhost.evil.example", [421, 421, 421, 421]),
        ("127.0.0.1.evil.example", [421, 421, 421, 421]),
        ("evil.example@localhost", [421, 421, 421, 421]),
        ("localhost@evil.example", [421, 421, 421, 421]),
        ("localhost/evil", [421, 421, 421, 421]),
        ("localhost evil", [421, 421, 421, 421]),
        ("2130706433", [421, 421, 421, 421]),
        ("[::1", [421, 421, 421, 421]),
        (":9660", [421, 421, 421, 421]),
        ("", [421, 421, 421, 421]),
    ] {
        let guards = [&loopback, &one, &all, &all_v6];
        assert_eq!(guards.map(|guard| told(guard, "/", &[("host", host)])), statuses, "{host:?}");
    }
    assert_eq!(told(&loopback, "/", &[]), 400);
    assert_eq!(told(&loopback, "/", &[("host", "localhost"), ("host", "localhost")]), 400);
    // The absolute form says the same host, or nothing is believed.
    let absolute = |target, host| told(&loopback, target, &[("host", host)]);
    assert_eq!(absolute("http://localhost:9660/status", "localhost:9660"), 200);
    assert_eq!(absolute("http://evil.example/status", "localhost"), 421);
    assert_eq!(absolute("http://localhost/status", "evil.example"), 421);
    assert_eq!(absolute("http://evil.example/status", "evil.example"), 421);
}

#[test]
fn a_page_of_another_origin_is_refused() {
    let guard = guard("127.0.0.1:9660", &["strait.example"], None);
    for (origin, status) in [
        ("http://localhost:9660", 200),
        ("HTTP://LOCALHOST:9660", 403),
        ("https://LocalHost:9660", 200),
        ("http://localhost", 403),
        ("http://localhost:96600", 403),
        ("http://evil.example", 403),
        ("http://strait.example", 403),
        ("null", 403),
        ("", 403),
        ("file://", 403),
    ] {
        let headers = [("host", "localhost:9660"), ("origin", origin)];
        assert_eq!(told(&guard, "/status", &headers), status, "{origin:?}");
    }
    let own = ("origin", "http://localhost:9660");
    assert_eq!(told(&guard, "/", &[("host", "localhost:9660"), own, own]), 403);
}

#[test]
fn only_the_whole_token_is_the_token() {
    let guard = guard("127.0.0.1:9660", &[], Some(Secret::new(TOKEN)));
    let access = |shown: &[&str]| {
        let shown: Vec<_> = shown.iter().map(|shown| ("authorization", *shown)).collect();
        guard.now().access(request("/", &shown).headers())
    };
    let full = format!("Bearer {TOKEN}");
    assert_eq!(access(&[&full]), Access::Full);
    assert_eq!(access(&[&format!("bEARER {TOKEN}")]), Access::Full);
    for wrong in [
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        "Bearer canary-0123456789abcde",
        "Bearer canary-0123456789abcdeg",
        "Bearer canary-0123456789abcdef0",
        "Bearer canary-0123456789ABCDEF",
        "Bearer  canary-0123456789abcdef",
        "Basic canary-0123456789abcdef",
        "Bearer canary-0123456789abcdef, Bearer x",
    ] {
        assert_eq!(access(&[wrong]), Access::Probe, "{wrong:?}");
    }
    assert_eq!(access(&[]), Access::Probe);
    assert_eq!(access(&[&full, &full]), Access::Probe, "one of two may be a proxy's");
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff").unwrap());
    assert_eq!(guard.now().access(&headers), Access::Probe);
}

#[test]
fn a_token_that_changes_is_taken_and_a_bad_one_is_not() {
    on_a_lane(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let write = |token: &str| std::fs::write(&path, token).unwrap();
        write(TOKEN);
        let mut settings = Telemetry::plain(([127, 0, 0, 1], 9660).into());
        settings.token = Some(Secret::read(TOKEN, vec![SecretPart::File(path.clone())]));
        let (guard, watch) = Guard::load(&settings).unwrap();
        let guard = Arc::new(guard);
        tokio::spawn(guard.clone().keep_fresh(Env::real(), Arc::default(), watch));
        let is_let_in = |token: &str| {
            let headers = [("authorization", &*format!("Bearer {token}"))];
            guard.now().access(request("/", &headers).headers()) == Access::Full
        };
        let changes_to = async |token: &str| {
            for _ in 0..4 {
                tokio::time::sleep(limits::SECURITY_LOOK_INTERVAL).await;
                // The file is read on another thread, for which no clock stands still.
                tokio::task::spawn_blocking(|| {}).await.unwrap();
                if is_let_in(token) {
                    return true;
                }
            }
            false
        };
        assert!(is_let_in(TOKEN));
        write("canary-fedcba9876543210");
        assert!(changes_to("canary-fedcba9876543210").await);
        assert!(!is_let_in(TOKEN), "the old one is none any more");
        for bad in ["", "short", "canary fedcba9876543210", "canary-fedcba987654321\u{e9}"] {
            write(bad);
            assert!(!changes_to(bad).await, "{bad:?}");
            assert!(is_let_in("canary-fedcba9876543210"), "{bad:?}");
        }
    });
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "short").unwrap();
    let mut settings = Telemetry::plain(([127, 0, 0, 1], 9660).into());
    settings.token = Some(Secret::read("short", vec![SecretPart::File(path)]));
    let error = Guard::load(&settings).err().unwrap();
    assert!(error.message.contains("telemetry.token") && !error.fix.is_empty(), "{error}");
    assert!(!error.to_string().contains("short"), "{error}");
}

/// Whatever stands where the token file was: told by name with what to do, and never waited for.
#[cfg(unix)]
#[test]
fn what_is_no_file_in_the_token_s_place_is_named_at_start_and_later() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("real"), TOKEN).unwrap();
    std::fs::write(at("locked"), TOKEN).unwrap();
    std::fs::set_permissions(at("locked"), PermissionsExt::from_mode(0o000)).unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    // Who may read everything is not kept out by rights.
    let is_locked = std::fs::read(at("locked")).is_err();
    let of = |path: PathBuf| {
        let mut settings = Telemetry::plain(([127, 0, 0, 1], 9660).into());
        settings.token = Some(Secret::read(TOKEN, vec![SecretPart::File(path)]));
        settings
    };
    let mut bad = vec![("gone", "cannot be read"), ("folder", "directory")];
    if is_locked {
        bad.push(("locked", "cannot be read"));
    }
    for (name, says) in &bad {
        let error = Guard::load(&of(at(name))).err().unwrap();
        let place = at(name).display().to_string();
        assert!(error.message.contains(&place) && error.message.contains(says), "{error}");
        assert!(error.fix.contains("may read") && !error.to_string().contains(TOKEN), "{error}");
    }
    // A pipe has given what it had: its token stays, and it is not asked again.
    let (guard, _) = Guard::load(&of(at("pipe"))).unwrap();
    assert!(guard.files.is_empty());

    symlink("real", at("token")).unwrap();
    let (guard, mut watch) = Guard::load(&of(at("token"))).unwrap();
    let cell = FilesCell::default();
    let mut look = || {
        for _ in 0..2 {
            guard.look(&Files::read(&guard.files), &mut watch, &cell, 0);
        }
        cell.refusal()
    };
    assert_eq!(look(), None);
    bad.push(("pipe", "is a pipe or a device"));
    for (name, says) in bad {
        std::fs::remove_file(at("token")).unwrap();
        symlink(name, at("token")).unwrap();
        let error = look().unwrap();
        let place = at("token").display().to_string();
        assert!(error.message.contains(&place) && error.message.contains(says), "{error}");
        assert!(error.fix.contains("may read") && !error.to_string().contains(TOKEN), "{error}");
        std::fs::remove_file(at("token")).unwrap();
        symlink("real", at("token")).unwrap();
        assert_eq!(look(), None, "{name}");
    }
    std::fs::write(at("other"), "canary-fedcba9876543210").unwrap();
    std::fs::remove_file(at("token")).unwrap();
    symlink("other", at("token")).unwrap();
    assert_eq!(look(), None);
    let other = request("/", &[("authorization", "Bearer canary-fedcba9876543210")]);
    assert_eq!(guard.now().access(other.headers()), Access::Full);
}

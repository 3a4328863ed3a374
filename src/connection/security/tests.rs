//! Files that change while they are in use: what is taken, what is not, and what is said of it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::super::tests_support::{Authority, Identity, address};
use super::files::{Files, named};
use super::{NOT_TAKEN, Security};
use crate::config::resolved::{Cluster, Sasl, ScramHash, Secret, SecretPart, Tls, TokenSource};
use crate::error::Error;

/// A cluster whose security is in files.
struct Kept {
    dir: TempDir,
    authority: Authority,
    security: Security,
    now: i64,
}

impl Kept {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("west CA");
        let at = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
        let own = authority.issue(&["strait"], |_| {});
        write("ca.pem", &authority.pem);
        write("own.pem", &own.certificate.pem());
        write("own.key", &own.key.serialize_pem());
        write("password", "canary-old\n");
        let identity = Some((at("own.pem"), at("own.key")));
        let tls = Tls { ca: Some(at("ca.pem")), identity, ..Tls::default() };
        let password = Secret::read("canary-old", vec![SecretPart::File(at("password"))]);
        let username = "strait".to_owned();
        let sasl = Sasl::Scram { hash: ScramHash::Sha256, username, password };
        let security = Security::load(&cluster(Some(tls), Some(sasl))).unwrap();
        Self { dir, authority, security, now: 1_790_000_000 }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn write_pair(&self, own: &Identity) {
        self.write("own.pem", &own.certificate.pem());
        self.write("own.key", &own.key.serialize_pem());
    }

    /// Whether what new connections use has changed by a look.
    fn look(&self) -> bool {
        let before = self.security.now();
        self.security.look(&Files::read(&self.security.0.files), self.now);
        !std::sync::Arc::ptr_eq(&before, &self.security.now())
    }

    /// Whether it changes by two looks: never by the first, which may have met a file that is being written.
    fn takes(&self) -> bool {
        assert!(!self.look(), "taken at the first look");
        self.look()
    }

    fn refusal(&self) -> Option<Error> {
        let refusal = self.security.cell().files.refusal();
        let text = format!("{refusal:?}");
        assert!(!text.contains("canary") && !text.contains("BEGIN"), "{text}");
        refusal
    }

    /// It is looked at twice before anything is said, and said once.
    fn is_refused(&self, says: &[&str]) {
        let told = |security: &Security| {
            security.cell().files.reloads_refused.load(std::sync::atomic::Ordering::Relaxed)
        };
        let before = told(&self.security);
        assert!(!self.look(), "{says:?}");
        assert_eq!(told(&self.security), before, "{says:?}: not yet");
        for _ in 0..3 {
            assert!(!self.look(), "{says:?}");
            assert_eq!(told(&self.security), before + 1, "{says:?}");
        }
        let error = self.refusal().unwrap();
        assert_eq!(error.code, NOT_TAKEN);
        for text in says.iter().chain(&["what was read before stays in use"]) {
            assert!(error.message.contains(text), "{text}: {error}");
        }
        assert!(!error.fix.is_empty() && error.place.cluster.as_deref() == Some("west"), "{error}");
    }
}

fn cluster(tls: Option<Tls>, sasl: Option<Sasl>) -> Cluster {
    let (name, bootstrap) = ("west".to_owned(), vec![address()]);
    Cluster { name, bootstrap, tls, sasl, advertised: Default::default() }
}

#[test]
fn what_changes_is_used_and_what_does_not_is_left() {
    let kept = Kept::new();
    assert!(!kept.look(), "nothing has changed");
    kept.write("ca.pem", &kept.authority.pem);
    assert!(!kept.look(), "the date of a file says nothing");
    kept.write("ca.pem", &format!("{}{}", kept.authority.pem, Authority::new("next CA").pem));
    assert!(kept.takes());
    let until = rcgen::date_time_ymd(2030, 1, 2);
    kept.write_pair(&kept.authority.issue(&["strait"], |params| params.not_after = until));
    assert!(kept.takes());
    assert_eq!(kept.security.cell().files.own_expiry(), Some(until.unix_timestamp()));
    kept.write("password", "canary-new\n");
    assert!(kept.takes());
    let again = kept.security.0.settings.sasl.as_ref().map(|sasl| match sasl {
        Sasl::Scram { password, .. } => {
            let files = Files::read(&kept.security.0.files);
            files.again(password).unwrap().expose().to_owned()
        }
        _ => String::new(),
    });
    assert_eq!(again.as_deref(), Some("canary-new"));
    assert_eq!(kept.security.cell().files.reloads.load(std::sync::atomic::Ordering::Relaxed), 3);
    assert_eq!(kept.refusal(), None);
    assert!(!kept.look());
}

#[test]
fn a_pair_that_is_written_in_two_steps_is_taken_whole_and_not_complained_of() {
    let kept = Kept::new();
    let new = kept.authority.issue(&["strait"], |_| {});
    kept.write("own.pem", &new.certificate.pem());
    assert!(!kept.look());
    kept.write("own.key", &new.key.serialize_pem());
    assert!(kept.takes());
    assert_eq!(kept.refusal(), None);
}

#[test]
fn half_a_file_that_reads_like_a_whole_one_is_not_taken() {
    let kept = Kept::new();
    let whole = format!("{}{}", kept.authority.pem, Authority::new("next CA").pem);
    for half in [&Authority::new("next CA").pem, &kept.authority.pem, &whole] {
        // It grows from look to look; nothing of it is believed before it stands still.
        kept.write("ca.pem", half);
        assert!(!kept.look(), "{} of {} bytes", half.len(), whole.len());
    }
    for half in ["c", "canary", "canary-next"] {
        kept.write("password", half);
        assert!(!kept.look(), "{half}");
    }
    assert!(kept.look());
    assert_eq!(kept.refusal(), None);
    assert_eq!(kept.security.cell().files.reloads.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn what_is_no_good_leaves_what_was_there_and_is_told_once() {
    let kept = Kept::new();
    let good = kept.authority.issue(&["strait"], |_| {});
    let stranger = rcgen::KeyPair::generate().unwrap().serialize_pem();
    kept.write("own.key", &stranger);
    kept.is_refused(&["own.key", "does not belong to the first certificate in", "own.pem"]);
    kept.write("own.key", &good.key.serialize_pem());
    kept.write("own.pem", &good.certificate.pem());
    assert!(kept.takes());
    assert_eq!(kept.refusal(), None);

    for (name, text, says) in [
        ("own.pem", "", "own.pem: is empty"),
        ("own.pem", "canary", "own.pem: holds no PEM block"),
        (
            "own.key",
            "-----BEGIN PRIVATE KEY-----\ncanary*\n-----END PRIVATE KEY-----",
            "own.key: broken PEM",
        ),
        (
            "ca.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "ca.pem: certificate 1",
        ),
        ("password", "\n", "password: is empty"),
    ] {
        let before = std::fs::read_to_string(kept.dir.path().join(name)).unwrap();
        kept.write(name, text);
        kept.is_refused(&[says]);
        kept.write(name, &before);
        assert!(!kept.look(), "{name}: as it was");
        assert_eq!(kept.refusal(), None, "{name}");
    }

    std::fs::remove_file(kept.dir.path().join("ca.pem")).unwrap();
    kept.is_refused(&["ca.pem: cannot be read"]);
    kept.write("ca.pem", &kept.authority.pem);
    assert!(!kept.look());

    let expired = |params: &mut rcgen::CertificateParams| {
        params.not_after = rcgen::date_time_ymd(2026, 1, 1);
    };
    kept.write_pair(&kept.authority.issue(&["strait"], expired));
    kept.is_refused(&["own.pem: expired on 2026-01-01 00:00 UTC"]);
    let early = |params: &mut rcgen::CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
    };
    kept.write_pair(&kept.authority.issue(&["strait"], early));
    kept.is_refused(&["own.pem: not valid before 2030-01-01"]);
    kept.write_pair(&good);
    assert!(!kept.look(), "what is in use is back");
    assert_eq!(kept.refusal(), None);
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_that_is_moved_is_a_change() {
    // As Kubernetes mounts secrets: files are links into `..data`, which is swapped in one stroke.
    let kept = Kept::new();
    let at = |name: &str| kept.dir.path().join(name);
    let place = |generation: &str, own: &Identity| {
        std::fs::create_dir(at(generation)).unwrap();
        kept.write(&format!("{generation}/own.pem"), &own.certificate.pem());
        kept.write(&format!("{generation}/own.key"), &own.key.serialize_pem());
        std::os::unix::fs::symlink(at(generation), at("..tmp")).unwrap();
        std::fs::rename(at("..tmp"), at("..data")).unwrap();
    };
    place("first", &kept.authority.issue(&["strait"], |_| {}));
    for name in ["own.pem", "own.key"] {
        std::fs::remove_file(at(name)).unwrap();
        std::os::unix::fs::symlink(Path::new("..data").join(name), at(name)).unwrap();
    }
    assert!(kept.takes());
    place("second", &kept.authority.issue(&["strait"], |_| {}));
    assert!(kept.takes());
    assert!(!kept.look());
}

#[test]
fn a_token_file_may_come_late_and_a_bad_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("token");
    let sasl = Sasl::OAuthBearer(TokenSource::File(path.clone()));
    let security = Security::load(&cluster(None, Some(sasl))).unwrap();
    let look = || {
        let before = security.now();
        security.look(&Files::read(&security.0.files), 0);
        !std::sync::Arc::ptr_eq(&before, &security.now())
    };
    assert!(!look());
    std::fs::write(&path, "canary.one").unwrap();
    assert!(!look() && look());
    std::fs::write(&path, "canary two").unwrap();
    assert!(!look() && !look());
    let error = security.cell().files.refusal().unwrap();
    assert!(error.message.contains("holds no bearer token"), "{error}");
    assert!(!error.to_string().contains("canary"), "{error}");
    std::fs::write(&path, "canary.three").unwrap();
    assert!(!look() && look());
}

#[test]
fn every_file_of_a_cluster_is_looked_at() {
    let file = |name: &str| PathBuf::from(name);
    let tls = Tls { ca: Some(file("a")), identity: Some((file("b"), file("c"))), ..Tls::default() };
    let client_secret = Secret::read("x", vec![SecretPart::File(file("d"))]);
    let source = TokenSource::ClientCredentials {
        token_endpoint: "https://idp/".to_owned(),
        client_id: "x".to_owned(),
        client_secret,
        scope: None,
        ca: Some(file("e")),
    };
    let all = named(&cluster(Some(tls), Some(Sasl::OAuthBearer(source))));
    assert_eq!(all, ["a", "b", "c", "d", "e"].map(PathBuf::from));
    assert!(named(&cluster(None, None)).is_empty());
}

/// `password_file: /dev/fd/63`, as a shell's process substitution gives it.
#[test]
fn what_a_pipe_gave_to_the_configuration_is_not_read_again() {
    let pipe = SecretPart::File(PathBuf::from("/dev/null"));
    let password = Secret::read("canary", vec![pipe]);
    let plain =
        Sasl::Plain { username: "x".to_owned(), password: password.clone(), allow_plaintext: true };
    let paths = named(&cluster(None, Some(plain)));
    assert!(paths.is_empty());
    assert_eq!(Files::read(&paths).again(&password).unwrap().expose(), "canary");
}

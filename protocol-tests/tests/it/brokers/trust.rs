//! Listeners of the JDK that are not to be trusted: see `protocol_tests::trust`.

use protocol_tests::trust::{Pki, jdk};
use strait::canary::{self, Canary};

#[test]
fn no_jdk_listener_that_is_not_to_be_trusted_hears_anything() {
    let (servers, pki) = (jdk::servers(), Pki::default());
    let wrong = jdk::play(&servers, &pki);
    println!("{} listeners of the JDK on both sides, {} wrong", servers.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for bug in [Canary::CertificateUnchecked, Canary::HostNameUnchecked] {
        canary::plant(Some(bug));
        let wrong = jdk::play(&servers, &pki);
        canary::plant(None);
        println!("{bug:?}: {} violations", wrong.len());
        let is_heard = wrong.iter().any(|told| told.ends_with("it was connected"));
        assert!(is_heard, "{bug:?} is not caught: {wrong:?}");
    }
}

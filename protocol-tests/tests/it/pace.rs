//! How fast a link goes, and how much it has on its way.

use protocol_tests::raw::Batch;
use protocol_tests::wait::wait_until;
use strait::env::Env;

use crate::stage::Stage;

const MIB: f64 = 1024.0 * 1024.0;

#[test]
fn a_limit_in_bytes_per_second_holds_over_all_lanes() {
    let mut stage = Stage::new("limit");
    stage.config = stage.config.link("limit: 2MiB/s").top("engine: { lanes: 2 }");
    stage.source.create_topic("topic-wide", 4, -1, &[]).unwrap();
    let bytes = bytes::Bytes::from(Batch::holding(vec![7; 20_000]).bytes());
    for partition in (0..4).cycle().take(1000) {
        stage.source.append("topic-wide", partition, &bytes).unwrap();
    }
    let strait = stage.start();
    let acked = || strait.metric("strait_acked_bytes_total", &["topic=\"topic-wide\""]);
    wait_until("the copy to run", 30, || acked() > 0.2 * MIB);
    let env = Env::real();
    let (began, before) = (env.now(), acked());
    wait_until("6 MiB more", 30, || acked() - before > 6.0 * MIB);
    let (seconds, copied) = ((env.now() - began).as_secs_f64(), acked() - before);
    println!("{:.3} MiB/s over {seconds:.2} s", copied / MIB / seconds);
    // What may go out at once, and what was on its way when the clock was looked at: on a busy machine some tenths of a
    // second's worth. The unit tests are exact.
    let late = 0.4 * 2.0 * MIB;
    assert!(copied <= 1.02 * 2.0 * MIB * seconds + late, "{copied} bytes in {seconds} s");
    assert!(copied >= 0.5 * 2.0 * MIB * seconds, "{copied} bytes in {seconds} s");
    strait.assert_clean_log();
}

#[test]
fn what_is_on_its_way_is_what_the_link_carries() {
    let mut stage = Stage::new("ahead");
    stage.config = stage.config.top("engine: { lanes: 1 }");
    stage.source.create_topic("topic-wide", 8, -1, &[]).unwrap();
    let bytes = bytes::Bytes::from(Batch::holding(vec![7; 250_000]).bytes());
    for partition in (0..8).cycle().take(800) {
        stage.source.append("topic-wide", partition, &bytes).unwrap();
    }
    let strait = stage.start();
    let mut most = 0.0_f64;
    let acked = || strait.metric("strait_acked_bytes_total", &["topic=\"topic-wide\""]);
    wait_until("the copy to end", 60, || {
        most = most.max(strait.metric("strait_buffer_bytes", &[]));
        acked() >= 800.0 * 250_000.0
    });
    println!("{:.1} MiB at most", most / MIB);
    // Two connections, each with 2 MiB on their way, 2 ahead, and a request and a Fetch that go beyond; on a busy machine
    // the round trip, and so what is on its way, is longer.
    assert!(most < 32.0 * MIB, "{most}");
    strait.assert_clean_log();
}

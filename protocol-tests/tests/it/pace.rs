//! How much a link has on its way.

use protocol_tests::raw::Batch;
use protocol_tests::wait::wait_until;

use crate::stage::Stage;

const MIB: f64 = 1024.0 * 1024.0;

#[test]
fn what_is_on_its_way_is_what_the_link_carries() {
    let mut stage = Stage::new("ahead");
    stage.config = stage.config.top("engine: { lanes: 1 }");
    stage.source.create_topic("topic-wide", 8, -1, &[]).unwrap();
    let mut batch = Batch::small(1);
    batch.records[0].value = Some(vec![7; 250_000]);
    let bytes = bytes::Bytes::from(batch.bytes());
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

//! Brokers that stall, trickle or are silent cost their own link alone, within the printed memory and without a spin.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use protocol_tests::bounds::{FIXED_BYTES, assert_rests, assert_within};
use protocol_tests::copying::sized;
use protocol_tests::raw::Batch;
use protocol_tests::sluggish::{Pace, Sluggish};
use protocol_tests::strait::Strait;
use protocol_tests::wait::{wait_for, wait_pacing, wait_until};
use strait::embedded::{EmbeddedCluster, Options};
use strait::env::Env;
use tokio::time::Instant;

const MEMORY: u64 = 32 << 20;
const BATCH_BYTES: usize = 500_000;
/// Of each link: together far more than the memory.
const BATCHES: usize = 60;

/// A link with a cluster at each end, one of them slow.
struct Link {
    name: &'static str,
    source: EmbeddedCluster,
    target: EmbeddedCluster,
    slow: Sluggish,
    reads: Pace,
    writes: Pace,
}

fn cluster(env: Env) -> EmbeddedCluster {
    EmbeddedCluster::start(env, Options { auto_create_topics: false, ..Options::default() })
        .unwrap()
}

impl Link {
    fn new(name: &'static str, reads: Pace, writes: Pace) -> Self {
        let slow = Sluggish::new();
        let (of_source, of_target) = match name.ends_with("source") {
            true => (slow.env(), Env::real()),
            false => (Env::real(), slow.env()),
        };
        let (source, target) = (cluster(of_source), cluster(of_target));
        source.create_topic("topic", 1, -1, &[]).unwrap();
        Self { name, source, target, slow, reads, writes }
    }

    fn append(&self, batches: usize) {
        let mut batch = Batch::small(1);
        batch.records[0].value = Some(vec![7; BATCH_BYTES]);
        let bytes = Bytes::from(batch.bytes());
        for _ in 0..batches {
            self.source.append("topic", 0, &bytes).unwrap();
        }
    }

    fn arrived(&self) -> i64 {
        self.target.batches_from("topic", 0, i64::MAX).map_or(0, |(end, _)| end)
    }

    fn goes_slow(&self) {
        self.slow.read(self.reads);
        self.slow.write(self.writes);
    }

    fn goes_on(&self) {
        self.slow.read(Pace::Free);
        self.slow.write(Pace::Free);
    }

    fn committed(&self) -> Option<i64> {
        let offsets = self.source.committed(&format!("strait.{}", self.name));
        offsets.get(&("topic".to_owned(), 0)).map(|committed| committed.offset)
    }
}

fn yaml(links: &[Link], telemetry: u16) -> String {
    let mut yaml = "version: 1\nclusters:\n".to_owned();
    for link in links {
        for (end, cluster) in [("here", &link.source), ("there", &link.target)] {
            let (name, at) = (link.name, cluster.bootstrap());
            writeln!(yaml, "  {name}-{end}: {{ bootstrap: [\"{at}\"] }}").unwrap();
        }
    }
    yaml.push_str("links:\n");
    for Link { name, .. } in links {
        writeln!(
            yaml,
            "  {name}: {{ from: {name}-here, to: {name}-there, topics: {{ include: [topic] }}, start: earliest }}"
        )
        .unwrap();
    }
    let memory = MEMORY >> 20;
    writeln!(yaml, "engine: {{ lanes: 2, memory: {memory}MiB }}").unwrap();
    writeln!(yaml, "telemetry: {{ listen: \"127.0.0.1:{telemetry}\" }}").unwrap();
    yaml
}

#[test]
fn peers_that_stall_trickle_or_are_silent_cost_their_own_link_alone() {
    let links = [
        Link::new("stalled-target", Pace::Stopped, Pace::Free),
        Link::new("trickling-target", Pace::Trickle, Pace::Free),
        Link::new("silent-target", Pace::Free, Pace::Stopped),
        Link::new("dripping-target", Pace::Free, Pace::Trickle),
        Link::new("stalled-source", Pace::Stopped, Pace::Free),
        Link::new("silent-source", Pace::Free, Pace::Stopped),
        Link::new("trickling-source", Pace::Free, Pace::Trickle),
        Link::new("healthy", Pace::Free, Pace::Free),
    ];
    let (healthy, slow) = links.split_last().unwrap();
    let mut strait = Strait::start_text(|telemetry| yaml(&links, telemetry), &[]);
    strait.expect_in_log("WARN");
    let bound = format!("at most {}.0 MiB", (MEMORY + FIXED_BYTES) >> 20);
    wait_until("the bound to be told", 10, || strait.log().contains(&bound));
    for link in &links {
        link.append(2);
        wait_until(link.name, 30, || link.arrived() == 2);
    }
    let dialled: Vec<u64> = slow.iter().map(|link| link.slow.accepted()).collect();
    for link in slow {
        link.goes_slow();
        link.append(BATCHES);
    }
    let seconds = sized(4, 80);
    let began = Instant::now();
    let (mut written, mut late) = (2, Duration::ZERO);
    wait_pacing("end of the load", seconds + 60, Duration::from_millis(40), || {
        healthy.append(1);
        written += 1;
        let appended = Instant::now();
        wait_until("a record of the healthy link", 5, || healthy.arrived() == written);
        late = late.max(appended.elapsed());
        began.elapsed() > Duration::from_secs(seconds)
    });
    let rate = (written - 2) as f64 / began.elapsed().as_secs_f64();
    let mut dials = Vec::new();
    for (link, before) in slow.iter().zip(&dialled) {
        assert!(link.slow.held() > 0, "{} was never held", link.name);
        assert!(link.arrived() < 2 + BATCHES as i64, "{} was not slow", link.name);
        dials.push(link.slow.accepted() - before);
        assert!(link.slow.accepted() - before <= 5 + seconds, "{}: {dials:?}", link.name);
    }
    let idle = assert_rests(&strait);
    let peak = assert_within(&strait, MEMORY);
    println!(
        "peak {peak} of {} MiB; healthy: {rate:.0} batches/s, the latest {late:?}; dials {dials:?}; {idle:.3} cores",
        (MEMORY + FIXED_BYTES) >> 20
    );
    assert!(late < Duration::from_millis(1500), "a healthy link waited {late:?}");
    if seconds > 70 {
        assert!(strait.log().contains("no answer to"), "nothing timed out:\n{}", strait.log());
    }
    slow.iter().for_each(Link::goes_on);
    for link in slow {
        wait_for(link.name, 90, || {
            let state = (link.arrived(), link.committed());
            let all = 2 + BATCHES as i64;
            if state == (all, Some(all)) { Ok(()) } else { Err(state) }
        });
    }
    assert_within(&strait, MEMORY);
    assert_rests(&strait);
    strait.assert_clean_log();
}

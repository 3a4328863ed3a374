use super::*;
use crate::engine::stats::{LaneLoad, LaneStats, LinkEntry, MirrorState};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

fn board() -> Board {
    let board = Board::default();
    let link = LinkEntry::new("l", "east", "west", true);
    link.discovered.store(true, Relaxed);
    board.add_link(Arc::new(link));
    board
}

fn mirror(board: &Board, topic: &str, partition: i32) -> Arc<MirrorStats> {
    let mirror = Arc::new(MirrorStats::new("l".into(), topic.into(), topic.into(), partition));
    mirror.set_state(MirrorState::Ok);
    board.add_mirror(mirror.clone());
    mirror
}

fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(s, _)| s == series))?;
    line.rsplit_once(' ').unwrap().1.parse().ok()
}

#[test]
fn a_mirror_is_shown_with_its_figures() {
    let board = board();
    let mirror = mirror(&board, "orders", 3);
    mirror.source_end.store(100, Relaxed);
    mirror.acked.store(90, Relaxed);
    mirror.delay_ms.store(1500, Relaxed);
    mirror.fetched_bytes.store(7, Relaxed);
    mirror.batches[Fate::Recoded as usize].store(2, Relaxed);
    let text = render(&board);
    let at = "{link=\"l\",topic=\"orders\",partition=\"3\"}";
    assert_eq!(value(&text, &format!("strait_lag_offsets{at}")), Some(10.0));
    assert_eq!(value(&text, &format!("strait_delay_seconds{at}")), Some(1.5));
    assert_eq!(value(&text, &format!("strait_source_end_offset{at}")), Some(100.0));
    assert_eq!(value(&text, &format!("strait_committed_offset{at}")), None, "not known yet");
    let of_topic = "{link=\"l\",topic=\"orders\"}";
    assert_eq!(value(&text, &format!("strait_fetched_bytes_total{of_topic}")), Some(7.0));
    let recoded = "strait_batches_total{link=\"l\",topic=\"orders\",fate=\"recoded\"}";
    assert_eq!(value(&text, recoded), Some(2.0));
    assert_eq!(value(&text, "strait_link_state{link=\"l\",state=\"running\"}"), Some(1.0));
    assert_eq!(value(&text, "strait_link_state{link=\"l\",state=\"failed\"}"), Some(0.0));
    assert_eq!(value(&text, "strait_partitions{link=\"l\",state=\"ok\"}"), Some(1.0));
}

#[test]
fn a_removed_mirror_leaves_no_series() {
    let board = board();
    let gone = mirror(&board, "leaves", 0);
    mirror(&board, "stays", 0);
    assert!(render(&board).contains("leaves"));
    board.remove_mirror(&gone);
    let text = render(&board);
    assert!(!text.contains("leaves") && text.contains("stays"), "{text}");
}

#[test]
fn too_many_series_become_coarser_and_say_so() {
    let board = board();
    for topic in ["a", "b"] {
        for partition in 0..3 {
            let mirror = mirror(&board, topic, partition);
            mirror.source_end.store(10, Relaxed);
            mirror.acked.store(8, Relaxed);
            mirror.delay_ms.store(100 * u64::try_from(partition).unwrap(), Relaxed);
            mirror.acked_records.store(5, Relaxed);
        }
    }
    let reduced = "strait_metrics_granularity_reduced";
    assert_eq!(value(&render_within(&board, 6, 2), reduced), Some(0.0));
    let by_topic = render_within(&board, 5, 2);
    assert_eq!(value(&by_topic, reduced), Some(1.0));
    assert_eq!(value(&by_topic, "strait_lag_offsets{link=\"l\",topic=\"a\"}"), Some(6.0));
    assert_eq!(value(&by_topic, "strait_delay_seconds{link=\"l\",topic=\"a\"}"), Some(0.2));
    assert!(!by_topic.contains("partition="), "{by_topic}");
    let by_link = render_within(&board, 5, 1);
    assert_eq!(value(&by_link, "strait_lag_offsets{link=\"l\"}"), Some(12.0));
    assert_eq!(value(&by_link, "strait_acked_records_total{link=\"l\"}"), Some(30.0));
    assert!(!by_link.contains("topic="), "{by_link}");
}

#[test]
fn latency_is_cumulative_over_lanes() {
    let board = board();
    for (lane, us) in [(0, 900), (1, 1500), (1, 100_000_000)] {
        let stats = Arc::new(LaneStats::new("l".into(), lane));
        stats.relay_us.lock().unwrap().record(us).unwrap();
        stats.count_error("target", "Produce", "NOT_LEADER_OR_FOLLOWER");
        stats.throttle_ms.store(250, Relaxed);
        board.add_lane(stats);
    }
    let text = render(&board);
    let bucket = |le: &str| {
        value(&text, &format!("strait_relay_latency_seconds_bucket{{link=\"l\",le=\"{le}\"}}"))
            .unwrap()
    };
    assert_eq!(
        (bucket("0.001"), bucket("0.002"), bucket("65.536"), bucket("+Inf")),
        (1.0, 2.0, 2.0, 3.0)
    );
    assert_eq!(value(&text, "strait_relay_latency_seconds_count{link=\"l\"}"), Some(3.0));
    assert_eq!(value(&text, "strait_throttle_seconds_total{link=\"l\"}"), Some(0.75));
    let errors = "strait_request_errors_total{link=\"l\",side=\"target\",api=\"Produce\",error=\"NOT_LEADER_OR_FOLLOWER\"}";
    assert_eq!(value(&text, errors), Some(3.0));
    let mut last = 0.0;
    for line in text.lines().filter(|line| line.starts_with("strait_relay_latency_seconds_bucket"))
    {
        let count = line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
        assert!(count >= last, "{text}");
        last = count;
    }
}

#[test]
fn lanes_and_readers_are_busy_apart() {
    let board = board();
    let loads = [LaneLoad::new(0, true), LaneLoad::new(1, false)].map(Arc::new);
    loads.iter().for_each(|load| board.add_load(load.clone()));
    loads[0].busy_permille.store(250, Relaxed);
    loads[0].reader_busy_permille.as_ref().unwrap().store(875, Relaxed);
    loads[1].given.store(3, Relaxed);
    loads[1].mirrors.store(7, Relaxed);
    let text = render(&board);
    let busy = |lane, thread| {
        value(&text, &format!("strait_lane_busy{{lane=\"{lane}\",thread=\"{thread}\"}}"))
    };
    assert_eq!((busy(0, "lane"), busy(0, "reader")), (Some(0.25), Some(0.875)));
    assert_eq!((busy(1, "lane"), busy(1, "reader")), (Some(0.0), None));
    assert_eq!(value(&text, "strait_lane_moves_total{lane=\"1\"}"), Some(3.0));
    assert_eq!(value(&text, "strait_lane_partitions{lane=\"1\"}"), Some(7.0));
}

#[test]
fn every_family_is_declared_once_before_its_samples() {
    let board = board();
    mirror(&board, "hostile\n\"name\\", 0);
    board.add_lane(Arc::new(LaneStats::new("l".into(), 0)));
    board.add_load(Arc::new(LaneLoad::new(0, true)));
    let text = render(&board);
    let mut declared: Vec<&str> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(!declared.contains(&name), "{name} twice");
            declared.push(name);
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let current = declared.last().unwrap();
            let of_family =
                ["", "_bucket", "_sum", "_count"].iter().any(|s| name == format!("{current}{s}"));
            assert!(of_family, "{line} under {current}");
            assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(declared.len() > 20, "{declared:?}");
}

/// More topics than anybody has, by names that no Kafka would take: what is told of them stays small, and one line each.
#[test]
fn topics_without_number_and_hostile_names_stay_bounded_and_escaped() {
    let named = |topics: usize, partitions: i32| {
        let board = board();
        for topic in 0..topics {
            let name =
                format!("{topic}\"}} 1\nstrait_build_info{{x=\"\\{}", "\u{7f}a\r".repeat(60));
            (0..partitions).for_each(|partition| drop(mirror(&board, &name, partition)));
        }
        render(&board)
    };
    // As many as have series of their own, the longest names there can be.
    let all = named(limits::METRIC_TOPICS_MAX, 2);
    assert!(all.len() < 48 << 20, "{} bytes", all.len());
    let line_is_one = |line: &str| {
        let comment = line.starts_with("# HELP ") || line.starts_with("# TYPE ");
        let series = line.rsplit_once(' ').is_some_and(|(series, value)| {
            value.parse::<f64>().is_ok() && (series.ends_with("\"}") || !series.contains('{'))
        });
        comment || series
    };
    assert!(all.split('\n').rev().skip(1).all(line_is_one));
    let infos = all.split('\n').filter(|line| line.starts_with("strait_build_info"));
    assert_eq!(infos.count(), 1, "a name became a line of its own");
    // More become one for each link.
    for (topics, partitions) in [(limits::METRIC_TOPICS_MAX + 1, 1), (100_000, 1)] {
        let few = named(topics, partitions);
        assert_eq!(value(&few, "strait_metrics_granularity_reduced"), Some(1.0));
        assert!(few.len() < 64 << 10, "{} bytes of {topics} topics", few.len());
    }
}

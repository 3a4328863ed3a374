//! Which topics are copied, what they are called, how they come into being, and what stands in the way.

use protocol_tests::copying::{
    assert_committed, assert_copied, assert_copied_as, copy_once, wait_committed,
};
use protocol_tests::lab::Version::{V39, V43};
use protocol_tests::lab::{Listener, pool};
use protocol_tests::strait::{self, Config, Strait};
use protocol_tests::wait::{holds_for, wait_for, wait_until};
use serde_json::json;
use std::time::Duration;

#[test]
fn only_what_is_included_and_not_excluded_is_copied() {
    let (source, target) = pool::pair(V43, V43);
    let (here, there) = (source.admin(), target.admin());
    for topic in ["select-a", "select-b", "select-b-tmp", "unselect-a", "xselect-a"] {
        here.create_topic(topic, 1, json!({}));
        here.produce(topic, json!({ "count": 10 }));
    }
    let mut config =
        Config::new("select", (&source, Listener::Plain), (&target, Listener::Tls), &["select-.*"]);
    config.include.push("unselect-a".into());
    let mut config = config.yaml(0);
    config = config.replace("'unselect-a'] }", "'unselect-[b-z]'], exclude: ['.*-tmp'] }");
    config = config.replace("telemetry: { listen: \"127.0.0.1:0\" }\n", "");
    let output = strait::run(&config, &["run", "--until-caught-up"]);
    assert_eq!(output.code, 0, "{output:?}");
    for topic in ["select-a", "select-b"] {
        assert_copied(&here, &there, topic);
    }
    for topic in ["select-b-tmp", "unselect-a", "xselect-a"] {
        assert!(!there.exists(topic), "{topic}");
    }
}

#[test]
fn internal_topics_are_not_copied_by_a_pattern() {
    let (source, target) = pool::pair(V39, V43);
    let here = source.admin();
    here.create_topic("everything", 1, json!({}));
    here.produce("everything", json!({ "count": 5 }));
    here.call(
        json!({ "call": "set_group_offsets", "group": "any", "topic": "everything", "offset": 1 }),
    );
    let config = Config::new(
        "internal",
        (&source, Listener::Plain),
        (&target, Listener::Tls),
        &["every.*|__.*"],
    )
    .link("naming: \"internal.{topic}\"");
    copy_once(&config);
    assert_copied_as(&here, "everything", &target.admin(), "internal.everything");
    assert!(!target.admin().exists("internal.__consumer_offsets"));
}

#[test]
fn names_on_the_target_follow_the_naming() {
    let (source, target) = pool::pair(V43, V39);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("naming", 2, json!({}));
    here.produce("naming", json!({ "count": 50, "kind": "varied" }));
    for (naming, name) in [("prefix", "source.naming"), ("\"{topic}_REPLICA\"", "naming_REPLICA")] {
        let config = Config::new(
            "naming",
            (&source, Listener::Plain),
            (&target, Listener::Tls),
            &["naming"],
        );
        let config = Config { name: format!("naming-{}", name.len()), ..config };
        copy_once(&config.link(&format!("naming: {naming}")));
        assert_copied_as(&here, "naming", &there, name);
    }
}

#[test]
fn topics_are_created_with_the_source_s_partitions_and_settings() {
    let (source, target) = pool::pair(V43, V43);
    let (here, there) = (source.admin(), target.admin());
    let configs = json!({
        "cleanup.policy": "compact,delete", "retention.ms": "7200000", "max.message.bytes": "2000000",
        "segment.bytes": "2097152",
    });
    here.create_topic("settings", 5, configs.clone());
    let config = Config::new(
        "settings",
        (&source, Listener::Plain),
        (&target, Listener::Tls),
        &["settings"],
    );
    copy_once(&config);
    assert_eq!(there.describe("settings").len(), 5);
    let set = there.call(json!({ "call": "topic_configs", "topic": "settings" }));
    for (key, value) in configs.as_object().unwrap() {
        assert_eq!(set[key], *value, "{key} of {set}");
    }
}

#[test]
fn rule_62_new_topics_and_partitions_are_picked_up_while_it_runs() {
    let (source, target) = pool::pair(V43, V43);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("growing-1", 2, json!({}));
    here.produce("growing-1", json!({ "count": 100, "partitions": [0, 1] }));
    let config = Config::new(
        "growing",
        (&source, Listener::Plain),
        (&target, Listener::Tls),
        &["growing-.*"],
    );
    let strait = Strait::start(&config);
    wait_committed(&here, &config.group(), "growing-1", 30);

    std::thread::scope(|scope| {
        // A writer that would notice a pause.
        scope.spawn(|| {
            here.produce(
                "growing-1",
                json!({ "count": 2000, "per_second": 200, "partitions": [0, 1] }),
            )
        });
        here.create_topic("growing-2", 3, json!({}));
        here.produce("growing-2", json!({ "count": 90, "partitions": [0, 1, 2] }));
        wait_committed(&here, &config.group(), "growing-2", 20);
        here.call(json!({ "call": "grow", "topic": "growing-1", "partitions": 4 }));
        // Records that are there before the target has the partition wait for it.
        wait_until("metadata of the new partitions", 20, || here.ends("growing-1").len() == 4);
        here.produce("growing-1", json!({ "count": 100, "from": 5000, "partitions": [2, 3] }));
        wait_until("the target's new partitions", 20, || there.describe("growing-1").len() == 4);
    });
    wait_committed(&here, &config.group(), "growing-1", 20);
    assert_copied(&here, &there, "growing-1");
    assert_copied(&here, &there, "growing-2");
    strait.assert_clean_log();
}

#[test]
fn a_smaller_topic_in_the_way_is_named_and_left_alone() {
    let (source, target) = pool::pair(V39, V39);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("way-small", 4, json!({}));
    there.create_topic("way-small", 2, json!({}));
    here.create_topic("way-free", 1, json!({}));
    here.produce("way-small", json!({ "count": 40, "partitions": [0, 1, 2, 3] }));
    here.produce("way-free", json!({ "count": 40 }));
    let config =
        Config::new("way", (&source, Listener::Plain), (&target, Listener::Tls), &["way-.*"]);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("ST-046");
    wait_committed(&here, &config.group(), "way-free", 30);
    wait_for("the named topic", 30, || {
        let status = strait.status().to_string();
        if status.contains("ST-046") && status.contains("degraded") { Ok(()) } else { Err(status) }
    });
    assert_eq!(there.ends("way-small"), [0, 0]);
    strait.assert_clean_log();
}

#[test]
fn rule_47_a_re_created_source_topic_is_never_mixed_with_the_old_one() {
    for from in [V39, V43] {
        let (source, target) = pool::pair(from, V43);
        let (here, there) = (source.admin(), target.admin());
        let topic = format!("recreated-{from:?}");
        here.create_topic(&topic, 1, json!({}));
        here.produce(&topic, json!({ "count": 100 }));
        let config =
            Config::new(&topic, (&source, Listener::Plain), (&target, Listener::Tls), &[&topic]);
        let mut strait = Strait::start(&config);
        strait.expect_in_log("ST-");
        strait.expect_in_log("WARN");
        wait_committed(&here, &config.group(), &topic, 30);
        here.delete_topic(&topic);
        wait_until("deletion", 30, || !here.exists(&topic));
        here.create_topic(&topic, 1, json!({}));
        here.produce(&topic, json!({ "count": 300, "from": 1000 }));
        wait_for("the named re-creation", 60, || {
            let status = strait.status().to_string();
            if status.contains("ST-047") { Ok(()) } else { Err(status) }
        });
        holds_for("the target keeps the old records alone", Duration::from_secs(2), || {
            there.ends(&topic) == [100]
        });
        strait.assert_clean_log();
    }
}

#[test]
fn a_re_created_target_topic_parks_its_mirrors() {
    for to in [V39, V43] {
        let (source, target) = pool::pair(V43, to);
        let (here, there) = (source.admin(), target.admin());
        let topic = format!("replaced-{to:?}");
        here.create_topic(&topic, 1, json!({}));
        here.produce(&topic, json!({ "count": 100 }));
        let config =
            Config::new(&topic, (&source, Listener::Plain), (&target, Listener::Tls), &[&topic]);
        let mut strait = Strait::start(&config);
        strait.expect_in_log("ST-");
        strait.expect_in_log("WARN");
        wait_committed(&here, &config.group(), &topic, 30);
        there.delete_topic(&topic);
        wait_until("deletion", 30, || !there.exists(&topic));
        there.create_topic(&topic, 1, json!({}));
        here.produce(&topic, json!({ "count": 50, "from": 1000 }));
        wait_for("the named re-creation", 60, || {
            let status = strait.status().to_string();
            if status.contains("ST-048") || status.contains("ST-049") {
                Ok(())
            } else {
                Err(status)
            }
        });
        // Where Produce names topics by id nothing gets into the other topic; by name, what was on its way may.
        let most = if to == V43 { 0 } else { 50 };
        let written = there.ends(&topic);
        assert!(written[0] <= most, "{written:?}");
        holds_for("nothing more is written into the other topic", Duration::from_secs(2), || {
            there.ends(&topic) == written
        });
        let committed = here.group_offsets(&config.group())[0].offset;
        assert_eq!(committed, 100, "and nothing is committed past it");
        strait.assert_clean_log();
    }
}

#[test]
fn a_cluster_is_not_linked_to_itself() {
    let source = pool::shared(V43, "source");
    let config =
        Config::new("self", (&source, Listener::Plain), (&source, Listener::Tls), &["self"]);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("ST-040");
    wait_for("the refusal, or the end with it", 30, || match strait.exit_code() {
        Some(0) => panic!("it ended well"),
        Some(_) if strait.log().contains("ST-040") => Ok(()),
        _ => strait
            .get("/status")
            .map_err(|e| e.to_string())
            .and_then(|(_, status)| if status.contains("ST-040") { Ok(()) } else { Err(status) }),
    });
    strait.assert_clean_log();
}

#[test]
fn an_empty_topic_is_created_and_caught_up() {
    let (source, target) = pool::pair(V43, V39);
    let here = source.admin();
    here.create_topic("empty", 3, json!({}));
    let config =
        Config::new("empty", (&source, Listener::Plain), (&target, Listener::Tls), &["empty"]);
    copy_once(&config);
    assert_eq!(target.admin().describe("empty").len(), 3);
    assert_committed(&here, &config.group(), "empty");
}

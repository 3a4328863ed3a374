//! The effective configuration as text that parses again, each value with where it came from, each secret as `***`
//! (which, as a token, is refused).

use std::collections::BTreeMap;
use std::fmt::Write;

use super::resolved::{
    Backfill, Cluster, Config, Delivery, Isolation, Link, ListenerTls, MembershipProtocol, Naming,
    OnFailure, OnGap, OnPoison, OnRecreate, Policies, Sasl, ScramHash, Start, Telemetry,
    Timestamps, TokenSource,
};
use super::values::{show_size, show_time};
use super::{Loaded, Origin};

/// One value of the effective configuration.
#[derive(Debug, serde::Serialize)]
pub struct Shown {
    /// Dotted path.
    pub path: String,
    /// As it would be written.
    pub value: String,
    /// `line 7`, `line 7, ${env:NAME}`, or `default`.
    pub from: String,
}

/// Every value, in the order of the file's sections.
pub fn values(loaded: &Loaded) -> Vec<Shown> {
    let Config { clusters, links, engine, telemetry } = &loaded.config;
    let mut all = Values { origins: &loaded.origins, shown: Vec::new() };
    all.put("version", "1");
    for cluster in clusters.values() {
        all.cluster(cluster);
    }
    for link in links {
        all.link(link);
    }
    all.put("engine.lanes", engine.lanes.to_string());
    all.put("engine.arrangement", engine.arrangement.word());
    all.put("engine.pin", engine.pin.to_string());
    all.put("engine.memory", show_size(engine.memory_bytes as u64));
    all.telemetry(telemetry.as_ref());
    all.shown
}

/// The values as YAML with their origins as comments.
pub fn yaml(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut open: Vec<String> = Vec::new();
    for shown in values(loaded) {
        // Names may hold dots: only `clusters` and `links` have names, and there the key is what follows the name.
        let parts = split(loaded, &shown.path);
        let (parents, key) = parts.split_at(parts.len() - 1);
        let common = open.iter().zip(parents).take_while(|(a, b)| *a == *b).count();
        open.truncate(common);
        for parent in &parents[common..] {
            let _ = writeln!(text, "{:indent$}{parent}:", "", indent = open.len() * 2);
            open.push(parent.clone());
        }
        let indent = open.len() * 2;
        let line = format!("{:indent$}{}: {}", "", key[0], shown.value);
        let _ = writeln!(text, "{line:<60} # {}", shown.from);
    }
    text
}

fn split(loaded: &Loaded, path: &str) -> Vec<String> {
    let config = &loaded.config;
    let named = |section: &str, names: &mut dyn Iterator<Item = &String>| {
        let rest = path.strip_prefix(section)?.strip_prefix('.')?;
        // The longest, for one name may begin another.
        let name = names.filter(|n| rest.starts_with(&format!("{n}."))).max_by_key(|n| n.len())?;
        let keys = rest[name.len() + 1..].split('.').map(str::to_owned);
        Some([section.to_owned(), name.clone()].into_iter().chain(keys).collect::<Vec<_>>())
    };
    named("clusters", &mut config.clusters.keys())
        .or_else(|| named("links", &mut config.links.iter().map(|link| &link.name)))
        .unwrap_or_else(|| path.split('.').map(str::to_owned).collect())
}

/// In quotes, as YAML and JSON both read it.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    format!("[{}]", texts.map(quote).collect::<Vec<_>>().join(", "))
}

struct Values<'a> {
    origins: &'a BTreeMap<String, Origin>,
    shown: Vec<Shown>,
}

impl Values<'_> {
    fn put(&mut self, path: impl Into<String>, value: impl Into<String>) {
        let path = path.into();
        let from = match self.origins.get(&path) {
            None => "default".to_owned(),
            Some(Origin { line, references, .. }) => {
                let names = references.iter().map(|name| format!(", {name}"));
                format!("line {line}{}", names.collect::<String>())
            }
        };
        self.shown.push(Shown { path, value: value.into(), from });
    }

    fn cluster(&mut self, cluster: &Cluster) {
        let base = format!("clusters.{}", cluster.name);
        let brokers = cluster.bootstrap.iter().map(ToString::to_string).collect::<Vec<_>>();
        self.put(format!("{base}.bootstrap"), list(brokers.iter().map(String::as_str)));
        if let Some(tls) = &cluster.tls {
            if let Some(ca) = &tls.ca {
                self.put(format!("{base}.tls.ca"), quote(&ca.display().to_string()));
            }
            if let Some((cert, key)) = &tls.identity {
                self.put(format!("{base}.tls.cert"), quote(&cert.display().to_string()));
                self.put(format!("{base}.tls.key"), quote(&key.display().to_string()));
            }
            if let Some(name) = &tls.server_name {
                self.put(format!("{base}.tls.server_name"), quote(name));
            }
            let version = if tls.tls13_only { "\"1.3\"" } else { "\"1.2\"" };
            self.put(format!("{base}.tls.min_version"), version);
        }
        if let Some(sasl) = &cluster.sasl {
            self.sasl(&format!("{base}.sasl"), sasl);
        }
        let allow = cluster.advertised.allow.iter().map(ToString::to_string).collect::<Vec<_>>();
        if !allow.is_empty() {
            let path = format!("{base}.advertised.allow");
            self.put(path, list(allow.iter().map(String::as_str)));
        }
    }

    fn sasl(&mut self, base: &str, sasl: &Sasl) {
        let secret = "\"***\"";
        match sasl {
            Sasl::Plain { username, password: _, allow_plaintext } => {
                self.put(format!("{base}.mechanism"), "PLAIN");
                self.put(format!("{base}.username"), quote(username));
                self.put(format!("{base}.password"), secret);
                self.put(format!("{base}.allow_plaintext"), allow_plaintext.to_string());
            }
            Sasl::Scram { hash, username, password: _ } => {
                let mechanism = match hash {
                    ScramHash::Sha256 => "SCRAM-SHA-256",
                    ScramHash::Sha512 => "SCRAM-SHA-512",
                };
                self.put(format!("{base}.mechanism"), mechanism);
                self.put(format!("{base}.username"), quote(username));
                self.put(format!("{base}.password"), secret);
            }
            Sasl::OAuthBearer(source) => {
                self.put(format!("{base}.mechanism"), "OAUTHBEARER");
                self.token_source(base, source);
            }
        }
    }

    fn token_source(&mut self, base: &str, source: &TokenSource) {
        match source {
            TokenSource::File(path) => {
                self.put(format!("{base}.token_file"), quote(&path.display().to_string()));
            }
            TokenSource::ClientCredentials {
                token_endpoint,
                client_id,
                client_secret: _,
                scope,
                ca,
            } => {
                self.put(format!("{base}.token_endpoint"), quote(token_endpoint));
                self.put(format!("{base}.client_id"), quote(client_id));
                self.put(format!("{base}.client_secret"), "\"***\"");
                if let Some(scope) = scope {
                    self.put(format!("{base}.scope"), quote(scope));
                }
                if let Some(ca) = ca {
                    self.put(format!("{base}.ca"), quote(&ca.display().to_string()));
                }
            }
        }
    }

    fn telemetry(&mut self, telemetry: Option<&Telemetry>) {
        let Some(Telemetry { listen, hosts, tls, token }) = telemetry else {
            return self.put("telemetry.listen", quote("off"));
        };
        self.put("telemetry.listen", quote(&listen.to_string()));
        if !hosts.is_empty() {
            self.put("telemetry.hosts", list(hosts.iter().map(String::as_str)));
        }
        if let Some(ListenerTls { cert, key, ca }) = tls {
            for (name, path) in [("cert", Some(cert)), ("key", Some(key)), ("ca", ca.as_ref())] {
                if let Some(path) = path {
                    let path = quote(&path.display().to_string());
                    self.put(format!("telemetry.tls.{name}"), path);
                }
            }
        }
        if token.is_some() {
            self.put("telemetry.token", "\"***\"");
        }
    }

    fn link(&mut self, link: &Link) {
        let base = format!("links.{}", link.name);
        self.put(format!("{base}.from"), quote(&link.from.name));
        self.put(format!("{base}.to"), quote(&link.to.name));
        // Patterns are held anchored; shown as they are written.
        let bare = |regex: &regex::Regex| {
            let text = regex.as_str();
            text.strip_prefix("^(?:").and_then(|t| t.strip_suffix(")$")).unwrap_or(text).to_owned()
        };
        for (key, patterns) in
            [("include", &link.topics.include), ("exclude", &link.topics.exclude)]
        {
            let patterns = patterns.iter().map(bare).collect::<Vec<_>>();
            self.put(format!("{base}.topics.{key}"), list(patterns.iter().map(String::as_str)));
        }
        let naming = match &link.naming {
            Naming::Identity => "identity".to_owned(),
            Naming::Prefix => "prefix".to_owned(),
            Naming::Template(template) => quote(template),
        };
        self.put(format!("{base}.naming"), naming);
        let start = match link.start {
            Start::Earliest => "earliest".to_owned(),
            Start::Latest => "latest".to_owned(),
            Start::Timestamp(ms) => format!("{{ timestamp: {} }}", show_time(ms)),
        };
        self.put(format!("{base}.start"), start);
        match link.delivery {
            Delivery::ExactlyOnce => self.put(format!("{base}.delivery"), "exactly-once"),
            Delivery::Transactional(transactions) => {
                self.put(format!("{base}.delivery"), "transactional");
                let interval = format!("{}ms", transactions.interval.as_millis());
                self.put(format!("{base}.transaction.interval"), interval);
                let bytes = show_size(transactions.bytes_max as u64);
                self.put(format!("{base}.transaction.bytes"), bytes);
            }
        }
        let isolation = match link.isolation {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        };
        self.put(format!("{base}.isolation"), isolation);
        let timestamps = match link.timestamps {
            Timestamps::AsRead => "as_read",
            Timestamps::Producer => "producer",
        };
        self.put(format!("{base}.timestamps"), timestamps);
        let local = link.forward.local.then_some("local");
        let origins = link.forward.origins.iter().map(|cluster| cluster.name.as_str());
        let forward = match (local, &link.forward.origins[..]) {
            (Some(local), []) => local.to_owned(),
            _ => list(local.into_iter().chain(origins)),
        };
        self.put(format!("{base}.forward"), forward);
        if let Some(factor) = link.replication_factor {
            self.put(format!("{base}.replication_factor"), factor.to_string());
        }
        let connections = link.connections_per_broker.to_string();
        self.put(format!("{base}.connections_per_broker"), connections);
        self.put(format!("{base}.window"), show_size(link.window_bytes_max as u64));
        if let Some(bytes) = link.bytes_per_second_max {
            self.put(format!("{base}.limit"), format!("{}/s", show_size(bytes)));
        }
        let Backfill { at_once_max, bytes_per_second_max } = link.backfill;
        let order = if at_once_max.is_some() { "in_turn" } else { "even" };
        self.put(format!("{base}.backfill.order"), order);
        if let Some(most) = at_once_max {
            self.put(format!("{base}.backfill.concurrent"), most.to_string());
        }
        if let Some(bytes) = bytes_per_second_max {
            self.put(format!("{base}.backfill.limit"), format!("{}/s", show_size(bytes)));
        }
        self.put(format!("{base}.merge"), if link.merges { "auto" } else { "off" });
        let protocol = match link.membership.protocol {
            MembershipProtocol::Auto => "auto",
            MembershipProtocol::Classic => "classic",
            MembershipProtocol::Off => "off",
        };
        self.put(format!("{base}.membership.protocol"), quote(protocol));
        if let Some(id) = &link.membership.instance_id {
            self.put(format!("{base}.membership.instance_id"), quote(id));
        }
        self.policies(&base, link.policies);
    }

    fn policies(&mut self, base: &str, policies: Policies) {
        let on_gap = match policies.on_gap {
            OnGap::Stop => "stop",
            OnGap::Continue => "continue",
        };
        self.put(format!("{base}.on_gap"), on_gap);
        let on_recreate = match policies.on_recreate {
            OnRecreate::Stop => "stop",
            OnRecreate::Restart => "restart",
        };
        self.put(format!("{base}.on_recreate"), on_recreate);
        let on_poison = match policies.on_poison {
            OnPoison::Park => "park",
            OnPoison::Skip => "skip",
        };
        self.put(format!("{base}.on_poison"), on_poison);
        let on_failure = match policies.on_failure {
            OnFailure::Pause => "pause",
            OnFailure::Retry => "retry",
            OnFailure::Stop => "stop",
        };
        self.put(format!("{base}.on_failure"), on_failure);
    }
}

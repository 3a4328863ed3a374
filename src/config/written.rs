//! The configuration as typed, judged key by key: what is missing, unknown, of the wrong kind or out of range becomes
//! a problem with its place, and reading goes on, so that the operator sees all of them at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::problem::{Problem, Severity};
use super::resolved::{Cluster, Config, Engine, Sasl, ScramHash, Secret, Tls, TokenSource};
use super::values::{parse_address, parse_size, show_size};
use super::yaml::{At, Entry, Node, Value};
use super::{Loaded, Surroundings, links, secrets, yaml};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This line of the file.
    Line(usize),
    /// This line, through references such as `${env:NAME}`.
    References(usize, Vec<String>),
}

/// What is known while a file is being judged.
pub(super) struct Reading<'a> {
    pub(super) around: &'a Surroundings<'a>,
    pub(super) problems: Vec<Problem>,
    pub(super) origins: BTreeMap<String, Origin>,
}

/// A scalar with its references resolved.
pub(super) struct Text {
    pub(super) at: At,
    pub(super) value: String,
    /// It may hold what a variable or file held: not to be repeated in a message.
    pub(super) referenced: bool,
}

impl Text {
    /// The value for a message.
    pub(super) fn quoted(&self) -> String {
        if self.referenced { "the referenced value".into() } else { format!("`{}`", self.value) }
    }
}

/// The keys of one mapping.
pub(super) struct Fields<'a> {
    /// Dotted path, empty at the top.
    pub(super) path: String,
    pub(super) at: At,
    entries: &'a [Entry],
    known: Vec<&'static str>,
}

/// Judges a text.
pub(super) fn read(text: &str, around: &Surroundings<'_>) -> Result<Loaded, Vec<Problem>> {
    let (root, problems) = yaml::parse(text)?;
    let mut reading = Reading { around, problems, origins: BTreeMap::new() };
    let config = match &root {
        Some(root) => reading.config(root),
        None => {
            let fix = "make one: strait config generate one-way > strait.yaml";
            reading.problems.push(Problem::error(At::START, "the file is empty").fix(fix));
            None
        }
    };
    reading.problems.sort_by_key(|p| (p.line, p.column));
    match config {
        Some(config) if reading.problems.iter().all(|p| p.severity == Severity::Warning) => {
            Ok(Loaded { config, warnings: reading.problems, origins: reading.origins })
        }
        _ => Err(reading.problems),
    }
}

impl Reading<'_> {
    pub(super) fn error(&mut self, at: At, what: impl Into<String>, fix: impl Into<String>) {
        self.problems.push(Problem::error(at, what).fix(fix));
    }

    pub(super) fn warning(&mut self, at: At, what: impl Into<String>, fix: impl Into<String>) {
        self.problems.push(Problem::warning(at, what).fix(fix));
    }

    fn config(&mut self, root: &Node) -> Option<Config> {
        let mut top = self.fields(root, String::new(), "the file")?;
        top.number(self, "version", 1..=1);
        if !top.has("version") {
            self.error(top.at, "`version` is missing", "add `version: 1` at the top");
        }
        let clusters = match top.get(self, "clusters") {
            Some(node) => self.clusters(node),
            None => {
                self.error(
                    top.at,
                    "`clusters` is missing",
                    "name the clusters, each with `bootstrap`",
                );
                BTreeMap::new()
            }
        };
        let engine = top.get(self, "engine");
        let engine = self.engine(engine);
        let links = match top.get(self, "links") {
            Some(node) => links::read(self, node, &clusters, engine.memory_bytes),
            None => {
                self.error(
                    top.at,
                    "`links` is missing",
                    "name a link with `from`, `to` and `topics`",
                );
                Vec::new()
            }
        };
        let telemetry = top.get(self, "telemetry");
        let telemetry = self.telemetry(telemetry);
        top.not_yet(self, &["admin", "defaults", "groups", "run", "fleet"]);
        top.finish(self);
        let clusters = clusters.into_iter().filter_map(|(name, c)| Some((name, c?.1))).collect();
        Some(Config { clusters, links, engine, telemetry })
    }

    /// By name; none where a cluster was named but is not usable, so that links to it are not blamed as well.
    fn clusters(&mut self, node: &Node) -> BTreeMap<String, Option<(At, Arc<Cluster>)>> {
        let mut clusters = BTreeMap::new();
        let Some(fields) = self.fields(node, "clusters".into(), "clusters") else {
            return clusters;
        };
        if fields.entries.is_empty() {
            self.error(
                node.at,
                "no clusters",
                "name the source and the target, each with `bootstrap`",
            );
        }
        for entry in fields.entries {
            self.name(entry, "a cluster");
            let cluster = self.cluster(entry).map(|cluster| (entry.key_at, Arc::new(cluster)));
            clusters.insert(entry.key.clone(), cluster);
        }
        clusters
    }

    /// Names end up in a consumer group, in metric labels and in topic names.
    pub(super) fn name(&mut self, entry: &Entry, what: &str) {
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if entry.key.is_empty() || entry.key.len() > 100 || !entry.key.chars().all(fine) {
            self.error(
                entry.key_at,
                format!("`{}` is not a name for {what}", entry.key.escape_debug()),
                "use up to 100 of the characters a-z A-Z 0-9 . _ -",
            );
        }
    }

    fn cluster(&mut self, entry: &Entry) -> Option<Cluster> {
        let path = format!("clusters.{}", entry.key);
        let mut fields = self.fields(&entry.node, path, "a cluster")?;
        let before = self.problems.len();
        let bootstrap = match fields.get(self, "bootstrap") {
            Some(node) => {
                let path = fields.path_of("bootstrap");
                let texts = self.texts(node, &path);
                if matches!(&node.value, Value::List(list) if list.is_empty()) {
                    self.error(node.at, "no bootstrap brokers", "write at least one host:port");
                }
                texts.iter().filter_map(|text| self.address(text)).collect()
            }
            None => {
                let fix = "add `bootstrap: [\"host:9092\"]`";
                self.error(entry.key_at, "`bootstrap` is missing", fix);
                Vec::new()
            }
        };
        let tls_node = fields.get(self, "tls");
        let tls = tls_node.and_then(|node| self.tls(node, fields.path_of("tls")));
        let sasl = fields.get(self, "sasl");
        let sasl =
            sasl.and_then(|node| self.sasl(node, fields.path_of("sasl"), tls_node.is_some()));
        fields.not_yet(self, &["proxy", "client_id"]);
        fields.finish(self);
        let broken = self.problems[before..].iter().any(|p| p.severity == Severity::Error);
        (!broken).then(|| Cluster { name: entry.key.clone(), bootstrap, tls, sasl })
    }

    fn address(&mut self, text: &Text) -> Option<super::resolved::Address> {
        parse_address(&text.value)
            .map_err(|(what, fix)| {
                let fix = if text.referenced { "write host:port".into() } else { fix };
                self.error(text.at, format!("{}: {what}", text.quoted()), fix);
            })
            .ok()
    }

    fn tls(&mut self, node: &Node, path: String) -> Option<Tls> {
        if !matches!(node.value, Value::Map(_)) {
            let what = format!("`tls` must be a mapping, this is {}", node.value.kind());
            self.error(
                node.at,
                what,
                "write `tls: {}` for the public roots, or `tls: { ca: ca.pem }`",
            );
            return None;
        }
        let mut fields = self.fields(node, path, "tls")?;
        let mut file = |reading: &mut Self, key| {
            let node = fields.get(reading, key)?;
            let found = reading.file(node, &fields.path_of(key));
            Some((node.at, found))
        };
        let ca = file(self, "ca").and_then(|(_, path)| path);
        let (cert, key) = (file(self, "cert"), file(self, "key"));
        match (&cert, &key) {
            (Some((at, _)), None) => {
                self.error(*at, "`cert` without `key`", "name the certificate's private key too");
            }
            (None, Some((at, _))) => {
                self.error(*at, "`key` without `cert`", "name the key's certificate too");
            }
            _ => {}
        }
        let identity = cert.and_then(|(_, path)| path).zip(key.and_then(|(_, path)| path));
        let server_name = fields.text(self, "server_name").map(|text| text.value);
        let choices = [("1.2", false), ("1.3", true)];
        let tls13_only = fields.choice(self, "min_version", &choices, &[]).unwrap_or(false);
        for key in ["verify", "insecure", "insecure_skip_verify", "skip_verify"] {
            if let Some(at) = fields.take_known(key) {
                let what = format!("`{key}`: certificate checks cannot be switched off");
                self.error(
                    at,
                    what,
                    "name the private CA with `ca`, or another name with `server_name`",
                );
            }
        }
        fields.finish(self);
        Some(Tls { ca, identity, server_name, tls13_only })
    }

    fn sasl(&mut self, node: &Node, path: String, tls: bool) -> Option<Sasl> {
        #[derive(Clone, Copy)]
        enum Mechanism {
            Plain,
            Scram(ScramHash),
            OAuthBearer,
        }
        let mut fields = self.fields(node, path, "sasl")?;
        let choices = [
            ("PLAIN", Mechanism::Plain),
            ("SCRAM-SHA-256", Mechanism::Scram(ScramHash::Sha256)),
            ("SCRAM-SHA-512", Mechanism::Scram(ScramHash::Sha512)),
            ("OAUTHBEARER", Mechanism::OAuthBearer),
        ];
        let later = ["GSSAPI", "AWS_MSK_IAM"];
        let Some(mechanism) = fields.choice(self, "mechanism", &choices, &later) else {
            if !fields.has("mechanism") {
                let fix = "add `mechanism: SCRAM-SHA-512` (or SCRAM-SHA-256, PLAIN, OAUTHBEARER)";
                self.error(node.at, "`mechanism` is missing", fix);
            }
            return None;
        };
        let sasl = match mechanism {
            Mechanism::Plain => {
                let allow_plaintext = fields.boolean(self, "allow_plaintext").unwrap_or(false);
                let (username, password) = fields.user_and_password(self)?;
                if !tls && !allow_plaintext {
                    let what = "PLAIN without `tls` sends the password readable";
                    self.error(
                        node.at,
                        what,
                        "add `tls: {}` to the cluster, or SCRAM, or `allow_plaintext: true`",
                    );
                }
                Some(Sasl::Plain { username, password, allow_plaintext })
            }
            Mechanism::Scram(hash) => {
                let (username, password) = fields.user_and_password(self)?;
                Some(Sasl::Scram { hash, username, password })
            }
            Mechanism::OAuthBearer => fields.token_source(self).map(Sasl::OAuthBearer),
        };
        fields.finish(self);
        sasl
    }

    fn engine(&mut self, node: Option<&Node>) -> Engine {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut engine = Engine { lanes: cores, pin: false, memory_bytes: 256 << 20 };
        let Some(mut fields) = node.and_then(|node| self.fields(node, "engine".into(), "engine"))
        else {
            return engine;
        };
        let auto = fields.get(self, "lanes").is_some_and(|node| node.is("auto"));
        if !auto && let Some(lanes) = fields.number(self, "lanes", 1..=256) {
            engine.lanes = usize::try_from(lanes).unwrap_or(1);
        }
        fields.choice(self, "arrangement", &[("fused", ())], &["split"]);
        engine.pin = fields.boolean(self, "pin").unwrap_or(false);
        if let Some(memory) = fields.size(self, "memory", 16 << 20..=1 << 40) {
            engine.memory_bytes = memory;
        }
        fields.finish(self);
        engine
    }

    fn telemetry(&mut self, node: Option<&Node>) -> Option<std::net::SocketAddr> {
        let default = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 9660)));
        let Some(mut fields) = node.and_then(|n| self.fields(n, "telemetry".into(), "telemetry"))
        else {
            return default;
        };
        let listen = fields.text(self, "listen");
        fields.finish(self);
        let Some(listen) = listen else { return default };
        if listen.value == "off" {
            return None;
        }
        let numeric = listen.value.replace("localhost:", "127.0.0.1:");
        match numeric.parse::<std::net::SocketAddr>() {
            Ok(addr) => {
                if !addr.ip().is_loopback() {
                    let what = "telemetry has no authentication and listens beyond this machine";
                    self.warning(
                        listen.at,
                        what,
                        "it shows topic names and offsets, never payloads",
                    );
                }
                Some(addr)
            }
            Err(_) => {
                let what = format!("{} is not an address to listen at", listen.quoted());
                self.error(
                    listen.at,
                    what,
                    "write address:port, for instance 127.0.0.1:9660, or `off`",
                );
                default
            }
        }
    }

    // ----- the kinds of values -----

    /// The keys of a mapping; anything else is a problem.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        path: String,
        what: &str,
    ) -> Option<Fields<'n>> {
        match &node.value {
            Value::Map(entries) => Some(Fields { path, at: node.at, entries, known: Vec::new() }),
            other => {
                let what = format!("{what} must be a mapping of keys, this is {}", other.kind());
                self.error(node.at, what, "indent its keys below it");
                None
            }
        }
    }

    /// A scalar, references resolved.
    pub(super) fn text(&mut self, node: &Node, path: &str) -> Option<Text> {
        let Value::Text(written) = &node.value else {
            let key = path.rsplit('.').next().unwrap_or(path);
            let what = format!("`{key}` must be a single value, this is {}", node.value.kind());
            self.error(node.at, what, "");
            return None;
        };
        match secrets::expand(written, self.around) {
            Ok(expanded) => {
                let referenced = !expanded.references.is_empty();
                if referenced {
                    let origin = Origin::References(node.at.line, expanded.references);
                    self.origins.insert(path.to_owned(), origin);
                }
                Some(Text { at: node.at, value: expanded.text, referenced })
            }
            Err(unresolved) => {
                self.error(node.at, unresolved.what, unresolved.fix);
                None
            }
        }
    }

    /// A list of scalars; elements that are none are problems and left out.
    pub(super) fn texts(&mut self, node: &Node, path: &str) -> Vec<Text> {
        match &node.value {
            Value::List(nodes) => nodes.iter().filter_map(|n| self.text(n, path)).collect(),
            other => {
                let key = path.rsplit('.').next().unwrap_or(path);
                let what = format!("`{key}` must be a list, this is {}", other.kind());
                self.error(node.at, what, format!("write `{key}: [\"...\"]`"));
                Vec::new()
            }
        }
    }

    /// A file that must be there, relative to the configuration's directory.
    fn file(&mut self, node: &Node, path: &str) -> Option<PathBuf> {
        let text = self.text(node, path)?;
        let file = self.around.directory.join(&text.value);
        if let Err(error) = std::fs::File::open(&file) {
            let key = path.rsplit('.').next().unwrap_or(path);
            let shown = if text.referenced { text.quoted() } else { file.display().to_string() };
            let fix = "paths are relative to the configuration's directory";
            self.error(text.at, format!("`{key}`: {shown} cannot be read: {error}"), fix);
            return None;
        }
        Some(file)
    }
}

impl<'a> Fields<'a> {
    pub(super) fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// The value of a key, which is known from now on.
    pub(super) fn get(&mut self, reading: &mut Reading<'_>, key: &'static str) -> Option<&'a Node> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        reading.origins.insert(self.path_of(key), Origin::Line(entry.key_at.line));
        Some(&entry.node)
    }

    /// Where a key stands that must not be there, without offering it as a suggestion.
    fn take_known(&mut self, key: &'static str) -> Option<At> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        self.known.push(key);
        Some(entry.key_at)
    }

    pub(super) fn text(&mut self, reading: &mut Reading<'_>, key: &'static str) -> Option<Text> {
        let node = self.get(reading, key)?;
        reading.text(node, &self.path_of(key))
    }

    pub(super) fn number(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let text = self.text(reading, key)?;
        let number = text.value.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = (range.start(), range.end());
            let expected = if least == most {
                format!("{least}")
            } else {
                format!("a whole number from {least} to {most}")
            };
            let what = format!("`{key}` is {}", text.quoted());
            reading.error(text.at, what, format!("write {expected}"));
        }
        number
    }

    fn boolean(&mut self, reading: &mut Reading<'_>, key: &'static str) -> Option<bool> {
        let text = self.text(reading, key)?;
        match text.value.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                let what = format!("`{key}` is {}", text.quoted());
                reading.error(text.at, what, "write true or false");
                None
            }
        }
    }

    /// A size in bytes.
    pub(super) fn size(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<usize> {
        let text = self.text(reading, key)?;
        match parse_size(&text.value) {
            Ok(bytes) if range.contains(&bytes) => usize::try_from(bytes).ok(),
            Ok(_) => {
                let (least, most) = (show_size(*range.start()), show_size(*range.end()));
                let what = format!("`{key}` is {}", text.quoted());
                reading.error(text.at, what, format!("write {least} to {most}"));
                None
            }
            Err(accepted) => {
                reading.error(text.at, format!("`{key}` is {}", text.quoted()), accepted);
                None
            }
        }
    }

    /// One of a few words; `later` are words that the design has and this version does not.
    pub(super) fn choice<T: Copy>(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
        choices: &[(&str, T)],
        later: &[&str],
    ) -> Option<T> {
        let text = self.text(reading, key)?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(*choice);
        }
        let words = choices.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        if later.contains(&text.value.as_str()) {
            let what = format!("`{key}: {}` is not supported yet", text.value);
            reading.error(text.at, what, format!("this version has {}", words.join(", ")));
        } else {
            let what = format!("`{key}` is {}", text.quoted());
            let fix = match nearest(&text.value, &words) {
                Some(word) if !text.referenced => format!("did you mean `{word}`?"),
                _ => format!("write {}", words.join(" or ")),
            };
            reading.error(text.at, what, fix);
        }
        None
    }

    /// Keys of the design that this version does not have.
    pub(super) fn not_yet(&mut self, reading: &mut Reading<'_>, keys: &[&'static str]) {
        for key in keys {
            if let Some(at) = self.take_known(key) {
                reading.error(at, format!("`{key}` is not supported yet"), "remove it");
            }
        }
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self, reading: &mut Reading<'_>) {
        for entry in self.entries {
            let key = entry.key.as_str();
            if self.known.contains(&key) {
                continue;
            }
            let place = if self.path.is_empty() {
                "at the top".into()
            } else {
                format!("in {}", self.path)
            };
            let fix = match nearest(key, &self.known) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            reading.error(
                entry.key_at,
                format!("unknown key `{}` {place}", key.escape_debug()),
                fix,
            );
        }
    }

    fn required(&mut self, reading: &mut Reading<'_>, key: &'static str) -> Option<Text> {
        if !self.has(key) {
            self.known.push(key);
            let what = format!("`{key}` is missing in {}", self.path);
            reading.error(self.at, what, format!("add `{key}`"));
            return None;
        }
        self.text(reading, key)
    }

    /// A secret: under `key` as text or reference, or under `file_key` as the path of its file.
    fn secret(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
        file_key: &'static str,
    ) -> Option<Secret> {
        if let Some(node) = self.get(reading, file_key) {
            let file = reading.file(node, &self.path_of(file_key))?;
            if let Some(at) = self.take_known(key) {
                reading.error(at, format!("both `{key}` and `{file_key}`"), "keep one of the two");
            }
            self.known.push(key);
            return match secrets::read(&file) {
                Ok(text) => Some(Secret::new(text)),
                Err(unresolved) => {
                    reading.error(node.at, unresolved.what, unresolved.fix);
                    None
                }
            };
        }
        let text = self.required(reading, key)?;
        if !text.referenced {
            let what = format!("`{key}` stands in the file");
            let fix = format!("write \"${{env:NAME}}\" or \"${{file:PATH}}\", or use `{file_key}`");
            reading.warning(text.at, what, fix);
        }
        Some(Secret::new(text.value))
    }

    fn user_and_password(&mut self, reading: &mut Reading<'_>) -> Option<(String, Secret)> {
        let username = self.required(reading, "username").map(|text| text.value);
        let password = self.secret(reading, "password", "password_file");
        username.zip(password)
    }

    fn token_source(&mut self, reading: &mut Reading<'_>) -> Option<TokenSource> {
        if let Some(node) = self.get(reading, "token_file") {
            let path = self.path_of("token_file");
            return reading.file(node, &path).map(TokenSource::File);
        }
        if !self.has("token_endpoint") {
            self.known.extend(["token_endpoint", "client_id", "client_secret", "scope"]);
            let fix = "add `token_file`, or `token_endpoint`, `client_id` and `client_secret`";
            reading.error(self.at, "OAUTHBEARER without a token", fix);
            return None;
        }
        let endpoint = self.required(reading, "token_endpoint");
        if let Some(text) = &endpoint
            && !text.value.starts_with("https://")
        {
            let what = format!("`token_endpoint` is {}", text.quoted());
            reading.error(
                text.at,
                what,
                "write an https:// address: the client secret is sent there",
            );
        }
        let client_id = self.required(reading, "client_id");
        let client_secret = self.secret(reading, "client_secret", "client_secret_file");
        let scope = self.text(reading, "scope").map(|text| text.value);
        let ca = self.get(reading, "ca");
        let ca = ca.and_then(|node| reading.file(node, &self.path_of("ca")));
        Some(TokenSource::ClientCredentials {
            token_endpoint: endpoint?.value,
            client_id: client_id?.value,
            client_secret: client_secret?,
            scope,
            ca,
        })
    }
}

/// The word that was probably meant.
pub(super) fn nearest<'w>(typed: &str, words: &[&'w str]) -> Option<&'w str> {
    words
        .iter()
        .map(|word| {
            (strsim::damerau_levenshtein(&typed.to_lowercase(), &word.to_lowercase()), *word)
        })
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min()
        .map(|(_, word)| word)
}

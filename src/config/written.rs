//! The configuration as typed, judged key by key: what is missing, unknown, of the wrong kind or out of range becomes
//! a problem with its place, and reading goes on, so that the operator sees all of them at once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::problem::{Problem, Severity};
use super::resolved::{Arrangement, Config, Engine, SecretPart};
use super::secrets::Expanded;
use super::values::{parse_rate, parse_size, show_size};
use super::yaml::{At, Entry, Node, Value};
use super::{Loaded, Surroundings, links, secrets, yaml};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Of its key, from 1.
    pub line: usize,
    /// Of its key, from 1.
    pub column: usize,
    /// The references that its text had, such as `${env:NAME}`.
    pub references: Vec<String>,
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
    /// The value by where it comes from.
    pub(super) parts: Vec<SecretPart>,
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

    /// Notes where a value stands.
    pub(super) fn note(&mut self, path: String, at: At) {
        let origin = Origin { line: at.line, column: at.column, references: Vec::new() };
        self.origins.insert(path, origin);
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

    fn engine(&mut self, node: Option<&Node>) -> Engine {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // The kernel's side of the sockets takes about as much: two lanes on two cores were slower than one.
        let mut engine = Engine {
            lanes: (cores / 2).max(1),
            arrangement: Arrangement::default(),
            pin: false,
            memory_bytes: 256 << 20,
        };
        let Some(mut fields) = node.and_then(|node| self.fields(node, "engine".into(), "engine"))
        else {
            return engine;
        };
        let arrangements = [Arrangement::Fused, Arrangement::Split]
            .map(|arrangement| (arrangement.word(), arrangement));
        let arrangement = fields.choice(self, "arrangement", &arrangements, &[]);
        engine.arrangement = arrangement.unwrap_or_default();
        let auto = fields.get(self, "lanes").is_some_and(|node| node.is("auto"));
        if !auto && let Some(lanes) = fields.number(self, "lanes", 1..=256) {
            engine.lanes = usize::try_from(lanes).unwrap_or(1);
        }
        engine.pin = fields.boolean(self, "pin").unwrap_or(false);
        if let Some(node) =
            fields.get(self, "pin").filter(|_| engine.pin && !cfg!(target_os = "linux"))
        {
            let what = "`pin` has no effect on this operating system";
            self.warning(
                node.at,
                what,
                "lanes run where the scheduler puts them; Linux can pin them",
            );
        }
        if let Some(memory) = fields.size(self, "memory", 16 << 20..=1 << 40) {
            engine.memory_bytes = memory;
        }
        fields.finish(self);
        engine
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
                if let Some(origin) = self.origins.get_mut(path) {
                    origin.references.extend_from_slice(&expanded.references);
                }
                let Expanded { text: value, parts, .. } = expanded;
                Some(Text { at: node.at, value, referenced, parts })
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
    pub(super) fn file(&mut self, node: &Node, path: &str) -> Option<PathBuf> {
        let text = self.text(node, path)?;
        let file = self.around.directory.join(&text.value);
        if let Err(error) = secrets::open_file(&file) {
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
        reading.note(self.path_of(key), entry.key_at);
        Some(&entry.node)
    }

    /// Where a key stands that must not be there, without offering it as a suggestion.
    pub(super) fn take_known(&mut self, key: &'static str) -> Option<At> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        self.known.push(key);
        Some(entry.key_at)
    }

    /// Makes keys known that are not read, so that they are offered where another was typed.
    pub(super) fn know(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
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

    pub(super) fn boolean(&mut self, reading: &mut Reading<'_>, key: &'static str) -> Option<bool> {
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

    /// Bytes per second, `least` or more.
    pub(super) fn rate(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
        least: u64,
    ) -> Option<u64> {
        let text = self.text(reading, key)?;
        let fix = match parse_rate(&text.value) {
            Ok(bytes) if bytes >= least => return Some(bytes),
            Ok(_) => format!("write {}/s or more", show_size(least)),
            Err(accepted) => accepted,
        };
        reading.error(text.at, format!("`{key}` is {}", text.quoted()), fix);
        None
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

    pub(super) fn required(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
    ) -> Option<Text> {
        if !self.has(key) {
            self.known.push(key);
            let what = format!("`{key}` is missing in {}", self.path);
            reading.error(self.at, what, format!("add `{key}`"));
            return None;
        }
        self.text(reading, key)
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

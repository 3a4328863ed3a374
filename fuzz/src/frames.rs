//! Valid answers of every API in every version, made from Kafka's own definitions: the seeds of the fuzzers, and what the
//! decoders are compared over.

/// The definitions, in the form that their first lines say.
const MESSAGES: &str = include_str!("../../src/cli/proto/decode/messages.txt");
/// Elements of a list at most.
const ELEMENTS_MAX: u64 = 3;

/// A value of a frame.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The names of the fields that lead to it.
    pub path: String,
    /// How `Debug` shows it.
    pub shown: String,
    /// Text as it is, an id as Kafka writes it, bytes as `b` and hex.
    pub plain: String,
}

/// An answer's definition.
#[derive(Debug)]
pub struct Answer {
    /// As Kafka names the API.
    pub name: &'static str,
    flexible: (i16, i16),
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    array: bool,
    kind: &'static str,
    fields: Vec<Field>,
    versions: (i16, i16),
    nullable: (i16, i16),
    tag: Option<u32>,
}

/// `3`, `3+`, `3-5` or `none`.
fn versions(text: &str) -> (i16, i16) {
    let number = |text: &str| text.parse().expect("a version");
    match text.split_once('-') {
        _ if text == "none" => NEVER,
        Some((low, high)) => (number(low), number(high)),
        None => match text.strip_suffix('+') {
            Some(low) => (number(low), i16::MAX),
            None => (number(text), number(text)),
        },
    }
}

const NEVER: (i16, i16) = (i16::MAX, -1);

fn holds((low, high): (i16, i16), version: i16) -> bool {
    (low..=high).contains(&version)
}

impl Answer {
    /// The answer of the API with this key.
    pub fn of(key: i16) -> Self {
        let head = |line: &&str| {
            let words: Vec<_> = line.split(' ').collect();
            words[0].parse() == Ok(key) && words.get(2) == Some(&"response")
        };
        let mut lines = MESSAGES.lines().skip_while(|line| !head(line));
        let words: Vec<_> = lines.next().expect("an API that is defined").split(' ').collect();
        let body: Vec<_> = lines.take_while(|line| line.starts_with(' ')).collect();
        let fields = fields(&mut &body[..], 2);
        Self { name: words[1], flexible: versions(words[5]), fields }
    }

    /// A body of chance in this version, and what is in it.
    pub fn body(&self, version: i16, dice: &mut dyn FnMut() -> u64) -> (Vec<u8>, Vec<Leaf>) {
        let flexible = holds(self.flexible, version);
        let mut writer = Writer { version, flexible, dice, out: Vec::new(), leaves: Vec::new() };
        writer.message("", &self.fields);
        (writer.out, writer.leaves)
    }
}

fn fields(lines: &mut &[&'static str], depth: usize) -> Vec<Field> {
    let mut all = Vec::new();
    while let [line, rest @ ..] = *lines
        && line.len() - line.trim_start().len() == depth
    {
        *lines = rest;
        let mut words = line.trim_start().split(' ');
        let mut word = || words.next().expect("name, type and versions");
        let (name, kind) = (word(), word());
        let (array, kind) = kind.strip_prefix("[]").map_or((false, kind), |kind| (true, kind));
        let since = versions(word());
        let (mut nullable, mut tag) = (NEVER, None);
        for word in words {
            match (word.strip_prefix('?'), word.strip_prefix('#')) {
                (Some(range), _) => nullable = versions(range),
                (_, Some(tagged)) => tag = tagged.split(':').next().and_then(|n| n.parse().ok()),
                _ => panic!("what is {word:?}?"),
            }
        }
        let below = if kind == "{" { fields(lines, depth + 2) } else { Vec::new() };
        all.push(Field { name, array, kind, fields: below, versions: since, nullable, tag });
    }
    all
}

struct Writer<'a> {
    version: i16,
    flexible: bool,
    dice: &'a mut dyn FnMut() -> u64,
    out: Vec<u8>,
    leaves: Vec<Leaf>,
}

impl Writer<'_> {
    fn one_in(&mut self, many: u64) -> bool {
        (self.dice)().is_multiple_of(many)
    }

    fn message(&mut self, path: &str, fields: &[Field]) {
        let here = fields.iter().filter(|field| holds(field.versions, self.version));
        let (plain, tagged): (Vec<_>, Vec<_>) = here.partition(|field| field.tag.is_none());
        for field in plain {
            self.field(path, field);
        }
        if !self.flexible {
            return;
        }
        let (mut count, mut tags) = (0, Vec::new());
        for field in tagged {
            count += 1;
            let before = std::mem::take(&mut self.out);
            self.field(path, field);
            let value = std::mem::replace(&mut self.out, before);
            put_varint(&mut tags, field.tag.unwrap_or(0) as usize);
            put_varint(&mut tags, value.len());
            tags.extend(value);
        }
        if self.one_in(8) {
            // Of a later release: to be passed by.
            count += 1;
            tags.extend([100, 3, 1, 2, 3]);
        }
        put_varint(&mut self.out, count);
        self.out.extend(tags);
    }

    fn field(&mut self, path: &str, field: &Field) {
        let path =
            if path.is_empty() { field.name.into() } else { format!("{path}.{}", field.name) };
        let is_null = holds(field.nullable, self.version) && self.one_in(4);
        if !field.array {
            return self.value(&path, field, is_null);
        }
        if is_null {
            self.length(None);
            return self.leaf(&path, "null".into(), "null".into());
        }
        let count = (self.dice)() % (ELEMENTS_MAX + 1);
        self.length(Some(count as usize));
        (0..count).for_each(|_| self.value(&path, field, false));
    }

    /// A length in front of a list, a string or bytes.
    fn length(&mut self, len: Option<usize>) {
        if self.flexible {
            put_varint(&mut self.out, len.map_or(0, |len| len + 1));
        } else {
            let len = len.map_or(-1, |len| i32::try_from(len).expect("short"));
            self.out.extend(len.to_be_bytes());
        }
    }

    fn value(&mut self, path: &str, field: &Field, is_null: bool) {
        let chance = (self.dice)();
        let mut plain = None;
        let shown = match field.kind {
            "{" => {
                // A struct that may be null says first whether it is.
                if holds(field.nullable, self.version) && !field.array {
                    self.out.push(if is_null { 0xff } else { 1 });
                }
                if !is_null {
                    return self.message(path, &field.fields);
                }
                "null".into()
            }
            "bool" => {
                // A tagged field with its default is not written.
                let is_true = chance & 1 == 1 || field.tag.is_some();
                self.out.push(u8::from(is_true));
                is_true.to_string()
            }
            "int8" => {
                self.out.push(chance as u8);
                (chance as i8).to_string()
            }
            "int16" => {
                self.out.extend((chance as i16).to_be_bytes());
                (chance as i16).to_string()
            }
            "int32" => {
                self.out.extend((chance as i32).to_be_bytes());
                (chance as i32).to_string()
            }
            "int64" => {
                self.out.extend((chance as i64).to_be_bytes());
                (chance as i64).to_string()
            }
            "uuid" => {
                let id = uuid::Uuid::from_u128(u128::from(chance) << 64 | u128::from(!chance));
                self.out.extend(id.as_bytes());
                plain = Some(base64(id.as_u128()));
                id.to_string()
            }
            "string" => {
                let text = format!("s{}", chance % 1_000_000_007);
                if self.flexible {
                    self.length((!is_null).then_some(text.len()));
                } else {
                    let len = if is_null { -1 } else { text.len() as i16 };
                    self.out.extend(len.to_be_bytes());
                }
                if !is_null {
                    self.out.extend(text.bytes());
                }
                plain = (!is_null).then(|| text.clone());
                if is_null { "null".into() } else { format!("{text:?}") }
            }
            "bytes" | "records" => {
                let len = (chance % 20) as usize;
                let bytes = bytes::Bytes::copy_from_slice(&chance.to_be_bytes().repeat(3)[..len]);
                self.length((!is_null).then_some(len));
                if !is_null {
                    self.out.extend_from_slice(&bytes);
                }
                // Kafka's own JSON shows that there are records, and not which.
                let known = if field.kind == "records" { &[][..] } else { &bytes };
                plain = (!is_null)
                    .then(|| known.iter().fold("b".into(), |hex, b| format!("{hex}{b:02x}")));
                if is_null { "null".into() } else { format!("{bytes:?}") }
            }
            other => panic!("what is {other:?}?"),
        };
        let plain = plain.unwrap_or_else(|| shown.clone());
        self.leaf(path, shown, plain);
    }

    fn leaf(&mut self, path: &str, shown: String, plain: String) {
        self.leaves.push(Leaf { path: path.to_owned(), shown, plain });
    }
}

/// As `org.apache.kafka.common.Uuid` is shown.
fn base64(id: u128) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digit = |place: u32| {
        let bits = if place == 21 { id << 4 } else { id >> (122 - 6 * place) };
        char::from(DIGITS[(bits & 63) as usize])
    };
    (0..22).map(digit).collect()
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

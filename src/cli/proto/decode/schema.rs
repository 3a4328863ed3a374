//! What a message holds, by API, direction and version: read off `messages.txt`. Pure.

/// The definitions.
const MESSAGES: &str = include_str!("messages.txt");

/// A range of versions, both ends in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Versions {
    pub(super) min: i16,
    pub(super) max: i16,
}

impl Versions {
    /// `3`, `3+`, `3-5` or `none`.
    fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self { min: i16::MAX, max: -1 });
        }
        if let Some(min) = text.strip_suffix('+') {
            return Some(Self { min: min.parse().ok()?, max: i16::MAX });
        }
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        Some(Self { min: min.parse().ok()?, max: max.parse().ok()? })
    }

    pub(super) fn hold(self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

/// How a value is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uuid,
    String,
    Bytes,
    Records,
    /// Fields of its own.
    Struct(Vec<Field>),
}

/// A field of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) array: bool,
    pub(super) kind: Kind,
    pub(super) versions: Versions,
    pub(super) nullable: Option<Versions>,
    pub(super) tag: Option<(u32, Versions)>,
}

/// A request or a response.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) key: i16,
    pub(super) name: &'static str,
    pub(super) versions: Versions,
    flexible: Versions,
    pub(super) fields: Vec<Field>,
}

impl Message {
    /// Whether a version is written in the encoding of KIP-482.
    pub(super) fn is_flexible(&self, version: i16) -> bool {
        self.flexible.hold(version)
    }
}

/// A message by the key of its API.
pub(super) fn message(key: i16, is_request: bool) -> Option<Message> {
    let kind = if is_request { "request" } else { "response" };
    let mut lines = MESSAGES.lines().skip_while(|line| {
        let mut words = line.split(' ');
        words.next().and_then(|word| word.parse().ok()) != Some(key) || words.nth(1) != Some(kind)
    });
    let mut head = lines.next()?.split(' ');
    let (name, versions) = (head.nth(1)?, Versions::parse(head.nth(1)?)?);
    let flexible = Versions::parse(head.nth(1)?)?;
    let body = lines.take_while(|line| line.starts_with(' ')).collect::<Vec<_>>();
    let fields = fields(&mut body.as_slice(), 2)?;
    Some(Message { key, name, versions, flexible, fields })
}

/// The key of an API that is given by its number or name.
pub(super) fn key(api: &str) -> Option<i16> {
    MESSAGES.lines().filter(|line| !line.starts_with([' ', '#'])).find_map(|line| {
        let (key, rest) = line.split_once(' ')?;
        let name = rest.split(' ').next()?;
        (api == key || api.eq_ignore_ascii_case(name)).then(|| key.parse().ok())?
    })
}

/// The lines of this depth from here on, each with the deeper ones below it.
fn fields(lines: &mut &[&'static str], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while let [line, rest @ ..] = *lines {
        if line.len() - line.trim_start().len() != depth {
            break;
        }
        *lines = rest;
        let mut words = line.trim_start().split(' ');
        let (name, kind) = (words.next()?, words.next()?);
        let (array, kind) = kind.strip_prefix("[]").map_or((false, kind), |kind| (true, kind));
        let versions = Versions::parse(words.next()?)?;
        let (mut nullable, mut tag) = (None, None);
        for word in words {
            if let Some(versions) = word.strip_prefix('?') {
                nullable = Some(Versions::parse(versions)?);
            } else {
                let (number, versions) = word.strip_prefix('#')?.split_once(':')?;
                tag = Some((number.parse().ok()?, Versions::parse(versions)?));
            }
        }
        let kind = match kind {
            "bool" => Kind::Bool,
            "int8" => Kind::Int8,
            "int16" => Kind::Int16,
            "int32" => Kind::Int32,
            "int64" => Kind::Int64,
            "uuid" => Kind::Uuid,
            "string" => Kind::String,
            "bytes" => Kind::Bytes,
            "records" => Kind::Records,
            "{" => Kind::Struct(self::fields(lines, depth + 2)?),
            _ => return None,
        };
        fields.push(Field { name, array, kind, versions, nullable, tag });
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_read_to_its_end() {
        fn count(fields: &[Field]) -> usize {
            let below = |field: &Field| match &field.kind {
                Kind::Struct(fields) => count(fields),
                _ => 0,
            };
            fields.iter().map(|field| 1 + below(field)).sum()
        }
        let (mut messages, mut fields) = (0, 0);
        for key in 0..100 {
            for is_request in [true, false] {
                if let Some(message) = message(key, is_request) {
                    assert_eq!(self::key(message.name), Some(key));
                    messages += 1;
                    fields += count(&message.fields);
                }
            }
        }
        let lines = MESSAGES.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(messages + fields, lines.count());
        assert_eq!(key("fetch"), Some(1));
        assert_eq!(key("Nothing"), None);
    }
}

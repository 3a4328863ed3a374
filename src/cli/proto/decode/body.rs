//! A message's bytes as JSON, by its definition. Pure, and for bytes of anyone: no count is believed before there are as
//! many bytes, and what is made of them is bounded.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::batches;
use super::schema::{Field, Kind, Message};
use crate::wire::{ErrorCode, Reader, WireError};

/// Values of one message: an empty element of an array takes a byte, and a hundred as JSON.
pub(super) const VALUES_MAX: usize = 1_000_000;
/// Bytes of a field that are shown.
const SHOWN_BYTES_MAX: usize = 1024;

/// Where and why reading ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// The field, from the outermost in.
    pub(super) place: String,
    pub(super) why: String,
}

impl Broken {
    fn of(error: impl ToString) -> Self {
        Self { place: String::new(), why: error.to_string() }
    }

    fn inside(mut self, name: &str) -> Self {
        let dot = if self.place.is_empty() || self.place.starts_with('[') { "" } else { "." };
        self.place = format!("{name}{dot}{}", self.place);
        self
    }
}

impl From<WireError> for Broken {
    fn from(error: WireError) -> Self {
        Self::of(error)
    }
}

/// Reads a message of one version.
pub(super) struct Body<'m> {
    message: &'m Message,
    version: i16,
    flexible: bool,
    values_left: usize,
}

impl<'m> Body<'m> {
    pub(super) fn new(message: &'m Message, version: i16) -> Self {
        let flexible = message.is_flexible(version);
        Self { message, version, flexible, values_left: VALUES_MAX }
    }

    /// The body, all of it: bytes behind its end mean that it is of another version.
    pub(super) fn read(mut self, body: &Bytes) -> Result<Value, Broken> {
        let mut reader = Reader::new(body);
        let message = self.message;
        let read = self.fields(&message.fields, &mut reader)?;
        match reader.left() {
            0 => Ok(read),
            left => Err(Broken::of(format!("{left} bytes are left behind the message"))),
        }
    }

    fn fields(&mut self, fields: &[Field], reader: &mut Reader<'_>) -> Result<Value, Broken> {
        let mut out = Map::new();
        let version = self.version;
        let tag = |field: &Field| field.tag.filter(|(_, of)| of.hold(version)).map(|(tag, _)| tag);
        let held = |field: &&Field| field.versions.hold(version);
        for field in fields.iter().filter(held).filter(|field| tag(field).is_none()) {
            self.put(&mut out, field, reader)?;
        }
        if self.flexible {
            let count = reader.uvarint("tagged fields")?;
            for _ in 0..count {
                let number = reader.uvarint("tag")?;
                let size = reader.uvarint("tagged field's size")? as usize;
                let raw = Bytes::copy_from_slice(reader.take(size, "tagged field")?);
                let of = fields.iter().filter(held).find(|field| tag(field) == Some(number));
                let Some(field) = of else {
                    self.count()?;
                    out.insert(format!("tag{number}"), shown(&raw));
                    continue;
                };
                let mut inner = Reader::new(&raw);
                self.put(&mut out, field, &mut inner)?;
                if inner.left() > 0 {
                    let why = format!("{} bytes are left in the tagged field", inner.left());
                    return Err(Broken::of(why).inside(field.name));
                }
            }
        }
        Ok(Value::Object(out))
    }

    fn put(
        &mut self,
        out: &mut Map<String, Value>,
        field: &Field,
        reader: &mut Reader<'_>,
    ) -> Result<(), Broken> {
        let value = self.field(field, reader).map_err(|broken| broken.inside(field.name))?;
        if let (true, Some(code)) = (field.name.ends_with("rrorCode"), value.as_i64()) {
            let code = i16::try_from(code).map_or(ErrorCode::UNKNOWN_SERVER_ERROR, ErrorCode);
            out.insert("error".to_owned(), code.name().into());
        }
        out.insert(field.name.to_owned(), value);
        Ok(())
    }

    fn count(&mut self) -> Result<(), Broken> {
        self.values_left = self.values_left.checked_sub(1).ok_or_else(|| {
            Broken::of(format!(
                "more than {VALUES_MAX} values; a message of that size is not shown"
            ))
        })?;
        Ok(())
    }

    fn field(&mut self, field: &Field, reader: &mut Reader<'_>) -> Result<Value, Broken> {
        if !field.array {
            return self.value(field, reader);
        }
        let Some(count) = self.length(reader, 4)? else { return self.null(field) };
        // Every element takes a byte at least.
        if count > reader.left() {
            let left = reader.left();
            return Err(Broken::of(format!("{count} elements, and {left} bytes are left")));
        }
        let mut elements = Vec::new();
        for index in 0..count {
            let element = self.value(field, reader);
            elements.push(element.map_err(|broken| broken.inside(&format!("[{index}]")))?);
        }
        Ok(Value::Array(elements))
    }

    fn null(&self, field: &Field) -> Result<Value, Broken> {
        match field.nullable.is_some_and(|versions| versions.hold(self.version)) {
            true => Ok(Value::Null),
            false => Err(Broken::of("null, which this version does not have")),
        }
    }

    fn value(&mut self, field: &Field, reader: &mut Reader<'_>) -> Result<Value, Broken> {
        self.count()?;
        Ok(match &field.kind {
            Kind::Bool => reader.bool("BOOLEAN")?.into(),
            Kind::Int8 => reader.i8("INT8")?.into(),
            Kind::Int16 => reader.i16("INT16")?.into(),
            Kind::Int32 => reader.i32("INT32")?.into(),
            Kind::Int64 => reader.i64("INT64")?.into(),
            Kind::Uuid => reader.uuid("UUID")?.to_string().into(),
            Kind::String => match self.length(reader, 2)? {
                None => return self.null(field),
                Some(len) => {
                    let raw = reader.take(len, "STRING")?;
                    let text = std::str::from_utf8(raw).map_err(|_| Broken::of("not UTF-8"))?;
                    text.into()
                }
            },
            Kind::Bytes | Kind::Records => match self.length(reader, 4)? {
                None => return self.null(field),
                Some(len) => {
                    let raw = Bytes::copy_from_slice(reader.take(len, "BYTES")?);
                    match field.kind {
                        Kind::Records => batches::show(&raw),
                        _ => shown(&raw),
                    }
                }
            },
            Kind::Struct(fields) => {
                // Outside of arrays and tags a structure that may be null says first whether it is.
                let says = !field.array && field.tag.is_none() && field.nullable.is_some();
                if says && reader.i8("presence")? < 0 {
                    return self.null(field);
                }
                self.fields(fields, reader)?
            }
        })
    }

    /// A length, of so many bytes before KIP-482; None is null.
    fn length(
        &self,
        reader: &mut Reader<'_>,
        classic_bytes: usize,
    ) -> Result<Option<usize>, Broken> {
        let claimed = match (self.flexible, classic_bytes) {
            (true, _) => i64::from(reader.uvarint("length")?) - 1,
            (false, 2) => reader.i16("length")?.into(),
            (false, _) => reader.i32("length")?.into(),
        };
        match claimed {
            -1 => Ok(None),
            claimed => usize::try_from(claimed)
                .map(Some)
                .map_err(|_| Broken::of(format!("a length of {claimed}"))),
        }
    }
}

/// Bytes as hex, up to a bound.
pub(super) fn shown(raw: &[u8]) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match raw.get(..SHOWN_BYTES_MAX) {
        Some(first) if raw.len() > SHOWN_BYTES_MAX => {
            json!({ "bytes": raw.len(), "first": hex(first) })
        }
        _ => hex(raw).into(),
    }
}

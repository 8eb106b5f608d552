//! Where fields are written to: an HTTP/1.1 head, or the header map of HTTP/2.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::field::{Field, Fields};

/// Takes fields one by one. Implemented by the buffer of an HTTP/1.1 head and by [`HeaderMapSink`].
pub trait FieldSink {
    /// Adds a field.
    fn field(&mut self, name: &[u8], value: &[u8]);

    /// Adds one of these fields as it is.
    fn copy(&mut self, fields: &Fields, field: &Field) {
        self.field(fields.name(field), fields.value(field));
    }

    /// Adds fields whose form was prepared when the configuration was loaded.
    fn rendered(&mut self, fields: &Rendered);
}

/// The lines of an HTTP/1.1 head.
impl FieldSink for Vec<u8> {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.reserve(name.len() + value.len() + 4);
        self.extend_from_slice(name);
        self.extend_from_slice(b": ");
        self.extend_from_slice(value);
        self.extend_from_slice(b"\r\n");
    }

    fn copy(&mut self, fields: &Fields, field: &Field) {
        match fields.line(field) {
            Some(line) => self.extend_from_slice(line),
            None => self.field(fields.name(field), fields.value(field)),
        }
    }

    fn rendered(&mut self, fields: &Rendered) {
        self.extend_from_slice(&fields.lines);
    }
}

/// Bytes of fields as HTTP/1.1 writes them.
#[must_use]
pub fn bytes_of(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// The header map of an HTTP/2 message.
#[derive(Debug, Default)]
pub struct HeaderMapSink(pub HeaderMap);

impl HeaderMapSink {
    /// Room for that many fields, so that they need not be moved.
    #[must_use]
    pub fn with_capacity(fields: usize) -> Self {
        Self(HeaderMap::try_with_capacity(fields).unwrap_or_default())
    }
}

impl FieldSink for HeaderMapSink {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        // What is no valid field there was refused when the head was parsed; what slips through is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            // The map has room for more fields than any head may have.
            let _ = self.0.try_append(name, value);
        }
    }

    fn rendered(&mut self, fields: &Rendered) {
        for (name, value) in &fields.map {
            let _ = self.0.try_append(name, value.clone());
        }
    }
}

/// Fields that depend on the configuration only: rendered once, in both forms.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    lines: Vec<u8>,
    map: Vec<(HeaderName, HeaderValue)>,
}

impl Rendered {
    /// Adds a field.
    ///
    /// # Errors
    ///
    /// When name or value are not valid in HTTP (RFC 9110 section 5).
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), http::Error> {
        self.map.push((HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?));
        self.lines.field(name.as_bytes(), value.as_bytes());
        Ok(())
    }

    /// Whether there are no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The fields as name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.map.iter().map(|(n, v)| (n.as_str(), v.as_bytes()))
    }
}

impl From<&Fields> for HeaderMap {
    fn from(fields: &Fields) -> Self {
        let mut sink = HeaderMapSink::default();
        for (_, name, value) in fields.iter() {
            sink.field(name, value);
        }
        sink.0
    }
}

/// The `http` crate takes a quotation mark for a character of names; RFC 9110 section 5.6.2 does not, and other parsers
/// refuse the whole message.
#[must_use]
pub fn is_token(name: &HeaderName) -> bool {
    !name.as_str().as_bytes().contains(&b'"')
}

impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in map.iter().filter(|(name, _)| is_token(name)) {
            fields.push(name.as_str().as_bytes(), value.as_bytes());
        }
        fields
    }
}

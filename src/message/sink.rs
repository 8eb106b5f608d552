//! The receivers of fields: an HTTP/1.1 head, or the header map of HTTP/2.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::field::{Field, Fields};

/// Receives fields one by one: the buffer of an HTTP/1.1 head, or a [`HeaderMapSink`].
pub trait FieldSink {
    /// Adds a field.
    fn field(&mut self, name: &[u8], value: &[u8]);

    /// Adds one of these fields as it is.
    fn copy(&mut self, fields: &Fields, field: &Field) {
        self.field(fields.name(field), fields.value(field));
    }

    /// Adds fields that were rendered when the configuration was loaded.
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

/// Returns the size of fields in HTTP/1.1, in bytes.
#[must_use]
pub fn bytes_of(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// The header map of an HTTP/2 message.
#[derive(Debug, Default)]
pub struct HeaderMapSink(pub HeaderMap);

impl HeaderMapSink {
    /// Makes a map with room for `fields` fields.
    #[must_use]
    pub fn with_capacity(fields: usize) -> Self {
        Self(HeaderMap::try_with_capacity(fields).unwrap_or_default())
    }
}

impl FieldSink for HeaderMapSink {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        // Invalid fields were refused when the head was parsed. Any that remain are dropped.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            // Cannot fail: the map has room for more fields than any head may have.
            let _ = self.0.try_append(name, value);
        }
    }

    fn rendered(&mut self, fields: &Rendered) {
        for (name, value) in &fields.map {
            let _ = self.0.try_append(name, value.clone());
        }
    }
}

/// Fields that depend on the configuration alone, rendered once in both forms.
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
    /// Returns an error if the name or the value is invalid (RFC 9110 section 5).
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), http::Error> {
        self.map.push((HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?));
        self.lines.field(name.as_bytes(), value.as_bytes());
        Ok(())
    }

    /// Returns `true` if there are no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Returns the fields as names and values.
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

/// Returns `true` for a valid name. The `http` crate accepts a quotation mark in names. RFC 9110
/// section 5.6.2 does not, and other parsers refuse the whole message.
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

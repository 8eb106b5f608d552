//! A request for a page: its path, query, form and session.

use bytes::Bytes;
use http::Method;
use zeroize::{Zeroize as _, Zeroizing};

use super::session::PageSession;

/// Fields of a query or a form, at most.
const FIELDS_MAX: usize = 256;

/// A request for a page, of a reader who may make it.
#[derive(Debug)]
pub struct PageRequest {
    /// GET or POST.
    pub method: Method,
    /// The path without its query, as sent.
    pub path: String,
    /// The fields of the query.
    pub query: FormFields,
    /// The fields of the form of a POST; its CSRF token has been checked.
    pub form: FormFields,
    /// The reader.
    pub session: PageSession,
    /// `true` if nobody on the way can read the request.
    pub is_confidential: bool,
}

impl PageRequest {
    /// Returns a segment of the path, counted from 0 and decoded: 1 of `/site/a.example` is `a.example`.
    #[must_use]
    pub fn segment(&self, at: usize) -> Option<String> {
        self.path.split('/').skip(1).nth(at).filter(|segment| !segment.is_empty()).and_then(|s| decoded(s, false))
    }
}

/// Named values of a query or a form.
#[derive(Debug, Default)]
pub struct FormFields(Vec<FormField>);

/// One value.
#[derive(Debug)]
struct FormField {
    name: String,
    value: Vec<u8>,
    /// The name of an uploaded file.
    file: Option<String>,
}

/// A form may carry a password or a key.
impl Drop for FormField {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

impl FormFields {
    /// Reads the body of a form by its content type: `multipart/form-data` (RFC 7578), or else a query. Returns `None` if it
    /// is malformed, or there are too many fields.
    #[must_use]
    pub fn of_form(content_type: &str, body: &[u8]) -> Option<Self> {
        let mut parts = content_type.split(';').map(str::trim);
        if !parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data")) {
            return std::str::from_utf8(body).ok().and_then(Self::of_query);
        }
        let boundary = parts.find_map(|part| part.strip_prefix("boundary="))?.trim_matches('"');
        let is_boundary = (1..=70).contains(&boundary.len());
        is_boundary.then(|| multipart(format!("--{boundary}").as_bytes(), body))?
    }

    /// Reads `name=value&name=value`. Returns `None` if a text is not UTF-8, or there are too many fields.
    #[must_use]
    pub fn of_query(text: &str) -> Option<Self> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        if pairs.clone().count() > FIELDS_MAX {
            return None;
        }
        let field = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some(FormField { name: decoded(name, true)?, value: decoded(value, true)?.into_bytes(), file: None })
        };
        pairs.map(field).collect::<Option<Vec<_>>>().map(Self)
    }

    /// The first value of a name, as text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a name that are text.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |f| f.name == name).filter_map(|f| std::str::from_utf8(&f.value).ok())
    }

    /// An uploaded file: its name, as the browser states it, and its contents; `None` without a file.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<(&str, &[u8])> {
        let found =
            self.0.iter().filter(|f| f.name == name).find(|f| f.file.as_ref().is_some_and(|n| !n.is_empty()))?;
        Some((found.file.as_deref()?, &found.value))
    }
}

/// Wipes a body that may carry a password or a key, unless somebody else has its bytes.
pub fn wipe(body: Bytes) {
    if let Ok(mut bytes) = body.try_into_mut() {
        bytes.as_mut().zeroize();
    }
}

/// Takes a body that may hold a key, and wipes the bytes that it came in if nobody else has them.
#[must_use]
pub fn wiped(body: Bytes) -> Zeroizing<Vec<u8>> {
    let copy = Zeroizing::new(body.to_vec());
    wipe(body);
    copy
}

/// Reads the parts between delimiters: `--BOUNDARY`, head, empty line, contents.
fn multipart(delimiter: &[u8], body: &[u8]) -> Option<FormFields> {
    let mut rest = body.strip_prefix(delimiter)?;
    let mut fields = Vec::new();
    let end = [b"\r\n", delimiter].concat();
    loop {
        if rest.starts_with(b"--") {
            return Some(FormFields(fields));
        }
        rest = rest.strip_prefix(b"\r\n")?;
        let head_end = memchr::memmem::find(rest, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&rest[..head_end]).ok()?;
        rest = &rest[head_end + 4..];
        let value_end = memchr::memmem::find(rest, &end)?;
        if fields.len() >= FIELDS_MAX {
            return None;
        }
        let (name, file) = disposition(head)?;
        fields.push(FormField { name, value: rest[..value_end].to_vec(), file });
        rest = &rest[value_end + end.len()..];
    }
}

/// The name of a part, and that of its file, as browsers write them: quotes in names are `%22`.
fn disposition(head: &str) -> Option<(String, Option<String>)> {
    let line = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let parameter = |name: &str| {
        let (_, value) = line.split_once(&format!(" {name}=\""))?;
        value.split_once('"').map(|(value, _)| value.to_owned())
    };
    Some((parameter("name")?, parameter("filename")))
}

/// Returns the first value of a name in the query of an API path. `+` is not a space there: pins are base64.
#[must_use]
pub fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(unescaped)
}

/// Decodes a part of the path or query of the API. A malformed one stays as it is.
#[must_use]
pub fn unescaped(text: &str) -> String {
    decoded(text, false).unwrap_or_else(|| text.to_owned())
}

/// Decodes percent-encoded UTF-8. In a form, `+` is a space. `None` if the result is not UTF-8, or an escape is malformed.
fn decoded(text: &str, is_form: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|d| u8::try_from(d).ok());
                bytes.push(digit()? << 4 | digit()?);
            }
            b'+' if is_form => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// Percent-encodes a text for a path or a query.
#[must_use]
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            byte => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
                encoded.extend(['%', digit(byte >> 4), digit(byte)]);
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_query() {
        let fields = FormFields::of_query("site=a%2Eb&key=c+d&key=%C3%A9&x").unwrap();
        assert_eq!(fields.get("site"), Some("a.b"));
        assert_eq!(fields.all("key").collect::<Vec<_>>(), ["c d", "é"]);
        assert_eq!((fields.get("x"), fields.get("y")), (Some(""), None));
        for bad in ["a=%", "a=%f", "a=%gg", "a=%ff", &"a&".repeat(FIELDS_MAX + 1)] {
            assert!(FormFields::of_query(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn fields_of_an_upload() {
        let kind = "multipart/form-data; boundary=----x";
        let body = b"------x\r\nContent-Disposition: form-data; name=\"csrf\"\r\n\r\ntoken\r\n------x\r\n\
            Content-Disposition: form-data; name=\"chain\"; filename=\"../a.pem\"\r\nContent-Type: text/plain\r\n\r\n\
            \xff\r\n--\r\n------x--\r\n";
        let fields = FormFields::of_form(kind, body).unwrap();
        assert_eq!(fields.get("csrf"), Some("token"));
        assert_eq!(fields.file("chain"), Some(("../a.pem", &b"\xff\r\n--"[..])));
        assert_eq!((fields.file("csrf"), fields.get("chain")), (None, None));
        for end in 0..body.len() - 4 {
            assert!(FormFields::of_form(kind, &body[..end]).is_none(), "{end}");
        }
        for kind in ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=y"] {
            assert!(FormFields::of_form(kind, body).is_none(), "{kind}");
        }
        assert_eq!(FormFields::of_form("", b"a=b").unwrap().get("a"), Some("b"));
    }

    #[test]
    fn encoded_texts_are_decoded_to_themselves() {
        for text in ["", "a.b-c_d~e", "/?&=#%+ \"<>\u{e9}\u{1f600}\n"] {
            assert_eq!(decoded(&encoded(text), true).as_deref(), Some(text));
            assert_eq!(decoded(&encoded(text), false).as_deref(), Some(text));
        }
    }
}

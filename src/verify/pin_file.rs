//! The pins that a client brings along: `--pins FILE`.
//!
//! Lines of pins in any of the forms that go around: base64, as `pintle pin` prints it first on each line,
//! `pin-sha256="..."` as in the header, `sha256//...` as curl has it, hexadecimal, TLSA records. Or JSON: what
//! `pintle pin`, `pintle export`, `pintle key list` or an earlier `pintle verify` has printed.

use std::fmt;

use serde_json::Value;

use super::finding::excerpt;
use super::notes::distinct;
use crate::keys::pin::Pin;

/// Pins that are taken from one file.
const PINS_MAX: usize = 10_000;
/// Characters of a line that are shown.
const SHOWN: usize = 60;

/// Why there are no pins in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinFileError {
    /// No pin at all.
    Empty,
    /// The output of a `pintle verify` that has noted none.
    NoneNoted,
    /// What stands on this line is no pin.
    Line(usize, String),
    /// The JSON is another program's.
    Json(String),
    /// More pins than anybody has.
    TooMany,
}

impl fmt::Display for PinFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no pin in it"),
            Self::NoneNoted => f.write_str("that visit has noted no pins"),
            Self::Line(line, text) => write!(f, "line {line}: no pin: {text}"),
            Self::Json(why) => write!(f, "not the JSON of pintle pin, export, key list or verify: {why}"),
            Self::TooMany => write!(f, "more than {PINS_MAX} pins"),
        }
    }
}

impl std::error::Error for PinFileError {}

impl PinFileError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoneNoted => Some("a server without Public-Key-Pins promises nothing; take `pintle pin CHAIN`"),
            Self::Empty | Self::Line(..) => Some("one pin on each line, such as `pintle pin FILE...` prints"),
            Self::Json(_) | Self::TooMany => None,
        }
    }
}

/// Reads a file's pins.
///
/// # Errors
///
/// [`PinFileError`].
pub fn read(contents: &[u8]) -> Result<Vec<Pin>, PinFileError> {
    let text = String::from_utf8_lossy(contents);
    let pins = match text.trim_start().chars().next() {
        Some('{' | '[') => from_json(&text)?,
        _ => from_lines(&text)?,
    };
    match pins.len() {
        0 => Err(PinFileError::Empty),
        PINS_MAX.. => Err(PinFileError::TooMany),
        _ => Ok(distinct(&pins)),
    }
}

fn from_lines(text: &str) -> Result<Vec<Pin>, PinFileError> {
    let mut pins = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let found = if line.contains("pin-sha256=") { of_header(line) } else { of_words(line) };
        match found {
            Some(found) => pins.extend(found),
            None => return Err(PinFileError::Line(number + 1, excerpt(line.as_bytes(), SHOWN))),
        }
    }
    Ok(pins)
}

/// All pins of a header's text, quoted or not: this is a user's file, and no header.
fn of_header(line: &str) -> Option<Vec<Pin>> {
    let texts = line.split("pin-sha256=").skip(1);
    texts.map(|text| text.trim_start_matches('"').get(..44)?.parse().ok()).collect()
}

/// The first word: one pin, or curl's list of them. In a TLSA record, the last one.
fn of_words(line: &str) -> Option<Vec<Pin>> {
    if let Some((_, data)) = line.split_once(" TLSA ") {
        return Pin::from_hex(data.strip_prefix("3 1 1 ")?.trim()).map(|pin| vec![pin]);
    }
    let word = line.split_whitespace().next()?;
    if word.starts_with("sha256//") {
        let parts = word.split(';').filter(|p| !p.is_empty());
        return parts.map(|part| part.strip_prefix("sha256//")?.parse().ok()).collect();
    }
    word.parse().ok().or_else(|| Pin::from_hex(word)).map(|pin| vec![pin])
}

fn from_json(text: &str) -> Result<Vec<Pin>, PinFileError> {
    let value: Value = serde_json::from_str(text).map_err(|e| PinFileError::Json(e.to_string()))?;
    let unknown = || PinFileError::Json("no pins where they belong".into());
    let list = match &value {
        Value::Array(list) => list,
        Value::Object(_) => match value.pointer("/noted/pins") {
            Some(Value::Null) => return Err(PinFileError::NoneNoted),
            Some(noted) => noted.get("pins").and_then(Value::as_array).ok_or_else(unknown)?,
            None => value.get("pins").and_then(Value::as_array).ok_or_else(unknown)?,
        },
        _ => return Err(unknown()),
    };
    // A site, with its keys.
    let keys = |entry: &'_ Value| entry.get("keys").and_then(Value::as_array).cloned();
    let list: Vec<Value> = list.iter().flat_map(|entry| keys(entry).unwrap_or_else(|| vec![entry.clone()])).collect();
    let one = |entry: &Value| entry.as_str().or_else(|| entry.get("pin")?.as_str())?.parse().ok();
    list.iter().map(|entry| one(entry).ok_or_else(unknown)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    const B: &str = "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=";
    const A_HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let text = text.replace("{A}", A).replace("{B}", B).replace("{HEX}", A_HEX);
        let got: Vec<String> = read(text.as_bytes()).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn forms() {
        check("{A}", &[A]);
        check("# mine\n\n{A}  certificate  ecdsa-p256  blog.pem\n  {B}  csr  rsa-2048  next.csr\r\n{A}\n", &[A, B]);
        check("pin-sha256=\"{A}\"\npin-sha256={B}", &[A, B]);
        check("Public-Key-Pins: pin-sha256=\"{A}\"; pin-sha256=\"{B}\"; max-age=5", &[A, B]);
        check("sha256//{A};sha256//{B}", &[A, B]);
        check("{HEX}\n{B}", &[A, B]);
        check("[\"{A}\", \"{B}\"]", &[A, B]);
        check("[{\"pin\": \"{A}\", \"kind\": \"csr\"}]", &[A]);
        check("{\"noted\": {\"pins\": {\"pins\": [\"{A}\", \"{B}\"], \"max_age\": 5}}}", &[A, B]);
        check("{\"id\": \"1\", \"pins\": [{\"pin\": \"{A}\", \"role\": \"live\"}, {\"pin\": \"{B}\"}]}", &[A, B]);
        check("[{\"site\": \"a\", \"keys\": [{\"pin\": \"{A}\"}, {\"pin\": \"{B}\"}]}, {\"keys\": []}]", &[A, B]);
        check("; live\n_443._tcp.a.example. IN TLSA 3 1 1 {HEX}\n{B}", &[A, B]);
    }

    #[test]
    fn refusals() {
        let check = |text: &str, want: &str| {
            let error = read(text.replace("{A}", A).as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(want), "{text}: {error}");
        };
        check("", "no pin in it");
        check("# nothing\n", "no pin in it");
        check("[]", "no pin in it");
        check("{A}\nhello world", "line 2: no pin: hello world");
        check("pin-sha256=\"AAAA\"", "line 1: no pin");
        check("sha256//AAAA", "line 1: no pin");
        check("_443._tcp.a.example. IN TLSA 3 0 1 00", "line 1: no pin");
        check("{\"pins\": 5}", "not the JSON");
        check("{", "not the JSON");
        check("{}", "not the JSON");
        check("[5]", "not the JSON");
        check("{\"noted\": {\"hsts\": null, \"pins\": null}}", "that visit has noted no pins");
    }

    proptest! {
        #[test]
        fn bytes_never_panic(contents in prop::collection::vec(any::<u8>(), 0..100), text in "(pin-sha256=|sha256//|\"|\u{fc}|[A-Za-z0-9+/=;\\[{ ]){0,60}") {
            let _ = read(&contents);
            let _ = read(text.as_bytes());
        }
    }
}

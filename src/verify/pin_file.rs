//! The pins that the user expects: `--pins FILE`.
//!
//! The file has lines of pins in any usual form: base64, as `pintle pin` prints it first on each
//! line; `pin-sha256="..."` of the header; `sha256//...` of curl; hexadecimal; TLSA records. Or it
//! is JSON: the output of `pintle pin`, `pintle export`, `pintle key list` or an earlier `pintle
//! verify`.

use std::fmt;

use serde_json::Value;

use super::finding::excerpt;
use super::notes::distinct;
use crate::keys::pin::Pin;

/// The most pins that are taken from one file.
const PINS_MAX: usize = 10_000;
/// The most characters of a line that are shown.
const SHOWN: usize = 60;

/// The reason why a file gives no pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinFileError {
    /// The file has no pin.
    Empty,
    /// The file is the output of a `pintle verify` that noted none.
    NoneNoted,
    /// A line that is not a pin.
    Line(usize, String),
    /// JSON of another program.
    Json(String),
    /// More than `PINS_MAX` pins.
    TooMany,
}

impl fmt::Display for PinFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no pin found"),
            Self::NoneNoted => f.write_str("that visit noted no pins"),
            Self::Line(line, text) => write!(f, "line {line}: not a pin: {text}"),
            Self::Json(why) => write!(f, "not the JSON of pintle pin, export, key list or verify: {why}"),
            Self::TooMany => write!(f, "more than {PINS_MAX} pins"),
        }
    }
}

impl std::error::Error for PinFileError {}

impl PinFileError {
    /// Returns a remedy.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoneNoted => {
                Some("a server without Public-Key-Pins promises nothing; use the output of `pintle pin CHAIN`")
            }
            Self::Empty | Self::Line(..) => Some("write one pin on each line, as `pintle pin FILE...` prints them"),
            Self::Json(_) | Self::TooMany => None,
        }
    }
}

/// Reads the pins of a file.
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

/// Returns all pins of a header's text, quoted or not: a user's file need not follow the header's
/// grammar.
fn of_header(line: &str) -> Option<Vec<Pin>> {
    let texts = line.split("pin-sha256=").skip(1);
    texts.map(|text| text.trim_start_matches('"').get(..44)?.parse().ok()).collect()
}

/// Reads the first word: one pin, or curl's list of them. In a TLSA record, the last word.
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
    let unknown = || PinFileError::Json("no pins found".into());
    let list = match &value {
        Value::Array(list) => list,
        Value::Object(_) => match value.pointer("/noted/pins") {
            Some(Value::Null) => return Err(PinFileError::NoneNoted),
            Some(noted) => noted.get("pins").and_then(Value::as_array).ok_or_else(unknown)?,
            None => value.get("pins").and_then(Value::as_array).ok_or_else(unknown)?,
        },
        _ => return Err(unknown()),
    };
    // A site with its keys.
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
        check("", "no pin found");
        check(
            "# nothing
        ",
            "no pin found",
        );
        check("[]", "no pin found");
        check(
            "{A}
        hello world",
            "line 2: not a pin: hello world",
        );
        check("pin-sha256=\"AAAA\"", "line 1: not a pin");
        check("sha256//AAAA", "line 1: not a pin");
        check("_443._tcp.a.example. IN TLSA 3 0 1 00", "line 1: not a pin");
        check("{\"pins\": 5}", "not the JSON");
        check("{", "not the JSON");
        check("{}", "not the JSON");
        check("[5]", "not the JSON");
        check("{\"noted\": {\"hsts\": null, \"pins\": null}}", "that visit noted no pins");
    }

    proptest! {
        #[test]
        fn bytes_never_panic(contents in prop::collection::vec(any::<u8>(), 0..100), text in "(pin-sha256=|sha256//|\"|\u{fc}|[A-Za-z0-9+/=;\\[{ ]){0,60}") {
            let _ = read(&contents);
            let _ = read(text.as_bytes());
        }
    }
}

//! A wish to install, as the API takes it. It may carry a private key: no message repeats any of it, and its bytes are
//! wiped.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::admin::api::Answer;
use crate::install::plan::{GivenFile, GivenPair, command};
use crate::keys::key_file::{Foreign, KeyFileError, has_private_key, may_be_private, public_key};
use crate::reason::Reason;

/// The longest name of an uploaded file, in characters.
const NAME_MAX: usize = 120;

/// A pair to install, and how.
pub(super) struct InstallWish {
    /// Any host of the site.
    pub(super) site: String,
    pub(super) source: WishedPair,
    /// The kind of the key: `true` for RSA.
    pub(super) rsa: Option<bool>,
    /// `true` for the verdict alone.
    pub(super) dry_run: bool,
    /// The day until which the operator accepts a lockout.
    pub(super) accept: Option<String>,
}

/// The origin of the pair.
pub(super) enum WishedPair {
    Given(GivenPair),
    Previous,
}

/// The body. Texts that may hold a key stay as they are in it: a copy of serde's would not be wiped.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InstallBody<'b> {
    site: String,
    #[serde(default, borrow)]
    chain: Option<&'b RawValue>,
    #[serde(default, borrow)]
    key: Option<&'b RawValue>,
    #[serde(default)]
    chain_name: Option<String>,
    #[serde(default)]
    key_name: Option<String>,
    #[serde(default)]
    algorithm: Option<String>,
    #[serde(default)]
    previous: bool,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    accept_lockout_until: Option<String>,
}

impl InstallWish {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// 400, without a word of the body.
    pub(super) fn read(body: &[u8]) -> Result<Self, Answer> {
        let at = |error: serde_json::Error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            Answer::bad(&format!("invalid request body, from {place} on: see POST /v1/install"))
        };
        let body: InstallBody<'_> = serde_json::from_slice(body).map_err(at)?;
        let rsa = match body.algorithm.as_deref() {
            None => None,
            Some("rsa") => Some(true),
            Some("ecdsa") => Some(false),
            Some(_) => return Err(Answer::bad("algorithm: neither rsa nor ecdsa")),
        };
        if body.accept_lockout_until.as_deref().is_some_and(|day| !is_date(day)) {
            return Err(Answer::bad("accept_lockout_until: not a date, as in 2027-02-20"));
        }
        let chain = file(body.chain, body.chain_name.as_deref(), "chain")?;
        let key = file(body.key, body.key_name.as_deref(), "key")?;
        let source = match (chain, body.previous) {
            (Some(chain), false) => WishedPair::Given(GivenPair {
                key: key.or_else(|| key_in(&chain)),
                chain,
                is_on_disk: false,
                place: None,
            }),
            (None, true) if key.is_none() => WishedPair::Previous,
            _ => return Err(Answer::bad("either chain, or previous: true")),
        };
        let (accept, dry_run) = (body.accept_lockout_until, body.dry_run);
        Ok(Self { site: body.site, source, rsa, dry_run, accept })
    }

    /// `true` if it has a private key, or something that may be one.
    pub(super) fn has_key(&self) -> bool {
        let WishedPair::Given(pair) = &self.source else { return false };
        let chain = &pair.chain.contents;
        let error = public_key(chain).err();
        // A form that pintle does not read is named as such, with the command that converts it.
        let is_foreign = matches!(&error, Some(KeyFileError::Foreign(form)) if *form != Foreign::OpenSsh);
        pair.key.is_some() || !is_foreign && may_be_private(chain, error.as_ref())
    }
}

/// The key in the file of a chain.
fn key_in(chain: &GivenFile) -> Option<GivenFile> {
    let GivenFile { name, contents } = chain;
    has_private_key(contents).then(|| GivenFile { name: name.clone(), contents: contents.clone() })
}

fn is_date(text: &str) -> bool {
    text.parse::<jiff::civil::Date>().is_ok_and(|date| date.to_string() == text)
}

/// The reason why a private key is not taken here; `None` if it is.
pub(super) fn no_keys(site: &str, allow_keys: bool, is_confidential: bool) -> Option<Reason> {
    let wiped = "it was wiped, and nothing of it is kept";
    let by_command = command(site, "CHAIN KEY");
    if !allow_keys {
        let what = format!("this is a private key, and admin.allow_keys is off: {wiped}");
        return Some(Reason::new(what).command(by_command).hint("allow_keys = true in [admin], then `pintle reload`"));
    }
    (!is_confidential).then(|| {
        let what = format!("a private key comes over a Unix socket, a loopback address or TLS only: {wiped}");
        Reason::new(what).command(by_command)
    })
}

/// A file of the body: PEM as it is, or anything in base64.
fn file(text: Option<&RawValue>, name: Option<&str>, field: &str) -> Result<Option<GivenFile>, Answer> {
    let Some(text) = text.map(RawValue::get).filter(|text| *text != "null") else { return Ok(None) };
    let text = unquoted(text).ok_or_else(|| Answer::bad(&format!("{field}: not a string")))?;
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let contents = contents(text).ok_or_else(|| {
        let reason = Reason::new(format!("{field}: neither PEM nor base64"));
        Answer::refused(StatusCode::UNPROCESSABLE_ENTITY, &reason.hint("base64 -w0 FILE makes a string of any file"))
    })?;
    Ok(Some(GivenFile { name: shown_name(name.unwrap_or(field)), contents }))
}

/// The name of an uploaded file, for messages and for commands in hints.
fn shown_name(name: &str) -> PathBuf {
    let last = Path::new(name).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let shown: String = last.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
    if shown.is_empty() { PathBuf::from("FILE") } else { PathBuf::from(shown) }
}

fn contents(text: Zeroizing<Vec<u8>>) -> Option<Zeroizing<Vec<u8>>> {
    if memchr::memmem::find(&text, b"-----BEGIN").is_some() {
        return Some(text);
    }
    let mut plain = Zeroizing::new(Vec::with_capacity(text.len()));
    plain.extend(text.iter().filter(|byte| !byte.is_ascii_whitespace()));
    let mut contents = Zeroizing::new(vec![0; plain.len().div_ceil(4).saturating_mul(3)]);
    let length = STANDARD.decode_slice(plain.as_slice(), &mut contents).ok()?;
    contents.truncate(length);
    Some(contents)
}

/// The string behind JSON, whose form serde has checked.
fn unquoted(json: &str) -> Option<Zeroizing<Vec<u8>>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = Zeroizing::new(Vec::with_capacity(inner.len()));
    let mut rest = inner.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        match rest.next()? {
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'u' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let code = digit()? << 12 | digit()? << 8 | digit()? << 4 | digit()?;
                // Neither PEM nor base64 has other characters.
                text.push(u8::try_from(code).ok().filter(u8::is_ascii).unwrap_or(b'?'));
            }
            plain => text.push(plain),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings() {
        for text in ["", "a\nb\r\n\tc\"\\/", "-----BEGIN X-----\nAA==\n"] {
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(unquoted(&json).unwrap().as_slice(), text.as_bytes());
        }
        assert_eq!(unquoted("\"\\u002d\\/\\u00e9\"").unwrap().as_slice(), b"-/?");
        assert!(unquoted("1").is_none() && unquoted("\"").is_none() && unquoted("\"\\u00\"").is_none());
    }

    #[test]
    fn wishes() {
        let wish = |body: &str| InstallWish::read(body.as_bytes());
        let given = |body: &str| match wish(body).ok().unwrap().source {
            WishedPair::Given(pair) => pair,
            WishedPair::Previous => panic!("{body}"),
        };
        let pair = given(r#"{"site": "a", "chain": "MAA=", "chain_name": "../x/a\u0007.pem", "key": "TUFB"}"#);
        assert_eq!((pair.chain.contents.as_slice(), pair.chain.name.to_str()), (&b"\x30\x00"[..], Some("a.pem")));
        assert_eq!(pair.key.unwrap().contents.as_slice(), b"MAA");
        assert_eq!(given(r#"{"site": "a", "chain": "MA\nA="}"#).chain.name.to_str(), Some("chain"));
        assert!(matches!(wish(r#"{"site": "a", "previous": true}"#).ok().unwrap().source, WishedPair::Previous));
        for wrong in [
            "",
            "[]",
            r#"{"site": "a"}"#,
            r#"{"site": "a", "chain": ""}"#,
            r#"{"site": "a", "chain": 1}"#,
            r#"{"site": "a", "chain": "MAA=", "previous": true}"#,
            r#"{"site": "a", "previous": true, "key": "MAA="}"#,
            r#"{"site": "a", "chain": "%"}"#,
            r#"{"site": "a", "chain": "MAA=", "algorithm": "dsa"}"#,
            r#"{"site": "a", "chain": "MAA=", "accept_lockout_until": "for ever"}"#,
            // The key is in the wrong place: no message shows it.
            r#"{"site": "a", "chain": "MAA=", "dry_run": "SECRET"}"#,
            r#"{"site": "a", "chain": "MAA=", "SECRET": 1}"#,
            r#"{"site": "a", "chain": "SECRET!", "key": "SECRET"}"#,
        ] {
            let answer = wish(wrong).err().unwrap_or_else(|| panic!("{wrong}"));
            assert!(answer.status.is_client_error() && !answer.body.to_string().contains("SECRET"), "{wrong}");
        }
    }

    #[test]
    fn keys_are_taken_in_private_only() {
        assert!(no_keys("a.example", true, true).is_none());
        for (allow_keys, is_confidential) in [(false, true), (true, false), (false, false)] {
            let reason = no_keys("a.example", allow_keys, is_confidential).unwrap();
            assert!(reason.hints[0].starts_with("sudo pintle install --site a.example CHAIN KEY"), "{reason:?}");
            assert_eq!(reason.commands, [reason.hints[0].as_str()], "the page offers it to copy");
        }
    }
}

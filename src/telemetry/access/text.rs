//! Records as lines of text: the combined format, and the short one for people.

use std::io::Write as _;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::entry::{AccessEntry, HandshakeEntry, LogRules};
use super::line::{push_address, push_number, push_quoted};

/// The most bytes of each text.
const TEXT: usize = 8192;

/// The combined format of Apache and nginx.
pub(super) fn combined(entry: &AccessEntry<'_>, rules: &LogRules, out: &mut Vec<u8>) {
    push_address(out, rules.redact.address(entry.client));
    let _ = write!(out, " - - [{}] \"", utc(entry.time).strftime("%d/%b/%Y:%H:%M:%S %z"));
    // Programs split a request at its blanks: one that could not be read is a dash, as Apache writes it.
    if entry.target.is_empty() {
        out.push(b'-');
    } else {
        push_quoted(out, entry.method.as_bytes(), TEXT);
        out.push(b' ');
        push_quoted(out, rules.redact.url(entry.target), TEXT);
        let _ = write!(out, " HTTP/{}", entry.version);
    }
    let _ = write!(out, "\" {} {} \"", entry.status, entry.bytes);
    push_quoted(out, or_dash(rules.redact.url(entry.referer)), TEXT);
    out.extend_from_slice(b"\" \"");
    push_quoted(out, or_dash(entry.user_agent), TEXT);
    out.extend_from_slice(b"\"\n");
}

/// The time of a record, from milliseconds since 1970.
fn utc(millis: i64) -> Zoned {
    Timestamp::from_millisecond(millis).unwrap_or_default().to_zoned(TimeZone::UTC)
}

fn or_dash(value: &[u8]) -> &[u8] {
    if value.is_empty() { b"-" } else { value }
}

/// A line for people: time, status, method, URL, bytes, milliseconds.
pub(super) fn short(entry: &AccessEntry<'_>, rules: &LogRules, out: &mut Vec<u8>) {
    let time = utc(entry.time).strftime("%H:%M:%S");
    let _ = write!(out, "{time} {} ", entry.status);
    push_quoted(out, entry.method.as_bytes(), TEXT);
    let _ = write!(out, " {}://", entry.scheme);
    push_quoted(out, entry.host, TEXT);
    push_quoted(out, rules.redact.url(entry.target), TEXT);
    let _ = write!(out, " {} bytes {:.1} ms", entry.bytes, entry.duration.as_secs_f64() * 1e3);
    reason(entry.end.error, out);
}

/// A failed handshake for people.
pub(super) fn short_handshake(entry: &HandshakeEntry<'_>, rules: &LogRules, now: i64, out: &mut Vec<u8>) {
    let _ = write!(out, "{} TLS ", utc(now).strftime("%H:%M:%S"));
    if let Some(client) = entry.client {
        push_address(out, rules.redact.address(client));
        out.push(b' ');
    }
    if let Some((count, _)) = entry.sum {
        push_number(out, count);
        out.extend_from_slice(b" more handshakes failed");
    } else {
        out.extend_from_slice(b"handshake failed");
    }
    if let Some(sni) = entry.sni {
        out.extend_from_slice(b" for ");
        push_quoted(out, sni, TEXT);
    }
    reason(entry.end.error, out);
}

fn reason(error: Option<&str>, out: &mut Vec<u8>) {
    if let Some(error) = error {
        out.extend_from_slice(b" (");
        push_quoted(out, error.as_bytes(), TEXT);
        out.push(b')');
    }
    out.push(b'\n');
}

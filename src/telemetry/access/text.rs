//! Records as lines of text: the combined format, and the short one for people.

use std::io::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::entry::{AccessEntry, HandshakeEntry, LogRules};
use super::line::{push_address, push_number, push_quoted};

/// The most bytes of each text.
const TEXT: usize = 8192;

/// The combined format of Apache and nginx.
pub(super) fn combined(entry: &AccessEntry<'_>, rules: &LogRules, now: Timestamp, out: &mut Vec<u8>) {
    push_address(out, rules.redact.address(entry.client));
    let _ = write!(out, " - - [{}] \"", now.to_zoned(TimeZone::UTC).strftime("%d/%b/%Y:%H:%M:%S %z"));
    push_quoted(out, entry.method.as_bytes(), TEXT);
    out.push(b' ');
    push_quoted(out, rules.redact.url(entry.target.as_bytes()), TEXT);
    let _ = write!(out, " HTTP/{}\" {} {} \"", entry.version, entry.status, entry.bytes);
    push_quoted(out, or_dash(rules.redact.url(entry.referer)), TEXT);
    out.extend_from_slice(b"\" \"");
    push_quoted(out, or_dash(entry.user_agent), TEXT);
    out.extend_from_slice(b"\"\n");
}

fn or_dash(value: &[u8]) -> &[u8] {
    if value.is_empty() { b"-" } else { value }
}

/// A line for people: time, status, method, URL, bytes, milliseconds.
pub(super) fn short(entry: &AccessEntry<'_>, rules: &LogRules, now: Timestamp, out: &mut Vec<u8>) {
    let time = now.to_zoned(TimeZone::UTC).strftime("%H:%M:%S");
    let _ = write!(out, "{time} {} ", entry.status);
    push_quoted(out, entry.method.as_bytes(), TEXT);
    let _ = write!(out, " {}://", entry.scheme);
    push_quoted(out, entry.host.as_bytes(), TEXT);
    push_quoted(out, rules.redact.url(entry.target.as_bytes()), TEXT);
    let _ = write!(out, " {} bytes {:.1} ms", entry.bytes, entry.duration.as_secs_f64() * 1e3);
    reason(entry.end.error, out);
}

/// A failed handshake for people.
pub(super) fn short_handshake(entry: &HandshakeEntry<'_>, rules: &LogRules, now: Timestamp, out: &mut Vec<u8>) {
    let _ = write!(out, "{} TLS ", now.to_zoned(TimeZone::UTC).strftime("%H:%M:%S"));
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

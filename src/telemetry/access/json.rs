//! Records as JSON, one object a line. docs/reference/access-record.schema.json describes them.

use std::cell::Cell;
use std::io::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::errno::Errno;

use super::entry::{AccessEntry, ConnectionFacts, End, HandshakeEntry, LogRules, UpstreamFacts};
use super::fields::RecordField;
use super::line::{JsonLine, push_number, push_three_digits};

/// The kinds of records, with the version of the schema: it changes if the meaning or the type of a field does.
const REQUEST: &str = r#"","schema":1,"kind":"request""#;
const HANDSHAKE: &str = r#"","schema":1,"kind":"handshake""#;

/// The most bytes of each text, so that a line has at most `LINE_MAX`.
const TARGET: usize = 8192;
const AGENT: usize = 2048;
const REFERER: usize = 2048;
const ERROR: usize = 512;
const HOST: usize = 300;
const METHOD: usize = 64;
const PROTOCOL: usize = 64;
/// The most bytes of a line.
pub(super) const LINE_MAX: usize = 16 * 1024;

thread_local! {
    /// The second that was written last, as text up to its point.
    static SECOND: Cell<(i64, [u8; 20])> = const { Cell::new((i64::MIN, [0; 20])) };
}

/// A record's id: unique among all processes and workers, mostly.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordId<'a> {
    pub(super) prefix: &'a str,
    pub(super) number: u64,
}

/// `2026-10-01T08:37:00.123Z`, from milliseconds since 1970
fn push_time(millis: i64, out: &mut Vec<u8>) {
    let (second, rest) = (millis.div_euclid(1000), millis.rem_euclid(1000).unsigned_abs());
    let (known, mut text) = SECOND.get();
    if known != second {
        let whole = Timestamp::from_second(second).unwrap_or_default().to_zoned(TimeZone::UTC);
        let _ = write!(&mut text[..], "{}", whole.strftime("%Y-%m-%dT%H:%M:%S."));
        SECOND.set((second, text));
    }
    out.extend_from_slice(&text);
    push_three_digits(out, rest);
    out.push(b'Z');
}

/// Begins a record of the version of the schema that `kind` names together with the kind.
fn begin(kind: &str, id: RecordId<'_>, rules: &LogRules, now: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    push_time(now, out);
    out.extend_from_slice(kind.as_bytes());
    if rules.fields.has(RecordField::Id) {
        out.extend_from_slice(b",\"id\":\"");
        out.extend_from_slice(id.prefix.as_bytes());
        push_number(out, id.number);
        out.push(b'"');
    }
}

/// Writes the facts of a connection, for its requests.
pub(super) fn connection(facts: &ConnectionFacts<'_>, rules: &LogRules) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut line = JsonLine::new(&mut out, rules.fields);
    line.address(RecordField::Peer, rules.redact.address(facts.peer));
    if let Some(tls) = &facts.tls {
        line.word(RecordField::TlsVersion, tls.version);
        line.text(RecordField::TlsCipher, tls.cipher.as_bytes(), METHOD);
        if let Some(group) = tls.group {
            line.text(RecordField::TlsGroup, group.as_bytes(), METHOD);
        }
        line.flag(RecordField::TlsResumed, tls.resumed);
        if let Some(duration) = tls.duration {
            line.millis(RecordField::Handshake, duration);
        }
        if let Some(sni) = tls.sni {
            line.text(RecordField::Sni, sni.as_bytes(), HOST);
        }
        if let Some(alpn) = tls.alpn {
            line.text(RecordField::Alpn, alpn, PROTOCOL);
        }
    }
    line.finish();
    out
}

/// Writes a request.
pub(super) fn request(entry: &AccessEntry<'_>, rules: &LogRules, sampled: bool, id: RecordId<'_>, out: &mut Vec<u8>) {
    begin(REQUEST, id, rules, entry.time, out);
    let mut line = JsonLine::new(out, rules.fields);
    if let Some(trace_id) = entry.trace_id {
        line.word(RecordField::TraceId, trace_id);
    }
    if let Some(site) = entry.site {
        line.word(RecordField::Site, site);
    }
    line.address(RecordField::Client, rules.redact.address(entry.client));
    line.word(RecordField::Scheme, entry.scheme);
    line.word(RecordField::SchemeFrom, entry.scheme_from);
    line.text(RecordField::Method, entry.method.as_bytes(), METHOD);
    if !entry.host.is_empty() {
        line.text(RecordField::Host, entry.host, HOST);
    }
    if !entry.target.is_empty() {
        line.text(RecordField::Target, rules.redact.url(entry.target), TARGET);
    }
    line.word(RecordField::Version, entry.version);
    line.number(RecordField::Status, entry.status.into());
    line.number(RecordField::Bytes, entry.bytes);
    line.number(RecordField::ReceivedBytes, entry.received);
    line.millis(RecordField::Duration, entry.duration);
    if let Some(first_byte) = entry.first_byte {
        line.millis(RecordField::FirstByte, first_byte);
    }
    if let Some(upstream) = &entry.upstream {
        asked(upstream, &mut line);
    }
    if let Some(cache) = entry.cache {
        line.word(RecordField::Cache, cache);
    }
    if let Some(rewritten) = entry.rewritten {
        line.number(RecordField::Rewritten, rewritten);
    }
    if let Some((coding, before)) = entry.compressed {
        line.word(RecordField::Coding, coding);
        line.number(RecordField::UncompressedBytes, before);
    }
    line.written(entry.connection);
    if !entry.user_agent.is_empty() {
        line.text(RecordField::UserAgent, entry.user_agent, AGENT);
    }
    if !entry.referer.is_empty() {
        line.text(RecordField::Referer, rules.redact.url(entry.referer), REFERER);
    }
    why(&entry.end, &mut line);
    if sampled {
        line.fraction(RecordField::Sample, rules.sample.0);
    }
    line.finish();
    out.extend_from_slice(b"}\n");
}

fn asked(upstream: &UpstreamFacts, line: &mut JsonLine<'_>) {
    if let Some(time) = upstream.time {
        line.millis(RecordField::UpstreamTime, time);
    }
    if let Some(time) = upstream.wait {
        line.millis(RecordField::Wait, time);
    }
    if let Some(time) = upstream.connect {
        line.millis(RecordField::Connect, time);
    }
    if let Some(time) = upstream.tls {
        line.millis(RecordField::Tls, time);
    }
    if let Some(address) = upstream.address {
        line.socket_address(RecordField::Upstream, address);
        line.flag(RecordField::UpstreamReused, upstream.reused);
    }
    line.number(RecordField::Retries, upstream.retries.into());
}

fn why(end: &End<'_>, line: &mut JsonLine<'_>) {
    line.word(RecordField::Ended, end.ended.name());
    if let Some(limit) = end.limit {
        line.word(RecordField::Limit, limit);
    }
    if let Some(rule) = end.rule {
        line.word(RecordField::Rule, rule);
    }
    if let Some(cause) = end.cause {
        line.word(RecordField::Cause, cause);
    }
    if let Some(errno) = end.errno {
        line.text(RecordField::Errno, format!("{:?}", Errno::from_raw(errno)).as_bytes(), METHOD);
    }
    if let Some(alert) = end.alert_sent {
        line.word(RecordField::AlertSent, alert);
    }
    if let Some(alert) = end.alert_received {
        line.word(RecordField::AlertReceived, alert);
    }
    if let Some(error) = end.error {
        line.text(RecordField::Error, error.as_bytes(), ERROR);
    }
}

/// Writes a failed handshake.
pub(super) fn handshake(entry: &HandshakeEntry<'_>, rules: &LogRules, id: RecordId<'_>, now: i64, out: &mut Vec<u8>) {
    begin(HANDSHAKE, id, rules, now, out);
    let mut line = JsonLine::new(out, rules.fields);
    if let Some(site) = entry.site {
        line.text(RecordField::Site, site.as_bytes(), HOST);
    }
    for (field, address) in [(RecordField::Client, entry.client), (RecordField::Peer, entry.peer)] {
        if let Some(address) = address {
            line.address(field, rules.redact.address(address));
        }
    }
    if let Some(duration) = entry.duration {
        line.millis(RecordField::Duration, duration);
    }
    if let Some(sni) = entry.sni {
        line.text(RecordField::Sni, sni, HOST);
    }
    let lists = [(RecordField::VersionsOffered, entry.versions), (RecordField::GroupsOffered, entry.groups)];
    for (field, values) in lists {
        if !values.is_empty() {
            line.list(field, values.iter().map(String::as_bytes), METHOD);
        }
    }
    if !entry.alpn.is_empty() {
        line.list(RecordField::AlpnOffered, entry.alpn.iter().map(Vec::as_slice), PROTOCOL);
    }
    if let Some((count, seconds)) = entry.sum {
        line.number(RecordField::Count, count);
        line.number(RecordField::Period, seconds);
    }
    match (entry.sum, entry.end.error) {
        (None, _) => why(&entry.end, &mut line),
        // They ended in different ways.
        (Some(_), Some(error)) => line.text(RecordField::Error, error.as_bytes(), ERROR),
        (Some(_), None) => {}
    }
    line.finish();
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_one_width() {
        for (second, millis, want) in [
            (784_111_777, 0, "1994-11-06T08:49:37.000Z"),
            (784_111_777, 7, "1994-11-06T08:49:37.007Z"),
            (784_111_778, 120, "1994-11-06T08:49:38.120Z"),
            (-1, 999, "1969-12-31T23:59:59.999Z"),
        ] {
            let mut out = Vec::new();
            push_time(second * 1000 + millis, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }
}

//! Spans as OTLP encodes them (opentelemetry/proto/trace/v1), with the attributes of the semantic conventions for HTTP.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use super::context::{SpanId, Trace};
use crate::telemetry::access::{AccessEntry, Ended, Redact, UpstreamFacts};
use crate::telemetry::protobuf::{push_bytes, push_fixed32, push_fixed64, push_message, push_number};

/// The kinds of spans.
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
/// The status of a span that failed.
const ERROR: u64 = 2;
/// The flags of a span: it is known whether its parent is remote; it is.
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;
/// The most bytes of each text.
const TEXT_MAX: usize = 2048;
const TARGET_MAX: usize = 8192;
/// The methods that are known by name. All others are `_OTHER`.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
/// The status that the access log has for a client that left before the answer.
const CLIENT_GONE: u16 = 499;

/// A finished request of a sampled trace.
#[derive(Debug, Clone, Copy)]
pub struct SpanEntry<'a> {
    /// Its place in the trace.
    pub trace: &'a Trace,
    /// The `tracestate`, if there is one.
    pub state: Option<&'a [u8]>,
    /// Its record.
    pub entry: &'a AccessEntry<'a>,
    /// The address of the connection's other end.
    pub peer: IpAddr,
    /// The port that the client asked for, if it named one.
    pub port: Option<u16>,
    /// The upstream's URL, if it was asked.
    pub upstream: Option<&'a str>,
    /// The parts that are left out.
    pub redact: Redact,
    /// The time of its end, in nanoseconds since 1970.
    pub now: u64,
}

/// Adds the attributes of the process.
pub fn push_resource(out: &mut Vec<u8>, instance: &str) {
    for (name, value) in [
        ("service.name", "pintle"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance),
        ("host.name", crate::os::usage::host_name()),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", "pintle"),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ] {
        push_attribute(out, 1, name, |out| push_bytes(out, 1, value.as_bytes()));
    }
}

/// Adds the name and version of the instrumentation.
pub fn push_scope(out: &mut Vec<u8>) {
    push_bytes(out, 1, env!("CARGO_PKG_NAME").as_bytes());
    push_bytes(out, 2, env!("CARGO_PKG_VERSION").as_bytes());
}

/// Adds the spans of a request, each as a field `spans`: its own, and that of the request to the upstream. Returns their
/// number.
pub(super) fn push_spans(of: &SpanEntry<'_>, out: &mut Vec<u8>) -> u64 {
    let begin = of.now.saturating_sub(nanos(of.entry.duration));
    push_message(out, 2, |out| server(of, begin, out));
    let Some((facts, url)) = of.entry.upstream.as_ref().zip(of.upstream) else { return 1 };
    push_message(out, 2, |out| client(of, begin, facts, url, out));
    2
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn server(of: &SpanEntry<'_>, begin: u64, out: &mut Vec<u8>) {
    let entry = of.entry;
    let is_remote = if of.trace.parent.is_some() { PARENT_IS_REMOTE } else { 0 };
    frame(of, of.trace.server, of.trace.parent, SERVER, begin, is_remote, out);
    method(entry, out);
    text(out, "url.scheme", entry.scheme);
    let (path, query) = target(of);
    text(out, "url.path", &path);
    if let Some(query) = query {
        text(out, "url.query", &query);
    }
    if !entry.host.is_empty() {
        text(out, "server.address", &String::from_utf8_lossy(entry.host));
    }
    if let Some(port) = of.port {
        number(out, "server.port", port.into());
    }
    text(out, "client.address", &of.redact.address(entry.client).to_string());
    text(out, "network.peer.address", &of.redact.address(of.peer).to_string());
    text(out, "network.protocol.version", entry.version);
    if !entry.user_agent.is_empty() {
        text(out, "user_agent.original", &cut(&String::from_utf8_lossy(entry.user_agent), TEXT_MAX));
    }
    number(out, "http.request.body.size", entry.received);
    number(out, "http.response.body.size", entry.bytes);
    if let Some(site) = entry.site {
        text(out, "pintle.site", site);
    }
    text(out, "pintle.ended", entry.end.ended.name());
    if let Some(limit) = entry.end.limit {
        text(out, "pintle.limit", limit);
    }
    let answered = Some(entry.status).filter(|status| *status != CLIENT_GONE || entry.end.ended != Ended::Client);
    if let Some(status) = answered {
        number(out, "http.response.status_code", status.into());
    }
    let has_broken = !matches!(entry.end.ended, Ended::Complete | Ended::Refused) && entry.status < 400;
    let has_failed = entry.status >= 500 || answered.is_none() || has_broken;
    finish(of, has_failed.then(|| error_type(of, answered)), out);
}

fn client(of: &SpanEntry<'_>, begin: u64, facts: &UpstreamFacts, url: &str, out: &mut Vec<u8>) {
    let (entry, status) = (of.entry, facts.status);
    // The response's head ends the time to the upstream's answer, and begins pintle's own.
    let before = entry.first_byte.zip(facts.time).map(|(first_byte, time)| first_byte.saturating_sub(time));
    frame(of, of.trace.client, Some(of.trace.server), CLIENT, begin + nanos(before.unwrap_or_default()), 0, out);
    method(entry, out);
    let url = url.strip_suffix('/').unwrap_or(url);
    let parsed = url.parse::<http::Uri>().ok();
    if let Some(host) = parsed.as_ref().and_then(http::Uri::host) {
        text(out, "server.address", host.trim_start_matches('[').trim_end_matches(']'));
        let default = if url.starts_with("https:") { 443 } else { 80 };
        number(out, "server.port", parsed.as_ref().and_then(http::Uri::port_u16).unwrap_or(default).into());
    }
    let (path, query) = target(of);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    text(out, "url.full", &format!("{url}{path}{query}"));
    if let Some(address) = facts.address {
        text(out, "network.peer.address", &address.ip().to_string());
        number(out, "network.peer.port", address.port().into());
    }
    if facts.retries > 0 {
        number(out, "http.request.resend_count", facts.retries.into());
    }
    if let Some(status) = status {
        number(out, "http.response.status_code", status.into());
    }
    let has_failed = status.is_none_or(|status| status >= 400) || entry.end.cause.is_some();
    finish(of, has_failed.then(|| error_type(of, status)), out);
}

/// Adds the ids, the name, the kind and the times.
fn frame(
    of: &SpanEntry<'_>,
    id: SpanId,
    parent: Option<SpanId>,
    kind: u64,
    begin: u64,
    remote: u32,
    out: &mut Vec<u8>,
) {
    push_bytes(out, 1, &of.trace.id);
    push_bytes(out, 2, &id);
    if let Some(state) = of.state {
        push_bytes(out, 3, state);
    }
    if let Some(parent) = parent {
        push_bytes(out, 4, &parent);
    }
    push_fixed32(out, 16, u32::from(of.trace.flags()) | PARENT_IS_KNOWN | remote);
    let name = if is_known(of.entry.method) { of.entry.method } else { "HTTP" };
    push_bytes(out, 5, name.as_bytes());
    push_number(out, 6, kind);
    push_fixed64(out, 7, begin);
    push_fixed64(out, 8, of.now.max(begin));
}

fn is_known(method: &str) -> bool {
    METHODS.contains(&method)
}

fn method(entry: &AccessEntry<'_>, out: &mut Vec<u8>) {
    if is_known(entry.method) {
        return text(out, "http.request.method", entry.method);
    }
    text(out, "http.request.method", "_OTHER");
    if entry.method != "-" {
        text(out, "http.request.method_original", &cut(entry.method, TEXT_MAX));
    }
}

/// Returns the path and the query, which may have to be left out.
fn target<'e>(of: &SpanEntry<'e>) -> (Cow<'e, str>, Option<Cow<'e, str>>) {
    let target = &of.entry.target[..of.entry.target.len().min(TARGET_MAX)];
    match target.iter().position(|b| *b == b'?') {
        Some(at) => {
            let query = Some(&target[at + 1..]).filter(|query| !query.is_empty() && !of.redact.query);
            (String::from_utf8_lossy(&target[..at]), query.map(String::from_utf8_lossy))
        }
        None => (String::from_utf8_lossy(target), None),
    }
}

/// The class of an error: the cause of the upstream's failure, the limit, the status, or the side that left.
fn error_type<'e>(of: &SpanEntry<'e>, status: Option<u16>) -> Cow<'e, str> {
    let end = &of.entry.end;
    match (end.cause.or(end.limit), status) {
        (Some(cause), _) => Cow::Borrowed(cause),
        (None, Some(status @ 400..)) => Cow::Owned(status.to_string()),
        (None, _) => Cow::Borrowed(end.ended.name()),
    }
}

/// Adds the error, if there is one, and the status.
fn finish(of: &SpanEntry<'_>, error: Option<Cow<'_, str>>, out: &mut Vec<u8>) {
    let Some(error) = error else { return };
    text(out, "error.type", &error);
    push_message(out, 15, |out| {
        if let Some(words) = of.entry.end.error {
            push_bytes(out, 2, cut(words, TEXT_MAX).as_bytes());
        }
        push_number(out, 3, ERROR);
    });
}

fn cut(value: &str, most: usize) -> Cow<'_, str> {
    Cow::Borrowed(&value[..value.floor_char_boundary(most)])
}

fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    push_attribute(out, 9, name, |out| push_bytes(out, 1, value.as_bytes()));
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    push_attribute(out, 9, name, |out| push_number(out, 3, value));
}

fn push_attribute(out: &mut Vec<u8>, field: u64, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    push_message(out, field, |out| {
        push_bytes(out, 1, name.as_bytes());
        push_message(out, 2, value);
    });
}

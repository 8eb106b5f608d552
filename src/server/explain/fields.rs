//! The fates of fields between client and upstream: a comparison of the heads that were received and written, with the
//! reason of each difference.

use crate::message::{self, Name, RequestHead};
use crate::mixed::request::WholeRequest;
use crate::site::{HeaderRules, Site};
use crate::upstream::strong_tags;

/// Names and values of fields.
pub type FieldList = Vec<(Vec<u8>, Vec<u8>)>;

/// The fate of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldFate {
    /// It passes as it is.
    Kept,
    /// pintle adds it.
    Added,
    /// It does not pass.
    Removed,
    /// It passes with another value.
    Changed,
}

/// The reason for the fate of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FateReason {
    /// No rule concerns it.
    NoRule,
    /// A rule of the site: `set`, `add` or `remove`.
    Rule,
    /// The upstream's Host.
    Host,
    /// A field about the client, which pintle writes itself.
    Forwarding,
    /// The trace, which pintle continues or begins.
    Trace,
    /// The hop in Via.
    Via,
    /// A field of one connection.
    HopByHop,
    /// Connection names it.
    NamedByConnection,
    /// A claim that only a trusted proxy may make, or a name that looks like one.
    Claim,
    /// The framing of the message.
    Framing,
    /// An expectation, which belongs to a hop.
    Expect,
    /// Trailers, which pass only where rules permit them.
    Trailers,
    /// Cookies in one field.
    Cookie,
    /// One hop less.
    MaxForwards,
    /// The handshake of a WebSocket.
    WebSocket,
    /// `[site.hsts]`.
    Hsts,
    /// `[site.hpkp]`; the upstream's own pins never pass.
    Pins,
    /// The upstream's alternatives lead past pintle.
    AltSvc,
    /// The upstream's names become the site's.
    Names,
    /// The answer depends on a trusted proxy's fields.
    Vary,
    /// The response may be stored for others.
    Cache,
    /// A tool against mixed content adds, rewrites or drops it.
    MixedContent,
    /// pintle compresses the response, or could have.
    Compression,
    /// Part of an answer of pintle's own, or the date.
    Own,
}

/// A field name, its values on both sides, and the reason of the difference.
#[derive(Debug, Clone)]
pub struct FieldChange {
    /// The name, as received, or as written if it was not received.
    pub name: Vec<u8>,
    /// The values received.
    pub before: Vec<Vec<u8>>,
    /// The values written.
    pub after: Vec<Vec<u8>>,
    /// The fate.
    pub change: FieldFate,
    /// The reason.
    pub why: FateReason,
}

/// Fields that the tools against mixed content add, rewrite or drop.
const MIXED: [&[u8]; 8] = [
    b"content-security-policy",
    b"content-security-policy-report-only",
    b"reporting-endpoints",
    b"link",
    b"x-pingback",
    b"access-control-allow-origin",
    b"sourcemap",
    b"x-sourcemap",
];
/// Fields that change with the body, by rewriting and by compression.
const OF_BODY: [&[u8]; 4] = [b"etag", b"accept-ranges", b"content-encoding", b"content-md5"];

/// Returns the fields of written lines.
pub(super) fn parse(lines: &[u8]) -> FieldList {
    let lines = lines.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let pairs = lines.filter_map(|line| {
        let colon = line.iter().position(|b| *b == b':')?;
        Some((line[..colon].to_vec(), line[colon + 1..].trim_ascii().to_vec()))
    });
    pairs.collect()
}

/// Returns the fields of a head.
pub(super) fn list(fields: &message::Fields) -> FieldList {
    fields.iter().map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// Compares a client's request with the head that the upstream gets.
/// `for_cache` says that the response may be stored.
pub(super) fn of_request(head: &RequestHead, sent: &[u8], site: &Site, for_cache: bool) -> Vec<FieldChange> {
    let line = sent.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
    let named: Vec<&[u8]> =
        head.fields.list().iter().filter(|field| field.is_named()).map(|field| head.fields.name(field)).collect();
    let is_named = |name: &[u8]| named.iter().any(|other| other.eq_ignore_ascii_case(name));
    let whole = match site.mixed.as_ref().is_some_and(|mixed| mixed.rewrites.is_some()) {
        true => WholeRequest::of(head),
        false => WholeRequest::No,
    };
    compare(&list(&head.fields), &parse(&sent[line..]), |name| match Name::of(name) {
        _ if is_ruled(&site.request, name) => FateReason::Rule,
        Name::Host => FateReason::Host,
        Name::XForwardedFor | Name::XForwardedProto | Name::XForwardedHost | Name::Forwarded => FateReason::Forwarding,
        Name::XForwardedOther | Name::XRealIp => FateReason::Forwarding,
        Name::Via => FateReason::Via,
        Name::Traceparent | Name::Tracestate => FateReason::Trace,
        Name::ContentLength | Name::TransferEncoding => FateReason::Framing,
        Name::Connection | Name::Upgrade | Name::SecWebsocketKey if head.websocket => FateReason::WebSocket,
        Name::Te | Name::Trailer => FateReason::Trailers,
        Name::Expect => FateReason::Expect,
        known if known.is_claim() => FateReason::Claim,
        known if known.is_hop_by_hop() => FateReason::HopByHop,
        _ if is_named(name) => FateReason::NamedByConnection,
        Name::Cookie if !for_cache => FateReason::Cookie,
        Name::MaxForwards => FateReason::MaxForwards,
        _ if for_cache => FateReason::Cache,
        _ if whole.drops(name) || has_strong_tags(head, name, site) => FateReason::MixedContent,
        _ => FateReason::NoRule,
    })
}

/// `true` for a condition whose tags the upstream gets as it has sent them.
fn has_strong_tags(head: &RequestHead, name: &[u8], site: &Site) -> bool {
    head.fields.values_of(name).any(|value| strong_tags(site, head, name, value).is_some())
}

/// Compares an upstream's fields with those that the client gets. Without the upstream's, the answer is pintle's own.
/// `is_rewritten` says that references in the body are rewritten.
pub(super) fn of_response(
    before: &FieldList,
    after: &FieldList,
    site: Option<&Site>,
    is_rewritten: bool,
) -> Vec<FieldChange> {
    let rules = site.map(|site| &*site.response);
    let is_mixed = site.is_some_and(|site| site.mixed.is_some());
    let is_compressing = !before.is_empty() && site.is_some_and(|site| site.compression.is_some());
    // Rewriting takes a coding away, and never adds one.
    let is_coded = |name: &[u8]| is_compressing && name.eq_ignore_ascii_case(b"content-encoding") && has(after, name);
    compare(before, after, |name| match Name::of(name) {
        Name::StrictTransportSecurity if site.is_some_and(|site| site.hsts.is_some()) => FateReason::Hsts,
        Name::PublicKeyPins | Name::PublicKeyPinsReportOnly => FateReason::Pins,
        _ if rules.is_some_and(|rules| is_ruled(rules, name)) => FateReason::Rule,
        Name::StrictTransportSecurity => FateReason::Hsts,
        Name::AltSvc => FateReason::AltSvc,
        Name::Location | Name::ContentLocation | Name::Refresh | Name::SetCookie if !before.is_empty() => {
            FateReason::Names
        }
        _ if is_coded(name) => FateReason::Compression,
        _ if is_mixed && MIXED.iter().any(|own| name.eq_ignore_ascii_case(own)) => FateReason::MixedContent,
        _ if is_rewritten && OF_BODY.iter().any(|own| name.eq_ignore_ascii_case(own)) => FateReason::MixedContent,
        Name::Vary if is_compressing => FateReason::Compression,
        Name::Vary => FateReason::Vary,
        _ if is_compressing && OF_BODY.iter().any(|own| name.eq_ignore_ascii_case(own)) => FateReason::Compression,
        Name::ContentLength => FateReason::Framing,
        Name::Te | Name::Trailer => FateReason::Trailers,
        Name::Date => FateReason::Own,
        _ if !has(before, name) => FateReason::Own,
        _ => FateReason::NoRule,
    })
}

fn has(fields: &FieldList, name: &[u8]) -> bool {
    fields.iter().any(|(own, _)| own.eq_ignore_ascii_case(name))
}

/// Returns `true` if a rule of the site drops or adds fields of this name.
fn is_ruled(rules: &HeaderRules, name: &[u8]) -> bool {
    rules.drops(name) || rules.added.iter().any(|(own, _)| own.as_bytes().eq_ignore_ascii_case(name))
}

/// Compares two lists, name by name.
fn compare(before: &FieldList, after: &FieldList, why: impl Fn(&[u8]) -> FateReason) -> Vec<FieldChange> {
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut changes = Vec::new();
    for (name, _) in before.iter().chain(after) {
        if seen.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            continue;
        }
        seen.push(name);
        let values = |fields: &FieldList| -> Vec<Vec<u8>> {
            fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone()).collect()
        };
        let (before, after) = (values(before), values(after));
        let change = match (before.is_empty(), after.is_empty()) {
            _ if before == after => FieldFate::Kept,
            (true, _) => FieldFate::Added,
            (_, true) => FieldFate::Removed,
            _ => FieldFate::Changed,
        };
        let why = if change == FieldFate::Kept { FateReason::NoRule } else { why(name) };
        changes.push(FieldChange { name: name.clone(), before, after, change, why });
    }
    changes
}

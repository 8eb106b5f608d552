//! Fields in a report: what happens to each, and the line that says so.

use serde_json::{Value, json};

use super::{Inputs, text};
use crate::message::{folded, folds_to};
use crate::server::explain::{FateReason, FieldChange, FieldFate};

/// The value of a field for readers who may not see secrets.
const HIDDEN: &str = "(shown to the role configure only)";

/// `true` if a rule gives the field a value that the reader may not see: often, it is a token for the upstream.
fn is_hidden(inputs: &Inputs<'_>, change: &FieldChange) -> bool {
    !inputs.shows_secrets && change.why == FateReason::Rule
}

/// The head of the request as the upstream gets it.
pub(super) fn sent(inputs: &Inputs<'_>, head: &[u8]) -> String {
    let fields = &inputs.found.request_fields;
    let hidden: Vec<&FieldChange> = fields.iter().filter(|change| is_hidden(inputs, change)).collect();
    let line = |line: &[u8]| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if hidden.iter().any(|change| folds_to(&change.name, &folded(name))) {
            return format!("{}: {HIDDEN}", text(name));
        }
        text(line.strip_suffix(b"\r").unwrap_or(line))
    };
    head.split(|byte| *byte == b'\n').map(line).collect::<Vec<_>>().join("\r\n")
}

/// The fates of the request's fields.
pub(super) fn of_request(inputs: &Inputs<'_>) -> Vec<Value> {
    let changes = &inputs.found.request_fields;
    let shown = |change: &FieldChange| {
        let mut row = row(inputs, "request_headers", change);
        if is_hidden(inputs, change) {
            row["after"] = vec![HIDDEN; change.after.len()].into();
        }
        row
    };
    changes.iter().map(shown).collect()
}

/// The fates of the response's fields, and the rules for fields that the upstream might send.
pub(super) fn of_response(inputs: &Inputs<'_>) -> Vec<Value> {
    let changes = &inputs.found.response_fields;
    let rows = changes.iter().map(|change| row(inputs, "response_headers", change));
    rows.chain(removals(inputs)).collect()
}

/// The operator's `remove` rules that this response gives no occasion for.
fn removals(inputs: &Inputs<'_>) -> Vec<Value> {
    let is_secure = inputs.found.noted;
    let list = inputs.lines.below("site.response_headers.remove");
    let named = list.into_iter().filter_map(|key| Some((key, inputs.lines.text(key)?)));
    let met =
        |name: &str| inputs.found.response_fields.iter().any(|change| folds_to(&change.name, &folded(name.as_bytes())));
    let open = named.filter(|(_, name)| is_secure && !met(name));
    open.map(|(key, name)| {
        json!({
            "name": name, "change": "would_remove", "before": [], "after": [], "why": "a rule of the site",
            "at": inputs.lines.at(&[key]),
        })
    })
    .collect()
}

fn row(inputs: &Inputs<'_>, table: &str, change: &FieldChange) -> Value {
    let values = |values: &[Vec<u8>]| values.iter().map(|value| text(value)).collect::<Vec<_>>();
    let key = match change.why {
        FateReason::Rule => rule(inputs, table, &change.name),
        FateReason::Host => Some("site.upstream_options.host_header"),
        FateReason::Forwarding if inputs.found.peer.proxy.is_some() => Some("listen.trusted_proxies"),
        FateReason::Hsts => Some("site.hsts"),
        FateReason::Pins => Some("site.hpkp"),
        FateReason::Names => Some("site.upstream"),
        FateReason::Trace => Some("metrics.otlp"),
        FateReason::Cache => Some("site.cache"),
        FateReason::MixedContent => Some("site.mixed_content"),
        FateReason::Compression => Some("site.compression"),
        _ => None,
    };
    json!({
        "name": text(&change.name),
        "change": word(change.change),
        "before": values(&change.before),
        "after": values(&change.after),
        "why": why(change.why),
        "at": key.and_then(|key| inputs.lines.at(&[key])),
    })
}

/// The key of the rule for a field: `set` and `add` write it, `remove` drops it.
fn rule<'a>(inputs: &Inputs<'a>, table: &str, name: &[u8]) -> Option<&'a str> {
    let lines = inputs.lines;
    ["set", "add", "remove"].into_iter().find_map(|list| {
        let list = format!("site.{table}.{list}");
        // `set` and `add` are tables by name, `remove` is a list of names.
        let named = |key: &'a str| key.strip_prefix(&list)?.strip_prefix('.').or_else(|| lines.text(key));
        let is_it = |key: &&'a str| named(key).is_some_and(|named| folds_to(name, &folded(named.as_bytes())));
        lines.below(&list).into_iter().find(is_it)
    })
}

fn word(change: FieldFate) -> &'static str {
    match change {
        FieldFate::Kept => "kept",
        FieldFate::Added => "added",
        FieldFate::Removed => "removed",
        FieldFate::Changed => "changed",
    }
}

fn why(why: FateReason) -> &'static str {
    match why {
        FateReason::NoRule => "",
        FateReason::Rule => "a rule of the site",
        FateReason::Host => "the name that the upstream expects",
        FateReason::Forwarding => "pintle itself describes the client",
        FateReason::Via => "each hop adds itself",
        FateReason::Trace => "pintle continues the client's trace, or begins one",
        FateReason::HopByHop => "belongs to one connection",
        FateReason::NamedByConnection => "Connection names it",
        FateReason::Claim => "clients could forge it",
        FateReason::Framing => "pintle frames the message",
        FateReason::Expect => "belongs to one hop",
        FateReason::Trailers => "trailers need a rule",
        FateReason::Cookie => "in one field",
        FateReason::MaxForwards => "one hop less",
        FateReason::WebSocket => "the WebSocket's handshake",
        FateReason::Hsts => "the site's policy",
        FateReason::Pins => "the site's pins; the upstream's never pass",
        FateReason::AltSvc => "would lead past pintle",
        FateReason::Names => "the upstream's name becomes the site's",
        FateReason::Vary => "the answer depends on a proxy's field",
        FateReason::Own => "pintle's own",
        FateReason::Cache => "the response may be stored for others",
        FateReason::MixedContent => "a tool of the site against mixed content",
        FateReason::Compression => "pintle compresses the response, or does so for other clients",
    }
}

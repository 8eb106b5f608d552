//! Fields in a report: what happens to each, and the line that says so.

use serde_json::{Value, json};

use super::{Inputs, text};
use crate::message::{folded, folds_to};
use crate::server::explain::{Change, FieldChange, Why};

/// The fates of the request's fields.
pub(super) fn of_request(inputs: &Inputs<'_>) -> Vec<Value> {
    let changes = &inputs.found.request_fields;
    changes.iter().map(|change| row(inputs, "request_headers", change)).collect()
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
        Why::Rule => rule(inputs, table, &change.name),
        Why::Host => Some("site.upstream_options.host_header"),
        Why::Forwarding if inputs.found.peer.proxy.is_some() => Some("listen.trusted_proxies"),
        Why::Hsts => Some("site.hsts"),
        Why::Pins => Some("site.hpkp"),
        Why::Names => Some("site.upstream"),
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

fn word(change: Change) -> &'static str {
    match change {
        Change::Kept => "kept",
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
    }
}

fn why(why: Why) -> &'static str {
    match why {
        Why::NoRule => "",
        Why::Rule => "a rule of the site",
        Why::Host => "the name that the upstream expects",
        Why::Forwarding => "pintle itself describes the client",
        Why::Via => "each hop adds itself",
        Why::HopByHop => "belongs to one connection",
        Why::NamedByConnection => "Connection names it",
        Why::Claim => "clients could forge it",
        Why::Framing => "pintle frames the message",
        Why::Expect => "belongs to one hop",
        Why::Trailers => "trailers need a rule",
        Why::Cookie => "in one field",
        Why::MaxForwards => "one hop less",
        Why::WebSocket => "the WebSocket's handshake",
        Why::Hsts => "the site's policy",
        Why::Pins => "the site's pins; the upstream's never pass",
        Why::AltSvc => "would lead past pintle",
        Why::Names => "the upstream's name becomes the site's",
        Why::Vary => "the answer depends on a proxy's field",
        Why::Own => "pintle's own",
    }
}

//! A request's place in a trace: read from its head, and its spans when it is over.

use aws_lc_rs::rand;
use jiff::Timestamp;

use super::context::Context;
use super::snapshot::{SiteOfView, View};
use crate::message::{Name, RequestHead};
use crate::telemetry::access::AccessEntry;
use crate::telemetry::trace::{SpanEntry, Trace, TraceParent, TraceRules, TrustedParents, tracestate};

/// Continues the client's trace, or begins one. `None` for a site without records, whose requests pass as they are.
pub(super) fn begin(
    rules: &TraceRules,
    head: &RequestHead,
    site: Option<&SiteOfView>,
    context: &Context,
) -> Option<Box<Trace>> {
    if site.is_some_and(|site| site.unlogged) {
        return None;
    }
    let is_believed = match rules.parents {
        TrustedParents::Any => true,
        TrustedParents::Trusted => context.client.peer.proxy.is_some(),
        TrustedParents::None => false,
    };
    let mut values = head.fields.get_all(Name::Traceparent);
    // A repeated field is as good as none.
    let parent = match (values.next(), values.next()) {
        (Some(value), None) if is_believed => TraceParent::parse(value),
        _ => None,
    };
    let mut random = [0; 32];
    rand::fill(&mut random).ok()?;
    Some(Box::new(Trace::new(parent, &random, rules.sample)))
}

/// Adds the spans of a request whose trace is sampled.
pub(super) fn record(
    trace: &Trace,
    entry: &AccessEntry<'_>,
    head: &RequestHead,
    site: Option<&SiteOfView>,
    view: &View,
    context: &Context,
) {
    if !trace.is_sampled() {
        return;
    }
    let state = trace.parent.and_then(|_| tracestate(head.fields.get_all(Name::Tracestate)));
    let upstream = site.and_then(|site| view.shared.upstreams.get(site.index())?.as_ref());
    let peer = &context.client.peer;
    context.worker.spans.add(&SpanEntry {
        trace,
        state: state.as_deref(),
        entry,
        peer: peer.proxy.unwrap_or(peer.address),
        port: head.port(),
        upstream: upstream.map(|upstream| &*upstream.label),
        redact: view.shared.log.redact,
        now: u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default(),
    });
}

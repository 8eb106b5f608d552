//! Records a request when it is over: counters, and a record in the access log.

use std::io;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::asked::Asked;
use super::context::Context;
use super::reply::Reply;
use super::snapshot::{SiteOfView, View};
use super::trace;
use super::why::{self, Why};
use super::worker::Worker;
use crate::message::{Name, RequestHead};
use crate::policy::forwarded::SchemeSource;
use crate::telemetry::access::{AccessEntry, End, Ended};
use crate::telemetry::meters::CAUSES;
use crate::telemetry::trace::{Trace, hex};
use crate::upstream::UpstreamError;

/// The client left before the answer; nginx uses the same number.
const CLIENT_GONE: u16 = 499;
/// The words for a client that left.
const CLIENT_LEFT: &str = "the client went away";

/// The result of sending an answer.
pub(super) struct Sent {
    pub(super) result: io::Result<()>,
    /// Bytes of the body.
    pub(super) bytes: u64,
    /// The error that cut the upstream's body short.
    pub(super) broken: Option<UpstreamError>,
    /// `true` if nothing of the answer has left, not even its head.
    pub(super) unsent: bool,
}

/// The end of a request.
pub(super) struct RequestOutcome {
    status: u16,
    bytes: u64,
    received: u64,
    begin: Option<Instant>,
    first_byte: Option<Instant>,
    why: Why,
    error: Option<String>,
    /// The client took the body too slowly.
    too_slow: bool,
}

impl RequestOutcome {
    /// Returns the outcome of an answer. `begin` is `None` if nobody measures. Logs an upstream whose body was cut short.
    pub(super) fn of(
        reply: &Reply,
        sent: &Sent,
        begin: Option<Instant>,
        asked: Option<&Asked>,
        context: &Context,
    ) -> Self {
        if let (Some(broken), Some(asked)) = (&sent.broken, asked) {
            upstream_failed(broken, asked, context);
        }
        let (why, error, too_slow) = match (&sent.broken, &sent.result) {
            (Some(broken), _) => (why::of_upstream(broken), Some(broken.to_string()), false),
            (None, Err(e)) if e.kind() == io::ErrorKind::TimedOut => {
                (why::of_client(e), Some("the client takes too long".into()), true)
            }
            (None, Err(e)) => (why::of_client(e), Some(CLIENT_LEFT.into()), false),
            (None, Ok(())) => (reply.why, reply.error.clone(), false),
        };
        let outcome = Self {
            status: reply.head.status.as_u16(),
            bytes: sent.bytes,
            received: 0,
            begin,
            first_byte: reply.begun,
            why,
            error,
            too_slow,
        };
        match sent.unsent && outcome.why.ended == Ended::Client {
            true => Self { status: CLIENT_GONE, bytes: 0, first_byte: None, ..outcome },
            false => outcome,
        }
    }

    /// Returns the outcome of a request that was refused without a reply.
    pub(super) fn refused(status: StatusCode, why: Why, error: String, begin: Option<Instant>) -> Self {
        Self { status: status.as_u16(), why, error: Some(error), ..Self::gone(begin) }
    }

    /// Returns the outcome of a request whose client left before the answer.
    pub(super) fn gone(begin: Option<Instant>) -> Self {
        Self {
            status: CLIENT_GONE,
            bytes: 0,
            received: 0,
            begin,
            first_byte: None,
            why: why::gone(),
            error: Some(CLIENT_LEFT.into()),
            too_slow: false,
        }
    }

    /// Adds the part of an answer that has gone out.
    pub(super) fn sent(self, status: Option<StatusCode>, first_byte: Option<Instant>, bytes: u64) -> Self {
        Self { status: status.map_or(self.status, |status| status.as_u16()), first_byte, bytes, ..self }
    }

    /// Adds the bytes of the request's body.
    pub(super) fn received(self, received: u64) -> Self {
        Self { received, ..self }
    }

    /// Replaces the end, if another one is known.
    pub(super) fn ended_by(self, why: Option<Why>) -> Self {
        let Some(why) = why else { return self };
        let error = if why.ended == Ended::Client { Some(CLIENT_LEFT.to_owned()) } else { self.error };
        Self { why, error, ..self }
    }

    /// Returns the time from the request's head to the beginning of its answer.
    fn to_first_byte(&self) -> Option<Duration> {
        Some(self.first_byte?.saturating_duration_since(self.begin?))
    }
}

/// Records a request. `asked` is `None` if its head could not be read.
pub(super) fn record(context: &Context, head: &RequestHead, asked: Option<&Asked>, outcome: &RequestOutcome) {
    let counters = &context.worker.counters;
    counters.requests.increment();
    if outcome.too_slow {
        counters.bodies_too_slow.increment();
    }
    match outcome.status {
        ..300 => counters.responses_2xx.increment(),
        300..400 => counters.responses_3xx.increment(),
        400..500 => counters.responses_4xx.increment(),
        _ => counters.responses_5xx.increment(),
    }
    if let Some(limit) = outcome.why.limit {
        context.worker.limit_reached(limit);
    }
    let clock = &context.worker.clock;
    let end = outcome.begin.map(|begin| match clock.time() {
        // An answer within one turn: what the turn took so far.
        now if now <= begin => Instant::now(),
        now => now,
    });
    let duration = outcome.begin.zip(end).map(|(begin, end)| end.saturating_duration_since(begin));
    let view = asked.map_or_else(|| context.worker.view(), |asked| asked.view.clone());
    let ended = EndedRequest { context, head, asked, view: &view, outcome, duration };
    ended.measure();
    ended.log();
}

/// A request that is over.
struct EndedRequest<'r> {
    context: &'r Context,
    head: &'r RequestHead,
    asked: Option<&'r Asked>,
    view: &'r View,
    outcome: &'r RequestOutcome,
    duration: Option<Duration>,
}

impl EndedRequest<'_> {
    /// Adds the request to the figures of its site, and its times to the latencies.
    fn measure(&self) {
        let Self { head, view, outcome, .. } = *self;
        let worker = &self.context.worker;
        let site = self.asked.and_then(|asked| asked.site.as_ref());
        if let Some(traffic) = site.map_or_else(|| view.traffic.last(), |site| view.traffic.get(site.index())) {
            traffic.note(worker.number, &head.method, outcome.status, outcome.received, outcome.bytes);
        }
        if let Some(note) = self.asked.and_then(|asked| asked.cache.get())
            && let Some(cache) = site.and_then(SiteOfView::cache)
        {
            cache.store.count(worker.number, note.part, note.status.why_forwarded());
        }
        if let Some(compressed) = self.asked.and_then(|asked| asked.compressed.get()) {
            worker.meters.compressed.note(compressed.coding as usize, compressed.before.get(), outcome.bytes);
        }
        if let Some(duration) = self.duration {
            worker.meters.duration.note(duration);
        }
        if let Some(first_byte) = outcome.to_first_byte() {
            worker.meters.first_byte.note(first_byte);
        }
        if let Some(time) = self.asked.and_then(|asked| asked.facts.borrow().time) {
            worker.meters.upstream.note(time);
        }
    }

    /// Returns the name of the table of limits that refused it.
    fn refused_by(&self) -> Option<&str> {
        self.asked?.rates.get()?.refused_by.as_deref()
    }

    /// Adds the record to the access log, if the rules of the configuration take it, and to the trace, if that is sampled.
    fn log(&self) {
        let Self { context, head, asked, view, outcome, duration } = *self;
        let worker = &context.worker;
        let (rules, site) = (&view.shared.log, asked.and_then(|asked| asked.site.as_ref()));
        let trace = asked.and_then(|asked| asked.trace.as_deref());
        if site.is_some_and(|site| site.unlogged) {
            return;
        }
        let has_failed = outcome.why.ended != Ended::Complete || outcome.status >= 500;
        let access = worker.access.as_ref().filter(|access| access.takes(rules, has_failed));
        if access.is_none() && !trace.is_some_and(Trace::is_sampled) {
            return;
        }
        let text = access.map(|access| context.log_text(access, rules));
        let trace_id = trace.map(|trace| hex(&trace.id));
        let entry = AccessEntry {
            connection: text.as_deref().unwrap_or_default(),
            trace_id: trace_id.as_deref(),
            site: site.map(|site| &*site.name),
            client: asked.map_or(context.client.peer.address, |a| a.origin.client),
            host: head.host_bytes(),
            method: if asked.is_some() { head.method.as_str() } else { "-" },
            target: head.target_bytes(),
            version: head.version.number(),
            scheme: asked.map_or(context.client.peer.listener, |a| a.origin.scheme).as_str(),
            scheme_from: asked.map_or(SchemeSource::Listener, |a| a.origin.scheme_from).name(),
            status: outcome.status,
            bytes: outcome.bytes,
            received: outcome.received,
            time: worker.clock.wall(worker.clock.time()),
            duration: duration.unwrap_or_default(),
            first_byte: outcome.to_first_byte(),
            upstream: asked.map(|asked| *asked.facts.borrow()).filter(|facts| facts.asked),
            cache: asked.and_then(|asked| asked.cache.get()).map(|note| note.part.name()),
            rewritten: asked.and_then(|asked| asked.rewritten.get()).map(|count| count.get()),
            compressed: asked
                .and_then(|asked| asked.compressed.get())
                .map(|note| (note.coding.name(), note.before.get())),
            user_agent: head.fields.get(Name::UserAgent).unwrap_or_default(),
            referer: head.fields.get(Name::Referer).unwrap_or_default(),
            end: End { error: outcome.error.as_deref(), rule: self.refused_by(), ..outcome.why },
        };
        if let Some(access) = access {
            access.record(&entry, rules, !has_failed && !rules.sample.is_all());
        }
        if let Some(trace) = trace {
            trace::record(trace, &entry, head, site, view, context);
        }
    }
}

/// Counts a failure of the upstream, and logs it; each kind once a minute. Requests that an open circuit refuses are left
/// out: the log has an entry from when it opened.
pub(super) fn upstream_failed(error: &UpstreamError, asked: &Asked, context: &Context) {
    let Some(site) = &asked.site else { return };
    if matches!(error, UpstreamError::RequestBody(_) | UpstreamError::CircuitOpen(_)) {
        return;
    }
    context.worker.meters.causes.count(&CAUSES, &error.cause());
    let pool = asked.view.pools.get(site.index()).and_then(Option::as_ref);
    failed(error, pool.map_or("", |pool| &*pool.upstream().label), site, &context.worker);
}

/// Counts a failure of the upstream, and logs it; each kind once a minute.
pub(super) fn failed(error: &UpstreamError, upstream: &str, site: &SiteOfView, worker: &Worker) {
    worker.counters.upstream_errors.increment();
    worker.warn_seldom(site.index(), error.cause(), || {
        tracing::warn!(site = site.label(), upstream, %error, hint = error.hint(), "upstream failed");
    });
}

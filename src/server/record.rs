//! Records a request when it is over: counters, and a line in the access log.

use std::io;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::asked::Asked;
use super::context::Context;
use super::reply::Reply;
use crate::message::{Name, RequestHead};
use crate::telemetry::access::Entry;
use crate::upstream::UpstreamError;

/// The client left before the answer; nginx uses the same number.
const CLIENT_GONE: u16 = 499;

/// The result of sending an answer.
pub(super) struct Sent {
    pub(super) result: io::Result<()>,
    /// Bytes of the body.
    pub(super) bytes: u64,
    /// The error that cut the upstream's body short.
    pub(super) broken: Option<UpstreamError>,
}

/// The end of a request.
pub(super) struct Outcome {
    status: u16,
    pub(super) bytes: u64,
    begin: Option<Instant>,
    upstream: Option<Duration>,
    error: Option<String>,
    /// The client took the body too slowly.
    too_slow: bool,
}

impl Outcome {
    /// Returns the outcome of an answer. `begin` is `None` if no access log is kept. Logs an upstream whose body was cut short.
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
        let error = match (&sent.broken, &sent.result) {
            (Some(broken), _) => Some(broken.to_string()),
            (None, Err(e)) if e.kind() == io::ErrorKind::TimedOut => Some("the client takes too long".into()),
            (None, Err(_)) => Some("the client went away".into()),
            (None, Ok(_)) => reply.error.clone(),
        };
        let is_late = sent.result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::TimedOut);
        let too_slow = is_late && sent.broken.is_none();
        Self {
            status: reply.head.status.as_u16(),
            bytes: sent.bytes,
            begin,
            upstream: reply.upstream_time,
            error,
            too_slow,
        }
    }

    /// Returns the outcome of a request that was refused without a reply.
    pub(super) fn refused(status: StatusCode, error: String, begin: Option<Instant>) -> Self {
        Self { status: status.as_u16(), bytes: 0, begin, upstream: None, error: Some(error), too_slow: false }
    }

    /// Returns the outcome of a request whose client left before the answer.
    pub(super) fn gone(begin: Option<Instant>) -> Self {
        let error = Some("the client went away".into());
        Self { status: CLIENT_GONE, bytes: 0, begin, upstream: None, error, too_slow: false }
    }
}

/// Records a request. `asked` is `None` if its head could not be read.
pub(super) fn record(context: &Context, head: &RequestHead, asked: Option<&Asked>, outcome: &Outcome) {
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
    let Some(access) = &context.worker.access else { return };
    let client = asked.map(|a| a.origin.client).filter(|c| *c != context.client.peer.address);
    let client = client.map(|c| c.to_string());
    let scheme = asked.map_or(context.client.peer.listener, |a| a.origin.scheme);
    access.record(&Entry {
        client: client.as_deref().unwrap_or_else(|| context.client.address()),
        host: head.host(),
        method: if asked.is_some() { head.method.as_str() } else { "-" },
        target: head.target(),
        version: head.version.number(),
        scheme: scheme.as_str(),
        status: outcome.status,
        bytes: outcome.bytes,
        duration: outcome.begin.map_or(Duration::ZERO, |begin| begin.elapsed()),
        upstream: outcome.upstream,
        user_agent: head.fields.get(Name::UserAgent).unwrap_or_default(),
        referer: head.fields.get(Name::Referer).unwrap_or_default(),
        error: outcome.error.as_deref(),
    });
}

/// Counts a failure of the upstream, and logs it; each kind once a minute. Requests that an open circuit refuses are left
/// out: the log has an entry from when it opened.
pub(super) fn upstream_failed(error: &UpstreamError, asked: &Asked, context: &Context) {
    let Some(site) = &asked.site else { return };
    if matches!(error, UpstreamError::RequestBody(_) | UpstreamError::CircuitOpen(_)) {
        return;
    }
    context.worker.counters.upstream_errors.increment();
    context.worker.warn_seldom(site.index(), error.cause(), || {
        let upstream = asked.view.pools.get(site.index()).into_iter().flatten().next();
        let upstream = upstream.map(|pool| &*pool.upstream().label).unwrap_or_default();
        tracing::warn!(site = site.label(), upstream, %error, hint = error.hint(), "upstream failed");
    });
}

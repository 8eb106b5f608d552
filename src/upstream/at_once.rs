//! The usual case: a request without a body, and a connection at rest.
//!
//! The exchange is polled in place: a future would be as large as everything that may happen on the
//! way. Unusual requests go through [`Pool::send`].

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::error::UpstreamError;
use super::http1::{Exchange, SendOutcome};
use super::interim::Interim;
use super::pool::Pool;
use super::request::UpstreamRequest;
use super::response::UpstreamResponse;
use crate::clock::Alarm;
use crate::message::Framing;
use crate::telemetry::access::UpstreamFacts;

/// A request under way on a connection that was at rest.
pub struct Forwarding {
    pool: Rc<Pool>,
    /// `None` once it is over.
    exchange: Option<Exchange>,
}

/// The outcome of a [`Forwarding`].
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once, and a box would cost each request one")]
pub enum Forwarded {
    /// The head of a response, or the error of a request that has none.
    Over(Result<UpstreamResponse, UpstreamError>),
    /// The kept connection had ended. [`Pool::send`] sends the request again, and takes this error.
    Stale(UpstreamError),
}

impl Pool {
    /// Begins a request on a connection at rest.
    ///
    /// Returns `None` if something has to happen first: the request has a body or asks for
    /// WebSocket, no connection is free, or the circuit breaker is not closed.
    #[inline]
    pub fn forward_at_once(
        self: &Rc<Self>,
        upstream_request: &UpstreamRequest<'_>,
        alarm: &Alarm,
    ) -> Option<Forwarding> {
        let head = upstream_request.head;
        if head.websocket || head.framing != Framing::None || !self.upstream.health.is_open_to_all() {
            return None;
        }
        let connection = self.take_at_once()?;
        let address = Some(connection.address);
        UpstreamFacts::note(upstream_request.facts, |facts| (facts.address, facts.reused) = (address, true));
        self.begin(alarm);
        let exchange = Some(Exchange::new(self, upstream_request, connection, None, alarm));
        Some(Forwarding { pool: self.clone(), exchange })
    }
}

impl Forwarding {
    /// Returns the pool that the connection belongs to.
    #[must_use]
    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Sends the request and waits for the response's head, for as long as the alarm says. Must not
    /// be polled again once it is ready.
    #[inline]
    pub fn poll(&mut self, alarm: &Alarm, interim: &mut dyn Interim, cx: &mut Context<'_>) -> Poll<Forwarded> {
        let Some(exchange) = &mut self.exchange else { return Poll::Pending };
        let outcome = ready!(exchange.poll_head(alarm, interim, cx));
        let address = exchange.address();
        let Some(exchange) = self.exchange.take() else { return Poll::Pending };
        let pool = &self.pool;
        let over = match exchange.end(outcome) {
            SendOutcome::Stale(_, error) => return Poll::Ready(Forwarded::Stale(error)),
            SendOutcome::Response(head, rest) => {
                pool.upstream.health.address_answered(address);
                Ok(UpstreamResponse::from_http1(head, rest))
            }
            SendOutcome::Failed(error) if alarm.is_past_cap() && error.is_timeout() => Err(UpstreamError::TotalTimeout),
            SendOutcome::Failed(error) => Err(pool.failed_at(address, error)),
        };
        pool.upstream.health.note(over.as_ref().err(), pool.clock.uptime());
        if !over.as_ref().is_ok_and(UpstreamResponse::is_under_way) {
            alarm.uncap();
        }
        Poll::Ready(Forwarded::Over(over))
    }
}

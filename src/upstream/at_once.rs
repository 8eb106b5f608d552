//! The usual case: a request without a body, by a connection that is there. It is polled in place, and not by a future,
//! which would be as large as all that may happen; whatever else happens goes the long way.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::error::UpstreamError;
use super::http1::{Attempt, Exchange};
use super::interim::Interim;
use super::pool::Pool;
use super::request::UpstreamRequest;
use super::response::Response;
use crate::clock::Alarm;
use crate::message::Framing;

/// A request under way on a connection that was there.
pub struct Forwarding {
    pool: Rc<Pool>,
    /// None once it is over.
    exchange: Option<Exchange>,
}

/// What has come of it.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once, and a box would cost each request one")]
pub enum Forwarded {
    /// The head of a response, or there will be none.
    Over(Result<Response, UpstreamError>),
    /// The connection had had its time: to be sent again by [`Pool::send`], which wants to know why.
    Stale(UpstreamError),
}

impl Pool {
    /// Begins with a request, if nothing needs to be waited for, or tried out: neither a connection, nor a body, nor the
    /// word of an upstream that has failed.
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
        self.begin(alarm);
        let exchange = Some(Exchange::new(self, upstream_request, connection, None, alarm));
        Some(Forwarding { pool: self.clone(), exchange })
    }
}

impl Forwarding {
    /// Whose connection it goes by.
    #[must_use]
    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Sends the request, and waits for the response's head; the alarm is for that. Not to be polled once it is ready.
    pub fn poll(&mut self, alarm: &Alarm, interim: &mut dyn Interim, cx: &mut Context<'_>) -> Poll<Forwarded> {
        let Some(exchange) = &mut self.exchange else { return Poll::Pending };
        let outcome = ready!(exchange.poll_head(alarm, interim, cx));
        let address = exchange.address();
        let Some(exchange) = self.exchange.take() else { return Poll::Pending };
        let pool = &self.pool;
        let over = match exchange.end(outcome) {
            Attempt::Stale(_, error) => return Poll::Ready(Forwarded::Stale(error)),
            Attempt::Response(head, rest) => {
                pool.upstream.health.address_answered(address);
                Ok(Response::from_http1(head, rest))
            }
            Attempt::Failed(error) if alarm.is_past_cap() && error.is_timeout() => Err(UpstreamError::TotalTimeout),
            Attempt::Failed(error) => Err(pool.failed_at(address, error)),
        };
        pool.upstream.health.note(over.as_ref().err(), pool.clock.uptime());
        if !over.as_ref().is_ok_and(Response::goes_on) {
            alarm.uncap();
        }
        Poll::Ready(Forwarded::Over(over))
    }
}

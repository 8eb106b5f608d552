//! One request and its response, over either protocol, and which failures are retried.
//!
//! The task that wants the answer polls the exchange. No task, channel or lock stands between the
//! client's connection and the upstream's.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;

use super::error::UpstreamError;
use super::http1::{self, SendOutcome};
use super::http2::{self, StreamFailure};
use super::interim::Interim;
use super::pool::Pool;
use super::pool::budget::RETRIES_MAX;
use super::pool::checkout::{Checkout, Wish};
use super::replay::Unsent;
use super::request::UpstreamRequest;
use super::response::UpstreamResponse;
use super::settings::Protocols;
use super::unprocessed::UnprocessedRetries;
use crate::clock::Alarm;
use crate::telemetry::access::UpstreamFacts;
use crate::wire::body::RequestBody;

/// A request that found its connection at its end, and may be sent again.
struct LostRequest {
    error: UpstreamError,
    address: SocketAddr,
    /// Another request had used the connection before.
    reused: bool,
}

impl Pool {
    /// Sends a request and waits for the response's head.
    ///
    /// All waits on the way use the alarm. If the upstream has a total timeout, it caps the alarm
    /// until the caller takes the cap away. `stale` is the error of a first attempt by
    /// [`Pool::forward_at_once`] on a kept connection.
    ///
    /// pintle retries on a new connection if a kept connection has ended, or if the upstream has
    /// another address. The request must be idempotent (RFC 9110 section 9.2.2), its body unread,
    /// and no byte of an answer received. The retry budget limits these retries.
    ///
    /// A request that an HTTP/2 upstream refused, and promised not to have processed, is retried
    /// whatever its method, if its body can be sent again. Such retries have a time limit of their
    /// own and cost no budget.
    ///
    /// # Errors
    ///
    /// Returns an [`UpstreamError`] if there is no response.
    pub async fn send(
        self: &Rc<Self>,
        upstream_request: &UpstreamRequest<'_>,
        body: Option<RequestBody>,
        stale: Option<UpstreamError>,
        alarm: &Alarm,
        interim: &mut dyn Interim,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let pass = self.upstream.health.admit(self.clock.uptime()).inspect_err(|_| {
            self.counters.circuit_refused.increment();
        })?;
        if stale.is_none() {
            self.begin(alarm);
        }
        let sent = match self.try_send(upstream_request, body, stale, alarm, interim).await {
            // The total timeout is the cause, whichever step it cut short.
            Err(error) if alarm.is_past_cap() && error.is_timeout() => Err(UpstreamError::TotalTimeout),
            sent => sent,
        };
        pass.end(sent.as_ref().err(), self.clock.uptime());
        if !sent.as_ref().is_ok_and(UpstreamResponse::is_under_way) {
            alarm.uncap();
        }
        sent
    }

    /// Counts a request towards the retry budget, and starts its total timeout. Called once,
    /// however often it is sent.
    pub(super) fn begin(&self, alarm: &Alarm) {
        self.budget.earn();
        self.counters.upstream_requests.increment();
        if let Some(total) = self.upstream.total_timeout {
            alarm.cap(total);
        }
    }

    async fn try_send(
        self: &Rc<Self>,
        upstream_request: &UpstreamRequest<'_>,
        body: Option<RequestBody>,
        stale: Option<UpstreamError>,
        alarm: &Alarm,
        interim: &mut dyn Interim,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let protocols = if upstream_request.head.websocket { Protocols::Http1 } else { Protocols::Any };
        let mut wish = Wish { protocols, fresh: false, avoid: None };
        let mut body = body.map(Unsent::New);
        let mut retries = 0;
        let mut unprocessed = None;
        let facts = upstream_request.facts;
        if let Some(error) = stale {
            self.spend_retry(&mut retries, error, facts)?;
            wish.fresh = true;
        }
        loop {
            let lost = match self.checkout(wish, alarm, facts).await? {
                Checkout::Http1(connection, reused) => {
                    let address = connection.address;
                    let unsent = body.take().map(Unsent::into_body);
                    let mut exchange = http1::Exchange::new(self, upstream_request, connection, unsent, alarm);
                    let head = poll_fn(|cx| exchange.poll_head(alarm, interim, cx)).await;
                    match exchange.end(head) {
                        SendOutcome::Response(head, rest) => {
                            return Ok(self.answered(address, UpstreamResponse::from_http1(head, rest)));
                        }
                        SendOutcome::Stale(unsent, error) => {
                            body = unsent.map(Unsent::New);
                            LostRequest { error, address, reused }
                        }
                        SendOutcome::Failed(error) => return Err(self.failed_at(address, error)),
                    }
                }
                Checkout::Http2(stream) => {
                    let address = stream.address();
                    match Box::pin(http2::send(self, stream, upstream_request, body.take(), alarm, interim)).await {
                        Ok((head, rest)) => {
                            return Ok(self.answered(address, UpstreamResponse::from_http2(head, rest)));
                        }
                        Err(StreamFailure::Unprocessed(error, unsent)) => {
                            body = unsent;
                            let retries = unprocessed.get_or_insert_with(|| Box::new(UnprocessedRetries::begin(self)));
                            Box::pin(retries.pause(self, error, alarm)).await?;
                            UpstreamFacts::note(facts, |facts| facts.retries += 1);
                            continue;
                        }
                        Err(StreamFailure::Lost(error, unsent, reused)) => {
                            body = unsent;
                            LostRequest { error, address, reused }
                        }
                        Err(StreamFailure::Final(error)) => return Err(self.failed_at(address, error)),
                    }
                }
            };
            self.retry_lost(lost, &mut wish, &mut retries, facts)?;
        }
    }

    /// Notes that an address has answered.
    fn answered(&self, address: SocketAddr, response: UpstreamResponse) -> UpstreamResponse {
        self.upstream.health.address_answered(address);
        response
    }

    /// Decides whether a lost request is sent again, and on which connection; returns its error if
    /// not.
    ///
    /// A kept connection may have reached its idle timeout. If a new connection ends at once, the
    /// address is at fault: another address may do better, the same one will not.
    fn retry_lost(
        &self,
        lost: LostRequest,
        wish: &mut Wish,
        retries: &mut u32,
        facts: &RefCell<UpstreamFacts>,
    ) -> Result<(), UpstreamError> {
        let LostRequest { error, address, reused } = lost;
        let (error, has_chance) = match reused {
            true => (error, !wish.fresh),
            false => (self.failed_at(address, error), self.upstream.addresses.are_several()),
        };
        if !has_chance {
            return Err(error);
        }
        self.spend_retry(retries, error, facts)?;
        wish.fresh = true;
        wish.avoid = (!reused).then_some(address);
        Ok(())
    }

    /// Spends one retry; returns `error` if the request or the budget has none left.
    fn spend_retry(
        &self,
        retries: &mut u32,
        error: UpstreamError,
        facts: &RefCell<UpstreamFacts>,
    ) -> Result<(), UpstreamError> {
        if *retries == RETRIES_MAX || !self.may_retry() {
            return Err(error);
        }
        *retries += 1;
        UpstreamFacts::note(facts, |facts| facts.retries += 1);
        Ok(())
    }
}

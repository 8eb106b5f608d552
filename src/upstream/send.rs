//! One request and its response, polled by the task that wants the answer: no task, channel or lock stands between the
//! client's connection and the upstream's. Which failures are met by sending it again, for both protocols.

use std::future::poll_fn;
use std::rc::Rc;

use super::error::UpstreamError;
use super::http1::{Attempt, Exchange};
use super::http2;
use super::interim::Interim;
use super::pool::Pool;
use super::pool::budget::RETRIES_MAX;
use super::pool::checkout::{Checkout, Wish};
use super::replay::Unsent;
use super::request::UpstreamRequest;
use super::response::Response;
use super::settings::Protocols;
use super::unprocessed::Refusals;
use crate::clock::Alarm;
use crate::wire::body::RequestBody;

impl Pool {
    /// Sends a request and waits for the response's head. The alarm is used for all waits on the way; where the
    /// upstream has a total timeout, it is capped by it until the caller takes the cap away.
    ///
    /// A request is sent anew, on a new connection, if it is idempotent (RFC 9110 section 9.2.2), its body was not
    /// touched, and not a byte of an answer has come: when a kept connection has ended, or when the upstream has
    /// another address. The budget says how often. One that the upstream has refused over HTTP/2, and promises not to have
    /// processed, is sent anew whatever it is, if its body can be: within its own time, and not at the budget's cost. `stale` is why it has failed already, on a kept connection that was
    /// taken by [`Pool::forward_at_once`].
    ///
    /// # Errors
    ///
    /// [`UpstreamError`], when there is no response.
    pub async fn send(
        self: &Rc<Self>,
        upstream_request: &UpstreamRequest<'_>,
        body: Option<RequestBody>,
        stale: Option<UpstreamError>,
        alarm: &Alarm,
        interim: &mut dyn Interim,
    ) -> Result<Response, UpstreamError> {
        let pass = self.upstream.health.admit(self.clock.uptime()).inspect_err(|_| {
            self.counters.circuit_refused.increment();
        })?;
        if stale.is_none() {
            self.begin(alarm);
        }
        let sent = match self.try_send(upstream_request, body, stale, alarm, interim).await {
            // Whatever it was that took its time.
            Err(error) if alarm.is_past_cap() && error.is_timeout() => Err(UpstreamError::TotalTimeout),
            sent => sent,
        };
        pass.end(sent.as_ref().err(), self.clock.uptime());
        if !sent.as_ref().is_ok_and(Response::goes_on) {
            alarm.uncap();
        }
        sent
    }

    /// A request begins, however often it is sent.
    pub(super) fn begin(&self, alarm: &Alarm) {
        self.budget.earn();
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
    ) -> Result<Response, UpstreamError> {
        let protocols = if upstream_request.head.websocket { Protocols::Http1 } else { Protocols::Any };
        let mut wish = Wish { protocols, fresh: false, avoid: None };
        let mut body = body.map(Unsent::New);
        let mut retries = 0;
        let mut refusals = None;
        if let Some(error) = stale {
            self.spend_retry(&mut retries, error)?;
            wish.fresh = true;
        }
        loop {
            let (address, elsewhere, error);
            match self.checkout(wish, alarm).await? {
                Checkout::Http1(connection, reused) => {
                    (address, elsewhere) = (connection.address, !reused);
                    let unsent = body.take().map(Unsent::into_body);
                    let mut exchange = Exchange::new(self, upstream_request, connection, unsent, alarm);
                    let head = poll_fn(|cx| exchange.poll_head(alarm, interim, cx)).await;
                    match exchange.end(head) {
                        Attempt::Response(head, rest) => {
                            self.upstream.health.address_answered(address);
                            return Ok(Response::from_http1(head, rest));
                        }
                        Attempt::Stale(back, why) => (body, error) = (back.map(Unsent::New), why),
                        Attempt::Failed(error) => return Err(self.failed_at(address, error)),
                    }
                }
                Checkout::Http2(stream) => {
                    address = stream.address();
                    match Box::pin(http2::send(self, stream, upstream_request, body.take(), alarm, interim)).await {
                        Ok((head, body)) => {
                            self.upstream.health.address_answered(address);
                            return Ok(Response::from_http2(head, body));
                        }
                        Err(http2::Failure::Unprocessed(why, back)) => {
                            body = back;
                            let refusals = refusals.get_or_insert_with(|| Box::new(Refusals::begin(self)));
                            Box::pin(refusals.pause(self, why, alarm)).await?;
                            continue;
                        }
                        Err(http2::Failure::Lost(why, back, reused)) => {
                            (body, error, elsewhere) = (back, why, !reused);
                        }
                        Err(http2::Failure::Final(error)) => return Err(self.failed_at(address, error)),
                    }
                }
            }
            // A kept connection may have had its time. A new one that ends at once is the address' fault: another may
            // do better, the same one will not.
            let error = if elsewhere { self.failed_at(address, error) } else { error };
            let hopeful = if elsewhere { self.upstream.addresses.are_several() } else { !wish.fresh };
            if !hopeful {
                return Err(error);
            }
            self.spend_retry(&mut retries, error)?;
            wish.fresh = true;
            wish.avoid = elsewhere.then_some(address);
        }
    }

    /// Leave to send a request anew that failed so; the failure, if there is none.
    fn spend_retry(&self, retries: &mut u32, error: UpstreamError) -> Result<(), UpstreamError> {
        if *retries == RETRIES_MAX || !self.may_retry() {
            return Err(error);
        }
        *retries += 1;
        Ok(())
    }
}

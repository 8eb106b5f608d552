//! One request and its response over HTTP/1.1, polled by the task that wants the answer: no task, channel or lock
//! stands between the client's connection and the upstream's.

mod http1;
mod upload;

use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use super::body::ResponseBody;
use super::error::UpstreamError;
use super::http2;
use super::pool::{Checkout, Pool, Slot};
use super::request::Outbound;
use super::{Protocols, UpstreamTransport};
use crate::body::RequestBody;
use crate::clock::Alarm;
use crate::message::ResponseHead;

pub(super) use http1::Http1Body;
use http1::{Attempt, Exchange};

/// How long the body of a request with `Expect: 100-continue` waits for the upstream's word (RFC 9110 section 10.1.1:
/// a proxy must not wait for ever).
pub(super) const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A response whose head is there.
pub struct Response {
    /// Its head.
    pub head: ResponseHead,
    /// Its body, as far as it goes.
    pub body: ResponseBody,
    /// After a 101: the connection, which is no longer HTTP.
    pub upgraded: Option<Box<Upgraded>>,
}

/// A connection that has switched to WebSocket.
pub struct Upgraded {
    /// The connection.
    pub transport: UpstreamTransport,
    /// What came behind the 101.
    pub received: BytesMut,
    pub(super) _slot: Slot,
}

/// Where interim responses go (1xx, RFC 9110 section 15.2).
pub trait Interim {
    /// Passes one on.
    fn interim(&mut self, head: &ResponseHead);
}

impl Pool {
    /// Sends a request and waits for the response's head. The alarm is used for all waits on the way.
    ///
    /// A request on a kept connection that ended before it answered is sent once more, on a new one, if it is
    /// idempotent (RFC 9110 section 9.2.2) and its body was not touched.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`], when there is no response.
    pub async fn send(
        self: &Rc<Self>,
        outbound: &Outbound<'_>,
        mut body: Option<RequestBody>,
        alarm: &Alarm,
        interim: &mut dyn Interim,
    ) -> Result<Response, UpstreamError> {
        let protocols = if outbound.head.websocket { Protocols::Http1 } else { Protocols::Any };
        let mut fresh = false;
        loop {
            match self.checkout(protocols, fresh, alarm).await? {
                Checkout::Http1(connection, reused) => {
                    let exchange = Exchange::new(self, outbound, connection, body.take());
                    match exchange.run(outbound, alarm, interim).await {
                        Attempt::Response(response) => return Ok(response),
                        // Safe methods, and the body was not touched: it comes back.
                        Attempt::Stale(back) if reused && !fresh => body = back,
                        Attempt::Stale(_) => return Err(UpstreamError::Closed(None)),
                        Attempt::Failed(error) => return Err(error),
                    }
                }
                Checkout::Http2(connection) => {
                    match http2::send(self, connection, outbound, body.take(), alarm, interim).await {
                        Ok(response) => return Ok(response),
                        Err(http2::Failure::Unprocessed(_, back)) if !fresh => body = back,
                        Err(http2::Failure::Unprocessed(error, _) | http2::Failure::Final(error)) => return Err(error),
                    }
                }
            }
            fresh = true;
        }
    }
}

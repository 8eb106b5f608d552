//! The course of an HTTP/2 exchange: the request goes out, interim responses pass, and the head
//! comes.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::response::Parts;
use http::{HeaderName, HeaderValue, StatusCode};

use super::body::Http2Body;
use super::upload::Upload;
use crate::clock::Alarm;
use crate::message::{Fields, Framing, Name, ResponseHead, ResponseLimits, bytes_of, field_fits};
use crate::upstream::error::{HeadLimit, UpstreamError};
use crate::upstream::interim::{CONTINUE_WAIT, INTERIM_MAX, Interim};
use crate::upstream::pool::Pool;
use crate::upstream::pool::connection::StreamPermit;
use crate::upstream::replay::Unsent;
use crate::upstream::request::UpstreamRequest;
use crate::wire::body::RequestBodyError;
use crate::wire::http2_send::{Sender, Unaccounted};
use crate::wire::min_rate::RateTimer;

/// The reason why a request has no response, and whether it may be sent again.
pub(in crate::upstream) enum StreamFailure {
    /// The upstream promised not to have processed the request, or the request was never sent to
    /// it.
    Unprocessed(UpstreamError, Option<Unsent>),
    /// The connection ended before an answer began, and the request may be sent twice: it is
    /// idempotent, and nothing of its body was sent. `true` if the connection has ever brought an
    /// answer.
    Lost(UpstreamError, Option<Unsent>, bool),
    /// Any other failure.
    Final(UpstreamError),
}

/// Sends a request on a stream of its own, and waits for the response's head.
pub(in crate::upstream) async fn send(
    pool: &Rc<Pool>,
    mut stream: StreamPermit,
    upstream_request: &UpstreamRequest<'_>,
    body: Option<Unsent>,
    alarm: &Alarm,
    interim: &mut dyn Interim,
) -> Result<(ResponseHead, Option<Box<Http2Body>>), StreamFailure> {
    alarm.set(pool.upstream.connect_timeout);
    let ready = poll_fn(|cx| match stream.sender().poll_ready(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => alarm.poll_due(cx).map(|()| Err(UpstreamError::QueueTimeout)),
    });
    if let Err(error) = ready.await.map_err(StreamFailure::Final)? {
        stream.retire();
        return Err(StreamFailure::Unprocessed(UpstreamError::Http2(error), body));
    }
    let formless = |_| StreamFailure::Final(UpstreamError::Malformed("the request has no form in HTTP/2"));
    let request = upstream_request.to_http2(&pool.upstream).map_err(formless)?;
    let (response, sender) = match stream.sender().send_request(request, body.is_none()) {
        Ok(sent) => sent,
        Err(error) if error.is_go_away() || error.is_io() => {
            stream.retire();
            return Err(StreamFailure::Unprocessed(UpstreamError::Http2(error), body));
        }
        Err(error) => return Err(StreamFailure::Final(UpstreamError::Http2(error))),
    };
    let expects_continue = upstream_request.head.expects_continue();
    let upload = body.map(|body| {
        let body = body.into_replay(pool.limits().retry_body);
        // A body that was asked for once is sent at once.
        let held = expects_continue && !body.is_asked_for();
        Upload { body, sender: Sender::new(sender, Unaccounted), held, done: false }
    });
    let mut exchange = Exchange::new(pool, response, upload);
    alarm.set(if exchange.is_held() { CONTINUE_WAIT } else { exchange.timeout() });
    match poll_fn(|cx| exchange.poll_head(alarm, interim, cx)).await {
        Ok((head, recv)) => {
            stream.answered();
            Ok(exchange.respond(head, recv, stream))
        }
        Err(error) => Err(exchange.failed(error, upstream_request.method().is_idempotent(), &stream)),
    }
}

struct Exchange<'p> {
    pool: &'p Pool,
    response: ResponseFuture,
    upload: Option<Upload>,
    waits_for_client: bool,
    rate_timer: RateTimer,
    interims: usize,
    /// The upstream has begun to answer. A later promise not to have processed the request is not
    /// believed.
    begun: bool,
}

impl<'p> Exchange<'p> {
    fn new(pool: &'p Pool, response: ResponseFuture, upload: Option<Upload>) -> Self {
        Self {
            pool,
            response,
            upload,
            waits_for_client: false,
            rate_timer: RateTimer::new(pool.limits().min_rate),
            interims: 0,
            begun: false,
        }
    }

    fn timeout(&self) -> Duration {
        self.pool.upstream.response_timeout
    }

    /// Returns `true` while the body waits for a 100.
    fn is_held(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.held)
    }

    fn poll_head(
        &mut self,
        alarm: &Alarm,
        interim: &mut dyn Interim,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Parts, RecvStream), UpstreamError>> {
        loop {
            self.poll_upload(alarm, cx)?;
            if let Poll::Ready(Some(informational)) = self.response.poll_informational(cx) {
                let informational = informational.map_err(UpstreamError::Http2)?;
                self.pass_interim(&informational, alarm, interim)?;
                continue;
            }
            if let Poll::Ready(response) = Pin::new(&mut self.response).poll(cx) {
                let (parts, recv) = response.map_err(UpstreamError::Http2)?.into_parts();
                check_size(&parts, &self.pool.limits().response_head)?;
                return Poll::Ready(Ok((parts, recv)));
            }
            ready!(alarm.poll_due(cx));
            self.overdue(alarm, interim)?;
        }
    }

    /// Sends what the body has, and sets the alarm for whoever is waited for.
    fn poll_upload(&mut self, alarm: &Alarm, cx: &mut Context<'_>) -> Result<(), UpstreamError> {
        let mut moved = 0;
        if let Some(upload) = self.upload.as_mut().filter(|upload| !upload.done) {
            match upload.poll(cx, &mut moved) {
                Poll::Ready(done) => {
                    done?;
                    moved = 1;
                    self.waits_for_client = false;
                }
                Poll::Pending => self.waits_for_client = !upload.held && upload.sender.waits_for_body(),
            }
        }
        if self.waits_for_client {
            self.rate_timer.wait_for_client(moved as u64, alarm);
        } else if !self.is_held() {
            self.rate_timer.wait_for_other(moved > 0, self.timeout(), alarm);
        }
        Ok(())
    }

    fn pass_interim(
        &mut self,
        informational: &http::Response<()>,
        alarm: &Alarm,
        interim: &mut dyn Interim,
    ) -> Result<(), UpstreamError> {
        let status = informational.status();
        // HTTP/2 has no 101 (RFC 9113 section 8.6).
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(UpstreamError::Upgrade("101 over HTTP/2"));
        }
        self.interims += 1;
        // Upstreams often send 100 before anybody has looked at the request.
        self.begun |= status != StatusCode::CONTINUE;
        if self.interims > INTERIM_MAX {
            return Err(UpstreamError::Malformed("too many interim responses"));
        }
        if status == StatusCode::CONTINUE {
            self.release_body(alarm);
        }
        interim.interim(&head_of(status, informational.headers()));
        Ok(())
    }

    /// Sends the body that waits for a 100, from now on.
    fn release_body(&mut self, alarm: &Alarm) {
        let timeout = self.timeout();
        if let Some(upload) = &mut self.upload {
            upload.held = false;
            alarm.set(timeout);
        }
    }

    /// Handles an alarm that rang: continues without a 100, or says whose time is up.
    fn overdue(&mut self, alarm: &Alarm, interim: &mut dyn Interim) -> Result<(), UpstreamError> {
        if self.is_held() {
            interim.interim(&ResponseHead { status: StatusCode::CONTINUE, ..ResponseHead::default() });
            self.release_body(alarm);
            return Ok(());
        }
        Err(match &self.upload {
            Some(_) if self.waits_for_client => UpstreamError::RequestBody(RequestBodyError::TooSlow),
            _ if alarm.is_past_cap() => UpstreamError::TotalTimeout,
            _ => UpstreamError::ResponseTimeout,
        })
    }

    /// Judges an exchange that has brought no response.
    fn failed(self, error: UpstreamError, idempotent: bool, stream: &StreamPermit) -> StreamFailure {
        let UpstreamError::Http2(e) = &error else {
            // The cause may be one slow page, or a dead connection on which each request would take
            // as long again.
            let ends = matches!(
                error,
                UpstreamError::ResponseTimeout
                    | UpstreamError::TotalTimeout
                    | UpstreamError::Malformed(_)
                    | UpstreamError::HeadLimit(_)
            );
            if ends {
                stream.retire();
            }
            return StreamFailure::Final(error);
        };
        if e.is_go_away() || e.is_io() {
            stream.retire();
        }
        // h2 reports a GOAWAY, whatever its code, to the streams beyond the last one that it names.
        // The upstream has not processed these (RFC 9113 section 6.8).
        let refused = e.is_remote() && (e.is_go_away() || e.reason() == Some(Reason::REFUSED_STREAM));
        let lost = e.is_io() && idempotent && self.upload.as_ref().is_none_or(|upload| upload.body.is_untouched());
        if self.begun || !(refused || lost) {
            return StreamFailure::Final(error);
        }
        let body = match self.upload.map(|upload| upload.body) {
            None => None,
            Some(mut body) => match body.rewind() {
                true => Some(Unsent::Kept(body)),
                false => return StreamFailure::Final(error),
            },
        };
        match refused {
            true => StreamFailure::Unprocessed(error, body),
            false => StreamFailure::Lost(error, body, stream.has_answered()),
        }
    }

    /// Makes a response's head, and its body unless all is over.
    fn respond(self, parts: Parts, recv: RecvStream, stream: StreamPermit) -> (ResponseHead, Option<Box<Http2Body>>) {
        let mut head = head_of(parts.status, &parts.headers);
        let length = head.fields.get(Name::ContentLength).and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
        head.framing = match length {
            _ if recv.is_end_stream() => Framing::None,
            Some(n) => Framing::Length(n),
            None => Framing::Chunked,
        };
        let mut upload = self.upload.filter(|upload| !upload.done);
        if let Some(upload) = &mut upload {
            upload.body.settle();
        }
        let is_over = recv.is_end_stream() && upload.is_none();
        (head, (!is_over).then(|| Box::new(Http2Body { recv, upload, data_ended: false, stream })))
    }
}

/// Holds a response's head to its limits.
fn check_size(parts: &Parts, limits: &ResponseLimits) -> Result<(), UpstreamError> {
    if bytes_of(&parts.headers) > limits.head {
        return Err(UpstreamError::HeadLimit(HeadLimit::Size));
    }
    if parts.headers.len() > limits.fields {
        return Err(UpstreamError::HeadLimit(HeadLimit::Count));
    }
    let fits = |(name, value): (&HeaderName, &HeaderValue)| {
        field_fits(name.as_str().as_bytes(), value.as_bytes(), limits.field)
    };
    if !parts.headers.iter().all(fits) {
        return Err(UpstreamError::HeadLimit(HeadLimit::Field));
    }
    Ok(())
}

fn head_of(status: StatusCode, fields: &http::HeaderMap) -> ResponseHead {
    let mut head = ResponseHead { status, fields: Fields::from(fields), ..ResponseHead::default() };
    head.fields.remove_if(|name, _, _| name.is_hop_by_hop());
    head
}

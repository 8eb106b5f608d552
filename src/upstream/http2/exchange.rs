//! The course of an HTTP/2 exchange: the request goes out, interim responses pass, and the head comes.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};

use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::{HeaderName, HeaderValue, StatusCode};

use super::body::Http2Body;
use super::upload::Upload;
use crate::clock::Alarm;
use crate::message::{Fields, Framing, Name, ResponseHead, bytes_of, field_fits};
use crate::upstream::error::UpstreamError;
use crate::upstream::interim::{CONTINUE_WAIT, INTERIM_MAX, Interim};
use crate::upstream::pool::Pool;
use crate::upstream::pool::http2::Stream;
use crate::upstream::replay::Unsent;
use crate::upstream::request::UpstreamRequest;
use crate::wire::body::RequestBodyError;
use crate::wire::http2_send::{Sender, Unaccounted};
use crate::wire::min_rate::RateTimer;

/// What may be tried again, and what may not.
pub(in crate::upstream) enum Failure {
    /// The upstream has not processed the request, and has promised so, or has not even been sent it.
    Unprocessed(UpstreamError, Option<Unsent>),
    /// The connection ended before an answer began, and nothing was sent of the body: of requests that may be sent twice.
    /// Says whether the connection has ever brought an answer.
    Lost(UpstreamError, Option<Unsent>, bool),
    Final(UpstreamError),
}

/// Sends a request on a stream of its own, and waits for the response's head.
pub(in crate::upstream) async fn send(
    pool: &Rc<Pool>,
    mut stream: Stream,
    upstream_request: &UpstreamRequest<'_>,
    body: Option<Unsent>,
    alarm: &Alarm,
    interim: &mut dyn Interim,
) -> Result<(ResponseHead, Option<Box<Http2Body>>), Failure> {
    alarm.set(pool.upstream.connect_timeout);
    let ready = poll_fn(|cx| match stream.sender().poll_ready(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => alarm.poll_due(cx).map(|()| Err(UpstreamError::QueueTimeout)),
    });
    if let Err(error) = ready.await.map_err(Failure::Final)? {
        stream.retire();
        return Err(Failure::Unprocessed(UpstreamError::Http2(error), body));
    }
    let formless = |_| Failure::Final(UpstreamError::Malformed("the request has no form in HTTP/2"));
    let request = upstream_request.to_http2(&pool.upstream).map_err(formless)?;
    let (response, sender) = match stream.sender().send_request(request, body.is_none()) {
        Ok(sent) => sent,
        Err(error) if error.is_go_away() || error.is_io() => {
            stream.retire();
            return Err(Failure::Unprocessed(UpstreamError::Http2(error), body));
        }
        Err(error) => return Err(Failure::Final(UpstreamError::Http2(error))),
    };
    let expects_continue = upstream_request.head.expects_continue();
    let mut exchange = Exchange {
        response,
        upload: body.map(|body| {
            let body = body.into_replay(pool.limits().retry_body);
            // Once it was asked for, it comes.
            let held = expects_continue && !body.is_asked_for();
            Upload { body, sender: Sender::new(sender, Unaccounted), held, done: false }
        }),
        waits_for_client: false,
        begun: false,
    };
    match exchange.head(pool, alarm, interim).await {
        Ok((head, recv)) => {
            stream.answered();
            Ok(exchange.respond(head, recv, stream))
        }
        Err(error) => Err(exchange.failed(error, upstream_request.method().is_idempotent(), &stream)),
    }
}

struct Exchange {
    response: ResponseFuture,
    upload: Option<Upload>,
    waits_for_client: bool,
    /// The upstream has begun to answer: what it says then of not having processed anything is not true.
    begun: bool,
}

impl Exchange {
    async fn head(
        &mut self,
        pool: &Pool,
        alarm: &Alarm,
        interim: &mut dyn Interim,
    ) -> Result<(http::response::Parts, RecvStream), UpstreamError> {
        let timeout = pool.upstream.response_timeout;
        alarm.set(if self.upload.as_ref().is_some_and(|u| u.held) { CONTINUE_WAIT } else { timeout });
        let mut rate_timer = RateTimer::new(pool.limits().min_rate);
        let mut interims = 0;
        poll_fn(|cx| {
            loop {
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
                    rate_timer.wait_for_client(moved as u64, alarm);
                } else if !self.upload.as_ref().is_some_and(|u| u.held) {
                    rate_timer.wait_for_other(moved > 0, timeout, alarm);
                }
                if let Poll::Ready(Some(informational)) = self.response.poll_informational(cx) {
                    let informational = informational.map_err(UpstreamError::Http2)?;
                    // RFC 9113 section 8.6: HTTP/2 has no such thing.
                    if informational.status() == StatusCode::SWITCHING_PROTOCOLS {
                        return Poll::Ready(Err(UpstreamError::Upgrade("101 over HTTP/2")));
                    }
                    interims += 1;
                    // That one is often said before anybody has looked at the request.
                    self.begun |= informational.status() != StatusCode::CONTINUE;
                    if interims > INTERIM_MAX {
                        return Poll::Ready(Err(UpstreamError::Malformed("too many interim responses")));
                    }
                    if informational.status() == StatusCode::CONTINUE
                        && let Some(upload) = &mut self.upload
                    {
                        upload.held = false;
                        alarm.set(timeout);
                    }
                    interim.interim(&head_of(informational.status(), informational.headers()));
                    continue;
                }
                if let Poll::Ready(response) = std::pin::Pin::new(&mut self.response).poll(cx) {
                    let (parts, recv) = response.map_err(UpstreamError::Http2)?.into_parts();
                    let limits = pool.limits().response_head;
                    if bytes_of(&parts.headers) > limits.head || parts.headers.len() > limits.fields {
                        return Poll::Ready(Err(UpstreamError::Malformed("head too large")));
                    }
                    let fits = |name: &HeaderName, value: &HeaderValue| {
                        field_fits(name.as_str().as_bytes(), value.as_bytes(), limits.field)
                    };
                    if !parts.headers.iter().all(|(name, value)| fits(name, value)) {
                        return Poll::Ready(Err(UpstreamError::Malformed("field too large")));
                    }
                    return Poll::Ready(Ok((parts, recv)));
                }
                ready!(alarm.poll_due(cx));
                match &mut self.upload {
                    Some(upload) if upload.held => {
                        upload.held = false;
                        interim.interim(&ResponseHead { status: StatusCode::CONTINUE, ..ResponseHead::default() });
                        alarm.set(timeout);
                    }
                    Some(_) if self.waits_for_client => {
                        return Poll::Ready(Err(UpstreamError::RequestBody(RequestBodyError::TooSlow)));
                    }
                    _ if alarm.is_past_cap() => return Poll::Ready(Err(UpstreamError::TotalTimeout)),
                    _ => return Poll::Ready(Err(UpstreamError::ResponseTimeout)),
                }
            }
        })
        .await
    }

    /// What has come of it, without an answer.
    fn failed(self, error: UpstreamError, idempotent: bool, stream: &Stream) -> Failure {
        let UpstreamError::Http2(e) = &error else {
            // It may be one slow page, or a connection that leads nowhere any more, where each request would take as long
            // again.
            let ends = matches!(
                error,
                UpstreamError::ResponseTimeout | UpstreamError::TotalTimeout | UpstreamError::Malformed(_)
            );
            if ends {
                stream.retire();
            }
            return Failure::Final(error);
        };
        if e.is_go_away() || e.is_io() {
            stream.retire();
        }
        // Of GOAWAY, h2 gives its error to streams that lie beyond the last one it names, whatever its code: these were not
        // processed (RFC 9113 section 6.8).
        let refused = e.is_remote() && (e.is_go_away() || e.reason() == Some(Reason::REFUSED_STREAM));
        let lost = e.is_io() && idempotent && self.upload.as_ref().is_none_or(|upload| upload.body.is_untouched());
        if self.begun || !(refused || lost) {
            return Failure::Final(error);
        }
        let body = match self.upload.map(|upload| upload.body) {
            None => None,
            Some(mut body) => match body.rewind() {
                true => Some(Unsent::Kept(body)),
                false => return Failure::Final(error),
            },
        };
        match refused {
            true => Failure::Unprocessed(error, body),
            false => Failure::Lost(error, body, stream.has_answered()),
        }
    }

    fn respond(
        self,
        parts: http::response::Parts,
        recv: RecvStream,
        stream: Stream,
    ) -> (ResponseHead, Option<Box<Http2Body>>) {
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
        let goes_on = !recv.is_end_stream() || upload.is_some();
        (head, goes_on.then(|| Box::new(Http2Body { recv, upload, trailers: false, stream })))
    }
}

fn head_of(status: StatusCode, fields: &http::HeaderMap) -> ResponseHead {
    let mut head = ResponseHead { status, fields: Fields::from(fields), ..ResponseHead::default() };
    head.fields.remove_if(|name, _, _| name.is_hop_by_hop());
    head
}

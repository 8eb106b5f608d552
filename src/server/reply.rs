//! An answer on its way to the client: the upstream's or our own, with the site's policies applied.

use std::task::{Context, Poll, ready};

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::snapshot::SiteOfView;
use super::why::Why;
use crate::message::{FieldSink, Framing, Name, ResponseHead, content_length};
use crate::mixed::media::is_document;
use crate::site::{HeaderRules, Site};
use crate::upstream::{ResponseBody, UpgradedConnection, UpstreamError};
use crate::wire::body::{Body, Frame};

/// An answer.
pub(super) struct Reply {
    /// The head, without the fields that policies add.
    pub head: ResponseHead,
    /// The body.
    pub body: ResponseBody,
    /// The site whose policies apply.
    pub(super) site: Option<SiteOfView>,
    /// `true` if the client came over TLS.
    pub secure: bool,
    /// `true` if HSTS and pins may go with it: the client came over TLS (RFC 6797 section 7.2), for a host of the site.
    pub(super) noted: bool,
    /// `true` if the site's pins may go with it.
    pub pinned: bool,
    /// `true` if the upstream made it. Header rules do not remove the fields that a page of our own needs.
    pub forwarded: bool,
    /// `true` for an answer to gRPC, which has trailers.
    pub grpc: bool,
    /// The number of the stored response that is its body, whole.
    pub(super) stored: Option<u64>,
    /// The request fields that it depends on. A cache must not serve it to requests that differ in them.
    pub(super) vary: Option<&'static str>,
    /// The WebSocket behind a 101.
    pub upgraded: Option<Box<UpgradedConnection>>,
    /// `true` if the client's connection must end with this answer.
    pub closes: bool,
    /// The cause of a refusal, for the access log.
    pub error: Option<String>,
    /// The end of the request as data.
    pub(super) why: Why,
    /// The time at which pintle began to send it. `None` if nobody measures.
    pub(super) begun: Option<Instant>,
}

impl Reply {
    /// A reply that pintle makes itself, with no policy and no connection to close.
    pub(super) fn local(head: ResponseHead, body: ResponseBody) -> Self {
        Self {
            head,
            body,
            site: None,
            secure: false,
            noted: false,
            pinned: false,
            forwarded: false,
            grpc: false,
            stored: None,
            vary: None,
            upgraded: None,
            closes: false,
            error: None,
            why: Why::default(),
            begun: None,
        }
    }

    /// Notes the time at which pintle begins to send it; `None` if nobody measures. That of an upstream's is known earlier.
    pub(super) fn begins(&mut self, now: Option<Instant>) {
        self.begun = self.begun.or(now);
    }

    /// Returns the length of the body in bytes, if it is known.
    pub(super) fn length(&self) -> Option<u64> {
        match &self.body {
            ResponseBody::Empty => Some(0),
            ResponseBody::Full(data) => Some(data.len() as u64),
            _ => match self.head.framing {
                Framing::Length(n) => Some(n),
                _ => None,
            },
        }
    }

    /// Returns `true` if Content-Length describes a body that is not sent (RFC 9110 section 8.6).
    pub(super) fn keeps_length_field(&self, method: &Method) -> bool {
        *method == Method::HEAD || self.head.status == StatusCode::NOT_MODIFIED
    }

    /// Returns the length of that body, if the head states one. pintle writes the field itself: a list of equal numbers can be
    /// read in two ways.
    pub(super) fn stated_length(&self, method: &Method) -> Option<u64> {
        self.keeps_length_field(method).then(|| content_length(&self.head.fields).ok().flatten()).flatten()
    }

    /// Writes all fields except those of framing and connection. `date` is for an answer that has none.
    pub(super) fn write_fields<S: FieldSink>(&self, sink: &mut S, date: &str) {
        let rules = self.rules();
        let keeps_hsts = self.site.as_ref().is_some_and(|s| s.hsts.is_none() || s.keeps_upstream_hsts());
        let (mut dated, mut has_hsts) = (false, false);
        for field in self.head.fields.list() {
            match field.name {
                Name::ContentLength => continue,
                Name::Date => dated = true,
                // Exactly one, and only over TLS.
                Name::StrictTransportSecurity
                    if (!self.noted || !keeps_hsts || std::mem::replace(&mut has_hsts, true)) =>
                {
                    continue;
                }
                // The upstream's pins are for the upstream's keys; under the site's name nobody could keep them.
                Name::PublicKeyPins | Name::PublicKeyPinsReportOnly => continue,
                // The upstream's alternatives lead past pintle, or nowhere.
                Name::AltSvc => continue,
                Name::Te => continue,
                Name::Trailer => {
                    self.write_announced_trailers(self.head.fields.value(field), sink);
                    continue;
                }
                _ => {}
            }
            let bytes = self.head.fields.name(field);
            if !rules.is_some_and(|r| r.drops(bytes)) || self.needs(bytes) {
                sink.copy(&self.head.fields, field);
            }
        }
        if !dated {
            sink.field(b"Date", date.as_bytes());
        }
        if let Some(vary) = self.vary {
            sink.field(b"Vary", vary.as_bytes());
        }
        let Some(site) = &self.site else { return };
        if self.noted {
            self.write_document_fields(site, sink);
            if let (Some(hsts), false) = (&site.hsts, has_hsts) {
                sink.rendered(&hsts.field);
            }
            if let (Some(hpkp), true) = (&site.hpkp, self.pinned) {
                sink.rendered(&hpkp.field);
            }
        }
        match rules {
            Some(rules) if self.forwarded && self.noted => sink.rendered(&rules.added),
            Some(rules) => {
                let taken =
                    |name: &str| self.head.fields.iter().any(|(_, own, _)| own.eq_ignore_ascii_case(name.as_bytes()));
                // A rule may also set a policy.
                let passes = |name: &str| self.noted || !Name::of(name.as_bytes()).is_policy();
                let added = rules.added.iter().filter(|(name, _)| !taken(name) || !self.needs(name.as_bytes()));
                let added = added.filter(|(name, _)| passes(name));
                added.for_each(|(name, value)| sink.field(name.as_bytes(), value));
            }
            None => {}
        }
    }

    /// Writes the fields against mixed content, if the upstream has sent a document.
    fn write_document_fields<S: FieldSink>(&self, site: &Site, sink: &mut S) {
        if let Some(mixed) = site.mixed.as_ref().filter(|_| self.forwarded)
            && is_document(&self.head)
        {
            sink.rendered(&mixed.document_fields);
        }
    }

    /// Returns the site's rules, for https only: over http there are only redirects and challenges.
    fn rules(&self) -> Option<&HeaderRules> {
        self.site.as_ref().filter(|_| self.secure).map(|site| &*site.response)
    }

    /// Returns `true` if a page of our own needs this field, such as Location, Content-Type or Cache-Control.
    fn needs(&self, name: &[u8]) -> bool {
        !self.forwarded && !name.eq_ignore_ascii_case(b"Proxy-Status")
    }

    /// Writes a `Trailer` field without the trailers that do not pass.
    fn write_announced_trailers<S: FieldSink>(&self, value: &[u8], sink: &mut S) {
        let Some(rules) = self.rules().filter(|_| self.head.framing == Framing::Chunked) else { return };
        let announced = rules.announced_trailers(value, self.grpc);
        if !announced.is_empty() {
            sink.field(b"Trailer", &announced);
        }
    }
}

/// The body, with only the trailers that may pass.
impl Body for Reply {
    type Error = UpstreamError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, UpstreamError>>> {
        let mut frame = ready!(self.body.poll_frame(cx));
        if let Some(Ok(Frame::Trailers(fields))) = &mut frame {
            match self.rules() {
                Some(rules) => rules.keep_trailers(fields, self.grpc.then_some(&self.head.fields)),
                None => fields.clear(),
            }
            if fields.is_empty() {
                return Poll::Ready(None);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end(&self) -> bool {
        self.body.is_end()
    }

    fn read_at_most(&mut self, bytes: usize) {
        self.body.read_at_most(bytes);
    }
}

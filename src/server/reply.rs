//! An answer on its way to the client: the upstream's or our own, with the site's policy written over it.

use http::{Method, StatusCode};

use super::snapshot::SiteOfView;
use crate::message::{FieldSink, Framing, Name, ResponseHead};
use crate::upstream::{ResponseBody, Upgraded};

/// An answer.
pub(super) struct Reply {
    /// Its head, without what the policies add.
    pub head: ResponseHead,
    /// Its body.
    pub body: ResponseBody,
    /// The site whose policies apply.
    pub(super) site: Option<SiteOfView>,
    /// Whether the client came over TLS: HSTS and pins travel over TLS only (RFC 6797 section 7.2).
    pub secure: bool,
    /// Whether the site's pins may go with it.
    pub pinned: bool,
    /// Whether the upstream made it, so that the site's header rules apply.
    pub forwarded: bool,
    /// The scheme came from a header: caches in front must not serve the answer to the other scheme.
    pub(super) varies: bool,
    /// The WebSocket behind a 101.
    pub upgraded: Option<Box<Upgraded>>,
    /// The client's connection must end with this answer.
    pub closes: bool,
    /// Why it is our own, for the log.
    pub error: Option<String>,
    /// How long the upstream took to its head, if it was asked.
    pub upstream_time: Option<std::time::Duration>,
}

impl Reply {
    /// The number of the body's octets, if it is known.
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

    /// Whether the head's own Content-Length speaks of a body that is not sent (RFC 9110 section 8.6).
    pub(super) fn keeps_length_field(&self, method: &Method) -> bool {
        *method == Method::HEAD || self.head.status == StatusCode::NOT_MODIFIED
    }

    /// Writes the fields, all but those of framing and connection. `date` is for answers that have none.
    pub(super) fn write_fields<S: FieldSink>(&self, sink: &mut S, date: &str) {
        let rules = self.site.as_ref().filter(|_| self.forwarded).map(|site| &site.response);
        let keeps_hsts = self.site.as_ref().is_some_and(|s| s.hsts.is_none() || s.keeps_upstream_hsts());
        let (mut dated, mut has_hsts) = (false, false);
        for (name, octets, value) in self.head.fields.iter() {
            match name {
                Name::ContentLength => continue,
                Name::Date => dated = true,
                // Exactly one, over TLS only, whoever makes it.
                Name::StrictTransportSecurity
                    if (!self.secure || !keeps_hsts || std::mem::replace(&mut has_hsts, true)) =>
                {
                    continue;
                }
                // The upstream's pins are of the upstream's keys; under our name they would be a promise nobody keeps.
                Name::PublicKeyPins | Name::PublicKeyPinsReportOnly => continue,
                Name::Te => continue,
                Name::Trailer if !matches!(self.head.framing, Framing::Chunked) => continue,
                _ => {}
            }
            if !rules.is_some_and(|r| r.drops(octets)) {
                sink.field(octets, value);
            }
        }
        if !dated {
            sink.field(b"Date", date.as_bytes());
        }
        if self.varies {
            sink.field(b"Vary", b"X-Forwarded-Proto");
        }
        let Some(site) = &self.site else { return };
        if self.secure {
            if let (Some(hsts), false) = (&site.hsts, has_hsts) {
                sink.rendered(&hsts.field);
            }
            if let (Some(hpkp), true) = (&site.hpkp, self.pinned) {
                sink.rendered(&hpkp.field);
            }
        }
        if let Some(rules) = rules {
            sink.rendered(&rules.added);
        }
    }
}

//! A site: its names, and the rules for its messages. All of it is prepared when the configuration
//! is loaded.

use std::sync::Arc;

use crate::compression::{CompressionRules, UpstreamTags};
use crate::host::HostPattern;
use crate::lease::Lease;
use crate::message::{Fields, Name, Rendered, folds_to, is_forbidden_trailer, tokens};
use crate::mixed::policy::MixedContent;
use crate::policy::hpkp::Hpkp;
use crate::policy::hsts::{Hsts, UpstreamHeader};

/// One `[[site]]`.
#[derive(Debug, Default)]
pub struct Site {
    /// Its name in logs and messages: the first host.
    pub name: Box<str>,
    /// Its names; the first is the canonical one.
    pub hosts: Vec<HostPattern>,
    /// Requests for its other names are redirected to this name.
    pub canonical: Option<Box<str>>,
    /// Strict-Transport-Security.
    pub hsts: Option<RenderedPolicy<Hsts>>,
    /// Public-Key-Pins.
    pub hpkp: Option<PinHeader>,
    /// Rules for request headers.
    pub request: Arc<HeaderRules>,
    /// Rules for response headers.
    pub response: Arc<HeaderRules>,
    /// The compression of its responses, if it has one.
    pub compression: Option<SiteCompression>,
    /// `true` if pintle refuses TLS for names of it: it has no certificate, or one that does not
    /// cover them all.
    pub refuses_names: bool,
    /// `true` if its requests have no records in the access log.
    pub unlogged: bool,
    /// Tools against mixed content.
    pub mixed: Option<Box<MixedContent>>,
    /// `true` if its upstream is asked once a request's body is complete.
    pub buffers_requests: bool,
}

impl Site {
    /// Returns its name in logs and messages: the first host.
    #[must_use]
    pub fn label(&self) -> String {
        self.hosts.first().map(ToString::to_string).unwrap_or_default()
    }

    /// Returns `true` if the upstream's own Strict-Transport-Security takes precedence over ours.
    #[must_use]
    pub fn keeps_upstream_hsts(&self) -> bool {
        self.hsts.as_ref().is_some_and(|p| p.policy.upstream == UpstreamHeader::Keep)
    }
}

/// The compression of a site's responses.
#[derive(Debug)]
pub struct SiteCompression {
    /// The settings.
    pub rules: Arc<CompressionRules>,
    /// The known facts about entity tags of its upstream.
    pub tags: UpstreamTags,
}

impl SiteCompression {
    /// Makes the compression of a site.
    #[must_use]
    pub fn new(rules: Arc<CompressionRules>) -> Self {
        Self { rules, tags: UpstreamTags::default() }
    }
}

/// A policy and its rendered field.
#[derive(Debug)]
pub struct RenderedPolicy<T> {
    /// The policy.
    pub policy: T,
    /// Its field.
    pub field: Rendered,
}

/// The pin policy, its rendered field, and the permission to send it.
#[derive(Debug)]
pub struct PinHeader {
    /// The policy.
    pub policy: Hpkp,
    /// Its field.
    pub field: Rendered,
    /// Holds while the ledger permits sending the field.
    pub lease: Arc<Lease>,
}

/// The place to which clients send reports of pins that did not match (RFC 7469 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportsAt {
    /// A host of one of the sites.
    pub host: Box<str>,
    /// A path on it.
    pub path: Box<str>,
}

/// Header fields that the operator removes, replaces or adds.
#[derive(Debug, Default)]
pub struct HeaderRules {
    /// Names of dropped fields, in the form of [`folded`](crate::message::folded): those of
    /// `remove` and `set`.
    pub dropped: Vec<Box<[u8]>>,
    /// Names of permitted trailers: those of `trailers`.
    pub trailers: Vec<Box<[u8]>>,
    /// The fields of `set` and `add`.
    pub added: Rendered,
}

impl HeaderRules {
    /// Returns `true` if fields of this name are dropped. Includes names that a CGI-style server
    /// cannot distinguish from it.
    #[must_use]
    pub fn drops(&self, name: &[u8]) -> bool {
        self.dropped.iter().any(|d| folds_to(name, d))
    }

    /// Drops all trailers except those of `trailers`. A gRPC response, whose head is `grpc`, also
    /// keeps the trailers that gRPC defines, and those that its head announces.
    pub fn keep_trailers(&self, trailers: &mut Fields, grpc: Option<&Fields>) {
        if let Some(head) = grpc {
            trailers.mark(head.get_all(Name::Trailer).flat_map(tokens));
        }
        trailers.retain(|trailer, name| {
            let of_grpc = trailer.is_named() || name.get(..5).is_some_and(|b| b.eq_ignore_ascii_case(b"grpc-"));
            self.passes_trailer(name, grpc.is_some() && of_grpc)
        });
    }

    /// Returns the value of a `Trailer` field with only those names whose trailers may pass. It is empty if none may.
    /// `grpc` says that the message is a gRPC response, whose trailers pass if they are announced.
    #[must_use]
    pub fn announced_trailers(&self, value: &[u8], grpc: bool) -> Vec<u8> {
        let names: Vec<&[u8]> = tokens(value).filter(|name| self.passes_trailer(name, grpc)).collect();
        names.join(&b", "[..])
    }

    /// Returns `true` if a trailer passes: `trailers` names it or `of_grpc` is true, no rule drops it, and its field may
    /// stand in a trailer section. A name that looks like one of `trailers` does not pass.
    fn passes_trailer(&self, name: &[u8], of_grpc: bool) -> bool {
        let is_named = of_grpc || self.trailers.iter().any(|passing| name.eq_ignore_ascii_case(passing));
        is_named && !self.drops(name) && !is_forbidden_trailer(name)
    }
}

//! Filters interim responses (1xx, RFC 9110 section 15.2): nothing passes to a client that a policy of the site concerns.
//!
//! 100 passes once, to clients that wait for it. 103 (RFC 8297) passes with its Link fields, unless the site's rules
//! remove those; without a Link field it does not pass. Their targets are rewritten as those of the response are. All
//! others pass as their status code alone, since a proxy has to forward them (RFC 9110 section 15.2). Only 103 has
//! fields.

use std::borrow::Cow;

use http::StatusCode;

use super::asked::Turn;
use crate::message::{RequestHead, ResponseHead};
use crate::mixed::policy::RewriteRules;
use crate::mixed::{OwnNames, fields};
use crate::policy::redirect::HttpsPorts;
use crate::site::HeaderRules;

/// The part that passes.
pub(super) enum PassedPart {
    /// The status code, without fields.
    Bare,
    /// 103, with the fields that `hints` gives.
    Hints,
}

/// The state of one request's interim responses.
pub(super) struct InterimFilter<'a> {
    rules: Option<&'a HeaderRules>,
    expects_continue: bool,
    references: Option<References<'a>>,
}

/// The parts of the names for rewritten references. They are put together when a 103 comes, since most requests have none.
struct References<'a> {
    rules: &'a RewriteRules,
    host: &'a str,
    /// The port in the site's URLs, if it is not 443.
    port: Option<u16>,
}

impl References<'_> {
    fn names(&self) -> OwnNames {
        OwnNames::new(self.rules.names.clone(), self.host, self.port)
    }
}

impl<'a> InterimFilter<'a> {
    /// Returns the filter for the answer to a request, under the rules of its site.
    pub(super) fn of(turn: &Turn<'a>) -> Self {
        let Turn { head, asked, context, .. } = *turn;
        let mut filter = Self::new(head, asked.site.as_ref().map(|site| &*site.response));
        let mixed = asked.site.as_ref().and_then(|site| site.mixed.as_ref());
        filter.references = mixed.and_then(|mixed| mixed.rewrites.as_ref()).map(|rules| {
            let ports = context.worker.https_ports();
            let https = HttpsPorts { public: asked.view.shared.public_https_port, listeners: &ports };
            References { rules, host: head.host(), port: https.of_client(head.port()) }
        });
        filter
    }

    fn new(request: &RequestHead, rules: Option<&'a HeaderRules>) -> Self {
        Self { rules, expects_continue: request.expects_continue(), references: None }
    }

    /// Returns the part of an interim response that passes, or `None`.
    pub(super) fn pass(&mut self, head: &ResponseHead) -> Option<PassedPart> {
        match head.status {
            StatusCode::CONTINUE => std::mem::take(&mut self.expects_continue).then_some(PassedPart::Bare),
            StatusCode::EARLY_HINTS => self.hints(head).next().is_some().then_some(PassedPart::Hints),
            // Another protocol would follow, which the client has not asked for.
            StatusCode::SWITCHING_PROTOCOLS => None,
            _ => Some(PassedPart::Bare),
        }
    }

    /// Returns the fields of a 103 that pass.
    pub(super) fn hints<'h>(&self, head: &'h ResponseHead) -> impl Iterator<Item = (&'h [u8], Cow<'h, [u8]>)> {
        let dropped = self.rules.is_some_and(|rules| rules.drops(b"link"));
        let names = self.references.as_ref().map(References::names);
        let links = head.fields.iter().filter(move |(_, name, _)| !dropped && name.eq_ignore_ascii_case(b"link"));
        links.map(move |(_, name, value)| {
            let new = names.as_ref().and_then(|names| fields::link(value, names));
            (name, new.map_or(Cow::Borrowed(value), Cow::Owned))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::host::HostPattern;
    use crate::message::Framing;
    use crate::mixed::HttpsNames;
    use crate::mixed::media::RewriteTypes;

    fn request(expect: bool) -> RequestHead {
        let mut head = RequestHead::default();
        head.framing = Framing::Length(1);
        if expect {
            head.fields.push(b"Expect", b"100-continue");
        }
        head
    }

    fn response(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
        let mut head = ResponseHead { status: StatusCode::from_u16(status).unwrap(), ..ResponseHead::default() };
        for (name, value) in fields {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        head
    }

    #[test]
    fn links_alone() {
        let mut filter = InterimFilter::new(&request(false), None);
        let all = [
            ("Strict-Transport-Security", "max-age=1"),
            ("LINK", "</a.css>"),
            ("Set-Cookie", "a=b"),
            ("Content-Length", "5"),
            ("link", "</b.css>"),
            ("X-Link", "c"),
        ];
        let hints = response(103, &all);
        assert!(matches!(filter.pass(&hints), Some(PassedPart::Hints)));
        let passed: Vec<_> = filter.hints(&hints).map(|(name, value)| (name, value.into_owned())).collect();
        assert_eq!(passed, [(&b"LINK"[..], b"</a.css>".to_vec()), (b"link", b"</b.css>".to_vec())]);
        assert!(filter.pass(&response(103, &all[..1])).is_none());
        for status in [100, 101] {
            assert!(filter.pass(&response(status, &all)).is_none(), "{status}");
        }
        for status in [102, 104, 110, 199] {
            assert!(matches!(filter.pass(&response(status, &all)), Some(PassedPart::Bare)), "{status}");
        }
        let rules = HeaderRules { dropped: vec![(*b"link").into()], ..HeaderRules::default() };
        assert!(InterimFilter::new(&request(false), Some(&rules)).pass(&hints).is_none());
    }

    /// A site that has references rewritten gets no hints to load them by http.
    #[test]
    fn references_of_hints() {
        let own = HttpsNames {
            site: vec![HostPattern::parse("blog.example").unwrap()],
            listed: Vec::new(),
            upstream: vec![("blog.wordpress.example".into(), 443)],
        };
        let types = RewriteTypes { html: false, css: false, feeds: false, json: false };
        let rules = RewriteRules { names: Arc::new(own), types };
        let mut filter = InterimFilter::new(&request(false), None);
        filter.references = Some(References { rules: &rules, host: "blog.example", port: Some(8443) });
        for (value, want) in [
            ("<http://blog.example/a.css>; rel=preload", "<https://blog.example:8443/a.css>; rel=preload"),
            ("<https://blog.wordpress.example/a>", "<https://blog.example:8443/a>"),
            ("<http://evil.example/>, </b>", "<http://evil.example/>, </b>"),
        ] {
            let hints = response(103, &[("Link", value)]);
            assert!(matches!(filter.pass(&hints), Some(PassedPart::Hints)));
            let passed: Vec<_> = filter.hints(&hints).map(|(_, value)| value.into_owned()).collect();
            assert_eq!(passed, [want.as_bytes()], "{value}");
        }
    }

    #[test]
    fn one_continue_for_those_who_wait() {
        let mut filter = InterimFilter::new(&request(true), None);
        assert!(matches!(filter.pass(&response(100, &[])), Some(PassedPart::Bare)));
        assert!(filter.pass(&response(100, &[])).is_none());
        assert!(InterimFilter::new(&request(false), None).pass(&response(100, &[])).is_none());
    }
}

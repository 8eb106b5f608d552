//! A server's answer to one request.

use http::StatusCode;

use super::document::Document;
use super::text::{begins, clean};
use crate::message::Name;
use crate::policy::Scheme;
use crate::verify::client::VisitResponse;
use crate::verify::judge::page::is_html;
use crate::verify::target::Url;

/// The most characters of a server's text in a message.
pub const SHOWN: usize = 100;

/// The outcome of a request.
#[derive(Debug, Default)]
pub enum ProbeOutcome {
    /// The request was not sent.
    #[default]
    NotAsked,
    /// There was no answer.
    Failed {
        /// The reason.
        why: String,
        /// `true` if the server could not be reached at all, or speaks another protocol.
        unreachable: bool,
    },
    /// An answer.
    Answered(Box<UpstreamAnswer>),
}

/// An answer.
#[derive(Debug)]
pub struct UpstreamAnswer {
    /// The URL that was asked for. Its host is the Host field.
    pub url: Url,
    /// The response.
    pub response: VisitResponse,
    /// Its page; empty if the response is no page.
    pub page: Document,
}

impl ProbeOutcome {
    /// Returns the answer, if there is one.
    #[must_use]
    pub fn answer(&self) -> Option<&UpstreamAnswer> {
        match self {
            Self::Answered(answer) => Some(answer),
            _ => None,
        }
    }

    /// Returns the answer in a few words: `200`, `301 to https://blog.example.com/`.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::NotAsked => "not asked".into(),
            Self::Failed { why, .. } => format!("no answer ({why})"),
            Self::Answered(answer) => answer.words(),
        }
    }
}

impl UpstreamAnswer {
    /// Takes a response. Bodies with a coding are not read: none was requested.
    #[must_use]
    pub fn new(url: Url, response: VisitResponse) -> Self {
        let page = if is_html(&response) { Document::read(plain_body(&response)) } else { Document::default() };
        Self { url, response, page }
    }

    /// Returns the status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.head.status
    }

    /// Returns the body as text for comparisons; empty if it has a coding.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        plain_body(&self.response)
    }

    /// Returns `true` for a page in HTML.
    #[must_use]
    pub fn has_document(&self) -> bool {
        self.is_page() && is_html(&self.response)
    }

    /// Returns `true` for 2xx.
    #[must_use]
    pub fn is_page(&self) -> bool {
        self.status().is_success()
    }

    /// Returns the target of a redirect, if it is an http or https URL.
    #[must_use]
    pub fn redirect(&self) -> Option<Url> {
        let [location] = self.response.values(Name::Location)[..] else { return None };
        let location = std::str::from_utf8(location).ok().filter(|_| self.status().is_redirection())?;
        self.url.join(location)
    }

    /// Returns `true` for a redirect from http to https under the same name.
    #[must_use]
    pub fn leads_to_https(&self) -> bool {
        let is_https = |to: &Url| to.scheme == Scheme::Https && to.host == self.url.host;
        self.url.scheme == Scheme::Http && self.redirect().as_ref().is_some_and(is_https)
    }

    /// Returns `true` for the page, or for a redirect to another page of the same name.
    #[must_use]
    pub fn is_here(&self) -> bool {
        let here = |to: &Url| to.host == self.url.host && to.target != self.url.target;
        self.is_page() || self.redirect().as_ref().is_some_and(here)
    }

    /// Returns `true` for answers of a guard in front of the blog: they say nothing about the blog.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let status = self.status();
        let is_challenge = self.response.values_of("cf-mitigated").any(|value| begins(value, b"challenge"));
        is_challenge || status.is_server_error() || matches!(status.as_u16(), 401 | 403 | 407 | 429 | 451)
    }

    /// Returns the status, and the place that a redirect leads to.
    #[must_use]
    pub fn words(&self) -> String {
        let status = self.status().as_u16();
        match self.response.values(Name::Location).first() {
            Some(location) if self.status().is_redirection() => format!("{status} to {}", clean(location, SHOWN)),
            _ => status.to_string(),
        }
    }
}

fn plain_body(response: &VisitResponse) -> &[u8] {
    let is_coded = response.values_of("content-encoding").any(|c| !c.eq_ignore_ascii_case(b"identity"));
    if is_coded { &[] } else { &response.body }
}

#[cfg(test)]
impl ProbeOutcome {
    /// Makes an answer with these fields, each `name: value`.
    pub(super) fn sample(url: &str, status: u16, fields: &[&str], body: &str) -> Self {
        let mut response = VisitResponse { body: body.as_bytes().to_vec(), ..VisitResponse::default() };
        response.head.status = StatusCode::from_u16(status).unwrap();
        response.head.fields.push(b"Content-Type", b"text/html");
        for (name, value) in fields.iter().filter_map(|field| field.split_once(": ")) {
            response.head.fields.push(name.as_bytes(), value.as_bytes());
        }
        Self::Answered(Box::new(UpstreamAnswer::new(url.parse().unwrap(), response)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects() {
        let check = |url: &str, status: u16, location: &str, leads_to_https: bool, is_here: bool| {
            let look = ProbeOutcome::sample(url, status, &[&format!("location: {location}")], "");
            let answer = look.answer().unwrap();
            assert_eq!((answer.leads_to_https(), answer.is_here()), (leads_to_https, is_here), "{url} {location}");
        };
        check("http://a.example/", 301, "https://a.example/", true, false);
        check("http://a.example/", 301, "https://a.example/en/", true, true);
        check("http://a.example/", 301, "https://b.example/", false, false);
        check("https://a.example/", 301, "https://a.example/", false, false);
        check("https://a.example/", 302, "/en/", false, true);
        check("https://a.example/", 200, "https://b.example/", false, true);
        check("https://a.example/", 301, "https://[", false, false);
        check("https://a.example/", 404, "", false, false);
        assert_eq!(
            ProbeOutcome::sample("http://a.example/", 301, &["location: x\u{1b}[0m"], "").words(),
            "301 to x?[0m"
        );
        assert_eq!(ProbeOutcome::NotAsked.words(), "not asked");
    }
}

//! The pages of the admin listener, for a browser: what they show, who may see them, and what each may do.
//!
//! The room knows nothing of the control thread. It gets an [`Api`], and pages call nothing else: a page has no power that
//! the API lacks, and a reader's role bounds both.
//!
//! # How to add a page
//!
//! 1. `page/NAME.rs` has `pub async fn show(api: &impl Api, asked: &PageRequest) -> Page`, its view (a struct with
//!    `#[derive(Template)]`, whose field `frame: PageFrame` fills the layout), and pure functions from JSON to the view.
//! 2. `templates/NAME.html`, at the root of the crate, begins with `{% extends "layout.html" %}` and fills `{% block content %}`. askama escapes
//!    every value in it. A form is `<form method="post">` with `{% include "csrf.html" %}` in it.
//! 3. `router.rs` gets a name, a line in `PAGES` (method, path, role), and a line in `show`.
//! 4. Data comes from `api.call(Call::get("/v1/status")).await`; look at `answer.is_ok()` and `answer.body["key"]`.
//! 5. A change is `Call::post(..)`, answered with `Page::see("/path")` (303), or with the page and its verdict.
//! 6. Data that the API lacks becomes part of the API: `PATHS` in `api.rs`, `control/api.rs`, `docs/reference/openapi.json`.

pub mod api;
pub mod asked;
pub mod assets;
pub mod guard;
pub mod page;
pub mod reply;
pub mod role;
pub mod router;
pub mod session;

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};

use api::Api;
use asked::{FormFields, PageRequest};
use reply::Page;
use router::Found;
use session::PageSession;

/// The body of an answer: bytes, or a stream of events.
pub type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;

/// A body of bytes.
#[must_use]
pub fn body(bytes: impl Into<Bytes>) -> AnswerBody {
    Full::new(bytes.into()).boxed_unsync()
}

/// The state of the pages.
#[derive(Debug)]
pub struct Pages {
    /// The name of this host.
    node: String,
}

impl Pages {
    /// The pages of this host.
    #[must_use]
    pub fn new() -> Self {
        Self { node: rustix::system::uname().nodename().to_string_lossy().into_owned() }
    }

    /// Answers a request for a page or an asset.
    pub async fn answer(&self, api: &impl Api, request: Request<Bytes>, session: PageSession) -> Response<AnswerBody> {
        let (parts, form) = request.into_parts();
        let path = parts.uri.path().to_owned();
        if let Some((kind, content)) = assets::find(&path) {
            return asset(kind, content);
        }
        let query = FormFields::of_query(parts.uri.query().unwrap_or_default());
        let form = std::str::from_utf8(&form).ok().and_then(FormFields::of_query);
        let is_malformed = query.is_none() || form.is_none();
        let method = parts.method;
        let (query, form) = (query.unwrap_or_default(), form.unwrap_or_default());
        let asked = PageRequest { method, path, query, form, session, node: self.node.clone() };
        let page = match router::find(&asked.method, &asked.path) {
            _ if is_malformed => {
                let way_out = "Go back, and send it again.";
                page::error::show(&asked, StatusCode::BAD_REQUEST, "The fields of the request are malformed", way_out)
            }
            Found::Page(_, needed) if !asked.session.may(needed) => {
                let way_out = format!(
                    "It needs the role {needed}. Sign in with a link of that role: pintle page --role {needed}"
                );
                page::error::show(&asked, StatusCode::FORBIDDEN, "Your role does not allow this", &way_out)
            }
            Found::Page(name, _) => router::show(name, api, &asked).await,
            Found::OtherMethod(allowed) => {
                let mut page = respond(page::error::show(
                    &asked,
                    StatusCode::METHOD_NOT_ALLOWED,
                    "The page has no such method",
                    "Go back, and follow a link of the menu.",
                ));
                if let Ok(allowed) = HeaderValue::try_from(allowed) {
                    page.headers_mut().insert(header::ALLOW, allowed);
                }
                return page;
            }
            Found::Nothing => {
                let way_out = "The menu lists all pages.";
                page::error::show(&asked, StatusCode::NOT_FOUND, "No page has this address", way_out)
            }
        };
        respond(page)
    }
}

impl Default for Pages {
    fn default() -> Self {
        Self::new()
    }
}

fn respond(page: Page) -> Response<AnswerBody> {
    let mut response = Response::new(body(page.content));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.kind));
    if let Some(location) = page.location.and_then(|location| HeaderValue::try_from(location).ok()) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(name) = page.file {
        let safe = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
        let value = format!("attachment; filename=\"{}\"", name.chars().map(safe).collect::<String>());
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(header::CONTENT_DISPOSITION, value);
        }
    }
    guard::protect(headers);
    response
}

fn asset(kind: &'static str, content: Bytes) -> Response<AnswerBody> {
    let mut response = Response::new(body(content));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let for_good = HeaderValue::from_static("private, max-age=31536000, immutable");
    headers.insert(header::CACHE_CONTROL, for_good);
    guard::protect(headers);
    response
}

/// `true` if a request is for a page or an asset, and not for the API.
#[must_use]
pub fn is_page(method: &Method, path: &str) -> bool {
    !api::is_api(path) || matches!(router::find(method, path), Found::Page(..))
}

/// `true` if a method changes nothing.
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

//! The pages of the admin listener, for a browser: their contents, their readers, and the power of each.
//!
//! The room knows nothing of the control thread. It gets an [`Api`], and pages call nothing else: a page has no power that
//! the API lacks, and a reader's role bounds both.
//!
//! # How to add a page
//!
//! 1. `page/NAME.rs` has `pub async fn show(api: &impl Api, asked: &PageRequest) -> Page`, its view (a struct with
//!    `#[derive(Template)]`, whose field `frame: PageFrame` fills the layout), and pure functions from JSON to the view.
//! 2. `templates/NAME.html`, at the root of the crate, begins with `{% extends "layout.html" %}` and fills
//!    `{% block content %}`. askama escapes every value in it. A form is `<form method="post">` with
//!    `{% include "csrf.html" %}` in it.
//! 3. `router.rs` gets a name, a line in `PAGES` (method, path, role), and a line in `show`.
//! 4. Data comes from `api.call(Call::get("/v1/status")).await`; look at `answer.is_ok()` and `answer.body["key"]`.
//! 5. A change is `Call::post(..)`, answered with `Page::see("/path")` (303), or with the page and its verdict.
//! 6. Data that the API lacks becomes part of the API: `PATHS` in `api.rs`, `control/api.rs`, `docs/reference/openapi.json`.

pub mod api;
pub mod asked;
pub mod assets;
pub mod attempts;
pub mod entrance;
pub mod guard;
pub mod page;
pub mod password;
pub mod reply;
pub mod router;
pub mod session;

use std::io;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};

use api::Api;
use asked::{FormFields, PageRequest};
use entrance::{Entrance, PageVisitor};
use guard::is_safe;
use page::login;
use reply::Page;
use router::Found;
use session::PageSession;

use crate::config::admin::SharedAccess;

/// The caching of assets: their paths name their contents.
const FOR_GOOD: &str = "private, max-age=31536000, immutable";

/// The body of an answer: bytes, or a stream of metrics, which may break off.
pub type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

/// A body of bytes.
#[must_use]
pub fn body(bytes: impl Into<Bytes>) -> AnswerBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The reader of a request, before their permissions are looked at.
pub enum PageReader {
    /// A process of the user that runs pintle, or of root, which needs no session.
    Owner(PageSession),
    /// A browser, with its session and the session's id.
    Browser(Option<(PageSession, String)>),
}

/// The pages of this host, with the sessions of their readers.
pub struct Pages {
    /// The ways in and out.
    pub entrance: Entrance,
}

impl Pages {
    /// The pages of this host.
    #[must_use]
    pub fn new(access: SharedAccess) -> Self {
        Self { entrance: Entrance::new(access) }
    }

    /// Answers a request for a page or an asset.
    pub async fn answer(
        &self,
        api: &impl Api,
        request: Request<Bytes>,
        reader: PageReader,
        visitor: &PageVisitor,
    ) -> Response<AnswerBody> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        if let Some((kind, content)) = assets::find(&path) {
            let asset = Page { kind, content, ..Page::empty(StatusCode::OK) };
            return respond(asset.with(header::CACHE_CONTROL, FOR_GOOD));
        }
        let query = FormFields::of_query(parts.uri.query().unwrap_or_default());
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let form = FormFields::of_form(kind, &body);
        asked::wipe(body);
        let is_malformed = query.is_none() || form.is_none();
        let (query, form) = (query.unwrap_or_default(), form.unwrap_or_default());
        if entrance::is_entrance(&parts.method, &path) {
            let old = if let PageReader::Browser(old) = reader { old } else { None };
            return respond(self.entrance.answer((&parts.method, &path), &form, old, visitor).await);
        }
        let (session, is_proved) = match reader {
            PageReader::Owner(session) => (session, true),
            PageReader::Browser(Some((session, _))) => {
                let header = parts.headers.get(guard::CSRF_HEADER).and_then(|token| token.to_str().ok());
                let token = form.get("csrf").or(header).unwrap_or_default();
                let is_proved = is_safe(&parts.method) || session.fits(token);
                (session, is_proved)
            }
            PageReader::Browser(None) if guard::is_followed_link(&parts.method, &parts.headers) => {
                return respond(login::go_on());
            }
            PageReader::Browser(None) => {
                let text = form.get("toml").filter(|text| !text.is_empty());
                return respond(text.map_or_else(|| Page::see("/login"), |text| self.entrance.ended(text)));
            }
        };
        let asked = PageRequest {
            method: parts.method,
            path,
            query,
            form,
            session,
            is_confidential: visitor.is_confidential(),
        };
        if is_malformed {
            let way_out = "Go back, and send it again.";
            let what = "The fields of the request are malformed";
            return respond(page::error::show(&asked, StatusCode::BAD_REQUEST, what, way_out));
        }
        if !is_proved {
            tracing::warn!(who = asked.session.who, path = asked.path, from = visitor.from(), "form without its token");
            let (what, way_out) =
                ("The form was not from a page of this session", "Nothing was changed. Open the page again.");
            return respond(page::error::show(&asked, StatusCode::FORBIDDEN, what, way_out));
        }
        respond(found(api, &asked).await)
    }

    /// Answers a request for a page whose form was not read, with the reason as a status code.
    #[must_use]
    pub fn unread(
        &self,
        parts: &Parts,
        session: PageSession,
        status: StatusCode,
        visitor: &PageVisitor,
    ) -> Response<AnswerBody> {
        let asked = PageRequest {
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            query: FormFields::default(),
            form: FormFields::default(),
            session,
            is_confidential: visitor.is_confidential(),
        };
        let (what, way_out) = match status {
            StatusCode::PAYLOAD_TOO_LARGE => {
                ("Too long: a form has 1 MiB at most", "Nothing was changed. Go back, and choose another file.")
            }
            _ => ("The form did not arrive whole", "Nothing was changed. Go back, and send it again."),
        };
        respond(page::error::show(&asked, status, what, way_out))
    }
}

/// The page of a request, or the reason why there is none.
async fn found(api: &impl Api, asked: &PageRequest) -> Page {
    match router::find(&asked.method, &asked.path) {
        Found::Page(_, needed) if !asked.session.may(needed) => {
            let way_out = format!("It needs the role {needed}. On the host itself: pintle page --role {needed}");
            page::error::show(asked, StatusCode::FORBIDDEN, "Your role does not allow this", &way_out)
        }
        Found::Page(name, _) => router::show(name, api, asked).await,
        Found::OtherMethod(allowed) => {
            let (what, way_out) = ("The page has no such method", "Go back, and follow a link of the menu.");
            let page = page::error::show(asked, StatusCode::METHOD_NOT_ALLOWED, what, way_out);
            page.with(header::ALLOW, allowed)
        }
        Found::Nothing => {
            let way_out = "The menu lists all pages.";
            page::error::show(asked, StatusCode::NOT_FOUND, "No page has this address", way_out)
        }
    }
}

fn respond(page: Page) -> Response<AnswerBody> {
    let mut response = Response::new(body(page.content));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.kind));
    for (name, value) in page.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(name, value);
        }
    }
    guard::protect(headers);
    response
}

/// `true` if a request is for a page or an asset, and not for the API.
#[must_use]
pub fn is_page(method: &Method, path: &str) -> bool {
    !api::is_api(path) || matches!(router::find(method, path), Found::Page(..))
}

/// `true` if a request without a session gets a way in instead of a refusal.
#[must_use]
pub fn is_for_browsers(method: &Method, path: &str) -> bool {
    matches!(router::find(method, path), Found::Page(..))
        || entrance::is_entrance(method, path)
        || is_safe(method) && assets::find(path).is_some()
}

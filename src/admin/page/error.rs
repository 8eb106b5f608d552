//! The page of a request that has no page.

use askama::Template;
use http::StatusCode;

use super::value::{WayOut, some, ways_out};
use crate::admin::api::Answer;
use crate::admin::asked::PageRequest;
use crate::admin::reply::{Page, PageFrame};

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    frame: PageFrame,
    what: &'a str,
    way_out: &'a str,
    hints: Vec<WayOut>,
}

/// An answer that says what is wrong, and the way out.
#[must_use]
pub fn show(asked: &PageRequest, status: StatusCode, what: &str, way_out: &str) -> Page {
    let frame = PageFrame::new(asked, what, "");
    Page::of(&ErrorPage { frame, what, way_out, hints: Vec::new() }).with_status(status)
}

/// The same with the remedies of a refusal.
#[must_use]
pub fn show_with(asked: &PageRequest, status: StatusCode, what: &str, hints: Vec<WayOut>) -> Page {
    let way_out = if hints.is_empty() { "Nothing was changed. Try again." } else { "Nothing was changed." };
    let frame = PageFrame::new(asked, what, "");
    Page::of(&ErrorPage { frame, what, way_out, hints }).with_status(status)
}

/// The page for a call of the API that failed.
#[must_use]
pub fn failed(asked: &PageRequest, answer: &Answer) -> Page {
    let (status, hints) = (answer.status, ways_out(&answer.body));
    let reason = some(&answer.body, "error");
    let (what, way_out) = match status {
        StatusCode::SERVICE_UNAVAILABLE => ("pintle did not answer", "Nothing was changed. Try again.".to_owned()),
        StatusCode::FORBIDDEN => ("You may not do this", reason.unwrap_or_default()),
        _ => ("This was refused", reason.unwrap_or_else(|| "pintle gave no reason. Nothing was changed.".to_owned())),
    };
    let frame = PageFrame::new(asked, what, "");
    Page::of(&ErrorPage { frame, what, way_out: &way_out, hints }).with_status(status)
}

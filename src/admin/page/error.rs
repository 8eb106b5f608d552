//! The page of a request that has no page.

use askama::Template;
use http::StatusCode;

use crate::admin::asked::PageRequest;
use crate::admin::reply::{Page, PageFrame};

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    frame: PageFrame,
    what: &'a str,
    way_out: &'a str,
}

/// An answer that says what is wrong, and the way out.
#[must_use]
pub fn show(asked: &PageRequest, status: StatusCode, what: &str, way_out: &str) -> Page {
    let frame = PageFrame::new(asked, what, "");
    Page::of(&ErrorPage { frame, what, way_out }).with_status(status)
}

//! The answer to a request for a page, and the frame around each page.

use std::fmt::Write as _;

use askama::Template;
use bytes::Bytes;
use http::{HeaderName, StatusCode, header};

use super::asked::PageRequest;
use super::assets;
use crate::os::usage::host_name;
use crate::telemetry::harmless::is_harmful;

/// The content type of pages.
const HTML: &str = "text/html; charset=utf-8";

/// A page, an asset or a redirect.
#[derive(Debug)]
pub struct Page {
    /// The status code.
    pub status: StatusCode,
    /// The content type.
    pub kind: &'static str,
    /// The contents.
    pub content: Bytes,
    /// More headers.
    pub headers: Vec<(HeaderName, String)>,
}

impl Page {
    /// A page from its template.
    #[must_use]
    pub fn of(template: &impl Template) -> Self {
        match template.render() {
            Ok(html) => Self { content: in_order(html).into(), kind: HTML, ..Self::empty(StatusCode::OK) },
            Err(error) => {
                tracing::error!(%error, "page: its template failed; please report it");
                Self::empty(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    /// The same page with another status code.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same page with one more header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A redirect to another page, after a change.
    #[must_use]
    pub fn see(path: impl Into<String>) -> Self {
        Self::empty(StatusCode::SEE_OTHER).with(header::LOCATION, path)
    }

    /// An answer without contents.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", content: Bytes::new(), headers: Vec::new() }
    }
}

/// Shows characters that change the direction of text, and control characters, as their numbers: a subject or a log line of
/// a stranger must not reorder what stands beside it. Tags, and texts to edit, stay as they are.
fn in_order(html: String) -> String {
    let spoils = |c: char| is_harmful(c) && !matches!(c, '\n' | '\r' | '\t');
    if !html.chars().any(spoils) {
        return html;
    }
    let mut shown = String::with_capacity(html.len());
    let (mut in_tag, mut in_editor) = (false, false);
    for (at, c) in html.char_indices() {
        match c {
            '<' => {
                in_tag = true;
                let tag = html.get(at..).unwrap_or_default();
                in_editor = tag.starts_with("<textarea") || in_editor && !tag.starts_with("</textarea");
            }
            '>' => in_tag = false,
            _ => {}
        }
        match spoils(c) && !in_tag && !in_editor {
            true => _ = write!(shown, "\\u{{{:x}}}", u32::from(c)),
            false => shown.push(c),
        }
    }
    shown
}

/// The frame around each page, as `layout.html` draws it.
#[derive(Debug)]
pub struct PageFrame {
    /// The title of the page.
    pub title: String,
    /// The path of the current entry of the menu.
    pub current: &'static str,
    /// The name of this host.
    pub node: &'static str,
    /// The name of the reader.
    pub who: String,
    /// The role of the reader.
    pub role: &'static str,
    /// The token of forms.
    pub csrf: String,
    /// The path of the style sheet.
    pub style: &'static str,
    /// The path of the script.
    pub script: &'static str,
    /// The version of pintle.
    pub version: &'static str,
}

impl PageFrame {
    /// The frame of a page: `current` is the path of its entry in the menu.
    #[must_use]
    pub fn new(asked: &PageRequest, title: impl Into<String>, current: &'static str) -> Self {
        Self {
            title: title.into(),
            current,
            node: host_name(),
            who: asked.session.who.clone(),
            role: asked.session.role.name(),
            csrf: asked.session.csrf.clone(),
            style: assets::style(),
            script: assets::script(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_in_their_order() {
        for (html, want) in [
            ("<p>plain é\n</p>", "<p>plain é\n</p>"),
            ("<p>a\u{202e}b\u{1b}[31m</p>", "<p>a\\u{202e}b\\u{1b}[31m</p>"),
            ("<i title=\"\u{202e}\">\u{2066}</i>", "<i title=\"\u{202e}\">\\u{2066}</i>"),
            (
                "<textarea name=t>\u{200f}&lt;b></textarea>\u{200f}",
                "<textarea name=t>\u{200f}&lt;b></textarea>\\u{200f}",
            ),
        ] {
            assert_eq!(in_order(html.to_owned()), want);
        }
    }
}

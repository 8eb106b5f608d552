//! The log-in: where am I, and how do I get in?

use askama::Template;

use crate::admin::assets;
use crate::admin::reply::Page;

#[derive(Template)]
#[template(path = "login.html")]
struct Login<'a> {
    node: &'a str,
    style: &'static str,
    /// Readers with passwords exist.
    has_passwords: bool,
    name: &'a str,
    wrong: Option<&'a str>,
}

/// The page, with the reason why the last attempt failed.
#[must_use]
pub fn show(node: &str, has_passwords: bool, name: &str, wrong: Option<&str>) -> Page {
    Page::of(&Login { node, style: assets::style(), has_passwords, name, wrong })
}

//! The log-in: where am I, and how do I get in?

use askama::Template;

use crate::admin::assets;
use crate::admin::reply::Page;
use crate::os::usage::host_name;

#[derive(Template)]
#[template(path = "login.html")]
struct Login<'a> {
    node: &'static str,
    style: &'static str,
    /// Readers with passwords exist.
    has_passwords: bool,
    name: &'a str,
    wrong: Option<&'a str>,
}

/// The page, with the reason why the last attempt failed.
#[must_use]
pub fn show(has_passwords: bool, name: &str, wrong: Option<&str>) -> Page {
    Page::of(&Login { node: host_name(), style: assets::style(), has_passwords, name, wrong })
}

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
    /// A text that would be lost.
    kept: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "go_on.html")]
struct GoOn {
    node: &'static str,
    style: &'static str,
}

/// A page that asks for itself again: as a request of our own page, it carries the cookie of the session, if there is one.
#[must_use]
pub fn go_on() -> Page {
    Page::of(&GoOn { node: host_name(), style: assets::style() })
}

/// The page, with the reason why the last attempt failed, and a text that the reader must not lose.
#[must_use]
pub fn show(has_passwords: bool, name: &str, wrong: Option<&str>, kept: Option<&str>) -> Page {
    Page::of(&Login { node: host_name(), style: assets::style(), has_passwords, name, wrong, kept })
}

//! The keys of each site: which are promised since when, which may be used, and how to make another.

use askama::Template;
use http::StatusCode;
use serde_json::{Value, json};

use super::error::failed;
use super::moment::Moment;
use super::timeline::shape;
use super::value::{list, text, texts};
use crate::admin::api::{Api, Call};
use crate::admin::asked::PageRequest;
use crate::admin::reply::{Page, PageFrame};
use crate::config::admin::AdminRole;
use crate::reason::counted;

/// Sites on one page.
const SITES_MAX: usize = 25;
/// The path of the page.
const PATH: &str = "/keys";

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysView {
    frame: PageFrame,
    answer: String,
    find: String,
    sites: Vec<SiteKeys>,
    more: usize,
    may_make: bool,
    made: Option<MadeKey>,
    refused: Option<RefusedKey>,
}

/// A site and its keys.
struct SiteKeys {
    name: String,
    is_managed: bool,
    keys: Vec<SiteKeyRow>,
}

/// A key in the table.
struct SiteKeyRow {
    role: String,
    glyph: &'static str,
    pin: String,
    algorithm: String,
    file: String,
    since: String,
    usable: String,
    until: String,
}

/// A key that was just made.
struct MadeKey {
    site: String,
    role: String,
    pin: String,
    key: String,
    csr: String,
    name: String,
    csr_pem: String,
}

/// The reason why no key was made.
struct RefusedKey {
    what: String,
    hints: Vec<String>,
}

/// A time of the API as a day, or a word for none.
fn day(value: &Value, none: &str) -> String {
    Moment::of(value, 0).map_or_else(|| none.to_owned(), |time| time.day)
}

/// The first minute that begins at or after a time of the API, or a word for none.
fn first_minute(value: &Value, none: &str) -> String {
    Moment::of(value, 0).and_then(|time| time.first_minute(0)).map_or_else(|| none.to_owned(), |time| time.minute)
}

fn row(key: &Value) -> SiteKeyRow {
    SiteKeyRow {
        role: text(key, "role"),
        glyph: shape(key["role"].as_str()),
        pin: text(key, "pin"),
        algorithm: text(key, "algorithm"),
        file: text(key, "file"),
        since: day(&key["promised_since"], "not promised"),
        usable: first_minute(&key["usable_from"], "now"),
        until: day(&key["not_after"], "–"),
    }
}

/// The page.
pub async fn show(api: &impl Api, asked: &PageRequest) -> Page {
    rendered(api, asked, None, None, StatusCode::OK).await
}

/// The answer to the form that makes a key.
pub async fn make(api: &impl Api, asked: &PageRequest) -> Page {
    let field = |name: &str| asked.form.get(name).unwrap_or_default();
    let wanted = json!({ "site": field("site"), "role": field("role"), "algorithm": field("algorithm") });
    let answer = api.call(Call::post("/v1/keys").json(&wanted)).await;
    let body = &answer.body;
    if answer.is_ok() {
        let made = MadeKey {
            site: text(body, "site"),
            role: text(body, "role"),
            pin: text(body, "pin"),
            key: text(body, "key"),
            csr: text(body, "csr"),
            name: text(body, "name"),
            csr_pem: text(body, "csr_pem"),
        };
        return rendered(api, asked, Some(made), None, StatusCode::OK).await;
    }
    let refused = RefusedKey { what: text(body, "error"), hints: texts(body, "hints") };
    rendered(api, asked, None, Some(refused), answer.status).await
}

async fn rendered(
    api: &impl Api,
    asked: &PageRequest,
    made: Option<MadeKey>,
    refused: Option<RefusedKey>,
    status: StatusCode,
) -> Page {
    let answer = api.call(Call::get("/v1/keys")).await;
    if !answer.is_ok() {
        return failed(asked, &answer);
    }
    let find = asked.query.get("find").unwrap_or_default().to_lowercase();
    let all = list(&answer.body, "sites");
    let fits = |site: &&Value| {
        find.is_empty() || list(site, "hosts").iter().filter_map(Value::as_str).any(|host| host.contains(&find))
    };
    let found: Vec<&Value> = all.iter().filter(fits).collect();
    let site = |site: &&Value| SiteKeys {
        name: text(site, "site"),
        is_managed: site["managed"] == true,
        keys: list(site, "keys").iter().map(row).collect(),
    };
    let lone = all.iter().filter(|site| site["pins_sent"] == true && list(site, "keys").len() < 2);
    let answer = match lone.count() {
        0 => format!(
            "{}. A key may take over at the time under “usable from”, and locks nobody out.",
            counted(all.len(), "site")
        ),
        lone => format!("{} without a backup key.", counted(lone, "site")),
    };
    let more = found.len().saturating_sub(SITES_MAX);
    Page::of(&KeysView {
        frame: PageFrame::new(asked, "Keys", PATH),
        answer,
        sites: found.iter().take(SITES_MAX).map(site).collect(),
        more,
        may_make: asked.session.may(AdminRole::Configure),
        made,
        refused,
        find,
    })
    .with_status(status)
}

//! The overview: is anything wrong, and what comes first?

use askama::Template;
use http::StatusCode;
use serde_json::Value;

use super::error;
use crate::admin::api::{Api, Call};
use crate::admin::asked::PageRequest;
use crate::admin::reply::{Page, PageFrame};
use crate::reason::counted;

/// Sites on one page.
const SITES_MAX: usize = 100;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: PageFrame,
    answer: String,
    attention: Vec<String>,
    sites: Vec<SiteRow>,
}

struct SiteRow {
    name: String,
    upstream: String,
}

/// The overview of all sites.
pub async fn show(api: &impl Api, asked: &PageRequest) -> Page {
    let answer = api.call(Call::get("/v1/status")).await;
    if !answer.is_ok() {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return error::show(asked, status, "pintle did not answer", "Nothing was changed. Try again.");
    }
    let list = |name: &str| answer.body[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |site: &Value| SiteRow { name: text(&site["hosts"][0]), upstream: text(&site["upstream"]) };
    let sites = list("sites");
    Page::of(&Overview {
        frame: PageFrame::new(asked, "Overview", "/"),
        answer: format!("pintle serves {}.", counted(sites.len(), "site")),
        attention: list("attention").iter().map(|a| a.as_str().map_or_else(|| a.to_string(), str::to_owned)).collect(),
        sites: sites.iter().take(SITES_MAX).map(row).collect(),
    })
}

//! A rotation: may the next key of a site serve, and how does it come to that?

use askama::Template;
use http::StatusCode;
use serde_json::Value;

use super::error::{self, failed};
use super::moment::{Moment, seconds};
use super::site::ledger::RotationWords;
use super::value::{list, text};
use crate::admin::api::{Answer, Api, Call};
use crate::admin::asked::{PageRequest, encoded};
use crate::admin::reply::{Page, PageFrame};
use crate::config::admin::AdminRole;
use crate::reason::pasted::pintle;
use crate::reason::shell_word;

#[derive(Template)]
#[template(path = "rotate.html")]
struct RotatePage {
    frame: PageFrame,
    site: String,
    href: String,
    verdict: String,
    evidence: String,
    class: &'static str,
    icon: &'static str,
    key: Option<PlannedKey>,
    is_managed: bool,
    is_safe: bool,
    /// From when the next key is safe, if that is not now.
    from: Option<Moment>,
    /// The plan of each certificate that pintle obtains.
    plans: Vec<String>,
    may_operate: bool,
    asked_for: bool,
    rotate: String,
    install: String,
    revoke: String,
}

/// The key that would take over.
struct PlannedKey {
    role: String,
    pin: String,
    file: String,
    /// Where its CSR can be downloaded, if there is one.
    csr: Option<String>,
}

/// The page.
pub async fn show(api: &impl Api, asked: &PageRequest) -> Page {
    let site = asked.query.get("site").unwrap_or_default();
    rendered(api, asked, site, false).await
}

/// Asks for the changeover, and shows what comes of it.
pub async fn change_over(api: &impl Api, asked: &PageRequest) -> Page {
    let site = asked.form.get("site").unwrap_or_default();
    let answer = api.call(Call::post("/v1/acme/renew").with("host", site).with("rotate", "true")).await;
    if answer.is_ok() { rendered(api, asked, site, true).await } else { failed(asked, &answer) }
}

async fn rendered(api: &impl Api, asked: &PageRequest, host: &str, asked_for: bool) -> Page {
    let about = |path: &str| Call::get(path).with("host", host);
    let site = api.call(about("/v1/site")).await;
    if site.status == StatusCode::NOT_FOUND {
        let what = format!("No site has the name {host}");
        return error::show(asked, StatusCode::NOT_FOUND, &what, "The page Keys lists all sites.");
    }
    if !site.is_ok() {
        return failed(asked, &site);
    }
    let rotation: Answer = api.call(about("/v1/rotation")).await;
    if !rotation.is_ok() {
        return failed(asked, &rotation);
    }
    match view(asked, &site.body, &rotation.body, asked_for) {
        Some(view) => Page::of(&view),
        None => failed(asked, &site),
    }
}

fn view(asked: &PageRequest, site: &Value, rotation: &Value, asked_for: bool) -> Option<RotatePage> {
    let now = seconds(&site["now"])?;
    let words = RotationWords::of(rotation, now)?;
    let name = text(site, "site");
    let next = list(rotation, "keys").iter().find(|key| key["role"] != "live");
    let word = shell_word(&name);
    let is_managed = !list(site, "renewals").is_empty();
    let plan = |renewal: &Value| format!("{}: {}", text(renewal, "algorithm"), text(renewal, "words"));
    let has_next = next.is_some();
    Some(RotatePage {
        frame: PageFrame::new(asked, format!("Rotate {name}"), "/keys"),
        href: format!("/site/{}", encoded(&name)),
        verdict: if has_next { words.verdict } else { "There is no next key.".to_owned() },
        evidence: if has_next {
            words.evidence
        } else {
            "Make one first, and promise it: it is safe once clients know it.".to_owned()
        },
        class: if has_next { words.class } else { "t-warn" },
        icon: if has_next { words.icon } else { "warn" },
        key: next.map(|key| PlannedKey {
            role: text(key, "role"),
            pin: text(key, "pin"),
            file: text(key, "file"),
            csr: (key["csr"] == true)
                .then(|| format!("/keys/csr?site={}&pin={}", encoded(&name), encoded(&text(key, "pin")))),
        }),
        is_managed,
        is_safe: next.is_some_and(|key| key["is_safe_now"] == true),
        from: next.and_then(|key| Moment::of(&key["safe_from"], now)),
        plans: list(site, "renewals").iter().map(plan).collect(),
        may_operate: asked.session.may(AdminRole::Operate),
        asked_for,
        rotate: pintle(format_args!("key rotate --site {word}")),
        install: pintle(format_args!("install --site {word} CHAIN.pem")),
        revoke: pintle(format_args!("key revoke --site {word} --dry-run")),
        site: name,
    })
}

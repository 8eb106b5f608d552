//! The keys of each site: which are promised since when, which may be used, and how to make another.

use askama::Template;
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::config;
use super::error::failed;
use super::moment::Moment;
use super::timeline::shape;
use super::value::{WayOut, count, grouped, list, text, ways_out};
use crate::admin::api::{Answer, Api, Call};
use crate::admin::asked::{PageRequest, encoded};
use crate::admin::reply::{Page, PageFrame};
use crate::config::admin::AdminRole;
use crate::host::file_stem;
use crate::reason::counted;

/// The path of the page.
const PATH: &str = "/keys";
/// The characters of a host, and of a pin, in the name of a downloaded file.
const NAME_MAX: usize = 200;
const PIN_SHOWN: usize = 8;

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysView {
    frame: PageFrame,
    answer: String,
    find: String,
    found: String,
    sites: Vec<SiteKeys>,
    page: usize,
    pages: usize,
    before: Option<String>,
    after: Option<String>,
    is_long: bool,
    may_make: bool,
    made: Option<MadeKey>,
    refused: Option<RefusedKey>,
}

/// A site and its keys.
struct SiteKeys {
    name: String,
    href: String,
    rotate: String,
    /// The tag of its key files: a button that is pressed twice makes one key.
    base: String,
    is_managed: bool,
    sends_pins: bool,
    is_withdrawn: bool,
    keys: Vec<SiteKeyRow>,
}

/// A key in the table.
struct SiteKeyRow {
    role: String,
    glyph: &'static str,
    pin: String,
    algorithm: String,
    file: String,
    /// Where its CSR can be downloaded, if there is one.
    csr: Option<String>,
    since: Option<Moment>,
    usable: Option<Moment>,
    until: Option<Moment>,
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
    download: String,
}

/// The reason why nothing was made or changed.
struct RefusedKey {
    title: &'static str,
    what: String,
    hints: Vec<WayOut>,
}

/// The address of a CSR.
fn csr_of(site: &str, pin: &str) -> String {
    format!("{PATH}/csr?site={}&pin={}", encoded(site), encoded(pin))
}

fn row(site: &str, key: &Value, now: i64) -> SiteKeyRow {
    let pin = text(key, "pin");
    SiteKeyRow {
        role: text(key, "role"),
        glyph: shape(key["role"].as_str()),
        algorithm: text(key, "algorithm"),
        file: text(key, "file"),
        csr: (key["csr"] == true).then(|| csr_of(site, &pin)),
        since: Moment::of(&key["promised_since"], now),
        usable: Moment::of(&key["usable_from"], now).map(|from| from.first_minute(now)),
        until: Moment::of(&key["not_after"], now),
        pin,
    }
}

/// The page.
pub async fn show(api: &impl Api, asked: &PageRequest) -> Page {
    let find = asked.query.get("find").unwrap_or_default();
    rendered(api, asked, find, (None, None), StatusCode::OK).await
}

/// The answer to the form that makes a key.
pub async fn make(api: &impl Api, asked: &PageRequest) -> Page {
    let field = |name: &str| asked.form.get(name).unwrap_or_default();
    let wanted = json!({ "site": field("site"), "role": field("role"), "algorithm": field("algorithm") });
    let answer = api.call(Call::post("/v1/keys").json(&wanted).if_match(field("base"))).await;
    let body = &answer.body;
    if answer.is_ok() {
        let (site, pin) = (text(body, "site"), text(body, "pin"));
        let made = MadeKey {
            download: csr_of(&site, &pin),
            role: text(body, "role"),
            key: text(body, "key"),
            csr: text(body, "csr"),
            name: text(body, "name"),
            csr_pem: text(body, "csr_pem"),
            site,
            pin,
        };
        let find = made.site.clone();
        return rendered(api, asked, &find, (Some(made), None), StatusCode::OK).await;
    }
    rendered(api, asked, "", (None, Some(refusal("No key was made", &answer))), answer.status).await
}

fn refusal(title: &'static str, answer: &Answer) -> RefusedKey {
    RefusedKey { title, what: text(&answer.body, "error"), hints: ways_out(&answer.body) }
}

/// A CSR, as a file.
pub async fn csr(api: &impl Api, asked: &PageRequest) -> Page {
    let field = |name: &str| asked.query.get(name).unwrap_or_default();
    let site = field("site");
    let answer = api.call(Call::get("/v1/keys/csr").with("host", site).with("pin", field("pin"))).await;
    match answer.body.as_str().filter(|_| answer.is_ok()) {
        Some(csr) => {
            // A quote or a line's end would end the name.
            let plain = |text: &str, most| -> String {
                let is_plain = |c: &char| c.is_ascii_alphanumeric() || ".-_".contains(*c);
                text.chars().filter(is_plain).take(most).collect()
            };
            let (stem, pin) = (plain(&file_stem(site), NAME_MAX), plain(field("pin"), PIN_SHOWN));
            let name = format!("{stem}-{pin}.csr");
            Page { kind: answer.kind, content: csr.to_owned().into(), ..Page::empty(StatusCode::OK) }
                .with(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""))
                .with(header::CACHE_CONTROL, "no-store")
        }
        None => failed(asked, &answer),
    }
}

/// Shows the configuration in which a site withdraws its pins. It is applied there, by the same checks.
pub async fn withdraw(api: &impl Api, asked: &PageRequest) -> Page {
    let site = asked.form.get("site").unwrap_or_default();
    let answer = api.call(Call::post("/v1/keys/withdraw").with("host", site)).await;
    match answer.is_ok() {
        true => config::propose(api, asked, text(&answer.body, "text"), count(&answer.body, "line")).await,
        false => {
            let refused = refusal("The pins are not withdrawn", &answer);
            rendered(api, asked, site, (None, Some(refused)), answer.status).await
        }
    }
}

async fn rendered(
    api: &impl Api,
    asked: &PageRequest,
    find: &str,
    (made, refused): (Option<MadeKey>, Option<RefusedKey>),
    status: StatusCode,
) -> Page {
    let page = asked.query.get("page").unwrap_or("1");
    let answer = api.call(Call::get("/v1/keys").with("q", find).with("page", page)).await;
    if !answer.is_ok() {
        return failed(asked, &answer);
    }
    let body = &answer.body;
    let now = super::moment::seconds(&body["now"]).unwrap_or_default();
    let site = |site: &Value| {
        let name = text(site, "site");
        SiteKeys {
            href: format!("/site/{}", encoded(&name)),
            rotate: format!("{PATH}/rotate?site={}", encoded(&name)),
            base: text(site, "tag"),
            is_managed: site["managed"] == true,
            sends_pins: site["pins_sent"] == true,
            is_withdrawn: site["withdrawn"] == true,
            keys: list(site, "keys").iter().map(|key| row(&name, key, now)).collect(),
            name,
        }
    };
    let all = count(body, "all");
    let words = match (count(body, "without_backup"), all) {
        (_, 0) => "No site yet, so there is no key.".to_owned(),
        (0, all) => format!(
            "{}. A key may take over at the time under “usable from”, and locks nobody out.",
            counted(grouped(all), "site")
        ),
        (1, _) => "One site promises pins without a backup key: make a next key for it.".to_owned(),
        (lone, _) => format!("{} sites promise pins without a backup key: make a next key for each.", grouped(lone)),
    };
    let (page, pages) = (count(body, "page"), count(body, "pages"));
    let link = |page: usize| match find {
        "" => format!("{PATH}?page={page}"),
        find => format!("{PATH}?find={}&page={page}", encoded(find)),
    };
    Page::of(&KeysView {
        frame: PageFrame::new(asked, "Keys", PATH),
        answer: words,
        sites: list(body, "sites").iter().map(site).collect(),
        found: grouped(count(body, "found")),
        is_long: all > 3 || !find.is_empty(),
        before: (page > 1).then(|| link(page - 1)),
        after: (page < pages).then(|| link(page + 1)),
        page,
        pages,
        may_make: asked.session.may(AdminRole::Configure),
        made,
        refused,
        find: find.to_owned(),
    })
    .with_status(status)
}

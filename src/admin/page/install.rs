//! The page Install: a chain, the verdict on it before anything happens, the swap, the look from outside, and the way back.

mod outcome;
mod wish;

use askama::Template;
use http::StatusCode;
use serde_json::Value;

use super::error::failed;
use super::moment::Moment;
use super::value::{WayOut, count, grouped, list, some, text, ways_out};
use crate::admin::api::{Answer, Api, Call};
use crate::admin::asked::{PageRequest, encoded};
use crate::admin::reply::{Page, PageFrame};
use crate::config::admin::AdminRole;
use crate::keys::key_file::KeyAlgorithm;
use outcome::{InstallOutcome, PairState, lockout, now, outcome};
use wish::{WishedInstall, uploaded};

/// The path of the page.
const PATH: &str = "/install";
/// Characters of a serial number and of a pin in the table.
const SHORT: usize = 12;

#[derive(Template)]
#[template(path = "install.html")]
struct InstallView {
    frame: PageFrame,
    answer_bold: String,
    answer: String,
    /// The step that is shown: 1 to 4.
    step: usize,
    /// The list to choose a site from; empty if there is one.
    choices: Vec<SiteChoice>,
    find: String,
    turn: PageTurn,
    site: Option<SiteToInstall>,
    outcome: Option<InstallOutcome>,
}

/// The place of the shown part in the list.
#[derive(Default)]
struct PageTurn {
    found: String,
    page: usize,
    pages: usize,
    before: Option<String>,
    after: Option<String>,
}

impl PageTurn {
    fn of(listed: &Value, find: &str) -> Self {
        let (page, pages) = (count(listed, "page"), count(listed, "pages"));
        let link = |page: usize| match find {
            "" => format!("{PATH}?page={page}"),
            find => format!("{PATH}?q={}&page={page}", encoded(find)),
        };
        Self {
            found: grouped(count(listed, "found")),
            page,
            pages,
            before: (page > 1).then(|| link(page - 1)),
            after: (page < pages).then(|| link(page + 1)),
        }
    }
}

/// A site of the list.
struct SiteChoice {
    name: String,
    href: String,
    level: &'static str,
    state: String,
}

/// The chosen site.
struct SiteToInstall {
    name: String,
    tag: String,
    managed: Option<Blocked>,
    not_writable: Option<Blocked>,
    allow_keys: bool,
    may_install: bool,
    command: String,
    rows: Vec<PairRow>,
    has_several: bool,
    has_others: bool,
}

/// A reason why the page cannot do it, and what to do instead.
struct Blocked {
    what: String,
    ways: Vec<WayOut>,
}

/// A pair in the table.
struct PairRow {
    serial: String,
    subject: String,
    pin: String,
    algorithm: String,
    is_now: bool,
    is_managed: bool,
    chain: String,
    /// Since when, or until when, it was in its place.
    served: Option<Moment>,
    ends: Option<Moment>,
    trouble: Option<String>,
    back: Option<BackButton>,
}

/// The button that brings a pair back.
struct BackButton {
    algorithm: &'static str,
    is_allowed: bool,
    why: String,
}

/// The page, for the site of the query.
pub async fn show(api: &impl Api, asked: &PageRequest) -> Page {
    let host = asked.query.get("site").unwrap_or_default().trim().to_owned();
    shown(api, asked, &host, None, StatusCode::OK).await
}

/// The answer to a form.
pub async fn change(api: &impl Api, asked: &PageRequest) -> Page {
    let field = |name: &str| asked.form.get(name).unwrap_or_default().trim();
    let (host, action) = (field("site"), field("do"));
    let given = uploaded(&asked.form);
    let wish = WishedInstall {
        site: host,
        given: &given,
        is_previous: matches!(action, "back" | "back-check"),
        dry_run: !matches!(action, "install" | "back"),
        algorithm: Some(field("algorithm")).filter(|kind| !kind.is_empty()),
        accept: Some(field("accept")).filter(|day| !day.is_empty()),
    };
    if !wish.is_previous && given.chain.is_none() {
        let nothing = "Choose the file of the chain, or paste it.";
        let outcome = InstallOutcome::plain("warn", "There is nothing to check", nothing);
        return shown(api, asked, host, Some(outcome), StatusCode::BAD_REQUEST).await;
    }
    let answer = api.call(Call::post("/v1/install").body(wish.body()).if_match(field("base"))).await;
    let status = answer.status;
    if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::NOT_FOUND {
        return failed(asked, &answer);
    }
    let outcome = outcome(&answer, &wish);
    shown(api, asked, host, Some(outcome), status).await
}

async fn shown(
    api: &impl Api,
    asked: &PageRequest,
    host: &str,
    outcome: Option<InstallOutcome>,
    status: StatusCode,
) -> Page {
    let find = asked.query.get("q").unwrap_or_default();
    let mut view = InstallView {
        frame: PageFrame::new(asked, "Install a certificate", PATH),
        answer_bold: String::new(),
        answer: String::new(),
        step: 1,
        choices: Vec::new(),
        find: find.to_owned(),
        turn: PageTurn::default(),
        site: None,
        outcome: None,
    };
    let mut host = host.to_owned();
    // Whoever has chosen needs no list of ten thousand.
    if host.is_empty() {
        let page = asked.query.get("page").unwrap_or("1");
        let listed = api.call(Call::get("/v1/sites").with("q", find).with("page", page)).await;
        if !listed.is_ok() {
            return failed(asked, &listed);
        }
        let (all, sites) = (count(&listed.body, "all"), list(&listed.body, "sites"));
        let Some(lone) = sites.first().filter(|_| all == 1) else {
            view.turn = PageTurn::of(&listed.body, find);
            view.choices = sites.iter().map(choice).collect();
            view.answer = match all {
                0 => "No site yet: there is nothing to install a certificate for.".to_owned(),
                _ => "Choose the site. Nothing changes before you have seen the verdict.".to_owned(),
            };
            return Page::of(&view).with_status(status);
        };
        host = text(lone, "site");
    }
    let answer = api.call(Call::get("/v1/install").with("site", &host)).await;
    if !answer.is_ok() {
        return failed(asked, &answer);
    }
    let may_install = asked.session.may(AdminRole::Operate);
    let mut site = site_of(&answer, may_install);
    site.has_others = count(&answer.body, "sites") > 1;
    (view.answer_bold, view.answer, view.step) = headline(&site, outcome.as_ref());
    (view.site, view.outcome) = (Some(site), outcome);
    Page::of(&view).with_status(status)
}

fn choice(site: &Value) -> SiteChoice {
    let name = text(site, "site");
    SiteChoice {
        href: format!("{PATH}?site={}", encoded(&name)),
        level: super::value::level(site),
        state: text(site, "state"),
        name,
    }
}

/// The first sentence of the page, and the step.
fn headline(site: &SiteToInstall, outcome: Option<&InstallOutcome>) -> (String, String, usize) {
    let (bold, text, step) = match outcome {
        Some(outcome) if outcome.state == PairState::Installed => {
            ("It is installed.", "The pair before it is kept, and you can roll back below.", 4)
        }
        Some(outcome) if outcome.state == PairState::Stuck => {
            ("Look at this now.", "The new files are in place, and clients do not get them.", 4)
        }
        Some(outcome) if outcome.lockout.is_some() => {
            ("Nothing has changed.", "This pair would lock readers out, so the one in use keeps serving.", 2)
        }
        Some(outcome) if outcome.level == "ok" => {
            ("Nothing has changed.", "This pair is fit to be served, and locks nobody out.", 2)
        }
        Some(_) => ("Nothing has changed.", "The pair in use keeps serving.", 2),
        None if site.managed.is_some() => ("Nothing to do here.", "pintle renews this certificate by itself.", 1),
        None => ("", "You see the verdict before anything happens.", 1),
    };
    (bold.to_owned(), text.to_owned(), step)
}

fn blocked(value: &Value) -> Option<Blocked> {
    let what = some(value, "error")?;
    Some(Blocked { what, ways: ways_out(value) })
}

fn site_of(answer: &Answer, may_install: bool) -> SiteToInstall {
    let body = &answer.body;
    let is_managed = body["managed"] == true;
    let mut rows = Vec::new();
    for pair in list(body, "pairs") {
        rows.push(row(pair, true));
        let previous = &pair["previous"];
        if previous.is_object() {
            rows.push(PairRow { chain: text(pair, "chain"), back: Some(back(previous)), ..row(previous, false) });
        }
    }
    SiteToInstall {
        name: text(body, "site"),
        tag: answer.etag.clone().unwrap_or_default(),
        managed: blocked(&body["managed_reason"]).filter(|_| is_managed),
        not_writable: blocked(&body["not_writable"]).filter(|_| !is_managed),
        allow_keys: body["allow_keys"] == true,
        may_install,
        command: text(body, "command"),
        has_several: list(body, "pairs").len() > 1,
        has_others: false,
        rows,
    }
}

fn short(text: &str) -> String {
    let shown: String = text.chars().take(SHORT).collect();
    if shown.len() < text.len() { format!("{shown}…") } else { shown }
}

fn row(pair: &Value, is_now: bool) -> PairRow {
    let leaf = list(pair, "certificates").first().cloned().unwrap_or_default();
    let now = now();
    let served = if is_now { &pair["installed"] } else { &pair["until"] };
    PairRow {
        serial: short(&text(&leaf, "serial")),
        subject: text(&leaf, "subject"),
        pin: text(&leaf, "pin"),
        algorithm: text(&leaf, "algorithm"),
        is_now,
        is_managed: pair["managed"] == true,
        chain: text(pair, "chain"),
        served: Moment::of(served, now),
        ends: Moment::of(&leaf["not_after"], now),
        trouble: some(pair, "error").filter(|_| is_now),
        back: None,
    }
}

fn back(previous: &Value) -> BackButton {
    let leaf = list(previous, "certificates").first().cloned().unwrap_or_default();
    let algorithm = match KeyAlgorithm::named(&text(&leaf, "algorithm")) {
        KeyAlgorithm::Rsa(_) => "rsa",
        _ => "ecdsa",
    };
    let is_allowed = previous["ok"] == true;
    let why = match (is_allowed, lockout(previous)) {
        (true, _) => "It locks nobody out.".to_owned(),
        (false, Some(lockout)) => format!("The guard refuses it: {}.", lockout.words()),
        (false, None) => some(previous, "error").unwrap_or_default(),
    };
    BackButton { algorithm, is_allowed, why }
}

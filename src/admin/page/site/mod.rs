//! One site: may I rotate today? If not: from when, and who would be locked out?

mod export;
pub(super) mod ledger;
mod parts;
mod verified;

use askama::Template;
use http::StatusCode;
use serde_json::Value;

use super::error::{self, failed};
use super::moment::{Moment, seconds};
use super::timeline::{SETS_DRAWN, Timeline};
use super::value::{level, list, some, text, texts};
use crate::admin::api::{Answer, Api, Call};
use crate::admin::asked::{PageRequest, encoded};
use crate::admin::reply::{Page, PageFrame};
use crate::config::admin::AdminRole;
use export::SiteExport;
use ledger::{KeyRow, RotationWords, SetRow};
use parts::{ChainLink, MixedView, PinReport, PlannedRenewal, SentHeader, SiteFact, SiteNotice, UpstreamView};
use verified::VerifiedSite;

#[derive(Template)]
#[template(path = "site.html")]
struct SitePage {
    frame: PageFrame,
    site: String,
    href: String,
    rotate: String,
    level: &'static str,
    state: String,
    others: String,
    verify_host: String,
    now: Moment,
    /// The answer about today.
    first: RotationWords,
    notices: Vec<SiteNotice>,
    facts: Vec<SiteFact>,
    // The question about a rotation.
    form: String,
    keys: Vec<KeyRow>,
    stranger: Option<String>,
    stranger_short: String,
    days: DaysToAsk,
    wrong: Option<String>,
    ask: RotationWords,
    timeline: Option<Timeline>,
    sets: Vec<SetRow>,
    older: usize,
    /// Sets that are not in the table either.
    unlisted: usize,
    export: SiteExport,
    chains: Vec<Vec<ChainLink>>,
    headers: Vec<SentHeader>,
    has_pins: bool,
    verified: Option<VerifiedSite>,
    upstream: Option<UpstreamView>,
    renewals: Vec<PlannedRenewal>,
    may_operate: bool,
    reports: Vec<PinReport>,
    report_sum: String,
    mixed: Option<MixedView>,
}

/// The days that the form can ask about.
struct DaysToAsk {
    day: String,
    today: String,
    last: String,
    slide: i64,
    slide_max: i64,
}

impl DaysToAsk {
    fn of(today: &Value, shown: &Value, now: &Moment) -> Option<Self> {
        let last = ledger::last_day(today, now.at)?;
        Some(Self {
            day: text(shown, "day"),
            today: parts::date_of(now),
            slide: Moment::of(&shown["at"], now.at)?.days.max(0),
            slide_max: last.days.max(1),
            last: parts::date_of(&last),
        })
    }
}

/// The page of a site.
pub async fn show(api: &impl Api, asked: &PageRequest) -> Page {
    shown(api, asked, None).await
}

/// Verifies the site, and shows the table on its page.
pub async fn verify(api: &impl Api, asked: &PageRequest) -> Page {
    let host = asked.form.get("host").unwrap_or_default().to_owned();
    let answer = api.call(Call::post("/v1/verify").with("host", &host)).await;
    shown(api, asked, Some(VerifiedSite::of(&answer))).await
}

async fn shown(api: &impl Api, asked: &PageRequest, verified: Option<VerifiedSite>) -> Page {
    let host = asked.segment(1).unwrap_or_default();
    let about = |path: &str| Call::get(path).with("host", &host);
    let answer = api.call(about("/v1/site")).await;
    if answer.status == StatusCode::NOT_FOUND {
        let way_out = "The overview lists all sites. A site that was added to the file appears after a reload.";
        return error::show(asked, StatusCode::NOT_FOUND, &format!("No site has the name {host}"), way_out);
    }
    if !answer.is_ok() {
        return failed(asked, &answer);
    }
    // The first answer is about today, whatever day is asked about.
    let today = api.call(about("/v1/rotation")).await;
    if !today.is_ok() {
        return failed(asked, &today);
    }
    let field = |name: &str| asked.query.get(name).filter(|value| !value.trim().is_empty());
    let question: Vec<_> = ["key", "day"].into_iter().filter_map(|name| Some((name, field(name)?))).collect();
    let rotation = match &question[..] {
        [] => None,
        fields => {
            let call = fields.iter().fold(about("/v1/rotation"), |call, (name, value)| call.with(name, value));
            Some(api.call(call).await)
        }
    };
    let form = asked.query.get("form").unwrap_or("okhttp");
    let pins = api.call(about("/v1/pins").with("form", form)).await;
    match view(asked, &answer.body, &today.body, rotation.as_ref().unwrap_or(&today), (form, &pins)) {
        Some(view) => Page::of(&SitePage { verified, ..view }),
        None => failed(asked, &answer),
    }
}

fn view(
    asked: &PageRequest,
    site: &Value,
    today: &Value,
    rotation: &Answer,
    (form, pins): (&str, &Answer),
) -> Option<SitePage> {
    let now = seconds(&site["now"])?;
    let now = Moment::new(now, now)?;
    let name = text(site, "site");
    let href = format!("/site/{}", encoded(&name));
    // A question that is refused leaves the answer about today in place.
    let (shown, wrong) = match rotation.is_ok() {
        true => (&rotation.body, None),
        false => (today, Some(some(&rotation.body, "error").unwrap_or_else(|| "this question has no answer".into()))),
    };
    let first = RotationWords::of(today, now.at)?;
    let ask = RotationWords::of(shown, now.at)?;
    let keys = ledger::keys(shown, now.at);
    let stranger = some(shown, "key").filter(|_| shown["role"].is_null());
    let hosts = texts(site, "hosts");
    let (all_sets, sets) = (list(shown, "sets").len(), ledger::sets(shown, now.at));
    Some(SitePage {
        frame: PageFrame::new(asked, name.clone(), "/"),
        level: level(site),
        state: text(site, "state"),
        others: hosts.iter().skip(1).cloned().collect::<Vec<_>>().join(", "),
        verify_host: hosts.first().map(|host| host.replacen("*.", "www.", 1)).unwrap_or_default(),
        first,
        notices: parts::notices(site, now.at),
        facts: parts::facts(site, today, now.at),
        days: DaysToAsk::of(today, shown, &now)?,
        stranger_short: stranger.as_deref().map(ledger::short).unwrap_or_default(),
        stranger,
        wrong,
        ask,
        timeline: Timeline::of(shown),
        unlisted: all_sets.saturating_sub(sets.len()),
        sets,
        older: all_sets.saturating_sub(SETS_DRAWN),
        export: SiteExport::of(&name, &href, asked, form, pins),
        chains: parts::chains(site, now.at),
        headers: parts::headers(site),
        has_pins: site["hpkp"].is_object(),
        verified: None,
        upstream: UpstreamView::of(site),
        renewals: parts::renewals(site, now.at),
        may_operate: asked.session.may(AdminRole::Operate),
        reports: parts::reports(site, now.at),
        report_sum: parts::report_sum(site),
        mixed: parts::mixed(site),
        form: asked.query.get("form").unwrap_or_default().to_owned(),
        keys,
        rotate: format!("/keys/rotate?site={}", encoded(&name)),
        site: name,
        href,
        now,
    })
}

/// Asks for a renewal, and shows the site again.
pub async fn renew(api: &impl Api, asked: &PageRequest) -> Page {
    let host = asked.segment(1).unwrap_or_default();
    let answer = api.call(Call::post("/v1/acme/renew").with("host", &host)).await;
    if answer.is_ok() {
        return Page::see(format!("/site/{}#renewal", encoded(&host)));
    }
    failed(asked, &answer)
}

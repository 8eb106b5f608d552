//! The overview: is anything wrong, and what comes first?

use askama::Template;
use serde_json::Value;

use super::error::failed;
use super::moment::{Moment, duration};
use super::rates::{self, RateFigure};
use super::timeline::DateLine;
use super::value::{WayOut, count, figure, grouped, level, list, some, text, ways_out};
use crate::admin::api::{Api, Call};
use crate::admin::asked::{PageRequest, encoded};
use crate::admin::reply::{Page, PageFrame};
use crate::reason::counted;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: PageFrame,
    need: String,
    answer: String,
    trouble: Option<String>,
    attention: Vec<AttentionItem>,
    more: usize,
    facts: Vec<RateFigure>,
    search: String,
    is_filtered: bool,
    filters: Vec<StateFilter>,
    rows: Vec<SiteListRow>,
    found: String,
    page: usize,
    pages: usize,
    before: Option<String>,
    after: Option<String>,
    line: Option<DateLine>,
    dates: Vec<ComingDate>,
}

/// A problem.
struct AttentionItem {
    level: &'static str,
    site: Option<SiteLink>,
    what: String,
    hints: Vec<WayOut>,
}

struct SiteLink {
    name: String,
    href: String,
}

/// Sites in one state.
struct StateFilter {
    label: &'static str,
    href: String,
    count: String,
    is_current: bool,
}

/// A site.
struct SiteListRow {
    name: String,
    href: String,
    names: String,
    level: &'static str,
    state: String,
    ends: Option<Moment>,
    ends_class: &'static str,
    held: Option<Moment>,
    pins: bool,
    withheld: bool,
    upstream: String,
    hsts: String,
    hsts_more: String,
    rate: String,
}

/// A date of a site.
struct ComingDate {
    number: usize,
    when: Moment,
    class: &'static str,
    what: &'static str,
    site: String,
    href: String,
    others: usize,
}

fn site_link(name: &str) -> SiteLink {
    SiteLink { name: name.to_owned(), href: format!("/site/{}", encoded(name)) }
}

/// The overview of all sites.
pub async fn show(api: &impl Api, asked: &PageRequest) -> Page {
    let overview = api.call(Call::get("/v1/overview")).await;
    if !overview.is_ok() {
        return failed(asked, &overview);
    }
    if count(&overview.body, "sites") == 0 {
        return super::first::show(api, asked).await;
    }
    let call = ["q", "state", "page"].into_iter().filter_map(|name| Some((name, asked.query.get(name)?)));
    let sites = api.call(call.fold(Call::get("/v1/sites"), |call, (name, value)| call.with(name, value))).await;
    if !sites.is_ok() {
        return failed(asked, &sites);
    }
    let rates = api.call(Call::get("/v1/rates")).await;
    match view(asked, &overview.body, &sites.body, &rates.body) {
        Some(view) => Page::of(&view),
        None => failed(asked, &overview),
    }
}

fn view(asked: &PageRequest, overview: &Value, sites: &Value, rates: &Value) -> Option<OverviewPage> {
    let now = super::moment::seconds(&overview["now"])?;
    let (need, answer) = answer(overview);
    let dates = dates(overview, now);
    let points: Vec<(i64, &'static str)> = dates.iter().map(|date| (date.when.at, dot(date.class))).collect();
    let attention: Vec<AttentionItem> = list(overview, "attention").iter().map(item).collect();
    let search = asked.query.get("q").unwrap_or_default().to_owned();
    let state = asked.query.get("state").unwrap_or_default().to_owned();
    let (page, pages) = (count(sites, "page"), count(sites, "pages"));
    let query = |state: &str, page: usize| {
        let mut parts = Vec::new();
        for (name, value) in [("q", search.as_str()), ("state", state)] {
            if !value.is_empty() {
                parts.push(format!("{name}={}", encoded(value)));
            }
        }
        if page > 1 {
            parts.push(format!("page={page}"));
        }
        if parts.is_empty() { "/#sites".to_owned() } else { format!("/?{}#sites", parts.join("&")) }
    };
    let filter = |(label, word): (&'static str, &str)| {
        let number = if word.is_empty() { count(sites, "all") } else { count(&sites["states"], word) };
        StateFilter { label, href: query(word, 1), count: grouped(number), is_current: state == word }
    };
    let filters = [("All", ""), ("Need you now", "bad"), ("Need you soon", "warning"), ("Fine", "fine")];
    Some(OverviewPage {
        frame: PageFrame::new(asked, "Overview", "/"),
        need,
        answer,
        trouble: some(&overview["ledger"], "error").map(|error| format!("The ledger cannot be written: {error}")),
        more: count(overview, "attention_all").saturating_sub(attention.len()),
        attention,
        facts: rates::figures(rates),
        filters: filters.map(filter).into(),
        rows: list(sites, "sites").iter().map(|site| row(site, now)).collect(),
        found: grouped(count(sites, "found")),
        before: (page > 1).then(|| query(&state, page - 1)),
        after: (page < pages).then(|| query(&state, page + 1)),
        is_filtered: !state.is_empty(),
        page,
        pages,
        line: DateLine::of(now, &points),
        dates,
        search,
    })
}

/// The first line: who needs the operator, and how the others are.
fn answer(overview: &Value) -> (String, String) {
    let all = count(overview, "sites");
    let (bad, warning) = (count(&overview["states"], "bad"), count(&overview["states"], "warning"));
    let first = list(overview, "attention").iter().find_map(|item| item["site"].as_str());
    let first = first.map(|site| format!(", {site} first")).unwrap_or_default();
    let sites = |count: usize| match count {
        1 => "One site needs".to_owned(),
        count => format!("{} sites need", grouped(count)),
    };
    let of_process = list(overview, "attention").iter().any(|item| item["site"].is_null());
    let need = match (bad, warning) {
        (0, 0) if of_process => "pintle itself needs you.".to_owned(),
        (0, 0) => String::new(),
        (0, warning) => format!("{} you soon{first}.", sites(warning)),
        (bad, _) => format!("{} you now{first}.", sites(bad)),
    };
    let rest = match (bad + warning, all) {
        (0, 1) => "The site is fine.".to_owned(),
        (0, all) => format!("All {} are fine.", counted(grouped(all), "site")),
        (some, all) if some == all => "Every site has a task.".to_owned(),
        (some, all) => match all - some {
            1 => "The other one is fine.".to_owned(),
            others => format!("The other {} are fine.", grouped(others)),
        },
    };
    let drain =
        if overview["draining"] == true { " This process is ending: it lets running requests finish." } else { "" };
    (need, format!("{rest}{drain}"))
}

fn item(item: &Value) -> AttentionItem {
    AttentionItem {
        level: level(item),
        site: item["site"].as_str().map(site_link),
        what: text(item, "what"),
        hints: ways_out(item),
    }
}

fn row(site: &Value, now: i64) -> SiteListRow {
    let name = text(site, "site");
    let (hsts, more) = hsts(site);
    SiteListRow {
        href: site_link(&name).href,
        names: counted(count(site, "names"), "name"),
        level: level(site),
        state: text(site, "state"),
        ends: Moment::of(&site["certificate_ends"], now),
        ends_class: if site["is_ending"] == true { "t-bad" } else { "quiet" },
        held: Moment::of(&site["promised_until"], now),
        pins: site["pins"] == true,
        withheld: site["pins_withheld"] == true,
        upstream: match (site["upstream"].as_str(), site["upstream_fails"] == true) {
            (None, _) => "none".to_owned(),
            (Some(_), true) => "fails".to_owned(),
            (Some(url), false) => {
                let place = url.split_once("://").map_or(url, |(_, place)| place);
                place.trim_end_matches('/').to_owned()
            }
        },
        hsts,
        hsts_more: more,
        rate: site["requests_per_second"].as_f64().map_or_else(|| "–".to_owned(), figure),
        name,
    }
}

/// The max-age of HSTS, and its flags or the step of its ramp.
fn hsts(site: &Value) -> (String, String) {
    let Some(value) = site["hsts"].as_str() else { return ("not used".to_owned(), String::new()) };
    let mut parts = value.split(';').map(str::trim);
    let age = parts.find_map(|part| part.strip_prefix("max-age=")?.parse().ok());
    let age = match age {
        Some(0) => "withdrawn".to_owned(),
        Some(age) => duration(age),
        None => value.to_owned(),
    };
    let ramp = &site["hsts_ramp"];
    let mut more: Vec<String> = Vec::new();
    if ramp.is_object() {
        more.push(format!("ramp, {} of {}", count(ramp, "step"), count(ramp, "steps")));
    }
    more.extend(value.split(';').map(str::trim).filter(|flag| flag.eq_ignore_ascii_case("preload")).map(str::to_owned));
    (age, more.join(", "))
}

fn dates(overview: &Value, now: i64) -> Vec<ComingDate> {
    let date = |(at, date): (usize, &Value)| {
        let when = Moment::of(&date["at"], now)?;
        let (what, class) = match date["what"].as_str()? {
            "certificate-ends" => ("certificate ends", if date["is_urgent"] == true { "t-bad" } else { "" }),
            "renewal-due" => ("renewal due, by itself", ""),
            "ramp-step" => ("max-age rises a step", ""),
            "pins-end" => ("last set of pins ends", "t-ok"),
            _ => return None,
        };
        let SiteLink { name: site, href } = site_link(&text(date, "site"));
        Some(ComingDate {
            number: at + 1,
            when,
            class,
            what,
            site,
            href,
            others: count(date, "sites").saturating_sub(1),
        })
    };
    list(overview, "dates").iter().enumerate().filter_map(date).collect()
}

/// The class of a dot whose words have this class.
fn dot(class: &str) -> &'static str {
    match class {
        "t-bad" => "dot-bad",
        "t-ok" => "dot-ok",
        _ => "dot",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_line_answers() {
        let of = |bad: usize, warning: usize, fine: usize| {
            let states = json!({ "bad": bad, "warning": warning, "fine": fine });
            let attention = json!([{ "site": null }, { "site": "a.example" }]);
            let overview = json!({ "sites": bad + warning + fine, "states": states, "attention": attention });
            let (need, rest) = answer(&overview);
            format!("{need} {rest}").trim().to_owned()
        };
        assert_eq!(of(0, 0, 1), "pintle itself needs you. The site is fine.");
        assert_eq!(answer(&json!({ "sites": 10_000 })), (String::new(), "All 10,000 sites are fine.".to_owned()));
        assert_eq!(of(1, 2, 1), "One site needs you now, a.example first. The other one is fine.");
        assert_eq!(of(0, 2, 4), "2 sites need you soon, a.example first. The other 4 are fine.");
        assert_eq!(of(2, 0, 0), "2 sites need you now, a.example first. Every site has a task.");
    }

    #[test]
    fn hsts_in_words() {
        let of = |value: &str, ramp: Value| hsts(&json!({ "hsts": value, "hsts_ramp": ramp }));
        let pair = |age: &str, more: &str| (age.to_owned(), more.to_owned());
        assert_eq!(of("max-age=31536000", Value::Null), pair("1 year", ""));
        assert_eq!(of("max-age=63072000; includeSubDomains; preload", Value::Null), pair("2 years", "preload"));
        assert_eq!(of("max-age=86400", json!({ "step": 3, "steps": 5 })), pair("1 day", "ramp, 3 of 5"));
        assert_eq!(of("max-age=0", Value::Null), pair("withdrawn", ""));
        assert_eq!(hsts(&json!({})), pair("not used", ""));
    }
}

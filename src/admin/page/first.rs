//! The first start: from three answers to the padlock. Looks at the blog, shows the file, and leaves the rest to the
//! configuration's own form.

use askama::Template;
use http::StatusCode;
use serde_json::{Value, json};

use super::error::failed;
use super::value::{WayOut, list, some, text, ways_out};
use crate::admin::api::{Answer, Api, Call};
use crate::admin::asked::PageRequest;
use crate::admin::reply::{Page, PageFrame};
use crate::config::admin::AdminRole;
use crate::init::write::TERMS;

#[derive(Template)]
#[template(path = "first.html")]
struct FirstPage {
    frame: PageFrame,
    config: String,
    may_configure: bool,
    /// The reason why this process cannot write the file.
    not_writable: Option<Trouble>,
    /// The reason why there is no plan.
    refused: Option<Trouble>,
    given: GivenFields,
    terms: &'static str,
    plan: Option<PlannedFile>,
}

/// A fault and its remedies.
struct Trouble {
    what: String,
    hints: Vec<WayOut>,
}

/// The fields of the form, as they were filled in.
#[derive(Default)]
struct GivenFields {
    url: String,
    hosts: String,
    email: String,
    terms: bool,
    pins: bool,
}

/// The file that would be written.
struct PlannedFile {
    base: String,
    text: String,
    rows: usize,
    platform: String,
    found: Vec<FoundFact>,
    notes: Vec<String>,
    problems: Vec<FoundProblem>,
    is_fit: bool,
}

/// A conclusion.
struct FoundFact {
    label: &'static str,
    value: String,
}

/// A problem of the file.
struct FoundProblem {
    is_error: bool,
    what: String,
    hints: Vec<WayOut>,
}

impl Trouble {
    fn of(value: &Value) -> Option<Self> {
        Some(Self { what: some(value, "error")?, hints: ways_out(value) })
    }
}

/// The page before any answer.
pub async fn show(api: &impl Api, asked: &PageRequest) -> Page {
    rendered(api, asked, GivenFields::default(), None).await
}

/// Looks at the blog, and shows the file.
pub async fn look(api: &impl Api, asked: &PageRequest) -> Page {
    let field = |name: &str| asked.form.get(name).unwrap_or_default().trim().to_owned();
    let is_set = |name: &str| asked.form.get(name).is_some();
    let given = GivenFields {
        url: field("url"),
        hosts: field("hosts"),
        email: field("email"),
        terms: is_set("terms"),
        pins: is_set("pins"),
    };
    let wanted = json!({
        "url": given.url, "hosts": given.hosts, "email": given.email, "terms": given.terms, "pins": given.pins,
    });
    let answer = api.call(Call::post("/v1/init").json(&wanted)).await;
    rendered(api, asked, given, Some(answer)).await
}

async fn rendered(api: &impl Api, asked: &PageRequest, given: GivenFields, answer: Option<Answer>) -> Page {
    let state = api.call(Call::get("/v1/config").with("text", "false")).await;
    if !state.is_ok() {
        return failed(asked, &state);
    }
    let status = answer.as_ref().map_or(StatusCode::OK, |answer| answer.status);
    let (plan, refused) = match answer {
        Some(answer) if answer.is_ok() => {
            let text = text(&answer.body, "text");
            let verdict = api.call(Call::post("/v1/config/check").body(text)).await;
            (Some(PlannedFile::of(&answer.body, &verdict.body)), None)
        }
        Some(answer) => (None, Trouble::of(&answer.body)),
        None => (None, None),
    };
    Page::of(&FirstPage {
        frame: PageFrame::new(asked, "First site", "/"),
        config: text(&state.body, "file"),
        may_configure: asked.session.may(AdminRole::Configure),
        not_writable: Trouble::of(&state.body["not_writable"]),
        refused,
        given,
        terms: TERMS,
        plan,
    })
    .with_status(status)
}

impl PlannedFile {
    fn of(answer: &Value, verdict: &Value) -> Self {
        let report = &answer["report"];
        let text_of = text(answer, "text");
        let fact = |label, value: Option<String>| Some(FoundFact { label, value: value? });
        let header = some(report, "host_header");
        let facts = [
            fact("Upstream", some(report, "upstream")),
            fact("Host header", header),
            fact("Connects to", some(report, "connect")),
        ];
        let problem = |reason: &Value| FoundProblem {
            is_error: reason["severity"] == "error",
            what: text(reason, "what"),
            hints: ways_out(reason),
        };
        Self {
            base: text(answer, "tag"),
            rows: text_of.lines().count().clamp(12, 40),
            text: text_of,
            platform: match text(report, "platform").as_str() {
                "" | "unknown" => "a platform that pintle does not know".to_owned(),
                known => known.to_owned(),
            },
            found: facts.into_iter().flatten().collect(),
            notes: list(report, "notes").iter().map(|note| text(note, "text")).collect(),
            problems: list(verdict, "reasons").iter().map(problem).collect(),
            is_fit: verdict["ok"] == true,
        }
    }
}

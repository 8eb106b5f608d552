//! Explain: every decision that a request would meet, with the line behind it.

use askama::Template;
use http::StatusCode;
use serde_json::{Value, json};

use super::error::failed;
use super::value::{list, some, text, texts};
use crate::admin::api::{Api, Call};
use crate::admin::asked::PageRequest;
use crate::admin::reply::{Page, PageFrame};

/// The methods of the form.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

#[derive(Template)]
#[template(path = "explain.html")]
struct ExplainPage {
    frame: PageFrame,
    verdict: Option<String>,
    about: Option<String>,
    wrong: Option<String>,
    url: String,
    method: String,
    methods: [&'static str; 7],
    from: String,
    fields: String,
    http: bool,
    steps: Vec<ExplainedStep>,
    parts: Vec<FieldChanges>,
    limits: Vec<NamedLimit>,
}

struct ExplainedStep {
    name: String,
    what: String,
    why: String,
    at: String,
}

/// The changes to the fields of a message.
struct FieldChanges {
    title: &'static str,
    rows: Vec<ChangedField>,
    kept: String,
}

struct ChangedField {
    change: &'static str,
    class: &'static str,
    name: String,
    value: String,
    why: String,
    at: String,
}

struct NamedLimit {
    name: String,
    value: String,
    at: String,
}

/// The page, with the explanation if a URL is asked about.
pub async fn show(api: &impl Api, asked: &PageRequest) -> Page {
    let field = |name: &str| asked.query.get(name).unwrap_or_default().trim().to_owned();
    let empty = ExplainPage {
        frame: PageFrame::new(asked, "Explain", "/explain"),
        verdict: None,
        about: None,
        wrong: None,
        url: field("url"),
        method: some_or(field("method"), "GET"),
        methods: METHODS,
        from: field("from"),
        fields: field("fields"),
        http: asked.query.get("http").is_some(),
        steps: Vec::new(),
        parts: Vec::new(),
        limits: Vec::new(),
    };
    if empty.url.is_empty() {
        return Page::of(&empty);
    }
    let question = match question(&empty) {
        Ok(question) => question,
        Err(wrong) => {
            return Page::of(&ExplainPage { wrong: Some(wrong), ..empty }).with_status(StatusCode::BAD_REQUEST);
        }
    };
    let answer = api.call(Call::post("/v1/explain").json(&question)).await;
    match answer.status {
        StatusCode::OK => Page::of(&filled(empty, &answer.body)),
        StatusCode::BAD_REQUEST => {
            let wrong = some(&answer.body, "error");
            Page::of(&ExplainPage { wrong, ..empty }).with_status(StatusCode::BAD_REQUEST)
        }
        _ => failed(asked, &answer),
    }
}

fn some_or(text: String, other: &str) -> String {
    if text.is_empty() { other.to_owned() } else { text }
}

/// The question of the form, or what is wrong with it.
fn question(form: &ExplainPage) -> Result<Value, String> {
    let mut fields = Vec::new();
    for line in form.fields.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(|| {
            format!("{line:?} is not a header field. Write a name, a colon and a value: X-Forwarded-Proto: https")
        })?;
        fields.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let from = match form.from.as_str() {
        "" => None,
        text => Some(text.parse::<std::net::IpAddr>().map_err(|_| format!("{text:?} is not an IP address"))?),
    };
    Ok(json!({ "url": form.url, "from": from, "fields": fields, "http": form.http, "method": form.method }))
}

fn filled(empty: ExplainPage, report: &Value) -> ExplainPage {
    let request = &report["request"];
    let step = |step: &Value| ExplainedStep {
        name: text(step, "step"),
        what: text(step, "what"),
        why: text(step, "why"),
        at: place(step, "built in"),
    };
    let mut steps: Vec<ExplainedStep> = list(report, "steps").iter().map(step).collect();
    steps.extend([("HSTS", "hsts"), ("pins", "pins")].map(|(name, key)| policy(name, &report["policies"][key])));
    let limit = |limit: &Value| NamedLimit {
        name: text(limit, "name"),
        value: limit["value"].as_str().map_or_else(|| limit["value"].to_string(), str::to_owned),
        at: place(limit, "default"),
    };
    let parts = [("Fields to the upstream", "request_fields"), ("Fields to the client", "response_fields")];
    let parts = parts.into_iter().map(|(title, key)| part(title, list(report, key)));
    ExplainPage {
        verdict: some(report, "verdict"),
        about: Some(format!(
            "{} {} from {}, by the running process: {}",
            some(request, "method").unwrap_or_else(|| "a request for".into()),
            text(request, "url"),
            text(request, "from"),
            text(report, "config")
        )),
        steps,
        parts: parts.filter(|part| !part.rows.is_empty() || !part.kept.is_empty()).collect(),
        limits: list(report, "limits").iter().map(limit).collect(),
        ..empty
    }
}

/// The line of a key, without the folder of its file; a word if the file lacks the key.
fn place(row: &Value, without: &str) -> String {
    row["at"].as_str().map_or(without, |at| at.rsplit('/').next().unwrap_or(at)).to_owned()
}

fn policy(name: &str, policy: &Value) -> ExplainedStep {
    let what = match (policy["value"].as_str(), policy["why_not"].as_str()) {
        (Some(value), _) => format!("{}: {value}", text(policy, "name")),
        (None, why) => format!("not sent: {}", why.unwrap_or("-")),
    };
    let at = place(policy, "built in");
    ExplainedStep { name: name.to_owned(), what, why: texts(policy, "notes").join("; "), at }
}

fn part(title: &'static str, fields: &[Value]) -> FieldChanges {
    let row = |field: &Value| {
        let (before, after) = (texts(field, "before").join(" | "), texts(field, "after").join(" | "));
        let (change, class, value) = match field["change"].as_str()? {
            "added" => ("added", "t-ok", after),
            "removed" => ("removed", "t-bad", before),
            "changed" => ("changed", "t-warn", format!("{before} → {after}")),
            "would_remove" => ("removed", "t-bad", "if it is sent".to_owned()),
            _ => return None,
        };
        let (name, why) = (text(field, "name"), text(field, "why"));
        Some(ChangedField { change, class, name, value, why, at: place(field, "built in") })
    };
    let kept = fields.iter().filter(|field| field["change"] == "kept").map(|field| text(field, "name"));
    FieldChanges { title, rows: fields.iter().filter_map(row).collect(), kept: kept.collect::<Vec<_>>().join(", ") }
}

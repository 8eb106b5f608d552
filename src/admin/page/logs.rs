//! Logs: the last records of the access log, with filters.

use askama::Template;
use http::StatusCode;
use serde_json::Value;

use super::error::failed;
use super::moment::Moment;
use super::value::{capital, count, list, some, text, texts};
use crate::admin::api::{Api, Call};
use crate::admin::asked::PageRequest;
use crate::admin::reply::{Page, PageFrame};
use crate::reason::counted;

/// Records on the page.
const ROWS: usize = 60;
/// Records that a text is looked for in.
const SEARCHED: usize = 1000;
/// The longest target on the page, in characters.
const TARGET_MAX: usize = 160;

/// The choices of a status: for the API, and in words.
const STATUSES: [(&str, &str); 6] = [
    ("", "any"),
    ("5xx", "5xx, failed"),
    ("4xx", "4xx, refused"),
    ("3xx", "3xx, elsewhere"),
    ("2xx", "2xx, fine"),
    ("1xx", "1xx, upgraded"),
];

#[derive(Template)]
#[template(path = "logs.html")]
struct LogsPage {
    frame: PageFrame,
    answer: String,
    site: String,
    status: String,
    statuses: [(&'static str, &'static str); 6],
    search: String,
    rows: Vec<LogRow>,
    empty: String,
    empty_more: String,
}

struct LogRow {
    iso: String,
    time: String,
    status: String,
    class: &'static str,
    request: String,
    why: String,
    site: String,
    client: String,
    took: String,
}

/// The page.
pub async fn show(api: &impl Api, asked: &PageRequest) -> Page {
    let field = |name: &str| asked.query.get(name).unwrap_or_default().trim().to_owned();
    let (site, status, search) = (field("site"), field("status"), field("q"));
    let number = if search.is_empty() { ROWS } else { SEARCHED };
    let mut call = Call::get("/v1/records").with("n", &number.to_string());
    for (name, value) in [("site", &site), ("status", &status)] {
        if !value.is_empty() {
            call = call.with(name, value);
        }
    }
    let answer = api.call(call).await;
    let view = |answer: String, rows: Vec<LogRow>, empty: &str, empty_more: String| LogsPage {
        frame: PageFrame::new(asked, "Logs", "/logs"),
        answer,
        site: site.clone(),
        status: status.clone(),
        statuses: STATUSES,
        search: search.clone(),
        rows,
        empty: empty.to_owned(),
        empty_more,
    };
    let off = |why: String| {
        let hints = texts(&answer.body, "hints").join("; ");
        let more = if hints.is_empty() { "The access log has every record.".to_owned() } else { format!("{hints}.") };
        view(format!("{why}."), Vec::new(), "No records here", more)
    };
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Page::of(&off("This process keeps no recent records".to_owned())),
        StatusCode::CONFLICT => {
            let why = some(&answer.body, "error").unwrap_or_default();
            return Page::of(&off(capital(&why)));
        }
        StatusCode::BAD_REQUEST => {
            let why = some(&answer.body, "error").unwrap_or_default();
            return Page::of(&off(capital(&why))).with_status(StatusCode::BAD_REQUEST);
        }
        _ => return failed(asked, &answer),
    }
    let wanted = search.to_lowercase();
    let fits = |record: &&Value| wanted.is_empty() || has(record, &wanted);
    let rows: Vec<LogRow> = list(&answer.body, "records").iter().filter(fits).take(ROWS).map(row).collect();
    let kept = count(&answer.body, "kept");
    let words = match (rows.len(), kept) {
        (0, 0) => "No request has come since this process started.".to_owned(),
        (0, kept) => format!("None of the last {} fits.", counted(kept, "record")),
        (shown, kept) => format!("The latest {shown} of {} that this process keeps.", counted(kept, "record")),
    };
    let more = "The access log has older records.".to_owned();
    Page::of(&view(words, rows, if kept == 0 { "No records yet" } else { "No record fits" }, more))
}

/// `true` if any text of a record has the wanted part.
fn has(record: &Value, wanted: &str) -> bool {
    let texts = record.as_object().into_iter().flat_map(|fields| fields.values());
    texts.filter_map(Value::as_str).any(|text| text.to_lowercase().contains(wanted))
}

fn row(record: &Value) -> LogRow {
    let time = text(record, "time");
    let clock = time.get(11..19).unwrap_or_default();
    let (iso, day) = Moment::of(&record["time"], 0).map(|at| (at.iso, at.short)).unwrap_or_default();
    let status = record["status"].as_u64();
    let target = text(record, "target");
    let target: String = target.chars().take(TARGET_MAX).collect();
    let request = match some(record, "method") {
        Some(method) => format!("{method} {target}"),
        None => some(record, "kind").unwrap_or_default(),
    };
    let took = record["duration_ms"].as_f64();
    LogRow {
        iso,
        time: format!("{day}, {clock}"),
        class: match status {
            Some(500..) => "t-bad",
            Some(400..) => "t-warn",
            Some(_) => "t-ok",
            None => "quiet",
        },
        status: status.map_or_else(|| "–".to_owned(), |status| status.to_string()),
        request,
        why: some(record, "cause")
            .or_else(|| some(record, "error"))
            .or_else(|| some(record, "limit"))
            .unwrap_or_default(),
        site: some(record, "site").or_else(|| some(record, "host")).unwrap_or_default(),
        client: text(record, "client"),
        took: took.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1} ms")),
    }
}

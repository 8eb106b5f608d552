//! Doctor: the findings that the command has left, each with its evidence and its remedies.

use askama::Template;
use serde_json::Value;

use super::error::failed;
use super::moment::{Moment, seconds};
use super::value::{figure, list, text, texts};
use crate::admin::api::{Api, Call};
use crate::admin::asked::PageRequest;
use crate::admin::reply::{Page, PageFrame};
use crate::reason::counted;
use crate::reason::pasted::pintle;

#[derive(Template)]
#[template(path = "doctor.html")]
struct DoctorPage {
    frame: PageFrame,
    answer: String,
    at: Option<Moment>,
    findings: Vec<ShownFinding>,
    empty: String,
    empty_more: String,
    visits: Vec<ShownVisit>,
    unknown: Vec<String>,
    command: String,
}

struct ShownFinding {
    level: &'static str,
    id: String,
    what: String,
    evidence: Vec<String>,
    remedies: Vec<ShownRemedy>,
}

struct ShownRemedy {
    text: String,
    run: String,
}

struct ShownVisit {
    upstream: String,
    address: String,
    dns: String,
    tcp: String,
    tls: String,
    first_byte: String,
}

/// The page.
pub async fn show(api: &impl Api, asked: &PageRequest) -> Page {
    let answer = api.call(Call::get("/v1/doctor")).await;
    if !answer.is_ok() {
        return failed(asked, &answer);
    }
    Page::of(&view(PageFrame::new(asked, "Doctor", "/doctor"), &answer.body))
}

fn view(frame: PageFrame, body: &Value) -> DoctorPage {
    let report = &body["report"];
    let now = seconds(&body["now"]).unwrap_or_default();
    let command = format!("sudo {}", pintle("doctor"));
    let findings: Vec<ShownFinding> = list(report, "findings").iter().map(finding).collect();
    let faults = findings.iter().filter(|finding| finding.level == "bad").count();
    let checks = list(report, "checks").len();
    let (answer, empty, empty_more) = match (report.is_object(), findings.len(), faults) {
        (false, ..) => (
            "Nobody has looked at this host yet.".to_owned(),
            "No findings yet",
            "The command below checks the kernel’s settings, neighbours, network cards, limits, clock and connection tracking.",
        ),
        (true, 0, _) => {
            (format!("{} found nothing.", counted(checks, "check")), "Nothing found", "The host is as pintle needs it.")
        }
        (true, all, 0) => (format!("{} will cause trouble, none does now.", counted(all, "setting")), "", ""),
        (true, all, faults) => {
            let more = all - faults;
            let more = if more > 0 { format!(", and {more} more will cause trouble") } else { String::new() };
            (format!("{} to mend now{more}.", counted(faults, "fault")), "", "")
        }
    };
    let ms = |visit: &Value, key: &str| {
        visit[key].as_f64().map_or_else(|| "–".to_owned(), |ms| format!("{} ms", figure(ms)))
    };
    let visit = |visit: &Value| ShownVisit {
        upstream: text(visit, "upstream"),
        address: visit["error"].as_str().map_or_else(|| text(visit, "address"), str::to_owned),
        dns: ms(visit, "dns_ms"),
        tcp: ms(visit, "tcp_ms"),
        tls: ms(visit, "tls_ms"),
        first_byte: ms(visit, "first_byte_ms"),
    };
    let unknown = |one: &Value| format!("{}: needs {}", text(one, "check"), text(one, "needs"));
    DoctorPage {
        frame,
        answer,
        at: Moment::of(&report["at"], now),
        findings,
        empty: empty.to_owned(),
        empty_more: empty_more.to_owned(),
        visits: list(report, "visits").iter().map(visit).collect(),
        unknown: list(report, "unknown").iter().map(unknown).collect(),
        command,
    }
}

fn finding(finding: &Value) -> ShownFinding {
    let remedy = |remedy: &Value| ShownRemedy { text: text(remedy, "text"), run: texts(remedy, "run").join("\n") };
    ShownFinding {
        level: if finding["verdict"] == "fault" { "bad" } else { "warn" },
        id: text(finding, "id"),
        what: text(finding, "what"),
        evidence: texts(finding, "evidence"),
        remedies: list(finding, "remedies").iter().map(remedy).collect(),
    }
}

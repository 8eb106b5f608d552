//! The recent records of the access log, for the admin socket: one by its id, with the reason of its end, or the newest.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Control;
use super::admin::{AdminCommand, KeptRecords};
use crate::acme::request::ask;
use crate::admin::api::{Answer, Call};
use crate::admin::asked::parameter;
use crate::config::AccessTarget;
use crate::config::value::show_number;
use crate::reason::pasted::pintle;
use crate::telemetry::access::RecordField;
use crate::telemetry::{AccessFormat, LogThread, RecentRecords, RecordsReach};

/// Records in an answer, if the question names no number.
const COUNT: usize = 100;
/// The most records in an answer.
const COUNT_MAX: usize = 1000;

/// The choice of records by their status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StatusChoice {
    Code(u64),
    /// The first digit.
    Class(u64),
}

impl StatusChoice {
    fn parse(text: &str) -> Option<Self> {
        if let Some(class @ "1" | class @ "2" | class @ "3" | class @ "4" | class @ "5") = text.strip_suffix("xx") {
            return class.parse().ok().map(Self::Class);
        }
        text.parse().ok().filter(|code| (100..1000).contains(code)).map(Self::Code)
    }

    fn fits(self, record: &Value) -> bool {
        let status = record["status"].as_u64();
        status.is_some_and(|status| match self {
            Self::Code(code) => status == code,
            Self::Class(class) => status / 100 == class,
        })
    }
}

/// Answers `/records`.
pub(super) async fn shown(call: &Call, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let query = call.query.as_str();
    let Some(kept) = ask(commands, AdminCommand::Records).await else { return Answer::gone() };
    let Some(recent) = kept.recent.clone() else {
        let upgrade = pintle("upgrade");
        let hints = [format!("set log.recent in [log], such as recent = 1000, and restart pintle, or `{upgrade}`")];
        return refused(StatusCode::CONFLICT, "this process keeps no recent records: log.recent is 0", &hints);
    };
    match parameter(query, "id") {
        Some(id) => one(id, call.shows_secrets, (&kept, recent), commands).await,
        None => several(query, recent).await,
    }
}

fn refused(status: StatusCode, why: &str, hints: &[String]) -> Answer {
    Answer::json(status, json!({ "error": why, "hints": hints }))
}

/// One record, and the reason of its end.
async fn one(
    id: String,
    shows_secrets: bool,
    (kept, recent): (&KeptRecords, Arc<RecentRecords>),
    commands: &mpsc::Sender<AdminCommand>,
) -> Answer {
    // On another thread: there may be many records.
    let wanted = id.clone();
    let looked = tokio::task::spawn_blocking(move || recent.find(&wanted).ok_or_else(|| recent.reach()));
    let record = match looked.await {
        Ok(Ok(record)) => Box::new(record),
        Ok(Err(reach)) => return kept.missing(&id, &reach),
        Err(_) => return Answer::gone(),
    };
    match ask(commands, |reply| AdminCommand::ExplainRecord { record, shows_secrets, reply }).await {
        Some(explained) => Answer::json(StatusCode::OK, explained),
        None => Answer::gone(),
    }
}

/// The newest records.
async fn several(query: &str, recent: Arc<RecentRecords>) -> Answer {
    let count = match parameter(query, "n").map(|n| n.parse::<usize>()) {
        None => COUNT,
        Some(Ok(count)) => count.min(COUNT_MAX),
        Some(Err(_)) => return Answer::bad(&format!("n: expected a number up to {COUNT_MAX}")),
    };
    let status = match parameter(query, "status").filter(|status| !status.is_empty()) {
        None => None,
        Some(text) => match StatusChoice::parse(&text) {
            Some(status) => Some(status),
            None => return Answer::bad("status: expected a code such as 502, or a class such as 5xx"),
        },
    };
    let site = parameter(query, "site").filter(|site| !site.is_empty());
    let is_wanted = move |record: &Value| {
        site.as_deref().is_none_or(|site| record["site"] == site) && status.is_none_or(|status| status.fits(record))
    };
    let looked = tokio::task::spawn_blocking(move || (recent.newest(count, is_wanted), recent.reach()));
    let Ok((records, RecordsReach { records: kept, max, oldest })) = looked.await else { return Answer::gone() };
    Answer::json(StatusCode::OK, json!({ "records": records, "kept": kept, "max": max, "oldest": oldest }))
}

impl KeptRecords {
    /// Says how far the recent records reach back, and where the others are.
    fn missing(&self, id: &str, reach: &RecordsReach) -> Answer {
        if !self.has_ids {
            let why = "log.fields leaves out id, so that no record can be found by it";
            let hint = format!("add \"id\" to log.fields, and `{}`", pintle("reload"));
            return refused(StatusCode::NOT_FOUND, why, &[hint]);
        }
        let what = match &reach.oldest {
            Some(oldest) => format!(
                "no record {id} among the {} most recent: the oldest is of {oldest}",
                show_number(reach.records as u64)
            ),
            None => format!("no record {id}: this process has no records yet"),
        };
        let mut hints = vec![format!("this process started at {:.0}: it has no records of earlier ones", self.started)];
        if let Some(file) = &self.file {
            hints.push(format!("older records are in the access log: grep -F '{}' {}", harmless(id), file.display()));
        }
        if reach.records >= reach.max {
            let more = show_number(reach.max as u64);
            hints.push(format!("log.recent is {more}: a larger number keeps more records, from the next start on"));
        }
        refused(StatusCode::NOT_FOUND, &what, &hints)
    }
}

/// The characters of ids, so that a pasted command does nothing else.
fn harmless(id: &str) -> String {
    id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect()
}

impl Control {
    pub(super) fn kept_records(&self) -> KeptRecords {
        let log = &self.config.snapshot.log;
        let has_ids = log.fields.has(RecordField::Id);
        let file = match (&self.fixed.access, self.config.access_format) {
            (AccessTarget::File(path), None | Some(AccessFormat::Json)) if has_ids => Some(path.clone()),
            _ => None,
        };
        let recent = self.operator.access_log.as_ref().and_then(LogThread::recent);
        KeptRecords { recent, has_ids, file, started: self.loads.started }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_by_status() {
        for (text, want) in [
            ("502", Some(StatusChoice::Code(502))),
            ("5xx", Some(StatusChoice::Class(5))),
            ("6xx", None),
            ("xx", None),
            ("5x", None),
            ("99", None),
            ("-1", None),
        ] {
            assert_eq!(StatusChoice::parse(text), want, "{text}");
        }
        let record = json!({ "status": 502 });
        assert!(StatusChoice::Code(502).fits(&record) && StatusChoice::Class(5).fits(&record));
        assert!(!StatusChoice::Class(4).fits(&record) && !StatusChoice::Class(5).fits(&json!({ "kind": "handshake" })));
    }

    #[test]
    fn ids_in_commands() {
        assert_eq!(harmless("5f3a09c1-0-42"), "5f3a09c1-0-42");
        assert_eq!(harmless("a'; rm -rf /"), "arm-rf");
    }
}

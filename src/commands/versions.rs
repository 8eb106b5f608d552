//! `pintle config`: the versions of the configuration, and changes of it.
//!
//! With a running process, its API answers. Without one, the same functions read the files.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use super::remote::UPGRADE_PATIENCE;
use super::results::Results;
use super::{Like, Output, look_at_book, print, read, try_judge};
use crate::config::edit::{EditError, EditTarget, WrittenConfig, tag};
use crate::config::history::{ConfigHistory, ConfigVersion, secrets, short};
use crate::config::{AdminAddress, Draft};
use crate::control::client::{ClientError, PATIENCE, ask_if};
use crate::control::config::{encoded, offline};
use crate::control::{ReloadOutcome, UpgradeOutcome};
use crate::os::read_error;
use crate::reason::pasted::pintle;
use crate::reason::{Problem, Reason, shell_word};

/// The largest configuration file, in bytes.
const FILE_MAX: u64 = 64 << 20;
/// Characters of a subject in the table.
const SUBJECT: usize = 72;

/// The outcome without a running process.
const NOT_RUNNING: &str = "written; pintle is not running with this configuration: it serves this at the next start";

/// The versions to list.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Only versions before this one.
    pub before: Option<String>,
    /// The number of versions.
    pub limit: usize,
}

/// A text to put into use.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file; `-` is standard input.
    File(PathBuf),
    /// A version of the history.
    Version(String),
}

/// The way to put a text into use.
#[derive(Debug, Clone, Copy)]
pub struct HowToApply {
    /// `true` to change nothing.
    pub dry_run: bool,
    /// `true` for a new process instead of a reload.
    pub upgrades: bool,
}

/// A command about one configuration.
struct ConfigAsking<'a> {
    path: &'a Path,
    draft: Draft,
    address: Option<AdminAddress>,
    output: &'a Output,
}

/// An answer with its status code.
type ConfigAnswer = (StatusCode, Value);

impl<'a> ConfigAsking<'a> {
    fn of(path: &'a Path, output: &'a Output) -> Result<Self, Reason> {
        let draft = read(path).map_err(|reason| if path.exists() { reason } else { reason.hint(of_lost(path)) })?;
        let address = draft.admin();
        Ok(Self { path, draft, address, output })
    }

    /// The answer of the running process; `None` if none runs.
    fn ask(
        &self,
        method: Method,
        path: &str,
        body: &str,
        if_match: Option<&str>,
    ) -> Result<Option<ConfigAnswer>, Reason> {
        self.ask_within((method, path, body), if_match, PATIENCE)
    }

    /// The same with another limit of time.
    fn ask_within(
        &self,
        (method, path, body): (Method, &str, &str),
        if_match: Option<&str>,
        patience: Duration,
    ) -> Result<Option<ConfigAnswer>, Reason> {
        let Some(address) = &self.address else { return Ok(None) };
        match ask_if(address, method, path, body.to_owned(), if_match, patience) {
            Ok((status, answer)) => {
                let answer = serde_json::from_str(&answer);
                Ok(Some((status, answer.map_err(|error| format!("the answer cannot be understood: {error}"))?)))
            }
            Err(ClientError::NotRunning(_)) => Ok(None),
            Err(error @ ClientError::Forbidden(_)) => {
                Err(Reason::new(error.to_string()).hint("ask as the user that runs pintle, or as root"))
            }
            Err(error) => Err(error.to_string().into()),
        }
    }

    /// The answer to a question: of the running process, or of the files.
    fn get(&self, name: &str, query: &str) -> Result<Value, Reason> {
        let path = format!("/v1/config{name}?{query}");
        let asked = self.ask(Method::GET, &path, "", None)?;
        // An older process has no such path.
        let asked = asked.filter(|(status, body)| *status != StatusCode::NOT_FOUND || body.get("hints").is_some());
        let (status, body) = asked.unwrap_or_else(|| offline(&self.draft, name, query));
        if status == StatusCode::OK { Ok(body) } else { Err(reason_of(status, &body)) }
    }
}

/// The way to the history of a file that is gone, which named the folder of the history.
fn of_lost(path: &Path) -> String {
    let history = ConfigHistory::of(Path::new("STATE"), path);
    let named = shell_word(&format!("HEAD:{}", history.name()));
    format!(
        "if it is lost: `git -C {} show {named}` prints its last version, without secrets (STATE is its \
         state.directory, such as /var/lib/pintle)",
        history.path().display()
    )
}

/// The reason in the answer of a failure.
fn reason_of(status: StatusCode, body: &Value) -> Reason {
    Reason::new(body["error"].as_str().map_or_else(|| status.to_string(), str::to_owned)).hints(hints_of(body))
}

fn hints_of(body: &Value) -> impl Iterator<Item = String> {
    body["hints"].as_array().into_iter().flatten().filter_map(|hint| hint.as_str().map(str::to_owned))
}

/// Runs a command that prints its answer in JSON or by `print`.
fn answer(as_json: bool, asked: Result<Value, Reason>, print: impl FnOnce(&Value) -> ExitCode) -> ExitCode {
    let mut results = Results::new(as_json);
    match asked {
        Ok(value) if as_json => {
            println!("{value:#}");
            ExitCode::SUCCESS
        }
        Ok(value) => print(&value),
        Err(reason) => {
            results.refuse(&reason);
            results.end(false)
        }
    }
}

/// Lists the versions, the newest first.
pub fn history(path: &Path, Listed { before, limit }: &Listed, as_json: bool, output: &Output) -> ExitCode {
    let query = before.as_ref().map(|before| format!("&before={}", encoded(before))).unwrap_or_default();
    let asked =
        ConfigAsking::of(path, output).and_then(|asking| asking.get("/history", &format!("limit={limit}{query}")));
    answer(as_json, asked, |value| {
        let versions: Vec<ConfigVersion> = serde_json::from_value(value["versions"].clone()).unwrap_or_default();
        if versions.is_empty() {
            println!("no version yet: pintle keeps one when it starts, and with each change");
        }
        let who = versions.iter().map(|version| version.who.chars().count()).max().unwrap_or_default();
        let mut marked = false;
        for version in &versions {
            let ConfigVersion { short, at, subject, verdict, .. } = version;
            // The newest version with the text in use.
            let is_running =
                !marked && value["running"].is_string() && value["running"] == serde_json::json!(version.text);
            marked |= is_running;
            let mark = if is_running { "*" } else { " " };
            let at = at.strftime("%Y-%m-%d %H:%M");
            let verdict = verdict.as_deref().unwrap_or("not by pintle");
            let subject: String = subject.chars().take(SUBJECT).collect();
            println!("{mark} {short}  {at}  {:who$}  {subject} ({verdict})", version.who);
        }
        if let Some(next) = value["next"].as_str() {
            println!("more: {}", pintle(format_args!("config history --before {}", short(next))));
        }
        if let Some(error) = value["state"]["error"].as_str() {
            let reason = Reason::new(format!("the newest version is missing: {error}"));
            super::warn(&reason.hints(hints_of(&value["state"])));
        }
        ExitCode::SUCCESS
    })
}

/// Prints the text of a version, or of the file.
pub fn show(path: &Path, id: Option<&str>, as_json: bool, output: &Output) -> ExitCode {
    let asked = ConfigAsking::of(path, output).and_then(|asking| match id {
        Some(id) => asking.get(&format!("/history/{}", encoded(id)), ""),
        None => Ok(serde_json::json!({ "file": path.display().to_string(), "text": &*asking.draft.text() })),
    });
    answer(as_json, asked, |value| {
        print::to_stdout(format_args!("{}", value["text"].as_str().unwrap_or_default()));
        ExitCode::SUCCESS
    })
}

/// Compares two versions: `running`, `file`, or ids. Secrets are left out.
pub fn diff(path: &Path, from: &str, to: &str, as_json: bool, output: &Output) -> ExitCode {
    let query = format!("from={}&to={}", encoded(from), encoded(to));
    let asked = ConfigAsking::of(path, output).and_then(|asking| asking.get("/diff", &query));
    answer(as_json, asked, |value| {
        print::to_stdout(format_args!("{}", value["diff"].as_str().unwrap_or_default()));
        ExitCode::SUCCESS
    })
}

/// Puts a text into use: checks it, writes the file, and has the running process reload it. What is refused changes nothing.
pub fn apply(path: &Path, source: &Source, how: HowToApply, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let ok = match ConfigAsking::of(path, output).and_then(|asking| try_apply(&asking, source, how, &mut results)) {
        Ok(ok) => ok,
        Err(reason) => results.refuse(&reason),
    };
    results.end(ok)
}

fn try_apply(
    asking: &ConfigAsking<'_>,
    source: &Source,
    how: HowToApply,
    results: &mut Results,
) -> Result<bool, Reason> {
    let target = EditTarget::look(asking.path).map_err(|error| error.reason())?;
    let (text, restores) = match source {
        Source::File(file) => (read_source(file)?, None),
        Source::Version(id) => {
            let found = asking.get(&format!("/history/{}", encoded(id)), "")?;
            let text = found["text"].as_str().unwrap_or_default().to_owned();
            (text, found["version"]["id"].as_str().map(str::to_owned))
        }
    };
    let text = match secrets::unmasked(&text, target.text()) {
        Ok(text) => text,
        Err(missing) => {
            let show = pintle("config show ID");
            let hint = format!("write it into the file first, or apply a file that has it: {show} > FILE");
            for missing in missing {
                results.refuse(&missing.reason().hint(hint.clone()));
            }
            return Ok(false);
        }
    };
    if how.dry_run {
        return try_out(asking, &text, results);
    }
    if how.upgrades {
        return write_and_upgrade(asking, target, &text, results);
    }
    let tag = tag(target.text());
    let asked = match &restores {
        Some(id) => asking.ask(Method::POST, &format!("/v1/config/restore?id={id}"), "", Some(&tag))?,
        None => asking.ask(Method::PUT, "/v1/config", &text, Some(&tag))?,
    };
    match asked {
        Some((StatusCode::OK, body)) => Ok(done(&body, results)),
        Some((StatusCode::CONFLICT, body)) => Ok(refused(&body, results)),
        // The process may not write; whoever called this command may.
        Some((StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _)) => {
            write_and_reload(asking, target, &text, restores.as_deref(), results)
        }
        Some((status, body)) => Err(reason_of(status, &body)),
        None => {
            if !judge(asking, &text, results)? {
                return Ok(results.fail(&"not applied: see above"));
            }
            target.write(&text).map_err(|error| error.reason())?;
            results.say(NOT_RUNNING);
            Ok(true)
        }
    }
}

/// Prints the verdict and the difference. Changes nothing.
fn try_out(asking: &ConfigAsking<'_>, text: &str, results: &mut Results) -> Result<bool, Reason> {
    match asking.ask(Method::POST, "/v1/config/check", text, None)? {
        Some((StatusCode::OK | StatusCode::CONFLICT, body)) => {
            let ok = body["ok"] == true;
            results.set("diff", body["diff"].clone());
            print_reasons(&body, results);
            for line in body["diff"].as_str().unwrap_or_default().lines() {
                results.say(line);
            }
            Ok(ok || results.fail(&"pintle would refuse it"))
        }
        Some((StatusCode::NOT_FOUND, _)) | None => {
            let ok = judge(asking, text, results)?;
            Ok(ok || results.fail(&"pintle would refuse it"))
        }
        Some((status, body)) => Err(reason_of(status, &body)),
    }
}

/// Writes the file as the user of this command, has it loaded, and brings the former text back if it is refused.
fn write_and_reload(
    asking: &ConfigAsking<'_>,
    target: EditTarget,
    text: &str,
    restores: Option<&str>,
    results: &mut Results,
) -> Result<bool, Reason> {
    if let Some((StatusCode::CONFLICT, body)) = asking.ask(Method::POST, "/v1/config/check", text, None)? {
        return Ok(refused(&body, results));
    }
    let written = target.write(text).map_err(|error: EditError| error.reason())?;
    let how = match restores {
        Some(id) => format!("how=restore&restores={id}"),
        None => "how=apply".to_owned(),
    };
    match asking.ask(Method::POST, &format!("/v1/reload?{how}"), "", None) {
        Ok(Some((StatusCode::OK, body))) => Ok(done(&body, results)),
        Ok(Some((_, body))) => {
            written.undo().map_err(|error| error.reason())?;
            Ok(refused(&body, results))
        }
        Ok(None) => {
            results.say("written; pintle has ended meanwhile: it serves this at the next start");
            Ok(true)
        }
        Err(reason) => {
            written.undo().map_err(|error| error.reason())?;
            Err(reason)
        }
    }
}

/// Writes the file as the user of this command, and has a new process take over with it. If that does not come to serve, the
/// former text is back.
fn write_and_upgrade(
    asking: &ConfigAsking<'_>,
    target: EditTarget,
    text: &str,
    results: &mut Results,
) -> Result<bool, Reason> {
    if !judge(asking, text, results)? {
        // The running process remembers the keys that it refuses, too: a line of `accept_lockout_until` may be about them.
        let _ = asking.ask(Method::POST, "/v1/config/check", text, None);
        return Ok(results.fail(&"not applied: see above"));
    }
    let written = target.write(text).map_err(|error| error.reason())?;
    let undo = |written: WrittenConfig| written.undo().map_err(|error: EditError| error.reason());
    let body = match asking.ask_within((Method::POST, "/upgrade", ""), None, UPGRADE_PATIENCE) {
        Ok(Some((_, body))) => body,
        Ok(None) => {
            results.say(NOT_RUNNING);
            return Ok(true);
        }
        Err(reason) => {
            undo(written)?;
            return Err(reason);
        }
    };
    let Ok(outcome) = serde_json::from_value::<UpgradeOutcome>(body.clone()) else {
        undo(written)?;
        return Err(reason_of(StatusCode::CONFLICT, &body));
    };
    results.found_elsewhere(&outcome.reasons());
    if !outcome.ok {
        undo(written)?;
        return Ok(results.fail(&"not applied; nothing has changed"));
    }
    outcome.notes.iter().for_each(|note| results.say(note));
    results.set("pid", outcome.pid);
    results.say(format!("applied: process {} serves it", outcome.pid.unwrap_or_default()));
    Ok(true)
}

fn print_reasons(body: &Value, results: &mut Results) -> Vec<String> {
    let Ok(verdict) = serde_json::from_value::<ReloadOutcome>(body.clone()) else { return Vec::new() };
    let notes = verdict.notes.clone();
    results.found_elsewhere(&verdict.reasons());
    notes
}

fn done(body: &Value, results: &mut Results) -> bool {
    for note in print_reasons(body, results) {
        results.say(note);
    }
    results.set("version", body["version"].clone());
    match body["version"].as_str() {
        Some(id) => results.say(format!("applied; in the history as {}", short(id))),
        None => results.say("applied"),
    }
    true
}

fn refused(body: &Value, results: &mut Results) -> bool {
    print_reasons(body, results);
    results.fail(&"not applied; nothing has changed")
}

/// Judges a text without a running process, as `pintle check` does.
fn judge(asking: &ConfigAsking<'_>, text: &str, results: &mut Results) -> Result<bool, Reason> {
    let draft = Draft::of_text(asking.path, text.to_owned());
    match try_judge(draft, look_at_book, &Like::CHECK) {
        Ok(loaded) => {
            let shown: Vec<Problem> = loaded.problems.shown();
            results.found_elsewhere(&shown);
            Ok(true)
        }
        Err(unfit) => {
            let Some(problems) = &unfit.problems else { return Err(unfit.reason.clone()) };
            for problem in problems.sorted() {
                results.problem(problems, problem, asking.output);
            }
            Ok(false)
        }
    }
}

/// A text from a file, or from standard input.
fn read_source(file: &Path) -> Result<String, Reason> {
    let failed = |error: &io::Error| read_error::reason(file, error);
    let mut text = String::new();
    let read = match file.to_str() {
        Some("-") => io::stdin().take(FILE_MAX + 1).read_to_string(&mut text),
        _ => fs::File::open(file).and_then(|opened| opened.take(FILE_MAX + 1).read_to_string(&mut text)),
    };
    let length = read.map_err(|error| failed(&error))?;
    match u64::try_from(length) {
        Ok(length) if length <= FILE_MAX => Ok(text),
        _ => Err(failed(&io::Error::new(io::ErrorKind::FileTooLarge, "larger than any configuration"))),
    }
}

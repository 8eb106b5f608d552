//! `pintle reload`, `upgrade` and `status`: requests to the running process.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use super::results::Results;
use super::running::{self, ServingProcess};
use super::{Output, fail};
use crate::config::{self, AdminAddress, Draft};
use crate::control::client::{ClientError, PATIENCE, ask_for};
use crate::control::{ReloadOutcome, UpgradeOutcome};
use crate::os::read_error;
use crate::reason::pasted::pintle;
use crate::reason::{Problem, Reason};

/// An upgrade has its own limit (`limits.upgrade`), which the running process enforces.
pub(super) const UPGRADE_PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// The number of times that a command asks a process that is starting, before it gives up: five seconds.
const START_TRIALS: usize = 50;
/// The pause between two trials.
const START_PAUSE: Duration = Duration::from_millis(100);

/// Makes the running process reload its configuration. Exit code 0 if it does.
pub fn reload(path: &Path, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let Some(answer) = send(path, Method::POST, "/reload", PATIENCE, output, &mut results) else {
        return results.end(false);
    };
    let Some(verdict) = results.understood::<ReloadOutcome>(&answer) else { return results.end(false) };
    let ok = verdict.ok;
    if as_json {
        print!("{answer}");
    } else {
        let summary = match (verdict.ok, verdict.notes.is_empty()) {
            (true, true) => "reloaded: nothing has changed",
            (true, false) => "reloaded",
            (false, _) => "not reloaded; pintle keeps serving the previous configuration",
        };
        print_verdict(verdict, summary, output);
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Makes the running process start the program on disk and hand over to it. Exit code 0 if it does.
pub fn upgrade(path: &Path, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let Some(answer) = send(path, Method::POST, "/upgrade", UPGRADE_PATIENCE, output, &mut results) else {
        return results.end(false);
    };
    let Some(upgraded) = results.understood::<UpgradeOutcome>(&answer) else { return results.end(false) };
    let reasons = upgraded.reasons();
    let UpgradeOutcome { ok, notes, pid, version, .. } = upgraded;
    if as_json {
        print!("{answer}");
    } else {
        let summary = match (pid, version) {
            (Some(pid), Some(version)) if ok => format!("process {pid} (pintle {version}) serves now"),
            _ => "not upgraded; the old process keeps serving".to_owned(),
        };
        print_outcome(ok, &reasons, &notes, &summary, output);
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn print_verdict(verdict: ReloadOutcome, summary: &str, output: &Output) {
    let (ok, notes) = (verdict.ok, verdict.notes.clone());
    print_outcome(ok, &verdict.reasons(), &notes, summary, output);
}

/// Prints an outcome and its reasons.
fn print_outcome(ok: bool, reasons: &[Problem], notes: &[String], summary: &str, output: &Output) {
    for reason in reasons {
        eprintln!("{}", reason.render(output.color));
    }
    for note in notes {
        println!("{note}");
    }
    if ok {
        println!("{summary}");
    } else {
        fail(&summary);
    }
}

/// The answer of the running process. Without one, the reason has been printed.
pub(super) fn send(
    path: &Path,
    method: Method,
    command: &str,
    patience: Duration,
    output: &Output,
    results: &mut Results,
) -> Option<String> {
    // A refusal with reasons is an answer.
    let answers = [StatusCode::OK, StatusCode::CONFLICT];
    ask_running(path, (method, command), patience, &answers, output, results).map(|(_, answer)| answer)
}

/// The same with its status code, which is one of `answers`.
pub(super) fn ask_running(
    path: &Path,
    (method, command): (Method, &str),
    patience: Duration,
    answers: &[StatusCode],
    output: &Output,
    results: &mut Results,
) -> Option<(StatusCode, String)> {
    say_to_running(path, (method, command, String::new()), patience, answers, output, results)
}

/// The same with a body.
pub(super) fn say_to_running(
    path: &Path,
    (method, command, body): (Method, &str, String),
    patience: Duration,
    answers: &[StatusCode],
    output: &Output,
    results: &mut Results,
) -> Option<(StatusCode, String)> {
    let draft = draft(path, results)?;
    let address = address_of(path, &draft, output, results)?;
    let say = |method: Method| ask_for(&address, method, command, body.clone(), patience);
    let mut answer = say(method.clone());
    for _ in 0..START_TRIALS {
        // A script starts pintle, and its next line reloads it: the ports answer before the admin socket does.
        if !matches!(answer, Err(ClientError::NotRunning(_))) || !running::is_starting(&draft) {
            break;
        }
        std::thread::sleep(START_PAUSE);
        answer = say(method.clone());
    }
    understood(&draft, command, answer, answers, results)
}

/// The same, to a process whose address is known.
pub(super) fn say_to(
    (draft, address): (&Draft, &AdminAddress),
    (method, command, body): (Method, &str, String),
    patience: Duration,
    answers: &[StatusCode],
    results: &mut Results,
) -> Option<(StatusCode, String)> {
    understood(draft, command, ask_for(address, method, command, body, patience), answers, results)
}

/// An expected answer. Of any other one, the reason has been printed.
fn understood(
    draft: &Draft,
    command: &str,
    answer: Result<(StatusCode, String), ClientError>,
    answers: &[StatusCode],
    results: &mut Results,
) -> Option<(StatusCode, String)> {
    match answer {
        Ok((status, answer)) if answers.contains(&status) => return Some((status, answer)),
        Ok((status, answer)) => {
            let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
            let why = answer["error"].as_str().map_or_else(|| status.to_string(), str::to_owned);
            let hints = answer["hints"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let reason = Reason::new(format!("the running process says: {why}"));
            results.refuse(&reason.hints(hints.map(str::to_owned)))
        }
        Err(error @ (ClientError::NotRunning(_) | ClientError::Elsewhere(_))) => {
            results.refuse(&not_found(draft, command, &error))
        }
        Err(error @ ClientError::Forbidden(_)) => {
            results.fail_with_hint(&error, &"ask as the user that runs pintle, or as root")
        }
        Err(error) => results.fail(&error),
    };
    None
}

/// The reason why nobody answers, with the way to a process that serves this configuration all the same.
fn not_found(draft: &Draft, command: &str, error: &ClientError) -> Reason {
    let reason = Reason::new(error.to_string());
    let Some(ServingProcess { id, .. }) = running::newest(draft) else {
        let start = format!("`{}` starts it", pintle("run"));
        return reason.hint(format!("{start}; if it runs with another configuration, name that with -c"));
    };
    let note = "since it has read this file, admin.listen or state.directory has changed, or its socket is gone";
    let reason = reason.note(format!("process {id} serves this configuration, but listens elsewhere: {note}"));
    let reload = (command == "/reload").then(|| format!("to have it reload, and log the outcome: kill -HUP {id}"));
    reason
        .hints(reload)
        .hint(format!("to have it upgrade, take its promises along, and listen where the file says: kill -USR2 {id}"))
}

/// The configuration, and the address of the running process. Without one, the reason has been printed.
pub(super) fn address_of_running(path: &Path, output: &Output, results: &mut Results) -> Option<(Draft, AdminAddress)> {
    let draft = draft(path, results)?;
    let address = address_of(path, &draft, output, results)?;
    Some((draft, address))
}

/// The configuration. If it cannot be read, the reason has been printed.
fn draft(path: &Path, results: &mut Results) -> Option<Draft> {
    let read = config::read(path);
    read.inspect_err(|error| _ = results.refuse(&read_error::reason(path, error))).ok()
}

fn address_of(path: &Path, draft: &Draft, output: &Output, results: &mut Results) -> Option<AdminAddress> {
    let address = draft.admin();
    if address.is_none() {
        refuse_without_socket(path, draft, output, results);
    }
    address
}

fn refuse_without_socket(path: &Path, draft: &Draft, output: &Output, results: &mut Results) {
    if draft.problems().has_errors() {
        for problem in draft.problems().sorted() {
            results.problem(draft.problems(), problem, output);
        }
        results.fail(&format!("{}: cannot be read, so that the running process is not found", path.display()));
        return;
    }
    results.fail_with_hint(
        &format!("{}: no admin socket configured", path.display()),
        &"set admin.listen or state.directory, and restart pintle; without an admin socket, only signals reach it \
          (SIGHUP reloads)",
    );
}

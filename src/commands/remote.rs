//! `pintle reload`, `upgrade` and `status`: requests to the running process.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use super::results::Results;
use super::{Output, fail};
use crate::config::{self, Draft};
use crate::control::client::{ClientError, PATIENCE, ask_for};
use crate::control::{Upgraded, Verdict};
use crate::host::both_forms;
use crate::os::read_error;
use crate::reason::{Problem, counted};

/// The number of reports shown one by one.
const REPORTS_SHOWN: usize = 3;

/// An upgrade has its own limit (`limits.upgrade`), which the running process enforces.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Makes the running process reload its configuration. Exit code 0 if it does.
pub fn reload(path: &Path, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let Some(answer) = send(path, Method::POST, "/reload", PATIENCE, output, &mut results) else {
        return results.end(false);
    };
    if as_json {
        print!("{answer}");
    }
    let Ok(verdict) = serde_json::from_str::<Verdict>(&answer) else {
        return fail(&format!("the answer cannot be understood: {answer}"));
    };
    let ok = verdict.ok;
    if !as_json {
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
    if as_json {
        print!("{answer}");
    }
    let Ok(upgraded) = serde_json::from_str::<Upgraded>(&answer) else {
        return fail(&format!("the answer cannot be understood: {answer}"));
    };
    let reasons = upgraded.reasons();
    let Upgraded { ok, notes, pid, version, .. } = upgraded;
    if !as_json {
        let summary = match (pid, version) {
            (Some(pid), Some(version)) if ok => format!("process {pid} serves now, by pintle {version}"),
            _ => "not upgraded; the old process keeps serving".to_owned(),
        };
        print_outcome(ok, &reasons, &notes, &summary, output);
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn print_verdict(verdict: Verdict, summary: &str, output: &Output) {
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

/// Prints the state of the running process.
pub fn status(path: &Path, as_json: bool, output: &Output) -> ExitCode {
    let mut results = Results::new(as_json);
    let Some(answer) = send(path, Method::GET, "/status", PATIENCE, output, &mut results) else {
        return results.end(false);
    };
    if as_json {
        print!("{answer}");
        return ExitCode::SUCCESS;
    }
    match serde_json::from_str::<Value>(&answer) {
        Ok(status) => {
            print_status(&status);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("the answer cannot be understood: {error}")),
    }
}

/// The answer of the running process. Without one, the reason has been printed.
fn send(
    path: &Path,
    method: Method,
    command: &str,
    patience: Duration,
    output: &Output,
    results: &mut Results,
) -> Option<String> {
    let draft = match config::read(path) {
        Ok(draft) => draft,
        Err(error) => {
            results.refuse(&read_error::reason(path, &error));
            return None;
        }
    };
    let Some(address) = draft.admin() else {
        no_door(path, &draft, output, results);
        return None;
    };
    match ask_for(&address, method, command, String::new(), patience) {
        // A refusal with reasons is an answer.
        Ok((StatusCode::OK | StatusCode::CONFLICT, answer)) => return Some(answer),
        Ok((status, answer)) => {
            let why = serde_json::from_str::<Value>(&answer).ok().and_then(|a| a["error"].as_str().map(str::to_owned));
            results.fail(&format!("the running process says: {}", why.unwrap_or_else(|| status.to_string())))
        }
        Err(error @ ClientError::NotRunning(_)) => results.fail_with_hint(
            &error,
            &"`pintle run` starts it; if it runs with another configuration, name that with -c; if admin.listen or \
              state.directory has changed since, SIGHUP makes it reload",
        ),
        Err(error @ ClientError::Forbidden(_)) => {
            results.fail_with_hint(&error, &"ask as the user that runs pintle, or as root")
        }
        Err(error) => results.fail(&error),
    };
    None
}

fn no_door(path: &Path, draft: &Draft, output: &Output, results: &mut Results) {
    if draft.problems().has_errors() {
        for problem in draft.problems().sorted() {
            results.problem(draft.problems(), problem, output);
        }
        results.fail(&format!("{}: cannot be read, so that the running process is not found", path.display()));
        return;
    }
    results.fail_with_hint(
        &format!("{}: no admin socket configured", path.display()),
        &"set admin.listen, or state.directory, and start pintle anew; SIGHUP makes it reload without one",
    );
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("-")
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn print_status(status: &Value) {
    println!(
        "pintle {}, process {}, since {}",
        text(status, "version"),
        status["pid"],
        minute(text(status, "started"))
    );
    println!("  configuration  {}", text(status, "config"));
    if status["draining"] == true {
        println!("  DRAINING       {} left", counted(&status["connections"], "connection"));
    }
    for listener in list(status, "listening") {
        println!("  listening      {} ({})", text(listener, "address"), text(listener, "scheme"));
    }
    let ledger = &status["ledger"];
    match (ledger["directory"].as_str(), ledger["error"].as_str()) {
        (None, _) => {
            println!("  ledger         in memory: set state.directory, or promises are forgotten at the next start")
        }
        (Some(_), Some(error)) => println!("  ledger         NOT WRITABLE, pins are withheld: {error}"),
        (Some(directory), None) => {
            let sets = counted(&ledger["promises"], "pin set");
            println!("  ledger         {directory}: {sets}, {} alive", ledger["alive"]);
        }
    }
    for repair in list(ledger, "repairs") {
        let what: Vec<&str> = list(repair, "what").iter().filter_map(Value::as_str).collect();
        println!("    REPAIRED     {}: {}", minute(text(repair, "at")), what.join("; "));
    }
    if let Some(error) = status["access_log"]["error"].as_str() {
        println!("  ACCESS LOG     {error}\n    hint: {}", text(&status["access_log"], "hint"));
    }
    let launcher = &status["launcher"];
    if launcher["wanted"] == false {
        println!("  upgrades       not in a demo: stop it with Ctrl-C, and start it again");
    } else if launcher["alive"] == false {
        println!("  NO UPGRADES    no launcher ({}): restart pintle", text(launcher, "error"));
    }
    print_sandbox(&status["sandbox"]);
    println!(
        "  rotations      {} done, {} refused; reloads {} done, {} refused; lockouts accepted {}",
        status["rotations"],
        status["rotations_refused"],
        status["reloads"],
        status["reloads_refused"],
        status["lockouts_accepted"]
    );
    println!("  requests       {}", status["counters"]["requests"]);
    print_reports(&status["reports"]);
    for site in list(status, "sites") {
        print_site(site);
    }
}

/// Prints the user, and the sandbox of the process.
fn print_sandbox(sandbox: &Value) {
    if sandbox.is_null() {
        return;
    }
    let landlock = match sandbox["landlock"].as_u64() {
        Some(version) => format!("landlock {version}"),
        None => "no landlock".to_owned(),
    };
    let calls = match sandbox["system_calls"].as_u64() {
        Some(calls) => format!("{calls} system calls"),
        None => "all system calls".to_owned(),
    };
    let ports: Vec<String> = list(sandbox, "ports").iter().map(Value::to_string).collect();
    let connects = if ports.is_empty() { "any port".to_owned() } else { format!("ports {}", ports.join(", ")) };
    println!("  sandbox        user {}; {landlock}; {calls}; connects to {connects}", text(sandbox, "user"));
    for lack in list(sandbox, "lacks").iter().filter_map(Value::as_str) {
        println!("    lacks        {lack}");
    }
}

/// Prints the reports of failed pins: their number, and the last ones.
fn print_reports(reports: &Value) {
    let counts = reports["counts"].as_object();
    let taken: u64 = counts.into_iter().flat_map(|c| c.values()).filter_map(Value::as_u64).sum();
    let refused = reports["refused"].as_u64().unwrap_or_default();
    if taken + refused == 0 {
        return;
    }
    println!("  reports        {taken} of pins that did not match; {refused} refused");
    for report in list(reports, "recent").iter().rev().take(REPORTS_SHOWN) {
        let (host, noted) = (text(report, "hostname"), text(report, "noted_hostname"));
        let of = if host == noted { String::new() } else { format!(", by the pins of {noted}") };
        println!("    {}  {host}{of}", minute(text(report, "at")));
    }
}

fn print_site(site: &Value) {
    let hosts: Vec<&str> = list(site, "hosts").iter().filter_map(Value::as_str).collect();
    println!("\n{}", hosts.into_iter().map(both_forms).collect::<Vec<_>>().join(", "));
    print_upstream(site);
    print_keys(site);
    print_policies(site);
    print_lockouts(site);
    for todo in list(site, "todo").iter().filter_map(Value::as_str) {
        println!("  TO DO        {todo}");
    }
}

fn print_keys(site: &Value) {
    for c in list(site, "certificates") {
        println!("  certificate  {} until {}, by {}", text(c, "serial"), day(text(c, "not_after")), text(c, "issuer"));
        println!("    live       {} {}", text(c, "pin"), text(c, "algorithm"));
    }
    for backup in list(site, "backups") {
        let usable =
            backup["usable_from"].as_str().map_or_else(String::new, |at| format!(", usable from {}", minute(at)));
        println!(
            "    {:9}  {} {} {}{usable}",
            text(backup, "role"),
            text(backup, "pin"),
            text(backup, "algorithm"),
            text(backup, "file")
        );
    }
}

/// Prints HSTS and pins, with promises, ramps and reports.
fn print_policies(site: &Value) {
    if let Some(hsts) = site["hsts"].as_str() {
        println!("  HSTS         {hsts}");
    }
    if let Some(header) = site["hpkp"]["name"].as_str() {
        match site["hpkp"]["why_not"].as_str() {
            None => println!("  pins         sent as {header}"),
            Some(why) => println!("  pins         WITHHELD: {why}"),
        }
    }
    if let Some(until) = site["promised_until"].as_str() {
        println!(
            "  promised     {} of pins held by clients, until {}",
            counted(&site["promises_alive"], "set"),
            minute(until)
        );
    }
    for ramp in list(site, "ramps") {
        let next = match ramp["next"]["at"].as_str() {
            Some(at) => format!("next {} on {}", seconds(&ramp["next"]["max_age"]), minute(at)),
            None => "the last one".to_owned(),
        };
        println!(
            "  ramp         {}: step {} of {}, max-age {}; {next}",
            text(ramp, "policy"),
            ramp["step"],
            ramp["steps"],
            seconds(&ramp["max_age"])
        );
    }
    if site["reports"].as_u64().unwrap_or(0) > 0 {
        let networks = counted(&site["report_networks"], "network");
        println!("  reports      {} of pins that did not match, from {networks}", site["reports"]);
    }
}

/// Prints accepted lockouts, and the reasons why new files are refused.
fn print_lockouts(site: &Value) {
    for lockout in list(site, "accepted_lockouts") {
        println!(
            "  LOCKOUT ACCEPTED {}, until {}: {} is served, and is not in {} of the sets that clients hold",
            minute(text(lockout, "at")),
            text(lockout, "until"),
            text(lockout, "pin"),
            lockout["sets"]
        );
    }
    for reason in list(&site["refused"], "reasons") {
        println!("  REFUSED      since {}: {}", minute(text(&site["refused"], "since")), text(reason, "reason"));
        // An older process sends one hint only.
        let hints = list(reason, "hints").iter().filter_map(Value::as_str);
        for hint in hints.chain(reason["hint"].as_str().filter(|_| list(reason, "hints").is_empty())) {
            println!("    hint: {hint}");
        }
    }
}

/// Prints the upstream and its problems.
fn print_upstream(site: &Value) {
    let (Some(url), health) = (site["upstream"].as_str(), &site["upstream_health"]) else { return };
    println!("  upstream     {url}");
    match (text(health, "circuit"), health["tried_in"].as_u64()) {
        ("half-open", _) => println!("    CIRCUIT HALF OPEN: one request is under way to see whether it answers"),
        ("open", left) => {
            println!("    CIRCUIT OPEN: requests get 503; tried again in {} s", left.unwrap_or_default())
        }
        _ => {}
    }
    for address in list(health, "addresses") {
        let name = text(address, "address");
        if address["check_fails"] == true {
            println!("    LEFT OUT   {name}: its health check fails");
        } else if let Some(left @ 1..) = address["left_out_for"].as_u64() {
            println!("    LEFT OUT   {name}: it keeps failing; tried again in {left} s");
        }
    }
}

fn seconds(value: &Value) -> String {
    config::value::show_duration(Duration::from_secs(value.as_u64().unwrap_or_default()))
}

/// `2026-11-23`
fn day(time: &str) -> &str {
    time.get(..10).unwrap_or(time)
}

/// `2026-11-23 10:15 UTC`
fn minute(time: &str) -> String {
    match (time.get(..10), time.get(11..16)) {
        (Some(day), Some(minute)) => format!("{day} {minute} UTC"),
        _ => time.to_owned(),
    }
}

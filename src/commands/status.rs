//! `pintle status`: the state of the running process, its problems first.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde_json::Value;

use super::remote::send;
use super::results::Results;
use super::sheet::Sheet;
use super::{Output, latency};
use crate::config;
use crate::control::client::PATIENCE;
use crate::host::both_forms;
use crate::ledger::time::minute_from;
use crate::reason::counted;

/// The number of reports shown one by one.
const REPORTS_SHOWN: usize = 3;

/// The options.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// `true` for JSON.
    pub as_json: bool,
    /// `true` for exit code 1 if something needs attention.
    pub exit_code: bool,
}

/// Prints the state of the running process. Exit code 0 if it answers, and nothing needs attention where that counts.
pub fn status(path: &Path, options: Options, output: &Output) -> ExitCode {
    let mut results = Results::new(options.as_json);
    let Some(answer) = send(path, Method::GET, "/status", PATIENCE, output, &mut results) else {
        return results.end(false);
    };
    let Some(status) = results.understood::<Value>(&answer) else { return results.end(false) };
    if options.as_json {
        print!("{answer}");
    } else {
        print_status(&status, &Sheet::new(output));
    }
    let is_fine = list(&status, "attention").is_empty();
    if is_fine || !options.exit_code { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Prints the problems, each with its remedies.
fn print_attention(status: &Value, sheet: &Sheet) {
    for item in list(status, "attention") {
        let site = item["site"].as_str().map(|site| format!("{}: ", both_forms(site))).unwrap_or_default();
        sheet.loud("  ATTENTION      ", &format!("{site}{}", text(item, "what")));
        for hint in list(item, "hints").iter().filter_map(Value::as_str) {
            sheet.hint(hint);
        }
    }
}

pub(super) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("-")
}

pub(super) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn print_status(status: &Value, sheet: &Sheet) {
    sheet.line(&format!(
        "pintle {}, process {}, since {}",
        text(status, "version"),
        status["pid"],
        minute(text(status, "started"))
    ));
    print_attention(status, sheet);
    sheet.row("  configuration  ", text(status, "config"));
    if status["draining"] == true {
        sheet.loud("  DRAINING       ", &format!("{} left", counted(&status["connections"], "connection")));
    }
    for listener in list(status, "listening") {
        sheet.row("  listening      ", &format!("{} ({})", text(listener, "address"), text(listener, "scheme")));
    }
    print_pages(&status["admin_https"], sheet);
    print_ledger(&status["ledger"], sheet);
    if let Some(error) = status["access_log"]["error"].as_str() {
        sheet.loud("  ACCESS LOG     ", error);
        sheet.hint(text(&status["access_log"], "hint"));
    }
    let launcher = &status["launcher"];
    if launcher["wanted"] == false {
        match launcher["tie"].as_str() {
            Some(tie) => sheet.row("  upgrades       ", &format!("none: {tie}")),
            None => sheet.row("  upgrades       ", "not in a demo: stop it with Ctrl-C, and start it again"),
        }
    } else if launcher["alive"] == false {
        sheet.loud("  NO UPGRADES    ", &format!("no launcher ({}): restart pintle", text(launcher, "error")));
    }
    print_sandbox(&status["sandbox"], sheet);
    sheet.row(
        "  rotations      ",
        &format!(
            "{} done, {} refused; reloads {} done, {} refused; lockouts accepted {}",
            status["rotations"],
            status["rotations_refused"],
            status["reloads"],
            status["reloads_refused"],
            status["lockouts_accepted"]
        ),
    );
    print_traffic(status, sheet);
    print_memory(&status["memory"], sheet);
    print_reports(&status["reports"], sheet);
    for site in list(status, "sites") {
        print_site(site, sheet);
    }
}

/// Prints the addresses of the pages over TLS, and the end of their certificate.
fn print_pages(pages: &Value, sheet: &Sheet) {
    let ends = list(pages, "certificates").iter().map(|certificate| text(certificate, "not_after")).min();
    let ends = ends.map_or_else(|| "no certificate".to_owned(), |end| format!("until {}", day(end)));
    for address in list(pages, "listening").iter().filter_map(Value::as_str) {
        sheet.row("  pages          ", &format!("{address} (https, {ends})"));
    }
}

/// Prints the place of the ledger, and its remarks.
fn print_ledger(ledger: &Value, sheet: &Sheet) {
    match (ledger["directory"].as_str(), ledger["error"].as_str()) {
        (None, _) => sheet
            .row("  ledger         ", "in memory: set state.directory, or promises are forgotten at the next start"),
        (Some(_), Some(error)) => sheet.row("  ledger         ", &format!("NOT WRITABLE, pins are withheld: {error}")),
        (Some(directory), None) => {
            let sets = counted(&ledger["promises"], "pin set");
            sheet.row("  ledger         ", &format!("{directory}: {sets}, {} alive", ledger["alive"]));
        }
    }
    for copy in list(ledger, "former_copies") {
        let hosts: Vec<&str> = list(copy, "hosts").iter().filter_map(Value::as_str).collect();
        sheet.loud(
            "    FORMER KEY   ",
            &format!(
                "{}: the certificate and key of {}, which no site serves; a promise needs the key",
                text(copy, "file"),
                hosts.join(", ")
            ),
        );
    }
    for repair in list(ledger, "repairs") {
        let what: Vec<&str> = list(repair, "what").iter().filter_map(Value::as_str).collect();
        sheet.loud("    REPAIRED     ", &format!("{}: {}", minute(text(repair, "at")), what.join("; ")));
    }
}

/// Prints the numbers of connections and requests.
fn print_traffic(status: &Value, sheet: &Sheet) {
    let counters = &status["counters"];
    let states = status["connection_states"].as_object().into_iter().flatten();
    let states = states.filter(|(_, count)| count.as_u64() > Some(0)).map(|(state, count)| format!("{count} {state}"));
    let states = states.collect::<Vec<_>>().join(", ");
    let states = if states.is_empty() { states } else { format!(": {states}") };
    sheet.row("  connections    ", &format!("{}{states}", status["connections"]));
    sheet.row(
        "  requests       ",
        &format!(
            "{}: {} with 2xx, {} with 3xx, {} with 4xx, {} with 5xx",
            counters["requests"],
            counters["responses_2xx"],
            counters["responses_3xx"],
            counters["responses_4xx"],
            counters["responses_5xx"]
        ),
    );
    let limits = status["limits_reached"].as_object().into_iter().flatten();
    let limits = limits.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ");
    if !limits.is_empty() {
        sheet.row("  limits reached ", &limits);
    }
    for row in latency::rows(status, None) {
        sheet.line(&format!("    {row}"));
    }
}

/// Prints the memory of the process, and the allocator's account of it.
fn print_memory(memory: &Value, sheet: &Sheet) {
    let shown = |bytes: &Value| Some(format!("{:.1} MiB", bytes.as_f64()? / f64::from(1 << 20)));
    let Some(resident) = shown(&memory["resident"]) else { return };
    let words = ["allocated", "active", "resident", "retained"];
    let words = words.into_iter().filter_map(|word| Some(format!("{} {word}", shown(&memory["allocator"][word])?)));
    let words = words.collect::<Vec<_>>().join(", ");
    let allocator = if words.is_empty() { words } else { format!("; allocator: {words}") };
    sheet.row("  memory         ", &format!("{resident}{allocator}"));
}

/// Prints the user, and the sandbox of the process.
fn print_sandbox(sandbox: &Value, sheet: &Sheet) {
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
    sheet.row(
        "  sandbox        ",
        &format!("user {}; {landlock}; {calls}; connects to {connects}", text(sandbox, "user")),
    );
    for lack in list(sandbox, "lacks").iter().filter_map(Value::as_str) {
        sheet.row("    lacks        ", lack);
    }
}

/// Prints the reports of failed pins: their number, and the last ones.
fn print_reports(reports: &Value, sheet: &Sheet) {
    let counts = reports["counts"].as_object();
    let taken: u64 = counts.into_iter().flat_map(|c| c.values()).filter_map(Value::as_u64).sum();
    let refused = reports["refused"].as_u64().unwrap_or_default();
    if taken + refused == 0 {
        return;
    }
    sheet.row("  reports        ", &format!("{taken} of pins that did not match; {refused} refused"));
    for report in list(reports, "recent").iter().rev().take(REPORTS_SHOWN) {
        let (host, noted) = (text(report, "hostname"), text(report, "noted_hostname"));
        let of = if host == noted { String::new() } else { format!(", by the pins of {noted}") };
        sheet.line(&format!("    {}  {host}{of}", minute(text(report, "at"))));
    }
}

fn print_site(site: &Value, sheet: &Sheet) {
    let hosts: Vec<&str> = list(site, "hosts").iter().filter_map(Value::as_str).collect();
    sheet.line("");
    sheet.heading(&hosts.into_iter().map(both_forms).collect::<Vec<_>>().join(", "));
    print_lack(site, sheet);
    print_upstream(site, sheet);
    print_keys(site, sheet);
    print_policies(site, sheet);
    print_lockouts(site, sheet);
    for todo in list(site, "todo").iter().filter_map(Value::as_str) {
        sheet.loud("  TO DO        ", todo);
    }
}

/// Prints why a site, or some of its names, have no certificate.
fn print_lack(site: &Value, sheet: &Sheet) {
    let refused: Vec<&str> = list(site, "refused_names").iter().filter_map(Value::as_str).collect();
    if !refused.is_empty() {
        let names = refused.join(", ");
        sheet.loud("  NOT COVERED  ", &format!("{names}: TLS is refused, plain HTTP gets 503"));
    }
    let what = match site["without_certificate"].as_str() {
        None => return,
        Some("not_yet") => "yet: pintle waits for the CA",
        Some(_) => "its files cannot be served",
    };
    sheet.loud("  NO CERTIFICATE ", &format!("{what}: TLS is refused, plain HTTP gets 503"));
}

fn print_keys(site: &Value, sheet: &Sheet) {
    for c in list(site, "certificates") {
        let left = c["left"].as_str().map(|left| format!(" ({left})")).unwrap_or_default();
        sheet.row(
            "  certificate  ",
            &format!("{} until {}{left}, by {}", text(c, "serial"), day(text(c, "not_after")), text(c, "issuer")),
        );
        sheet.row("    live       ", &format!("{} {}", text(c, "pin"), text(c, "algorithm")));
    }
    for renewal in list(site, "renewals") {
        let algorithm = text(renewal, "algorithm");
        match renewal["overdue"] == true {
            true => sheet.loud("  RENEWAL      ", &format!("{algorithm}: {}", text(renewal, "words"))),
            false => {
                let due = minute(text(renewal, "due"));
                sheet.row("  renewal      ", &format!("{algorithm}: {}, due {due}", text(renewal, "standing")));
            }
        }
        if let Some(fault) = renewal["key_fault"]["what"].as_str() {
            sheet.loud("  KEY          ", &format!("{algorithm}: {fault}"));
        }
    }
    for backup in list(site, "backups") {
        let usable =
            backup["usable_from"].as_str().map_or_else(String::new, |at| format!(", usable from {}", first_minute(at)));
        let label = format!("    {:9}  ", text(backup, "role"));
        let (pin, algorithm, file) = (text(backup, "pin"), text(backup, "algorithm"), text(backup, "file"));
        sheet.row(&label, &format!("{pin} {algorithm} {file}{usable}"));
    }
}

/// Prints HSTS and pins, with promises, ramps and reports.
fn print_policies(site: &Value, sheet: &Sheet) {
    if let Some(hsts) = site["hsts"].as_str() {
        sheet.row("  HSTS         ", hsts);
    }
    if let Some(header) = site["hpkp"]["name"].as_str() {
        match site["hpkp"]["why_not"].as_str() {
            None => sheet.row("  pins         ", &format!("sent as {header}")),
            Some(why) => sheet.row("  pins         ", &format!("WITHHELD: {why}")),
        }
    }
    if let Some(until) = site["promised_until"].as_str() {
        sheet.row(
            "  promised     ",
            &format!("{} of pins held by clients, until {}", counted(&site["promises_alive"], "set"), minute(until)),
        );
    }
    for ramp in list(site, "ramps") {
        let next = match ramp["next"]["at"].as_str() {
            Some(at) => format!("next {} on {}", seconds(&ramp["next"]["max_age"]), minute(at)),
            None => "the last one".to_owned(),
        };
        sheet.row(
            "  ramp         ",
            &format!(
                "{}: step {} of {}, max-age {}; {next}",
                text(ramp, "policy"),
                ramp["step"],
                ramp["steps"],
                seconds(&ramp["max_age"])
            ),
        );
    }
    if site["reports"].as_u64().unwrap_or(0) > 0 {
        let networks = counted(&site["report_networks"], "network");
        sheet.row("  reports      ", &format!("{} of pins that did not match, from {networks}", site["reports"]));
    }
    print_mixed_content(&site["mixed_content"], sheet);
}

/// Prints the http references that browsers have reported.
fn print_mixed_content(mixed: &Value, sheet: &Sheet) {
    let references = list(mixed, "references");
    if references.is_empty() {
        return;
    }
    let known = counted(&mixed["references_known"], "reference");
    sheet.row("  mixed        ", &format!("{known} by http, from {}", counted(&mixed["reports"], "report")));
    for reference in references.iter().take(REPORTS_SHOWN) {
        let own = if reference["own"] == true { ", an own host" } else { "" };
        sheet.line(&format!(
            "    {}: {} ({}{own})",
            text(reference, "page"),
            text(reference, "reference"),
            text(reference, "kind")
        ));
    }
}

/// Prints accepted lockouts, and the reasons why new files are refused.
fn print_lockouts(site: &Value, sheet: &Sheet) {
    for lockout in list(site, "accepted_lockouts") {
        sheet.loud(
            "  LOCKOUT ACCEPTED ",
            &format!(
                "{}, until {}: {} is served, and is not in {} of the sets that clients hold",
                minute(text(lockout, "at")),
                text(lockout, "until"),
                text(lockout, "pin"),
                lockout["sets"]
            ),
        );
    }
    for reason in list(&site["refused"], "reasons") {
        sheet.loud(
            "  REFUSED      ",
            &format!("since {}: {}", minute(text(&site["refused"], "since")), text(reason, "reason")),
        );
        // An older process sends one hint only.
        let hints = list(reason, "hints").iter().filter_map(Value::as_str);
        for hint in hints.chain(reason["hint"].as_str().filter(|_| list(reason, "hints").is_empty())) {
            sheet.hint(hint);
        }
    }
}

/// Prints the upstream and its problems.
fn print_upstream(site: &Value, sheet: &Sheet) {
    let (Some(url), health) = (site["upstream"].as_str(), &site["upstream_health"]) else { return };
    sheet.row("  upstream     ", url);
    match (text(health, "circuit"), health["tried_in"].as_u64()) {
        ("half-open", _) => sheet.loud("    CIRCUIT HALF OPEN: ", "one request is under way to see whether it answers"),
        ("open", left) => sheet
            .loud("    CIRCUIT OPEN: ", &format!("requests get 503; tried again in {} s", left.unwrap_or_default())),
        _ => {}
    }
    for address in list(health, "addresses") {
        let name = text(address, "address");
        if address["check_fails"] == true {
            sheet.loud("    LEFT OUT   ", &format!("{name}: its health check fails"));
        } else if let Some(left @ 1..) = address["left_out_for"].as_u64() {
            sheet.loud("    LEFT OUT   ", &format!("{name}: it keeps failing; tried again in {left} s"));
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

/// The first minute that begins at or after a time: `2026-11-23 10:15 UTC`
fn first_minute(time: &str) -> String {
    time.parse::<Timestamp>().map_or_else(|_| time.to_owned(), |time| minute_from(time.as_second()))
}

/// `2026-11-23 10:15 UTC`
pub(super) fn minute(time: &str) -> String {
    match (time.get(..10), time.get(11..16)) {
        (Some(day), Some(minute)) => format!("{day} {minute} UTC"),
        _ => time.to_owned(),
    }
}

//! `pintle doctor`: checks of the host.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::status::{list, text};
use super::{KnownPromises, Like, Output, context, refuse, warn};
use crate::config::{self, Draft};
use crate::control::client::ask_for;
use crate::doctor::checks::{self, CHECKS, DoctorReport, run};
use crate::doctor::files::HostFiles;
use crate::doctor::finding::{Finding, FindingSeverity};
use crate::doctor::gather::HostWatch;
use crate::doctor::host::{self, Host, OutsideVerdict, OutsideView, RunningProcess, WantedUpstream};
use crate::doctor::metrics;
use crate::doctor::upstreams::times;
use crate::ledger::Book;
use crate::limits::Limits;
use crate::os::read_error;
use crate::reason::pasted::option_for;
use crate::reason::{Reason, counted};
use crate::verify::finding::is_command;
use crate::verify::target::ConnectTo;

/// Time limit for the answer of the running process.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most findings of a preflight that are shown.
const OUTSIDE_MAX: usize = 10;
/// The shortest pause between two rounds.
const PAUSE_LEAST: Duration = Duration::from_millis(100);

/// The options.
#[derive(Debug)]
pub struct Options {
    /// The checks to run; all if empty.
    pub only: Vec<String>,
    /// The pause between two rounds; `None` for one round.
    pub watch: Option<Duration>,
    /// The number of rounds; `None` for no end.
    pub rounds: Option<u64>,
    /// The root of the files.
    pub root: PathBuf,
    /// The file that gets the results as metrics.
    pub metrics: Option<PathBuf>,
    /// `true` for JSON.
    pub as_json: bool,
}

/// Returns the names of the checks, for the command line.
#[must_use]
pub fn check_names() -> PossibleValuesParser {
    PossibleValuesParser::new(CHECKS.iter().map(|check| check.id))
}

/// Checks the host. Exit code 1 if the last round found something.
pub fn doctor(path: Option<&Path>, options: &Options, output: &Output) -> ExitCode {
    // A wrong path is a mistake. Without this, doctor would leave out half of its checks.
    if let Some(path) = path.filter(|path| matches!(path.try_exists(), Ok(false))) {
        let reason = Reason::new(format!("{}: no such file", path.display()));
        return refuse(&reason.hint("name the configuration that pintle runs with: pintle doctor -c FILE"));
    }
    // Nothing would be found below it.
    if !options.root.is_dir() {
        let reason = Reason::new(format!("{}: no such folder", options.root.display()));
        return refuse(&reason.hint("name the root of a host's files: pintle doctor --root FOLDER"));
    }
    let mut watch = HostWatch::new(HostFiles::below(&options.root));
    let mut round = 0;
    loop {
        let draft = path.and_then(read);
        let demands = draft.as_ref().map(demands).unwrap_or_default();
        let running = draft.as_ref().and_then(running);
        let host = watch.round(demands, running);
        let results = run(&host, &options.only);
        let metrics = options.metrics.as_deref().map(|file| (file, metrics::text(&host, &results)));
        let report = DoctorReport::of(results);
        show(&host, &report, options, output);
        if options.only.is_empty()
            && options.watch.is_none()
            && let Some(draft) = &draft
        {
            leave(draft, &as_json(&host, &report, &options.only));
        }
        let is_written = metrics.is_none_or(|(file, text)| write_metrics(file, &text));
        round += 1;
        match options.watch {
            Some(pause) if options.rounds.is_none_or(|rounds| round < rounds) => {
                std::thread::sleep(pause.max(PAUSE_LEAST));
            }
            _ => return ExitCode::from(u8::from(!report.findings.is_empty() || !is_written)),
        }
    }
}

/// Writes the metrics. The next round of a watch tries again.
fn write_metrics(file: &Path, text: &str) -> bool {
    match metrics::write(file, text) {
        Ok(()) => true,
        Err(error) => {
            let reason = Reason::new(format!("{}: cannot write the metrics: {error}", file.display()));
            warn(&reason.hint("name a file in the folder that node_exporter reads (--collector.textfile.directory)"));
            false
        }
    }
}

fn read(path: &Path) -> Option<Draft> {
    match config::read(path) {
        Ok(draft) => Some(draft),
        Err(error) => {
            warn(&read_error::reason(path, &error));
            None
        }
    }
}

/// The demands of a configuration on its host.
fn demands(draft: &Draft) -> host::HostDemands {
    let key_files = draft.key_files().into_iter().map(|key| key.value.to_string_lossy().into_owned()).collect();
    let known = KnownPromises::of_book(Book::default());
    let (config, _) = draft.build(&context(draft, &known, &Like::start(false)));
    let Some(config) = config else {
        let what =
            format!("{}: cannot be served, so doctor leaves out upstreams and listeners", draft.path().display());
        warn(&Reason::new(what).hint(format!("pintle check{}", option_for(draft.path()))));
        return host::HostDemands { key_files, ..host::HostDemands::default() };
    };
    let mut upstreams: Vec<WantedUpstream> = Vec::new();
    for site in config.sites() {
        let Some(upstream) = &site.upstream else { continue };
        let Ok(ConnectTo { host, port: Some(port) }) = upstream.connect.parse() else { continue };
        let found = WantedUpstream {
            site: site.name().to_owned(),
            host,
            port,
            tls: upstream.server_name.clone(),
            host_header: upstream.host_header.clone().unwrap_or_else(|| site.name().to_owned()),
        };
        let is_known = upstreams
            .iter()
            .any(|known| (&known.host, known.port, &known.tls) == (&found.host, found.port, &found.tls));
        if !is_known {
            upstreams.push(found);
        }
    }
    let connections = draft.connections().unwrap_or_default();
    host::HostDemands {
        upstreams,
        listen: config.https.iter().chain(&config.http).copied().collect(),
        connections,
        open_files: if connections > 0 { Limits::open_files_for(connections) } else { 0 },
        name_servers: config.name_servers.0.clone(),
        key_files,
    }
}

/// The running process, if it answers.
fn running(draft: &Draft) -> Option<RunningProcess> {
    let status = answer(draft, "/status")?;
    let plans = answer(draft, "/acme").unwrap_or_default();
    Some(RunningProcess {
        pid: u32::try_from(status["pid"].as_u64()?).ok()?,
        upstream_errors: status["counters"]["upstream_errors"].as_u64().unwrap_or_default(),
        outside: plans.as_array().into_iter().flatten().filter_map(outside).collect(),
    })
}

/// An answer of the running process.
fn answer(draft: &Draft, path: &str) -> Option<Value> {
    let (status, answer) = ask_for(&draft.admin()?, Method::GET, path, String::new(), PATIENCE).ok()?;
    serde_json::from_str(&answer).ok().filter(|_| status == StatusCode::OK)
}

/// The last preflight of a certificate, in the plan of its renewal. `None` if there was none.
fn outside(plan: &Value) -> Option<OutsideView> {
    let preflight = &plan["preflight"];
    let verdict = match preflight["verdict"].as_str()? {
        "fine" => OutsideVerdict::Fine,
        "broken" => OutsideVerdict::Broken,
        _ => OutsideVerdict::Unknown,
    };
    // Warnings are not the reason of a failure.
    let counts = |finding: &&Value| verdict != OutsideVerdict::Broken || finding["severity"] == "error";
    let findings: Vec<&Value> = list(preflight, "findings").iter().filter(counts).take(OUTSIDE_MAX).collect();
    let all_of = |key: &str| texts(findings.iter().flat_map(|finding| list(finding, key)));
    let mut facts = texts(findings.iter().map(|finding| &finding["what"]));
    facts.extend(all_of("notes"));
    if facts.is_empty() {
        facts.push(text(preflight, "text").to_owned());
    }
    let mut hints = all_of("hints");
    hints.dedup();
    let [site, at] = [text(plan, "site"), text(preflight, "at")].map(str::to_owned);
    Some(OutsideView { site, at, verdict, facts, hints })
}

fn texts<'v>(values: impl Iterator<Item = &'v Value>) -> Vec<String> {
    values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

/// Leaves the report with the running process, for its page. Without a process, or with one that is too old, nobody looks
/// for it.
fn leave(draft: &Draft, report: &Value) {
    if let Some(address) = draft.admin() {
        let _ = ask_for(&address, Method::POST, "/v1/doctor", report.to_string(), PATIENCE);
    }
}

fn show(host: &Host, report: &DoctorReport, options: &Options, output: &Output) {
    if options.as_json {
        let answer = as_json(host, report, &options.only);
        match options.watch {
            Some(_) => println!("{answer}"),
            None => println!("{answer:#}"),
        }
        return;
    }
    if options.watch.is_some() {
        match io::stdout().is_terminal() {
            true => print!("\x1b[H\x1b[2J"),
            false => println!("{}", Timestamp::now()),
        }
    }
    for finding in &report.findings {
        print_finding(finding, output.color_of_stdout);
    }
    for (upstream, visit) in host.visits().filter(|(_, visit)| visit.failed.is_none()) {
        let address = visit.address.map_or_else(String::new, |address| format!(" ({address})"));
        println!("upstream {}{address}: {}", safe(&upstream.place()), times(visit));
    }
    for unknown in &report.unknown {
        println!("unknown: {}: needs {}", unknown.check, safe(&unknown.needs));
    }
    let checks = counted(checks::wanted(&options.only).count(), "check");
    match report.findings.len() {
        0 => println!("{checks}: nothing found"),
        count => println!("{checks}: {}", counted(count, "finding")),
    }
}

/// Prints a finding. Commands stay on one line, so that they can be pasted.
fn print_finding(finding: &Finding, color: bool) {
    let (tint, bold, off) = match finding.verdict {
        _ if !color => ("", "", ""),
        FindingSeverity::Fault => ("\x1b[31m", "\x1b[1m", "\x1b[0m"),
        FindingSeverity::Warning => ("\x1b[33m", "\x1b[1m", "\x1b[0m"),
    };
    println!("{tint}{}:{off} {bold}{}{off} [{}]", finding.verdict.word(), safe(&finding.what), finding.id);
    for fact in &finding.evidence {
        println!("  {}", safe(fact));
    }
    for remedy in &finding.remedies {
        println!("  remedy: {}", safe(&remedy.text));
        for line in &remedy.run {
            println!("    {}", safe(line));
        }
    }
    println!();
}

/// Escapes characters that a terminal obeys: texts come from files and peers.
fn safe(text: &str) -> String {
    text.chars().flat_map(|c| if is_command(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

fn as_json(host: &Host, report: &DoctorReport, only: &[String]) -> Value {
    let finding = |finding: &Finding| {
        let remedies = finding.remedies.iter().map(|remedy| json!({ "text": remedy.text, "run": remedy.run }));
        json!({
            "id": finding.id, "verdict": finding.verdict.word(), "subject": finding.subject, "what": finding.what,
            "evidence": finding.evidence, "remedies": remedies.collect::<Vec<_>>(),
        })
    };
    let unknown = report.unknown.iter().map(|unknown| json!({ "check": unknown.check, "needs": unknown.needs }));
    let ms =
        |time: Option<Duration>| time.map(|time| u64::try_from(time.as_micros()).map_or(0.0, |us| us as f64 / 1000.0));
    let visits = host.visits().map(|(upstream, visit)| {
        json!({
            "upstream": upstream.place(), "site": upstream.site,
            "address": visit.address.map(|address| address.to_string()),
            "dns_ms": ms(visit.times.dns), "tcp_ms": ms(visit.times.tcp), "tls_ms": ms(visit.times.tls),
            "first_byte_ms": ms(visit.times.first_byte), "path_mtu": visit.mtu,
            "error": visit.failed.as_ref().map(|failed| &failed.why),
        })
    });
    json!({
        "ok": report.findings.is_empty(),
        "at": Timestamp::now().to_string(),
        "checks": checks::wanted(only).map(|check| check.id).collect::<Vec<_>>(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "unknown": unknown.collect::<Vec<_>>(),
        "visits": visits.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_never_control_the_terminal() {
        assert_eq!(safe("a\x1b[31mb\u{9b}é"), "a\\u{1b}[31mb\\u{9b}é");
        assert_eq!(safe("rm \u{202e}x\u{2066}"), "rm \\u{202e}x\\u{2066}");
    }
}

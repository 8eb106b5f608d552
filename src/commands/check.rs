//! `pintle check`: everything that `run` does before it binds.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::attempts::{self, ConnectAttempts};
use super::drop_privileges::{Ahead, look_ahead};
use super::first_ledger::FirstLedger;
use super::reach::{keys_in_reach, writes_beside};
use super::{
    KnownPromises, Like, context, count_of_errors, look_at_book, print, print_problems, read, refuse, settle, warn,
};
use crate::acme::held::{FirstAttempts, last_preflight, waiting};
use crate::acme::preflight::PreflightFinding;
use crate::config::{CheckContext, Config, Draft, Managed, Problems, report};
use crate::host::both_forms;
use crate::ledger::time::minute;
use crate::os::privileges::UserAccount;
use crate::policy::hpkp;
use crate::reason::pasted::pintle;
use crate::reason::{Problem, Reason, Severity, counted};

/// The number of sites named in one note.
const NAMED_MAX: usize = 3;
/// The note without a place for the ledger.
const NO_STATE: &str = "state.directory is not set: a restart forgets the promises of [site.hpkp], and then serves any key, even \
                        one that locks readers out";

/// The options of a check.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// `true` if root may serve.
    pub allow_root: bool,
    /// `true` for JSON.
    pub as_json: bool,
    /// `true` to connect to the upstreams, and to the authorities.
    pub connect: bool,
}

/// Checks a configuration. Exit code 0 if it can be served, and, if asked for, if every upstream answers and no authority
/// wants another setting.
pub fn check(path: &Path, options: Options) -> ExitCode {
    let Options { allow_root, as_json, connect } = options;
    if as_json {
        return check_json(path, allow_root, connect);
    }
    let draft = match read(path) {
        Ok(draft) => draft,
        Err(reason) => return refuse(&reason),
    };
    settle(&draft, true);
    let known = match look_at_book(&draft) {
        Ok(known) => known,
        Err(reason) => return refuse(&reason),
    };
    let (config, problems) = draft.build(&context(&draft, &known, &Like::CHECK));
    print_problems(&problems);
    if config.is_none() {
        refuse(&count_of_errors(&draft, &problems));
        start_in_spite(&draft, &known).iter().for_each(|without| print::note(&without.to_string()));
        known.first.reasons().iter().for_each(warn);
    }
    let findings = Findings::of(&draft, &known, config.as_ref(), allow_root);
    let Findings { troubles, forbidden, warned, first } = &findings;
    for problem in forbidden.iter().chain(warned) {
        let placed = draft.problems().placed(problem);
        print::reason(&placed.reason, placed.severity);
    }
    troubles.iter().for_each(|trouble| _ = refuse(trouble));
    let Some(config) = config.filter(|_| findings.permit_start()) else { return ExitCode::from(1) };
    print_sites(&config, first.as_ref());
    let mut warnings = problems.shown().len() + warned.len();
    let sites = counted(config.sites().len(), "site");
    if connect {
        let failed = match attempts::try_all(&config) {
            Ok(attempts) => print_attempts(&attempts),
            Err(reason) => return refuse(&reason),
        };
        if failed.iter().any(Problem::is_error) {
            return ExitCode::from(1);
        }
        warnings += failed.len();
    }
    match warnings {
        0 => println!("{}: fine, {sites}", path.display()),
        n => println!("{}: can be served, {sites}, {}", path.display(), counted(n, "warning")),
    }
    ExitCode::SUCCESS
}

/// The findings of a check beside the configuration's own problems.
struct Findings {
    /// The problems that keep the serving user from serving.
    troubles: Vec<Reason>,
    /// The files that this user cannot read.
    forbidden: Vec<Problem>,
    warned: Vec<Problem>,
    /// The first ledger, if there is none yet.
    first: Option<FirstLedger>,
}

impl Findings {
    /// `config` is the judged configuration, if it can be served.
    fn of(draft: &Draft, known: &KnownPromises, config: Option<&Config>, allow_root: bool) -> Self {
        let Ahead { mut troubles, forbidden, readable: mut warned, account } = look_ahead(draft, known, allow_root);
        troubles.extend(known.damage.clone());
        let first = config.and_then(|config| first_ledger(config, known));
        if let Some(config) = config {
            warned.extend(of_files(draft, config, account.as_ref()));
            warned.extend(first.as_ref().and_then(|first| suspicious(draft, first)));
            warned.extend(left_out(draft, known));
        }
        Self { troubles, forbidden, warned, first }
    }

    /// Returns `true` if nothing in them keeps pintle from starting.
    fn permit_start(&self) -> bool {
        self.troubles.is_empty() && self.forbidden.is_empty()
    }
}

/// Prints the sites, and notes about their pins.
fn print_sites(config: &Config, first: Option<&FirstLedger>) {
    for site in config.sites() {
        print_site(site);
    }
    if config.sites().any(|s| s.hpkp.is_some()) {
        println!("note: {}", hpkp::TODAY);
    }
    if let Some(first) = first.filter(|first| !first.is_suspicious()) {
        println!("note: {}", first.reason());
    }
}

/// Prints the answers of upstreams and authorities, and returns their failures, which it prints, too.
fn print_attempts(attempts: &ConnectAttempts) -> Vec<Problem> {
    attempts.answers().iter().for_each(|answer| println!("{answer}"));
    let failed = attempts.problems();
    failed.iter().for_each(|problem| print::reason(&problem.reason, problem.severity));
    failed
}

/// Files that the serving process should not be able to read or change.
fn of_files(draft: &Draft, config: &Config, account: Option<&UserAccount>) -> Vec<Problem> {
    let mut warned = if account.is_some() { Vec::new() } else { keys_in_reach(draft, config) };
    warned.extend(writes_beside(draft, config, account));
    if config.state.is_none() && !config.pledges.is_empty() {
        let reason = Reason::new(NO_STATE).hint("[state] with directory = \"state\", a folder of pintle's own");
        warned.push(Problem::warning(&draft.place_of("site.hpkp"), reason));
    }
    warned.extend(of_preflights(draft, config));
    warned.extend(of_waiting(draft, config));
    warned
}

/// Returns the errors of each certificate's last preflight: pintle orders nothing until they are solved.
fn of_preflights(draft: &Draft, config: &Config) -> Vec<Problem> {
    let mut found: Vec<Problem> = Vec::new();
    for certificate in config.acme.iter().flat_map(|acme| &acme.certificates) {
        let Some(checked) = last_preflight(certificate) else { continue };
        let at = minute(checked.at);
        for PreflightFinding { reason, .. } in checked.findings.into_iter().filter(|f| f.severity == Severity::Error) {
            let reason = reason.note(format!("as of {at}, pintle orders no certificate for it"));
            let problem = Problem::warning(&draft.place_of_acme(&certificate.site), reason);
            if !found.iter().any(|known| known.reason.what == problem.reason.what) {
                found.push(Problem { site: Some(certificate.site.clone()), ..problem });
            }
        }
    }
    found
}

/// Returns a warning for each first certificate that pintle tries in vain to obtain: it refuses TLS for the site meanwhile.
/// The configuration may be right all the same, so the exit code stays.
fn of_waiting(draft: &Draft, config: &Config) -> Vec<Problem> {
    let managed = config.acme.iter().flat_map(|acme| &acme.certificates);
    let problem = |certificate: &Managed| {
        let FirstAttempts { failing_since: Some(since), problem } = waiting(certificate)? else { return None };
        let since = minute(since);
        let why = problem.map(|problem| format!(": {problem}")).unwrap_or_default();
        let (site, algorithm) = (&certificate.site, certificate.algorithm);
        let what = format!("{site} ({algorithm}): no certificate yet, attempts fail since {since}{why}");
        let reason = Reason::new(what)
            .note("until it has one, pintle refuses TLS for the site, and answers plain HTTP with 503")
            .hint(format!("`{}` names the remedy and the next try", pintle(format_args!("acme plan --site {site}"))));
        Some(Problem { site: Some(site.clone()), ..Problem::warning(&draft.place_of_acme(site), reason) })
    };
    managed.filter_map(problem).collect()
}

/// The first ledger, if there is none yet. A running process knows its promises, wherever they are.
fn first_ledger(config: &Config, known: &KnownPromises) -> Option<FirstLedger> {
    if known.is_whole { None } else { FirstLedger::of(config, known.first.clone()) }
}

/// The warnings about other folders' ledgers.
fn left_out(draft: &Draft, known: &KnownPromises) -> Vec<Problem> {
    let place = draft.place_of("state.directory");
    known.first.left_out.iter().map(|reason| Problem::warning(&place, reason.clone())).collect()
}

/// Warns of a first ledger, if there was one before.
fn suspicious(draft: &Draft, first: &FirstLedger) -> Option<Problem> {
    first.is_suspicious().then(|| Problem::warning(&draft.place_of("state.directory"), first.reason()))
}

fn print_site(site: &report::SiteReport) {
    println!("{}", site.hosts.iter().map(|host| both_forms(host)).collect::<Vec<_>>().join(", "));
    if let Some(upstream) = &site.upstream {
        println!("  upstream     {}", upstream.url);
        println!("    connect    {}", upstream.connect);
        if let Some(name) = &upstream.server_name {
            println!("    SNI        {name}");
            println!("    verify     {}", upstream.verify_name.as_deref().unwrap_or("nobody (insecure_skip_verify)"));
        }
        println!("    Host       {}", upstream.host_header.as_deref().unwrap_or("as the client says"));
    }
    for certificate in &site.certificates {
        let until = certificate.not_after.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string();
        println!("  certificate  {}", certificate.file());
        println!("    issued by  {}", certificate.issuer);
        println!("    until      {until}");
        println!("    live pin   {} {}", certificate.pin, certificate.algorithm);
        if !certificate.served {
            println!("    no key     TLS ends in front of pintle");
        }
    }
    if site.lacks_certificate == Some(report::CertificateLack::NotYet) {
        println!("  certificate  none yet: pintle obtains it");
    }
    if let Some(hsts) = &site.hsts {
        println!("  HSTS         {hsts}");
    }
    if let Some((name, value)) = &site.hpkp {
        println!("  pins         {name}: {value}");
        for (file, key) in &site.backups {
            println!("    backup     {} {} {} {file}", key.pin, key.algorithm, key.kind);
        }
    }
    println!();
}

fn check_json(path: &Path, allow_root: bool, connect: bool) -> ExitCode {
    let draft = match read(path) {
        Ok(draft) => draft,
        Err(reason) => return refuse_unread(path, &reason),
    };
    settle(&draft, true);
    let known = match look_at_book(&draft) {
        Ok(known) => known,
        Err(reason) => return refuse_unread(path, &reason),
    };
    let (config, problems) = draft.build(&context(&draft, &known, &Like::CHECK));
    let anyway = if config.is_none() { start_in_spite(&draft, &known) } else { None };
    let mut findings = Findings::of(&draft, &known, config.as_ref(), allow_root);
    if config.is_none() {
        let place = draft.place_of("state.directory");
        findings.warned.extend(known.first.reasons().into_iter().map(|reason| Problem::warning(&place, reason)));
    }
    let attempts = match config.as_ref().filter(|_| connect).map(attempts::try_all).transpose() {
        Ok(attempts) => attempts,
        Err(reason) => return refuse_unread(path, &reason),
    };
    let is_reached = !attempts.iter().flat_map(ConnectAttempts::problems).any(|problem| problem.is_error());
    let starts = config.is_some() && findings.permit_start();
    let is_fine = starts && is_reached;
    let mut all = problems_json(&problems);
    all.extend(findings.forbidden.iter().chain(&findings.warned).map(|p| problem_json(&problems, p)));
    all.extend(findings.troubles.iter().map(|trouble| of_file_json(path, trouble)));
    let sites: Vec<Value> = config.iter().flat_map(Config::sites).map(site_json).collect();
    let mut answer = json!({
        "ok": is_fine, "starts": starts || anyway.is_some(),
        "without_certificate": anyway.as_ref().map(|anyway| &anyway.without),
        "withheld": anyway.as_ref().map(|anyway| &anyway.withheld), "problems": all, "sites": sites,
    });
    if let Some(attempts) = attempts {
        (answer["upstreams"], answer["authorities"]) = attempts.json();
    }
    println!("{answer:#}");
    if is_fine { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// A start with files that this check refuses.
struct Anyway {
    /// The sites that it would serve without a certificate.
    without: Vec<String>,
    /// The sites whose pins it would not send, as they would lock readers out of another site.
    withheld: Vec<String>,
}

/// The start of `pintle run` with files that this check refuses, if it would start.
fn start_in_spite(draft: &Draft, known: &KnownPromises) -> Option<Anyway> {
    // A start brings no line of accept_lockout_until, and has no other process beside it.
    let context = CheckContext { days_in_use: None, named: None, ..context(draft, known, &Like::start(false)) };
    let (config, _) = draft.build(&context);
    let config = config?;
    let is_clash = |site: &&report::SiteReport| {
        matches!(site.withheld, Some(report::Withheld::OtherSite | report::Withheld::BurntBackup))
    };
    let apart = config.sites().flat_map(|site| {
        let is_refused = |name: &&String| site.refused_names.contains(name);
        site.names_apart.iter().filter(is_refused).cloned()
    });
    Some(Anyway {
        without: config.without_certificate().map(|(site, _)| site.name().to_owned()).chain(apart).collect(),
        withheld: config.sites().filter(is_clash).map(|site| site.name().to_owned()).collect(),
    })
}

impl fmt::Display for Anyway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.withheld.is_empty() { "note: " } else { "note: a reload refuses this. " })?;
        f.write_str("`pintle run` starts anyway, and ")?;
        match (self.withheld.is_empty(), self.without.is_empty()) {
            (true, true) => f.write_str("keeps the certificates that it served last"),
            (true, false) => {
                write!(f, "refuses TLS for {}; `pintle run --strict` does not start", listed(&self.without))
            }
            (false, true) => write!(f, "sends no pins for {}", listed(&self.withheld)),
            (false, false) => write!(
                f,
                "sends no pins for {}, and refuses TLS for {}; `pintle run --strict` does not start",
                listed(&self.withheld),
                listed(&self.without)
            ),
        }
    }
}

fn listed(names: &[String]) -> String {
    let named = names.iter().take(NAMED_MAX).map(|name| both_forms(name)).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn problems_json(problems: &Problems) -> Vec<Value> {
    problems.sorted().into_iter().map(|p| problem_json(problems, p)).collect()
}

/// A problem, in JSON.
pub(super) fn problem_json(problems: &Problems, problem: &Problem) -> Value {
    print::placed_json(&problems.placed(problem))
}

/// A reason without a place in the file, in JSON.
fn of_file_json(path: &Path, reason: &Reason) -> Value {
    let mut problem = print::placed_json(&reason.clone().into());
    problem["file"] = path.display().to_string().into();
    problem
}

/// Prints the answer if nothing can be checked, in JSON.
fn refuse_unread(path: &Path, reason: &Reason) -> ExitCode {
    println!("{:#}", json!({ "ok": false, "problems": [of_file_json(path, reason)], "sites": [] }));
    refuse(reason)
}

fn site_json(site: &report::SiteReport) -> Value {
    let certificate = |c: &report::CertificateReport| {
        json!({
            "file": c.path, "serial": c.serial, "issuer": c.issuer, "algorithm": c.algorithm.to_string(),
            "pin": c.pin.to_string(), "not_after": c.not_after.to_string(), "scts": c.scts, "served": c.served,
        })
    };
    let backup = |(file, key): &(String, crate::keys::key_file::PublicKey)| {
        json!({
            "file": file, "pin": key.pin.to_string(), "kind": key.kind.to_string(), "algorithm": key.algorithm.to_string(),
        })
    };
    json!({
        "hosts": site.hosts,
        "hosts_shown": site.hosts.iter().map(|host| both_forms(host)).collect::<Vec<_>>(),
        "upstream": site.upstream.as_ref().map(|u| json!({
            "url": u.url, "connect": u.connect, "server_name": u.server_name, "verify_name": u.verify_name,
            "host_header": u.host_header.as_deref().unwrap_or("client"),
        })),
        "certificates": site.certificates.iter().map(certificate).collect::<Vec<_>>(),
        "without_certificate": site.lacks_certificate.map(report::CertificateLack::word),
        "refused_names": site.refused_names,
        "hsts": site.hsts,
        "hpkp": site.hpkp.as_ref().map(|(name, value)| json!({ "name": name, "value": value })),
        "backups": site.backups.iter().map(backup).collect::<Vec<_>>(),
    })
}

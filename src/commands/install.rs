//! `pintle install`: judges a renewed certificate, puts it in place, and checks it from outside.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::Method;
use serde_json::Value;

use super::install_plan::{InstallPlan, plan};
use super::results::Results;
use super::unfinished::{self, Before, KeptFiles, as_it_is, die_at, put_back};
use super::{KnownPromises, Output, files, ledger, look_at_book, no_such_site, probe, warn};
use crate::config::{self, AcceptedByCommand, AdminAddress, CheckContext, Draft, MayLack};
use crate::control::ReloadOutcome;
use crate::control::client::{ClientError, ask};
use crate::control::served::{CertificateToJudge, ask_for_judgement};
use crate::host::ascii;
use crate::keys::key_file::KeyAlgorithm;
use crate::ledger::Record;
use crate::os::read_error;
use crate::reason::{Problem, Reason};

/// The arguments.
#[derive(Debug, Clone)]
pub struct Options {
    /// Any host of the site.
    pub host: String,
    /// The chain.
    pub chain: PathBuf,
    /// Its key. Default: the key in use, or another key in its folder that fits.
    pub key: Option<PathBuf>,
    /// `true` to print the verdict only.
    pub dry_run: bool,
    /// The day until which the operator accepts a lockout.
    pub accept: Option<String>,
    /// `true` for JSON.
    pub as_json: bool,
}

/// Judges the certificate, and installs it if it is fit and `options` say so. Exit code 0 if it is
/// fit.
pub fn install(path: &Path, options: &Options, output: &Output) -> ExitCode {
    let mut results = Results::new(options.as_json);
    let ok = judge_and_install(path, options, output, &mut results);
    results.end(ok)
}

fn judge_and_install(path: &Path, options: &Options, output: &Output, results: &mut Results) -> bool {
    let draft = match config::read(path) {
        Ok(draft) => draft,
        Err(error) => return results.refuse(&read_error::reason(path, &error)),
    };
    let Some(outline) = draft.outline() else {
        for problem in draft.problems().sorted() {
            results.problem(draft.problems(), problem, output);
        }
        return results.fail(&format!("{}: cannot be read", path.display()));
    };
    let Some(site) = outline.site(&options.host) else {
        let hosts = outline.sites.iter().flat_map(|s| s.hosts.iter().map(ToString::to_string));
        return results.refuse(&no_such_site(&options.host, hosts));
    };
    unfinished::settle(&draft, options.dry_run, &mut |reason| warn(&reason));
    let plan = match plan(&outline, site, &options.chain, options.key.as_deref()) {
        Ok(plan) => plan,
        Err(reason) => return results.refuse(&reason),
    };
    if let Some(source) = &plan.found_key {
        results.say(format!("the key of this chain is {}", source.display()));
    }
    let known = match look_at_book(&draft) {
        Ok(known) => known,
        Err(reason) => return results.refuse(&reason),
    };
    results.set("site", plan.site.clone());
    results.set("pin", plan.chain.pin().to_string());
    results.set("dry_run", options.dry_run);
    let is_fit = preflight(&draft, &known, &plan, (options, output), results);
    let (is_fit, is_refused) = match is_fit.then(|| ask_before(&draft, &plan, options)).flatten() {
        None => (is_fit, false),
        Some(Ok(verdict)) => {
            let ok = verdict.ok;
            results.found_elsewhere(&verdict.reasons());
            (ok, !ok)
        }
        Some(Err(error)) => {
            return results
                .fail(&format!("not installed: the running process cannot be asked for its verdict: {error}"));
        }
    };
    let verdict = if is_fit { "fit to be served" } else { "refused" };
    results.set("verdict", verdict);
    results.say(format!("{}: {}, pin {}: {verdict}", plan.site, options.chain.display(), plan.chain.pin()));
    match (is_fit, options.dry_run) {
        (false, _) if is_refused => results.fail_with_hint(
            &"not installed: the running process refuses it with the configuration that it has loaded; nothing was written",
            &"if the configuration has changed since, `pintle reload` first",
        ),
        (false, _) => results.fail(&"not installed: see above"),
        (true, true) => true,
        (true, false) => carry_out(&draft, &plan, options, results),
    }
}

/// Judges as a start would with the files in place. Problems that exist without the new files are
/// not this certificate's, unless they are about its places.
fn preflight(
    draft: &Draft,
    known: &KnownPromises,
    plan: &InstallPlan,
    (options, output): (&Options, &Output),
    results: &mut Results,
) -> bool {
    let (book, now) = (&known.book, known.now);
    // Messages name the operator's own files.
    let shown_as: HashMap<PathBuf, PathBuf> =
        plan.files.iter().map(|file| (file.path.clone(), file.source.clone())).collect();
    let (before, old) = draft.build(&CheckContext { shown_as: shown_as.clone(), ..CheckContext::new(book, now) });
    let instead: HashMap<PathBuf, Vec<u8>> =
        plan.files.iter().map(|file| (file.path.clone(), file.contents.clone())).collect();
    let accept = accepted(plan, options);
    let context = CheckContext { before: before.as_ref(), instead, shown_as, accept, ..CheckContext::new(book, now) };
    let (_, problems) = draft.build(&context);
    let known: Vec<&Problem> = old.sorted();
    let about_it = |p: &Problem| p.path.as_ref().is_some_and(|path| plan.places.contains(path));
    let is_like = |p: &Problem, k: &Problem| (k.severity, &k.reason.what) == (p.severity, &p.reason.what);
    let is_old = |p: &Problem| known.iter().any(|k| is_like(p, k)) && !(p.is_error() && about_it(p));
    let (others, own): (Vec<&Problem>, Vec<&Problem>) = problems.sorted().into_iter().partition(|p| is_old(p));
    for problem in &own {
        results.problem(&problems, problem, output);
    }
    if others.into_iter().any(Problem::is_error) {
        warn(&Reason::new(format!("{}: has other errors", draft.path().display())).hint("pintle check"));
    }
    !own.into_iter().any(Problem::is_error)
}

/// The lockout that the operator accepts: for this chain only, not for the site's other chains.
fn accepted(plan: &InstallPlan, options: &Options) -> Option<AcceptedByCommand> {
    Some(AcceptedByCommand { site: plan.site.clone(), day: options.accept.clone()?, pin: Some(plan.chain.pin()) })
}

fn carry_out(draft: &Draft, plan: &InstallPlan, options: &Options, results: &mut Results) -> bool {
    let before: Vec<Before> = plan.files.iter().map(|file| as_it_is(&file.path)).collect();
    let kept = match KeptFiles::keep(plan.places_of_files()) {
        Ok(kept) => kept,
        Err(error) => {
            return results.fail(&format!("not installed: cannot keep a copy of the previous files: {error}"));
        }
    };
    die_at(0);
    for (at, file) in plan.files.iter().enumerate() {
        if let Err(error) = files::put(&file.path, &file.contents, file.mode) {
            if put_back(plan.places_of_files().take(at).zip(&before)) {
                kept.remove();
            }
            return results.fail(&format!("not installed: {}: {error}", file.path.display()));
        }
        die_at(at + 1);
    }
    for file in &plan.files {
        results.say(format!("wrote {}", file.path.display()));
    }
    let running = draft.admin().map(|address| (swap(&address, plan, options), address));
    die_at(plan.files.len() + 1);
    let (is_whole, ok) = bring_into_use(draft, plan, options, running, &before, results);
    if is_whole {
        kept.remove();
    } else if !kept.names().is_empty() {
        results
            .say(format!("the previous files are kept until the new ones are verified: {}", kept.names().join(", ")));
    }
    ok
}

/// Returns whether the previous files are no longer needed, and whether all went well.
fn bring_into_use(
    draft: &Draft,
    plan: &InstallPlan,
    options: &Options,
    running: Option<(Result<ReloadOutcome, ClientError>, AdminAddress)>,
    before: &[Before],
    results: &mut Results,
) -> (bool, bool) {
    let both = |ok: bool| (ok, ok);
    match running {
        None => {
            let what_now = "a running pintle loads it by itself; it has no admin socket for a check";
            both(not_running(draft, plan, options, what_now, results))
        }
        Some((Err(ClientError::NotRunning(_)), _)) => {
            let what_now = "pintle is not running with this configuration: served at the next start";
            both(not_running(draft, plan, options, what_now, results))
        }
        Some((Err(error), _)) => {
            both(results.fail_with_hint(&error, &"the files are in place; a running pintle loads them by itself"))
        }
        Some((Ok(verdict), address)) if verdict.ok => {
            // The preflight has printed its warnings.
            verdict.notes.into_iter().for_each(|note| results.say(note));
            results.say("loaded by the running process");
            both(verify(&address, plan, &options.host, results))
        }
        Some((Ok(verdict), _)) => {
            let is_back = put_back(plan.places_of_files().zip(before));
            results.found_elsewhere(&verdict.reasons());
            results.set("verdict", "refused");
            (is_back, results.fail(&"not installed: the running process refuses it; the old files are back"))
        }
    }
}

/// The running process's verdict, before anything is written. It gets the chain, never the key.
/// `None` if there is no process, or one too old to say.
fn ask_before(draft: &Draft, plan: &InstallPlan, options: &Options) -> Option<Result<ReloadOutcome, ClientError>> {
    let chain = plan.files.last().map(|file| String::from_utf8_lossy(&file.contents).into_owned()).unwrap_or_default();
    let asked = CertificateToJudge { host: plan.site.clone(), chain, accept: options.accept.clone() };
    draft.admin().and_then(|address| ask_for_judgement(&address, &asked).transpose())
}

/// By the site's first name: the process may know another pattern for the given host.
fn swap(address: &AdminAddress, plan: &InstallPlan, options: &Options) -> Result<ReloadOutcome, ClientError> {
    let accept = options.accept.as_ref().map(|day| format!("&accept_lockout_until={day}")).unwrap_or_default();
    let installed = format!("&pin={}&serial={}", plan.chain.pin(), plan.chain.leaf.serial);
    let (_, answer) =
        ask(address, Method::POST, &format!("/certificates?host={}{accept}{installed}", plan.site), String::new())?;
    serde_json::from_str(&answer)
        .map_err(|_| ClientError::Other(format!("the running process says: {}", answer.trim())))
}

/// Without a running process, this command records the accepted lockout.
fn not_running(draft: &Draft, plan: &InstallPlan, options: &Options, what_now: &str, results: &mut Results) -> bool {
    if let (Some(accept), true) = (accepted(plan, options), draft.state().is_some()) {
        let KnownPromises { book, now, .. } = match look_at_book(draft) {
            Ok(known) => known,
            Err(error) => return results.fail(&error),
        };
        // Another site may be without a certificate.
        let context = CheckContext { accept: Some(accept), may_lack: MayLack::All, ..CheckContext::new(&book, now) };
        let Some(config) = draft.build(&context).0 else {
            let what = "the files are in place, but the lockout is not accepted: the configuration has other errors";
            return results.fail_with_hint(&what, &"pintle check");
        };
        if let Err(why) = ledger::add(draft, config.accepted.into_iter().map(Record::Accepted).collect()) {
            return results.fail(&why);
        }
    }
    results.say(what_now);
    true
}

/// Checks what is served, as a client does.
fn verify(address: &AdminAddress, plan: &InstallPlan, host: &str, results: &mut Results) -> bool {
    if plan.places.len() == 1 {
        results.say("not verified: TLS ends in front of pintle, which has no key for it");
        return true;
    }
    let status = ask(address, Method::GET, "/status", String::new());
    let status: Value = match status.map(|(_, answer)| serde_json::from_str(&answer)) {
        Ok(Ok(status)) => status,
        _ => return results.fail(&"not verified: the process does not say where it listens"),
    };
    let listeners = status["listening"].as_array().map(Vec::as_slice).unwrap_or_default();
    let https = listeners.iter().find(|l| l["scheme"] == "https").and_then(|l| l["address"].as_str()?.parse().ok());
    let Some(https) = https else {
        results.say("not verified: it has no TLS listener");
        return true;
    };
    let host = &*ascii(host).unwrap_or_else(|_| host.into());
    let name = host.strip_prefix("*.").map_or_else(|| host.to_owned(), |base| format!("pintle-install.{base}"));
    match probe::leaf(https, &name, matches!(plan.chain.leaf.algorithm, KeyAlgorithm::Rsa(_))) {
        Ok(leaf) if Some(&leaf) == plan.leaf() => {
            results.set("verified", true);
            results.say(format!("verified: {https} serves it for {name}"));
            true
        }
        Ok(_) => results.fail_with_hint(
            &format!("not verified: {https} still serves another certificate for {name}"),
            &"`pintle reload`, if the configuration has changed since the process read it",
        ),
        Err(error) => results.fail_with_hint(
            &format!("not verified: {https}: {error}"),
            &format!("openssl s_client -connect {https} -servername {name}"),
        ),
    }
}

//! `pintle install`: judges a renewed certificate, puts it in place, and checks it from outside.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::Method;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::results::Results;
use super::{KnownPromises, Like, context, ledger, look_at_book, no_such_site, pin, settle, warn};
use crate::config::{self, AdminAddress, CheckContext, Draft, MayLack, Outline, SiteOutline};
use crate::control::ReloadOutcome;
use crate::control::client::{ClientError, ask};
use crate::control::served::{CertificateToJudge, ask_for_judgement};
use crate::host::ascii;
use crate::install::judge::{InstallContext, accepted, judge, lockouts_by};
use crate::install::kept::{Before, KeptFiles, as_they_are, die_at, put_back, write};
use crate::install::plan::{GivenFile, GivenPair, InstallPlan, plan};
use crate::install::{previous, probe};
use crate::keys::key_file::KeyAlgorithm;
use crate::ledger::{Accepted, Record};
use crate::os::read_error;
use crate::os::words::words;
use crate::reason::Reason;
use crate::reason::pasted::pintle;

/// The arguments.
#[derive(Debug, Clone)]
pub struct Options {
    /// Any host of the site.
    pub host: String,
    /// The pair to install.
    pub source: InstallSource,
    /// `true` to print the verdict only.
    pub dry_run: bool,
    /// The day until which the operator accepts a lockout.
    pub accept: Option<String>,
    /// `true` for JSON.
    pub as_json: bool,
}

/// The origin of a pair.
#[derive(Debug, Clone)]
pub enum InstallSource {
    /// Files.
    Files {
        /// The chain.
        chain: PathBuf,
        /// Its key. Default: the key in use, or another key in its folder that fits.
        key: Option<PathBuf>,
    },
    /// The pair that the last installation replaced.
    Previous {
        /// The kind of its key, if the site has several certificates: `true` for RSA.
        rsa: Option<bool>,
    },
}

/// Judges the certificate, and installs it if it is fit and `options` say so. Exit code 0 if it is
/// fit.
pub fn install(path: &Path, options: &Options) -> ExitCode {
    let mut results = Results::new(options.as_json);
    let ok = judge_and_install(path, options, &mut results);
    results.end(ok)
}

/// Reads the pair to install.
fn given(
    outline: &Outline,
    site: &SiteOutline,
    source: &InstallSource,
    results: &mut Results,
) -> Result<GivenPair, Reason> {
    let read = |path: &Path| match pin::read(path) {
        Ok(contents) => Ok(GivenFile { name: path.to_owned(), contents: contents.into() }),
        Err(error) => Err(read_error::reason(path, &error)),
    };
    match source {
        InstallSource::Files { chain, key } => {
            let (chain, key) = (read(chain)?, key.as_deref().map(read).transpose()?);
            Ok(GivenPair { chain, key, is_on_disk: true, place: None })
        }
        InstallSource::Previous { rsa } => {
            let found = previous::find(outline, site, *rsa)?;
            let day = |time: jiff::Timestamp| time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string();
            let leaf = &found.chain.leaf;
            let until = found.until.map(|until| format!("replaced on {}, ", day(until))).unwrap_or_default();
            results.say(format!(
                "the previous pair: serial {}, pin {}, {until}valid until {}",
                leaf.serial,
                found.chain.pin(),
                day(leaf.not_after)
            ));
            results.set("previous", true);
            results.set("not_after", leaf.not_after.to_string());
            Ok(found.pair)
        }
    }
}

fn judge_and_install(path: &Path, options: &Options, results: &mut Results) -> bool {
    let draft = match config::read(path) {
        Ok(draft) => draft,
        Err(error) => return results.refuse(&read_error::reason(path, &error)),
    };
    let Some(outline) = draft.outline() else {
        results.found_elsewhere(&draft.problems().shown());
        return results.fail(&format!("{}: cannot be read", path.display()));
    };
    let Some(site) = outline.site(&options.host) else {
        let hosts = outline.sites.iter().flat_map(|s| s.hosts.iter().map(ToString::to_string));
        return results.refuse(&no_such_site(&options.host, hosts));
    };
    settle(&draft, options.dry_run);
    let given = given(&outline, site, &options.source, results);
    let plan = match given.and_then(|given| plan(&outline, site, given, &|_| None)) {
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
    let (is_fit, lockouts) = preflight(&draft, &known, &plan, options, results);
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
    let source = plan.files.last().map(|file| file.source.display().to_string()).unwrap_or_default();
    results.say(format!("{}: {source}, pin {}: {verdict}", plan.site, plan.chain.pin()));
    match (is_fit, options.dry_run) {
        (false, _) if is_refused => results.fail_with_hint(
            &"not installed: the running process refuses it with the configuration that it has loaded; nothing was written",
            &format!("if the configuration has changed since, `{}` first", pintle("reload")),
        ),
        (false, _) => results.fail(&"not installed: see above"),
        (true, true) => {
            say_accepted(&lockouts, results);
            true
        }
        (true, false) => carry_out(&draft, &plan, options, &lockouts, results),
    }
}

/// Judges the pair by the files, and prints its problems. Returns the lockouts that are accepted, too.
fn preflight(
    draft: &Draft,
    known: &KnownPromises,
    plan: &InstallPlan,
    options: &Options,
    results: &mut Results,
) -> (bool, Vec<Accepted>) {
    let (book, now, accept) = (&known.book, known.now, options.accept.as_deref());
    let verdict = judge(draft, plan, &InstallContext { book, now, served: None, accept });
    results.found_elsewhere(&verdict.problems);
    if verdict.has_other_errors {
        warn(&Reason::new(format!("{}: has other errors", draft.path().display())).command(pintle("check")));
    }
    (verdict.ok, verdict.accepted)
}

fn say_accepted(lockouts: &[Accepted], results: &mut Results) {
    let sites: Vec<&str> = lockouts.iter().map(|lockout| lockout.site.as_str()).collect();
    if !sites.is_empty() {
        results.say(format!("the lockout is accepted for {}", sites.join(", ")));
        results.set("accepted", sites);
    }
}

fn carry_out(
    draft: &Draft,
    plan: &InstallPlan,
    options: &Options,
    lockouts: &[Accepted],
    results: &mut Results,
) -> bool {
    let before = as_they_are(plan);
    let kept = match KeptFiles::keep(plan.places_of_files()) {
        Ok(kept) => kept,
        Err(error) => {
            return results
                .fail(&format!("not installed: cannot keep a copy of the previous files: {}", words(&error)));
        }
    };
    die_at(0);
    if let Err((reason, is_back)) = write(plan, &before) {
        if is_back {
            kept.remove().iter().for_each(warn);
        }
        return results.refuse(&reason.within(&"not installed"));
    }
    for file in &plan.files {
        results.say(format!("wrote {}", file.path.display()));
    }
    let running = draft.admin().map(|address| (swap(&address, plan, options), address));
    die_at(plan.files.len() + 1);
    match bring_into_use(draft, plan, (options, lockouts), running, &before, results) {
        (OldFiles::Previous, ok) => {
            kept.become_previous(plan).iter().for_each(warn);
            ok
        }
        (OldFiles::Back, ok) => {
            kept.remove().iter().for_each(warn);
            ok
        }
        (OldFiles::Needed, ok) => {
            let names = kept.names();
            if !names.is_empty() {
                results
                    .say(format!("the previous files are kept until the new ones are verified: {}", names.join(", ")));
            }
            ok
        }
    }
}

/// The fate of the previous files.
enum OldFiles {
    /// They are the way back from now on.
    Previous,
    /// They are in their places again.
    Back,
    /// They may be the only good ones.
    Needed,
}

/// Returns the fate of the previous files, and whether all went well.
fn bring_into_use(
    draft: &Draft,
    plan: &InstallPlan,
    (options, lockouts): (&Options, &[Accepted]),
    running: Option<(Result<ReloadOutcome, ClientError>, AdminAddress)>,
    before: &[Before],
    results: &mut Results,
) -> (OldFiles, bool) {
    let both = |ok: bool| (if ok { OldFiles::Previous } else { OldFiles::Needed }, ok);
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
            let is_recorded = has_recorded(draft, plan, (options, lockouts), results);
            let (old, is_verified) = both(verify(&address, plan, &options.host, results));
            (old, is_recorded && is_verified)
        }
        Some((Ok(verdict), _)) => {
            let back = put_back(plan, before, plan.files.len());
            let old = if back.is_ok() { OldFiles::Back } else { OldFiles::Needed };
            back.err().iter().flatten().for_each(warn);
            results.found_elsewhere(&verdict.reasons());
            results.set("verdict", "refused");
            (old, results.fail(&"not installed: the running process refuses it; the old files are back"))
        }
    }
}

/// The running process's verdict, before anything is written. It gets the chain, never the key.
/// `None` if there is no process, or one too old to say.
fn ask_before(draft: &Draft, plan: &InstallPlan, options: &Options) -> Option<Result<ReloadOutcome, ClientError>> {
    let chain = plan.chain.pem();
    // The key comes first among the files.
    let files = plan.files.iter().rev().map(|file| file.source.display().to_string()).collect();
    let asked = CertificateToJudge { host: plan.site.clone(), chain, accept: options.accept.clone(), files };
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
    if options.accept.is_some() && draft.state().is_some() {
        let lockouts = match accepted_alone(draft, plan, options) {
            Ok(Some(lockouts)) => lockouts,
            Ok(None) => {
                let what =
                    "the files are in place, but the lockout is not accepted: the configuration has other errors";
                return results.fail_with_hint(&what, &pintle("check"));
            }
            Err(error) => return results.refuse(&error),
        };
        let records = lockouts.iter().cloned().map(Record::Accepted).collect();
        if let Err(why) = ledger::add(draft, records) {
            return results.fail(&why);
        }
        say_accepted(&lockouts, results);
    }
    results.say(what_now);
    true
}

/// Says if the running process has recorded the lockouts. If not, the file has the chain for names for which the
/// process does not: only a reload brings these.
fn has_recorded(
    draft: &Draft,
    plan: &InstallPlan,
    (options, lockouts): (&Options, &[Accepted]),
    results: &mut Results,
) -> bool {
    if lockouts.is_empty() {
        return true;
    }
    let KnownPromises { book, now, .. } = match look_at_book(draft) {
        Ok(known) => known,
        Err(error) => return results.refuse(&error),
    };
    let context = InstallContext { book: &book, now, served: None, accept: options.accept.as_deref() };
    let left = judge(draft, plan, &context).accepted;
    if left.is_empty() {
        say_accepted(lockouts, results);
        return true;
    }
    let sites: Vec<&str> = left.iter().map(|lockout| lockout.site.as_str()).collect();
    let what = format!(
        "the lockout is not accepted for {}: the running process has not loaded what the file says of this chain",
        sites.join(", ")
    );
    let line = |Accepted { site, until, .. }: &Accepted| {
        format!("accept_lockout_until = \"{until}\" in [[site]] of {site}, then `{}`", pintle("reload"))
    };
    results.refuse(&Reason::new(what).hints(left.iter().map(line)))
}

/// The lockouts by this pair that the operator accepts while pintle is stopped; `None` if the configuration has other
/// errors. An unfit pair of another site is none, if a start would do without it.
fn accepted_alone(draft: &Draft, plan: &InstallPlan, options: &Options) -> Result<Option<Vec<Accepted>>, Reason> {
    let (accept, known) = (accepted(plan, options.accept.as_deref()), look_at_book(draft)?);
    let alone =
        CheckContext { accept: accept.clone(), may_lack: MayLack::All, ..CheckContext::new(&known.book, known.now) };
    let at_start = CheckContext { accept, ..context(draft, &known, &Like::start(false)) };
    let built = draft.build(&alone).0.or_else(|| draft.build(&at_start).0);
    Ok(built.map(|config| lockouts_by(plan, Some(config))))
}

/// Checks what is served, as a client does.
fn verify(address: &AdminAddress, plan: &InstallPlan, host: &str, results: &mut Results) -> bool {
    if !plan.is_served() {
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
    match probe::leaf(https, &name, matches!(plan.chain.leaf.algorithm, KeyAlgorithm::Rsa(_)), false) {
        Ok(leaf) if Some(&leaf) == plan.leaf() => {
            results.set("verified", true);
            results.say(format!("verified: {https} serves it for {name}"));
            true
        }
        Ok(_) => results.fail_with_hint(
            &format!("not verified: {https} still serves another certificate for {name}"),
            &format!("`{}`, if the configuration has changed since the process read it", pintle("reload")),
        ),
        Err(error) => results.fail_with_hint(
            &format!("not verified: {https}: {error}"),
            &format!("openssl s_client -connect {https} -servername {name}"),
        ),
    }
}

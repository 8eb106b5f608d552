//! The control thread's part in an installation: its facts, the verdict, the swap and its undoing.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::config::edit::matches;
use crate::config::report::SiteReport;
use crate::config::{Config, Draft, safe_day};
use crate::control::Control;
use crate::control::admin::{InstallFacts, InstallJob, InstallStep, Installed, JudgedInstall, ReplacedFiles, Swapped};
use crate::install::judge::{InstallContext, judge};
use crate::install::kept::{KeptFiles, as_they_are, die_at, put_back, write};
use crate::install::plan::{InstallPlan, tag_of};
use crate::ledger::Book;
use crate::ledger::time::rfc3339;
use crate::os::words::words;
use crate::policy::Scheme;
use crate::policy::promise::{Promise, Promises, Seconds};
use crate::reason::Reason;

/// Keeps the old files, and writes the new ones.
fn replace_files(job: &InstallJob) -> Result<ReplacedFiles, Swapped> {
    let InstallJob { plan, outline, if_match, .. } = job;
    let kept = KeptFiles::keep(plan.places_of_files()).map_err(|error| {
        let reason = Reason::new(format!("cannot keep a copy of the previous files: {}", words(&error)));
        match error.kind() {
            std::io::ErrorKind::WouldBlock => Swapped::Changed(reason.hint("wait for it, then look again")),
            _ => Swapped::Not(reason),
        }
    })?;
    if !outline.site(&plan.site).is_some_and(|site| matches(if_match, &tag_of(outline, site))) {
        log(&kept.remove());
        let reason = Reason::new(format!("{}: somebody else has installed another certificate meanwhile", plan.site));
        return Err(Swapped::Changed(reason.hint("look again, and decide by what is installed now")));
    }
    let before = as_they_are(plan);
    die_at(0);
    if let Err((reason, is_back)) = write(plan, &before) {
        if is_back {
            log(&kept.remove());
        }
        return Err(Swapped::Not(*reason));
    }
    Ok(ReplacedFiles { kept, before })
}

/// Brings the previous files back. Returns the failures; the copies stay then.
fn restore_files(plan: &InstallPlan, ReplacedFiles { kept, before }: ReplacedFiles) -> Vec<Reason> {
    match put_back(plan, &before, plan.files.len()) {
        Ok(()) => kept.remove(),
        Err(failures) => failures,
    }
}

pub(super) fn log(failures: &[Reason]) {
    for reason in failures {
        tracing::warn!(problem = reason.line(), "installation");
    }
}

/// A verdict that is to be found, with everything that it needs.
struct JudgingInstall {
    draft: Arc<Draft>,
    config: Arc<Config>,
    book: Book,
    now: Seconds,
    plan: Arc<InstallPlan>,
    accept: Option<String>,
}

/// Verdicts are found one after the other: each reads the files of all sites.
static JUDGING: Mutex<()> = Mutex::new(());

impl JudgingInstall {
    fn judge(&self) -> JudgedInstall {
        let _one = JUDGING.lock().unwrap_or_else(PoisonError::into_inner);
        let Self { draft, config, book, now, plan, accept } = self;
        let context = InstallContext { book, now: *now, served: Some(&**config), accept: accept.as_deref() };
        let verdict = judge(draft, plan, &context);
        let alive = Promises::alive(book.promises(), *now);
        // The chain comes to all sites that have its file.
        let place = plan.places.first();
        let has_it = |site: &SiteReport| {
            let files = site.certificates.iter().map(|certificate| Path::new(&certificate.path));
            let missing = site.missing.iter().filter_map(|missing| missing.path.as_deref());
            site.name() == plan.site || files.chain(missing).any(|file| place.is_some_and(|place| place == file))
        };
        let sites = config.sites().enumerate().filter(|(_, site)| has_it(site));
        let names = sites.filter_map(|(index, _)| config.names_of(index));
        let broken: Vec<&Promise> =
            names.flat_map(|names| alive.broken_by(names.hosts, names.except, &plan.chain.certain)).collect();
        let until = broken.iter().map(|set| set.honoured_until()).max();
        let lockout = until.map_or(
            Value::Null,
            |until| json!({ "sets": broken.len(), "until": rfc3339(until), "day": safe_day(until) }),
        );
        JudgedInstall { verdict, lockout }
    }
}

impl Control {
    /// Carries out a step.
    pub(in crate::control) async fn obey_install(&mut self, step: InstallStep) {
        match step {
            InstallStep::Facts { host, reply } => _ = reply.send(self.install_facts(&host)),
            InstallStep::Judge { plan, accept, reply } => {
                let _ = self.keep_ledger().await;
                let judging = self.judging(plan, accept);
                // It builds the whole configuration: other commands, and renewals, do not wait for that.
                spawn_blocking(move || reply.send(judging.judge()));
            }
            InstallStep::Swap { job, reply } => {
                let swapped = self.swap(*job).await;
                let _ = reply.send(swapped);
            }
            InstallStep::Undo { plan, files, reply } => {
                let failures = self.undo_install(&plan, *files).await;
                let _ = reply.send(failures);
            }
        }
    }

    fn install_facts(&self, host: &str) -> InstallFacts {
        let outline = self.outline();
        let own = outline.iter().filter_map(|outline| Some((outline, outline.site(host)?)));
        let own = own.flat_map(|(outline, site)| site.certificates.iter().map(move |(chain, _)| outline.path(chain)));
        let own: Vec<PathBuf> = own.collect();
        // Another site may have the same file. Of ten thousand, few do.
        let certificates = self.config.sites().flat_map(|site| &site.certificates);
        let certificates = certificates.filter(|one| own.iter().any(|path| path == Path::new(&one.path)));
        let snapshot = &self.config.snapshot;
        InstallFacts {
            pins: certificates.map(|one| (PathBuf::from(&one.path), one.pin)).collect(),
            outline,
            allow_keys: self.config.admin_access.allow_keys,
            https: self.listening().iter().find(|(_, scheme)| *scheme == Scheme::Https).map(|(address, _)| *address),
            greeting: snapshot.proxy_protocol && snapshot.trust.contains(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        }
    }

    /// The facts of this moment, for a verdict beside this thread.
    fn judging(&self, plan: Arc<InstallPlan>, accept: Option<String>) -> JudgingInstall {
        let (draft, config) = (self.draft.clone(), self.config.clone());
        JudgingInstall { draft, config, book: self.ledger().book().clone(), now: self.now(), plan, accept }
    }

    /// Writes the files and serves them, or leaves everything as it was.
    async fn swap(&mut self, job: InstallJob) -> Swapped {
        if self.upgrades.under_way.is_some() {
            let what = "an upgrade is under way: the new process has read the files already";
            return Swapped::Not(Reason::new(what).hint("once it serves, try again"));
        }
        let (plan, accept) = (job.plan.clone(), job.accept.clone());
        let files = match spawn_blocking(move || replace_files(&job)).await {
            Ok(Ok(files)) => files,
            Ok(Err(not)) => return not,
            Err(panic) => return Swapped::Not(panic.to_string().into()),
        };
        let installed = Installed { pin: plan.chain.pin(), serial: plan.chain.leaf.serial.clone() };
        let outcome = self.look_at_site(&plan.site, accept, Some(installed)).await;
        die_at(plan.files.len() + 1);
        if outcome.ok {
            let leaves = self.leaves_of(&plan.site);
            return Swapped::InUse { outcome, files: Box::new(files), leaves };
        }
        let failures = self.restore(&plan, files).await;
        Swapped::Refused { outcome, failures }
    }

    /// Brings the previous pair back after it was replaced. Its clients may have pins of the new pair by now, so the guard
    /// judges it: if it refuses, the new files stay.
    async fn undo_install(&mut self, plan: &Arc<InstallPlan>, files: ReplacedFiles) -> Vec<Reason> {
        let chain = files.before.last().and_then(Option::as_ref).map(|(chain, _)| chain.clone());
        let refusals = match (plan.places.first(), chain) {
            (Some(place), Some(chain)) => self.judge_in_place(place.clone(), chain, None),
            _ => Vec::new(),
        };
        if refusals.is_empty() {
            return self.restore(plan, files).await;
        }
        log(&files.kept.become_previous(plan));
        refusals.into_iter().map(|problem| problem.reason).collect()
    }

    async fn restore(&mut self, plan: &Arc<InstallPlan>, files: ReplacedFiles) -> Vec<Reason> {
        let of_files = plan.clone();
        let restored = spawn_blocking(move || restore_files(&of_files, files)).await;
        let failures = restored.unwrap_or_else(|panic| vec![panic.to_string().into()]);
        log(&failures);
        let _ = self.look_at_site(&plan.site, None, None).await;
        failures
    }

    /// The leaves that a site serves.
    fn leaves_of(&self, site: &str) -> Vec<CertificateDer<'static>> {
        let index = self.config.sites().position(|known| known.name() == site);
        let set = index.and_then(|index| self.config.snapshot.sets.get(index)?.as_ref());
        set.into_iter().flat_map(|set| set.iter()).filter_map(|one| one.der().first().cloned()).collect()
    }
}

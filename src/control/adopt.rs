//! Puts a configuration into use: first the ledger, then the wire, then the log.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::{Instant, timeout};

use super::Control;
use super::cache::open_disk;
use crate::config::{Config, CopiesWritten, Difference, Fresh, LastGood, report};
use crate::ledger::leases::LeaseRenewal;
use crate::ledger::time::ClockReading;
use crate::ledger::{Book, Ledger, Record};
use crate::os::words::words;
use crate::policy::promise::{Promise, Seconds};
use crate::reason::pasted::pintle;
use crate::reason::{Reason, shell_word};
use crate::upstream::check;
use crate::upstream::dns::{UpstreamName, follow};

/// The longest wait of a new pair for its copy, before pintle serves it. A slow disk, or thousands of new
/// pairs, must not hold up a renewal: the copying continues beside.
pub(super) const COPY_PATIENCE: Duration = Duration::from_secs(2);

/// The time from one attempt to copy the pairs in use to the next, if the disk refuses it.
const COPY_RETRY: Duration = Duration::from_secs(5);

/// The reason why a configuration is not put into use. Nothing has changed then.
#[derive(Debug)]
pub(super) enum NotAdopted {
    /// An accepted lockout cannot be written to the ledger.
    Unwritten(io::Error),
    /// The ledger's file had promises by which nobody has judged it.
    LedgerChanged,
}

impl NotAdopted {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Unwritten(error) => {
                format!("the ledger cannot be written, so that no lockout can be accepted: {}", words(error)).into()
            }
            Self::LedgerChanged => {
                let what = "another program has put promises into the ledger meanwhile: they count now, and nothing else has \
                            changed";
                Reason::new(what).hint("try again")
            }
        }
    }
}

/// The decisions that a configuration makes: accepted lockouts, excuses that end, and ramps that
/// begin.
pub(super) fn decisions(config: &Config, book: &Book) -> Vec<Record> {
    let accepted = config.accepted.iter().cloned().map(Record::Accepted);
    let ended = book.ended_excuses(config.pins_by_site());
    accepted.chain(ended).chain(config.ramps.iter().cloned().map(Record::Ramp)).collect()
}

/// Writes decisions to the ledger before anything else. A ramp that cannot be written begins at the
/// next start; a lockout that cannot be written is not accepted.
pub(super) fn record_decisions(ledger: &mut Ledger, config: &Config) -> io::Result<()> {
    for accepted in &config.accepted {
        log_lockout(&accepted.site, &accepted.until);
    }
    let decisions = decisions(config, ledger.book());
    match ledger.record(decisions) {
        Err(_) if config.accepted.is_empty() => Ok(()),
        recorded => recorded,
    }
}

/// Removes the copies of pairs that a configuration does not serve. This comes after its decisions,
/// which may fail, and before any promise: a previous key must not pass for the key that readers
/// were promised last.
pub(super) fn forget_other_pairs(copies: Option<&LastGood>, config: &Config, book: &Book, now: Seconds) {
    if let Some(Err(error)) = copies.map(|copies| config.forget_other_copies(copies, book, now)) {
        tracing::error!(
            error = %words(&error),
            "state.directory: cannot remove the copies of pairs that are no longer served: check permissions"
        );
    }
}

/// Copies the pairs of a configuration before anything is promised under it, so that a process that
/// is killed a moment later leaves them. A pair with an accepted lockout is copied later, once the
/// ledger has the lockout.
pub(super) fn copy_first(
    copies: &LastGood,
    config: &Config,
    beside: Option<&Config>,
    book: &Book,
    now: Seconds,
) -> Option<JoinHandle<()>> {
    if !config.accepted.is_empty() {
        return None;
    }
    config.allow_copies(copies);
    copy(config.fresh_pairs(beside, book, now), copies)
}

/// Copies pairs, on a thread that may wait for the disk.
fn copy(fresh: Fresh, copies: &LastGood) -> Option<JoinHandle<()>> {
    if fresh.is_empty() {
        return None;
    }
    let copies = copies.clone();
    Some(spawn_blocking(move || match (fresh.keep(&copies), copies.note(false)) {
        (Ok(_), true) => tracing::info!("copied the pairs in use to state.directory again"),
        (Ok(CopiesWritten { new, waits }), false) => tracing::debug!(new, waits, "copied the pairs in use"),
        (Err(error), has_failed) => {
            copies.note(true);
            if !has_failed {
                tracing::warn!(
                    error = %words(&error),
                    "cannot copy the pairs in use to state.directory: check free space and permissions"
                );
            }
        }
    }))
}

fn log_lockout(site: &str, until: &str) {
    tracing::warn!(
        site,
        until,
        "serving a chain that breaks promises, as accept_lockout_until says: readers who hold the old pins are locked out"
    );
}

impl Control {
    /// Replaces the configuration in use. Promises are on disk before they are on the wire.
    ///
    /// # Errors
    ///
    /// [`NotAdopted`]
    pub(super) async fn adopt(&mut self, mut config: Config) -> Result<(), NotAdopted> {
        if let Some(copying) = self.copy_first(&config) {
            let _ = timeout(COPY_PATIENCE, copying).await;
        }
        let records = decisions(&config, self.ledger().book());
        match self.record_judged(records).await {
            Ok(true) => {}
            Ok(false) => {
                // The copies of its pairs go again, and the others name what is served now.
                self.forget_other_pairs(&self.config);
                self.keep_pairs(None);
                return Err(NotAdopted::LedgerChanged);
            }
            // The pairs in use stay in use, and so do their copies.
            Err(error) if !config.accepted.is_empty() => return Err(NotAdopted::Unwritten(error)),
            Err(_) => {}
        }
        self.forget_other_pairs(&config);
        for accepted in &config.accepted {
            self.counts.lockouts_accepted += 1;
            log_lockout(&accepted.site, &accepted.until);
        }
        let names = std::mem::take(&mut config.names);
        let before = std::mem::replace(&mut self.config, Arc::new(config));
        if let Some(log) = &self.operator.access_log {
            log.bound(self.config.snapshot.limits.log_queue);
        }
        self.observed.endings.look_again();
        self.observed.labels.take();
        self.observed.states.forget();
        self.promises.leases.borrow_mut().hold(&self.config.pledges);
        // New pins are on disk before they are sent. If a previous chain breaks them, workers send
        // them only once none of them serves it.
        let mut renewal = self.record_leases().await;
        let at_once = renewal.as_mut().map(|renewal| {
            let kept = self.config.kept_leases(&before);
            renewal.part(|lease| kept.contains(&Arc::as_ptr(lease)))
        });
        self.grant_leases(at_once);
        self.follow_upstreams(names);
        let rotates = renewal.as_ref().is_some_and(LeaseRenewal::has_leases);
        open_disk(&self.config, Some(&before));
        self.server.publish(self.config.snapshot.clone(), rotates);
        self.server.settled().await;
        self.grant_leases(renewal);
        self.counts.rotations += announce_changes(&before, &self.config);
        self.report_renewals(&before);
        self.keep_pairs(Some(&*before));
        self.files.watch.files(self.config.stamps().cloned().collect());
        Ok(())
    }

    /// Removes the copies of pairs that a configuration does not serve.
    pub(super) fn forget_other_pairs(&self, config: &Config) {
        let now = self.promises.time.borrow().judged(ClockReading::take());
        forget_other_pairs(self.files.copies.as_ref(), config, self.ledger().book(), now);
    }

    /// Copies the pairs of a configuration that is about to be served, except those in use already.
    fn copy_first(&self, config: &Config) -> Option<JoinHandle<()>> {
        let copies = self.files.copies.as_ref()?;
        let now = self.promises.time.borrow().judged(ClockReading::take());
        copy_first(copies, config, Some(&*self.config), self.ledger().book(), now)
    }

    /// Copies the pairs in use, except those that `beside` serves, too, so that the next start has
    /// them whatever happens to their files. Runs on a thread that may wait for the disk.
    pub(super) fn keep_pairs(&self, beside: Option<&Config>) -> Option<JoinHandle<()>> {
        let copies = self.files.copies.as_ref()?;
        let now = self.promises.time.borrow().judged(ClockReading::take());
        copy(self.config.fresh_pairs(beside, self.ledger().book(), now), copies)
    }

    /// Copies the pairs in use again whose names promises have bound that are over.
    pub(super) fn keep_pairs_after(&self, over: &[Promise]) -> Option<JoinHandle<()>> {
        let copies = self.files.copies.as_ref()?;
        let now = self.promises.time.borrow().judged(ClockReading::take());
        copy(self.config.pairs_bound_by(over, self.ledger().book(), now), copies)
    }

    /// Copies the pairs in use again if that has failed, as on a full disk, or if copies were
    /// deleted.
    pub(super) fn look_after_copies(&mut self) {
        if self.files.copied.elapsed() < COPY_RETRY {
            return;
        }
        self.files.copied = Instant::now();
        let lacks = |copies: &LastGood| !copies.is_copying() && (copies.has_failed() || copies.is_incomplete());
        if self.files.copies.as_ref().is_some_and(lacks) {
            self.keep_pairs(None);
        }
    }

    /// Follows the names of new upstreams, and starts new health checks.
    pub(super) fn follow_upstreams(&self, names: Vec<UpstreamName>) {
        for name in names {
            spawn_local(follow(name, self.resolver.clone()));
        }
        for checks in self.config.snapshot.upstreams.iter().flatten().filter_map(check::watch) {
            spawn_local(checks);
        }
    }
}

/// Logs the new certificates. Returns their number.
fn announce_changes(before: &Config, after: &Config) -> u64 {
    let mut changed = 0;
    for Difference { now: site, before: old, .. } in after.differences(before).0 {
        for certificate in &site.certificates {
            if !old.is_some_and(|old| old.certificates.iter().any(|c| c.is(certificate))) {
                announce_certificate(site.name(), certificate);
                changed += u64::from(old.is_some());
            }
        }
        let known: &[_] = old.map_or(&[], |b| &b.promoted);
        for pin in site.promoted.iter().filter(|pin| !known.contains(pin)) {
            log_promotion(site.name(), &pin.to_string());
        }
    }
    changed
}

/// Logs what a site serves.
pub(super) fn announce_site(site: &report::SiteReport) {
    let upstream = site.upstream.as_ref().map(|u| u.url.as_str()).unwrap_or_default();
    tracing::info!(site = site.name(), hosts = site.hosts.join(" "), upstream, "site");
    for certificate in &site.certificates {
        announce_certificate(site.name(), certificate);
    }
    for (file, key) in &site.backups {
        tracing::info!(site = site.name(), pin = %key.pin, file, "backup pin");
    }
    for pin in &site.promoted {
        log_promotion(site.name(), &pin.to_string());
    }
}

fn announce_certificate(site: &str, certificate: &report::CertificateReport) {
    tracing::info!(
        site,
        serial = certificate.serial,
        pin = %certificate.pin,
        algorithm = %certificate.algorithm,
        not_after = %certificate.not_after.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d"),
        issuer = certificate.issuer,
        "certificate"
    );
}

fn log_promotion(site: &str, pin: &str) {
    let command = pintle(format_args!("key new --role next --site {}", shell_word(site)));
    let hint = format!("`{command}` makes a fresh one; name it in backups");
    tracing::warn!(site, pin, hint, "a backup key is live now: the site needs another next key to rotate to");
}

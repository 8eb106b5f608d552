//! The served state, for commands that judge by it; and the judgement of promises for other programs,
//! and of certificates that are not written yet.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::Control;
use super::admin::ReloadOutcome;
use super::client::{ClientError, ask};
use crate::config::{AcceptedByCommand, AdminAddress, CheckContext, report};
use crate::host::HostPattern;
use crate::keys::key_file::KeyAlgorithm;
use crate::keys::pin::Pin;
use crate::ledger::{Record, repair};
use crate::policy::guard::{Offer, judge, locked_out};
use crate::policy::promise::{Promise, Seconds};
use crate::reason::pasted::pintle;
use crate::reason::{Problem, Reason};

pub use super::admin::{CertificateToJudge, LockedOutSite, Objection};

/// A site, as clients see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServedNow {
    /// Its hosts.
    pub hosts: Vec<String>,
    /// Its chains.
    pub chains: Vec<ServedChain>,
}

/// A chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServedChain {
    /// The file, as configured.
    pub file: String,
    /// The pins of the whole chain, the leaf's first.
    pub pins: Vec<String>,
    /// The pins that are on every client's path.
    pub certain: Vec<String>,
    /// The leaf key's algorithm.
    pub algorithm: String,
    /// The leaf's end of validity.
    pub not_after: Timestamp,
}

impl ServedNow {
    fn of(site: &report::SiteReport) -> Self {
        let texts = |pins: &[Pin]| pins.iter().map(ToString::to_string).collect();
        let chain = |c: &report::CertificateReport| ServedChain {
            file: c.path.clone(),
            pins: texts(&c.pins),
            certain: texts(&c.certain),
            algorithm: c.algorithm.to_string(),
            not_after: c.not_after,
        };
        Self { hosts: site.hosts.clone(), chains: site.certificates.iter().map(chain).collect() }
    }

    /// Its first name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.hosts.first().map(String::as_str).unwrap_or_default()
    }
}

impl ServedChain {
    /// The leaf's pin.
    #[must_use]
    pub fn pin(&self) -> Option<Pin> {
        self.pins.first()?.parse().ok()
    }

    /// All its pins.
    #[must_use]
    pub fn all_pins(&self) -> Vec<Pin> {
        pins(&self.pins)
    }

    /// The kind of the leaf's key.
    #[must_use]
    pub fn key_algorithm(&self) -> KeyAlgorithm {
        KeyAlgorithm::named(&self.algorithm)
    }
}

fn pins(texts: &[String]) -> Vec<Pin> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// The served sites, in the form for judging promises.
#[derive(Debug, Clone, Default)]
pub struct Sites(Vec<(Vec<HostPattern>, Vec<Vec<Pin>>)>);

impl Sites {
    /// The sites of a configuration.
    pub fn of_reports<'s>(sites: impl Iterator<Item = &'s report::SiteReport>) -> Self {
        Self::of(&sites.map(ServedNow::of).collect::<Vec<_>>())
    }

    /// The sites of the running process.
    #[must_use]
    pub fn of(served: &[ServedNow]) -> Self {
        let hosts = |site: &ServedNow| site.hosts.iter().filter_map(|host| HostPattern::parse(host).ok()).collect();
        let chains = |site: &ServedNow| site.chains.iter().map(|chain| pins(&chain.certain)).collect();
        Self(served.iter().map(|site| (hosts(site), chains(site))).collect())
    }

    /// The sites whose clients a promise would lock out; each chain is judged by itself.
    #[must_use]
    pub fn locked_out(&self, promise: &Promise) -> Vec<LockedOutSite> {
        locked_out(promise, &self.offers()).into_iter().filter_map(|(site, chain)| self.named(site, chain)).collect()
    }

    /// The chains that break any of these promises, with the broken promises.
    #[must_use]
    pub fn breaking<'p>(&self, promises: &'p [Promise], now: Seconds) -> Vec<(LockedOutSite, Vec<&'p Promise>)> {
        let breaches = judge(&self.offers(), promises, now).breaches;
        breaches.into_iter().filter_map(|b| Some((self.named(b.site, b.chain)?, b.broken))).collect()
    }

    /// The chains whose leaf has one of these keys.
    pub fn with_key(&self, is_meant: impl Fn(Pin) -> bool) -> Vec<LockedOutSite> {
        let chains =
            self.0.iter().enumerate().flat_map(|(site, (_, chains))| (0..chains.len()).map(move |at| (site, at)));
        let leaf = |(site, chain): (usize, usize)| self.0.get(site)?.1.get(chain)?.first().copied();
        chains
            .filter(|at| leaf(*at).is_some_and(&is_meant))
            .filter_map(|(site, chain)| self.named(site, chain))
            .collect()
    }

    fn offers(&self) -> Vec<Offer<'_>> {
        self.0
            .iter()
            .map(|(hosts, chains)| {
                let chains = chains.iter().map(Vec::as_slice).collect();
                Offer { hosts, chains, set: None, is_kept: false }
            })
            .collect()
    }

    fn named(&self, site: usize, chain: usize) -> Option<LockedOutSite> {
        let (hosts, chains) = self.0.get(site)?;
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let pin = chains.get(chain)?.first().map(ToString::to_string).unwrap_or_default();
        Some(LockedOutSite { site: hosts.first().cloned().unwrap_or_default(), hosts, pin })
    }
}

/// Asks the running process what it serves. `None` if there is no process, or one too old to say.
///
/// # Errors
///
/// If a process runs and cannot be asked.
pub fn ask_for_served(address: &AdminAddress) -> Result<Option<Vec<ServedNow>>, ClientError> {
    match ask(address, Method::GET, "/served", String::new()) {
        Ok((StatusCode::OK, answer)) => serde_json::from_str(&answer).map(Some).map_err(|error| {
            ClientError::Other(format!("cannot understand the answer of the running process: {error}"))
        }),
        Ok((StatusCode::NOT_FOUND, _)) | Err(ClientError::NotRunning(_)) => Ok(None),
        Ok((_, answer)) => Err(ClientError::Other(format!("the running process says: {}", answer.trim()))),
        Err(error) => Err(error),
    }
}

/// Asks the running process for its verdict on a certificate. `None` if there is no process, or one
/// too old to say.
///
/// # Errors
///
/// If a process runs and cannot be asked.
pub fn ask_for_judgement(
    address: &AdminAddress,
    asked: &CertificateToJudge,
) -> Result<Option<ReloadOutcome>, ClientError> {
    let body = serde_json::to_string(asked).map_err(|error| ClientError::Other(error.to_string()))?;
    match ask(address, Method::POST, "/certificates/judge", body) {
        Ok((StatusCode::NOT_FOUND, _)) | Err(ClientError::NotRunning(_)) => Ok(None),
        Ok((_, answer)) => serde_json::from_str(&answer)
            .map(Some)
            .map_err(|_| ClientError::Other(format!("the running process says: {}", answer.trim()))),
        Err(error) => Err(error),
    }
}

/// Sends promises to the running process, which takes them unless a chain in use breaks them.
///
/// # Errors
///
/// The reason of the refusal.
pub fn ask_to_promise(address: &AdminAddress, promises: &[Promise]) -> Result<(), Objection> {
    let objection = |error: &dyn std::fmt::Display| Objection { error: error.to_string(), ..Objection::default() };
    let body: String = promises.iter().map(|promise| Record::Promise(promise.clone()).line()).collect();
    match ask(address, Method::POST, "/ledger/promise", body) {
        Ok((StatusCode::OK, _)) => Ok(()),
        Ok((StatusCode::NOT_FOUND, _)) => {
            let what = "the running process is older than this command, and cannot record promises";
            Err(Reason::new(what).command(pintle("upgrade")).into())
        }
        Ok((_, answer)) => Err(serde_json::from_str(&answer).unwrap_or_else(|_| objection(&answer.trim()))),
        Err(error) => Err(objection(&error)),
    }
}

impl Control {
    pub(super) fn served(&self) -> Value {
        serde_json::json!(self.config.sites().map(ServedNow::of).collect::<Vec<_>>())
    }

    /// Takes promises for another program, unless a chain in use breaks them.
    pub(super) async fn promise(&mut self, records: Vec<Record>) -> Result<usize, Objection> {
        repair::fit_to_merge(&records, self.now())?;
        let sites = Sites::of_reports(self.config.sites());
        let mut found: Vec<LockedOutSite> = Vec::new();
        for record in &records {
            let Record::Promise(promise) = record else {
                return Err(Reason::new("only promises are taken here").into());
            };
            let news = sites.locked_out(promise).into_iter().filter(|site| !found.contains(site)).collect::<Vec<_>>();
            found.extend(news);
        }
        if let Some(LockedOutSite { hosts, pin, .. }) = found.first() {
            let error = format!(
                "would lock its users out of {}: the chain that is served there has none of these keys ({pin})",
                hosts.join(", ")
            );
            return Err(Objection { error, locked_out: found, ..Objection::default() });
        }
        Ok(self.merge(records).await?)
    }

    /// Judges a certificate as if its file were in place. The caller has the key, and it fits.
    pub(super) fn judge_certificate(&self, asked: &CertificateToJudge) -> ReloadOutcome {
        let refused = |reason: Reason| ReloadOutcome::refused(vec![reason.into()]);
        let Some(site) = self.site_of(&asked.host) else {
            let reason = Reason::new(format!("no site has the host {}", asked.host));
            let reload = pintle("reload");
            return refused(
                reason.hint(format!("`{reload}`, if the configuration has changed since the process read it")),
            );
        };
        let chain = match crate::tls::certificate::Chain::from_pem(asked.chain.as_bytes()) {
            Ok(chain) => chain,
            Err(error) => return refused(error.to_string().into()),
        };
        let is_rsa = |algorithm: &KeyAlgorithm| matches!(algorithm, KeyAlgorithm::Rsa(_));
        let of_site = || self.config.sites().filter(|s| s.name() == site);
        let places: Vec<&report::CertificateReport> = of_site().flat_map(|s| &s.certificates).collect();
        let missing: Vec<&PathBuf> = of_site().flat_map(|s| &s.missing).filter_map(|m| m.path.as_ref()).collect();
        let like = places.iter().find(|c| is_rsa(&c.algorithm) == is_rsa(&chain.leaf.algorithm));
        let place = match (places.as_slice(), missing.as_slice()) {
            ([one], []) => Some(PathBuf::from(&one.path)),
            // Nobody knows what kind of key a missing pair has.
            ([], [one, ..]) => Some((*one).clone()),
            (_, [one, ..]) if like.is_none() => Some((*one).clone()),
            _ => like.map(|c| PathBuf::from(&c.path)),
        };
        let Some(path) = place else {
            return refused(format!("{site}: no certificate in use has a key like {}", chain.leaf.algorithm).into());
        };
        let accept = asked.accept.clone().map(|day| AcceptedByCommand { site, day, pin: Some(chain.pin()) });
        let shown_as = self.shown_as(asked, &path);
        let errors = self.judge_shown(path, Zeroizing::new(asked.chain.clone().into_bytes()), accept, &shown_as);
        ReloadOutcome::new(errors.is_empty(), errors, Vec::new())
    }

    /// The operator's files, by the places that they are for.
    fn shown_as(&self, asked: &CertificateToJudge, chain: &Path) -> HashMap<PathBuf, PathBuf> {
        let key_beside = || {
            let outline = self.draft.outline()?;
            let mut pairs = outline.site(&asked.host)?.certificates.iter();
            let (_, key) = pairs.find(|(path, _)| outline.path(path) == chain)?;
            key.as_ref().map(|key| outline.path(key))
        };
        let places = [Some(chain.to_owned()), key_beside()];
        let named = places.into_iter().zip(&asked.files);
        named.filter_map(|(place, file)| Some((place?, PathBuf::from(file)))).collect()
    }

    /// Judges a chain as if it were in a file. Returns the errors that it adds, with their places.
    pub(super) fn judge_in_place(
        &self,
        path: PathBuf,
        chain: Zeroizing<Vec<u8>>,
        accept: Option<AcceptedByCommand>,
    ) -> Vec<Problem> {
        self.judge_shown(path, chain, accept, &HashMap::new())
    }

    /// The same, with the names of files in messages.
    fn judge_shown(
        &self,
        path: PathBuf,
        chain: Zeroizing<Vec<u8>>,
        accept: Option<AcceptedByCommand>,
        shown_as: &HashMap<PathBuf, PathBuf>,
    ) -> Vec<Problem> {
        let now = self.now();
        let ledger = self.ledger();
        let context = |instead: HashMap<PathBuf, Zeroizing<Vec<u8>>>, accept| CheckContext {
            before: Some(&*self.config),
            chains_alone: true,
            instead,
            accept,
            shown_as: shown_as.clone(),
            ..CheckContext::new(ledger.book(), now)
        };
        let (_, old) = self.draft.build(&context(HashMap::new(), None));
        let (_, new) = self.draft.build(&context(HashMap::from([(path.clone(), chain)]), accept));
        let old = old.sorted();
        // A hint may name the key in use, too, if another chain replaces it here.
        let is_old = |p: &Problem| old.iter().any(|o| (&o.reason.what, &o.span) == (&p.reason.what, &p.span));
        let is_own = |p: &&Problem| p.is_error() && (p.path.as_ref() == Some(&path) || !is_old(p));
        self.naming_keys(new.sorted().into_iter().filter(is_own).map(|p| new.placed(p)).collect())
    }
}

//! `[site.certificate]`: chains and keys, and the preflight of both.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checker::Checker;
use super::files::{ONLY_IN_MEMORY, mode, read, read_as};
use super::loaded::LoadedCertificate;
use super::pair_files::{ChainFile, KeyFile};
use super::report::{CertificateLack, hint_to_renewal};
use super::stand_in::{MissingPair, RefusedPair, StandIns};
use super::suites::Fit;
use crate::config::file::{CertificateTable, SiteTable};
use crate::config::last_good::KeyText;
use crate::config::problem::At;
use crate::config::stamp::Stamp;
use crate::host::HostPattern;
use crate::keys::key_file::{KeyFileError, Want};
use crate::reason::{Kind, Problem, Reason, shell_path};
use crate::tls::certificate::Chain;
use crate::tls::key_process::{self, KeyProcess, RemoteKey};
use crate::tls::preflight;
use crate::tls::{Certificate, CertificateError};

const KEY_FORM: &str = "use a key in PEM: PKCS#8, PKCS#1 or SEC1; RSA from 2048 bits, ECDSA, Ed25519";

/// The pairs of one site.
#[derive(Default)]
pub(super) struct Pairs {
    /// The pairs to serve.
    pub(super) loaded: Vec<LoadedCertificate>,
    /// Pairs on disk that others replace.
    pub(super) refused: Vec<RefusedPair>,
    /// Pairs on disk that nothing replaces, where the site may do without them.
    pub(super) missing: Vec<MissingPair>,
}

impl Pairs {
    /// Takes the pair that was served last instead of an unfit one.
    fn replace(
        &mut self,
        at: usize,
        problems: Vec<Problem>,
        (unchanged, is_awaited): (bool, bool),
        here: Option<&LoadedCertificate>,
        served: LoadedCertificate,
    ) {
        let certificate = here.map(LoadedCertificate::report);
        self.refused.push(RefusedPair { at, problems, unchanged, is_awaited, certificate });
        self.loaded.push(served);
    }

    /// Until pintle has obtained the first pair, the site keeps the one that it was served with.
    fn keep_until_obtained(
        &mut self,
        awaited: Option<(&CertificateTable, usize, PathBuf)>,
        stand_ins: &StandIns<'_>,
        folder: &Path,
    ) {
        if let (true, Some((pair, at, path))) = (self.loaded.is_empty(), awaited) {
            self.loaded.extend(stand_ins.served_until(pair, at, &path, folder));
        }
    }

    /// Reports the missing pairs as errors if nothing is left to serve, and clients reach the site now.
    fn refuse_to_lack_all(&mut self, table: &SiteTable, stand_ins: &StandIns<'_>, r: &mut Checker<'_>) {
        let is_dark = self.loaded.is_empty() && self.missing.iter().any(|pair| pair.has_key);
        if !is_dark || !stand_ins.are_served() {
            return;
        }
        for missing in std::mem::take(&mut self.missing) {
            r.problems.extend(missing.problems);
            if missing.lack == CertificateLack::NotYet {
                let what = "site.certificate: clients reach a name of this site now, and nothing is left to serve it until the \
                            CA has issued a certificate";
                r.error(&table.span, Reason::new(what).hint("until then, name the chain and key that serve it now"));
            }
        }
    }
}

/// Loads a site's pairs. The pair that was served last replaces an unfit one, if that is allowed.
pub(super) fn build(
    table: &SiteTable,
    hosts: &[HostPattern],
    fit: Option<&Fit>,
    stand_ins: &StandIns<'_>,
    r: &mut Checker<'_>,
) -> Pairs {
    let mut pairs = Pairs::default();
    let mut awaited = None;
    for (at, pair) in table.certificates.iter().enumerate() {
        let mut problems = r.problems.scratch();
        let mut own = Checker { problems: &mut problems, stamps: Vec::new(), ..*r };
        let here = load_pair(pair, at, hosts, stand_ins, &mut own);
        if let (Some(fit), Some(here), [_]) = (fit, &here, table.certificates.as_slice()) {
            report_unusable(fit, here, pair, hosts, &mut own);
        }
        r.stamps.extend(std::mem::take(&mut own.stamps));
        let dropped = stand_ins.dropped(at);
        // pintle obtains the pair itself, and has not yet.
        let is_awaited = pair.managed.is_some() && here.is_none() && !problems.has_errors();
        let is_refused = problems.has_errors() || stand_ins.is_forced(at) || dropped.is_some() || is_awaited;
        let path = pair.chain.as_ref().map(|chain| r.path(&chain.value));
        let is_asked = dropped.is_none() && (is_refused || stand_ins.are_in_use());
        let served = (path.as_ref().filter(|_| is_asked))
            .and_then(|path| stand_ins.served(pair, at, path, r.folder, here.as_ref().map(|here| &*here.chain)))
            .map(|served| served.loaded);
        awaited = awaited.or_else(|| Some((pair, at, path.clone().filter(|_| is_awaited)?)));
        let unchanged = here.as_ref().zip(served.as_ref()).is_some_and(|(here, served)| here.is(served));
        match served {
            Some(served) if is_refused && stand_ins.may_stand_in(unchanged) => {
                let mut problems = problems.into_list();
                problems.extend(path.filter(|_| is_awaited).map(|path| {
                    let reason = Reason::new(format!("{}: the file is gone", r.shown(&path)));
                    Problem::error(&pair.span, reason).about(&path)
                }));
                if !unchanged && stand_ins.are_in_use() {
                    hint_at_memory(&served, &mut problems);
                }
                let served = stand_ins.renewed(served, is_awaited);
                pairs.replace(at, problems, (unchanged, is_awaited), here.as_ref(), served);
            }
            _ if is_awaited || is_refused && stand_ins.may_lack(path.as_deref()) => pairs.missing.push(MissingPair {
                path,
                has_key: pair.key.is_some(),
                lack: if is_awaited { CertificateLack::NotYet } else { CertificateLack::Broken },
                by_guard: dropped.is_some(),
                problems: problems.into_list().into_iter().chain(dropped.into_iter().flatten().cloned()).collect(),
                certificate: here.as_ref().map(LoadedCertificate::report),
            }),
            served => {
                r.problems.extend(problems.into_list());
                // A pair that is in use already is reused.
                pairs.loaded.extend(served.filter(|_| unchanged && !is_refused).or(here));
            }
        }
    }
    pairs.keep_until_obtained(awaited, stand_ins, r.folder);
    pairs.refuse_to_lack_all(table, stand_ins, r);
    pairs
}

/// Adds a hint if the key process has the only copy of a key: the key's file has another one, or none.
fn hint_at_memory(served: &LoadedCertificate, problems: &mut [Problem]) {
    if served.is_in_memory_alone() {
        let errors = problems.iter_mut().filter(|problem| problem.is_error());
        errors.for_each(|problem| problem.reason.hints.push(ONLY_IN_MEMORY.to_owned()));
    }
}

/// Reports a site's only pair if no client could use it.
fn report_unusable(
    fit: &Fit,
    here: &LoadedCertificate,
    pair: &CertificateTable,
    hosts: &[HostPattern],
    r: &mut Checker<'_>,
) {
    let site = hosts.first().map(ToString::to_string).unwrap_or_default();
    let problem = fit.problem(&site, &here.chain.leaf.algorithm).filter(|_| here.certificate.is_some());
    if let Some(reason) = problem {
        let span = pair.chain.as_ref().map_or(&pair.span, |chain| &chain.span);
        r.report(Problem::error(span, reason).about(&here.path));
    }
}

fn load_pair(
    table: &CertificateTable,
    at: usize,
    hosts: &[HostPattern],
    stand_ins: &StandIns<'_>,
    r: &mut Checker<'_>,
) -> Option<LoadedCertificate> {
    let Some(chain_at) = &table.chain else {
        report_no_chain(table, r);
        return None;
    };
    let path = r.path(&chain_at.value);
    if table.managed.is_some() && !r.instead.contains_key(&path) && !path.exists() {
        // pintle obtains it: until then, the site has no TLS.
        r.stamps.push((path.clone(), Stamp::of(&path)));
        return None;
    }
    // The key's own problems are reported even if the chain cannot be read.
    let is_alone = r.chains_alone && r.instead.contains_key(&path);
    let key = table.key.as_ref().filter(|_| !is_alone).and_then(|key| read_key("site.certificate.key", key, r));
    let file = chain_file("site.certificate.chain", &path, &chain_at.span, r);
    if let (Some((key_at, PrivateKey::Here(key))), Some(file)) = (&key, &file)
        && file.chain.is_err()
        && key.is_swapped_with(file)
    {
        report_swapped(chain_at, key_at, &path, r);
        return None;
    }
    let chain = file.and_then(|file| read_chain(&file, &path, chain_at, r));
    let Some(chain) = chain else {
        report_key_alone(key.as_ref(), r);
        return None;
    };
    let folder = r.folder;
    let lacked = |names: &[HostPattern]| stand_ins.lacked(names, &chain, table, at, &path, folder);
    let faults = judge(table, chain_at, &path, &chain, (hosts, &lacked), r);
    let certificate = match &key {
        Some((key_at, key)) => match key.certify(chain.clone()) {
            Ok(certificate) => Some(Arc::new(certificate)),
            // A key that is too weak to load is reported already.
            Err(CertificateError::Key(_)) if faults.iter().any(|f| matches!(f, preflight::ChainFault::Weak(_))) => None,
            Err(error) => {
                let problem = certify_problem(key_at, &path, &error, r);
                r.report(problem);
                None
            }
        },
        None if is_alone && table.key.is_some() => Some(Arc::new(Certificate::without_key(chain.clone()))),
        None => None,
    };
    let text = match &key {
        Some((_, PrivateKey::Here(file))) => file.text(certificate.is_some()),
        _ => KeyText::default(),
    };
    let chain = certificate.as_ref().map_or_else(|| Arc::new(chain), |c| c.chain.clone());
    let key = table.key.as_ref().map(|key| r.path(&key.value).into_boxed_path());
    Some(LoadedCertificate { at, path, key, text, chain, is_managed: table.managed.is_some(), certificate })
}

fn report_no_chain(table: &CertificateTable, r: &mut Checker<'_>) {
    // That of a site with acme = true is reported with the settings of [acme].
    if table.by_acme().is_none() {
        let reason = Reason::new("site.certificate: chain is missing").hint("chain = \"fullchain.pem\"");
        r.error(&table.span, reason.hint("acme = true, and pintle obtains the certificate"));
    }
}

/// Reports the fault of a key whose chain cannot be read.
fn report_key_alone(key: Option<&(&At<String>, PrivateKey)>, r: &mut Checker<'_>) {
    if let Some((at, PrivateKey::Here(file))) = key
        && let Err(error) = file.public()
    {
        let path = r.path(&at.value);
        r.report(key_problem(at, &path, &error, &error, r));
    }
}

fn report_swapped(chain_at: &At<String>, key_at: &At<String>, path: &Path, r: &mut Checker<'_>) {
    let (chain, key) = (&chain_at.value, &key_at.value);
    let what =
        format!("site.certificate: chain and key are swapped: {chain} holds a private key, {key} holds certificates");
    let reason = Reason::new(what).hint(format!("chain = {key:?}, key = {chain:?}"));
    r.report(Problem::error(&chain_at.span, reason).about(path));
}

/// Tells whether the pair in use lacks all of these names, too.
type AreLacked<'a> = dyn Fn(&[HostPattern]) -> bool + 'a;

/// Judges a chain by itself, and reports its faults. `lacked` tells if the pair in use does not serve some names either.
fn judge(
    table: &CertificateTable,
    at: &At<String>,
    path: &Path,
    chain: &Chain,
    (hosts, lacked): (&[HostPattern], &AreLacked<'_>),
    r: &mut Checker<'_>,
) -> Vec<preflight::ChainFault> {
    let mut faults = preflight::judge(chain, hosts, r.now, None);
    // If two times may be right, it is enough to be fit at one of them.
    if let Some(then) = r.doubted.filter(|_| faults.iter().any(preflight::ChainFault::is_fatal)) {
        let other = preflight::judge(chain, hosts, then, None);
        faults = if other.iter().any(preflight::ChainFault::is_fatal) { faults } else { other };
    }
    // pintle orders one for all names, and refuses TLS for the others until then: the site's plan says so. It refuses it
    // already for names that were added to a site: a renewal without them is no worse than the pair in use.
    let may_lack = |names: &[HostPattern]| table.managed.is_some() || table.key.is_some() && lacked(names);
    faults.retain(|fault| !matches!(fault, preflight::ChainFault::Names(names) if may_lack(names)));
    for fault in &faults {
        let ends = matches!(fault, preflight::ChainFault::ExpiresSoon(_) | preflight::ChainFault::Expired(_));
        let hint = match hosts.first() {
            Some(site) if ends && table.managed.is_some() => hint_to_renewal(site),
            _ => fault.hint(&chain.leaf),
        };
        let reason = Reason::new(format!("{}: {fault}", r.shown(path))).hint(hint);
        // Where TLS ends in front of pintle, the proxy there may staple.
        let is_elsewhere = table.key.is_none() && *fault == preflight::ChainFault::MustStaple;
        let of_severity = if fault.is_fatal() && !is_elsewhere { Problem::error } else { Problem::warning };
        r.report(of_severity(&at.span, reason).about(path));
    }
    faults
}

/// The problem of a key that does not go with its chain.
pub(super) fn certify_problem(at: &At<String>, chain: &Path, error: &CertificateError, r: &Checker<'_>) -> Problem {
    let path = r.path(&at.value);
    if let CertificateError::Key(why) = error {
        return key_problem(at, &path, error, why, r);
    }
    let (chain, key) = (r.shown(chain), r.shown(&path));
    let reason = Reason::new(format!("{key}: {error}"));
    let reason = match error {
        CertificateError::KeyMismatch => {
            reason.hint(format!("`pintle pin {chain} {key}` prints the same pin twice for a chain and its key"))
        }
        _ => reason.hint(KEY_FORM),
    };
    Problem::error(&at.span, reason).about(&path)
}

/// The problem of a file that should be a private key.
pub(super) fn key_problem(
    at: &At<String>,
    path: &Path,
    error: &dyn std::fmt::Display,
    why: &KeyFileError,
    r: &Checker<'_>,
) -> Problem {
    let reason = Reason::new(format!("{}: {error}", r.shown(path)));
    let hint = why.hint(&r.shown_path(path), Want::Key).unwrap_or_else(|| KEY_FORM.to_owned());
    Problem::error(&at.span, reason.hint(hint)).about(path)
}

/// A private key, here or in the key process.
pub(super) enum PrivateKey {
    /// In its file.
    Here(Arc<KeyFile>),
    /// In the key process.
    Kept(Arc<RemoteKey>),
}

impl PrivateKey {
    pub(super) fn certify(&self, chain: Chain) -> Result<Certificate, CertificateError> {
        match self {
            Self::Here(file) => Certificate::with_signer(chain, file.signer.clone().map_err(CertificateError::Key)?),
            Self::Kept(key) => Certificate::with_signer(chain, key.clone()),
        }
    }
}

/// Reads the file of a chain, unless another thread has done so.
pub(super) fn chain_file(name: &str, path: &Path, span: &Range<usize>, r: &mut Checker<'_>) -> Option<Arc<ChainFile>> {
    if let Some((stamp, file)) = r.ahead.chain(path) {
        r.stamps.push((path.to_owned(), stamp));
        return Some(file);
    }
    read(name, path, span, r).map(|contents| Arc::new(ChainFile::of(contents)))
}

pub(super) fn read_chain(file: &ChainFile, path: &Path, at: &At<String>, r: &mut Checker<'_>) -> Option<Chain> {
    match &file.chain {
        Ok(chain) => Some(chain.clone()),
        Err(error) => {
            let shown = r.shown_path(path);
            let look = || format!("`pintle pin {}` shows what the file holds", shown.display());
            let reason = Reason::new(format!("{}: {error}", shown.display()));
            let reason = match error {
                CertificateError::Order(_) => {
                    let issuer = format!("openssl x509 -noout -issuer -in {}", shell_path(&shown));
                    reason
                        .hint("put the leaf first, then the certificate that issued it, and so on")
                        .hint(format!("if the issuer's certificate is missing, add it; `{issuer}` names the issuer"))
                }
                CertificateError::Chain(why) => reason.hint(why.hint(&shown, Want::Chain).unwrap_or_else(look)),
                _ => reason.hint(look()),
            };
            r.report(Problem::error(&at.span, reason).about(path));
            None
        }
    }
}

pub(super) fn read_key<'t>(
    name: &str,
    at: &'t At<String>,
    r: &mut Checker<'_>,
) -> Option<(&'t At<String>, PrivateKey)> {
    let path = r.path(&at.value);
    let key = match key_process::running().filter(|_| !r.instead.contains_key(&path)) {
        Some(key_process) => PrivateKey::Kept(load(key_process, name, &path, at, r)?),
        None => PrivateKey::Here(key_file(name, &path, &at.span, r)?),
    };
    let is_no_key = matches!(&key, PrivateKey::Here(file) if !file.is_private);
    if !is_no_key && mode(&path).is_some_and(|mode| mode & 0o007 != 0) {
        let shown = r.shown(&path);
        let what = format!("{shown}: everybody on this host can read the private key");
        let problem = Problem::warning(&at.span, what).about(&path);
        r.report(problem.shared_remedy("key open to everybody", "chmod o=", &shown));
    }
    Some((at, key))
}

/// Reads the file of a key, unless another thread has done so.
fn key_file(name: &str, path: &Path, span: &Range<usize>, r: &mut Checker<'_>) -> Option<Arc<KeyFile>> {
    if let Some((stamp, file)) = r.ahead.key(path) {
        r.stamps.push((path.to_owned(), stamp));
        return Some(file);
    }
    read_as(Kind::UnreadableKey, name, path, span, r).map(|contents| Arc::new(KeyFile::of(contents)))
}

/// Lets the key process read a key.
fn load(
    key_process: &'static KeyProcess,
    name: &str,
    path: &Path,
    at: &At<String>,
    r: &mut Checker<'_>,
) -> Option<Arc<RemoteKey>> {
    r.stamps.push((path.to_owned(), Stamp::of(path)));
    match key_process.load(path) {
        Ok(key) => Some(Arc::new(key)),
        Err(why) => {
            let reason = why.within(&format_args!("{name}: {}", r.shown(path)));
            let note =
                "the key process reads the folders that keys were in at the start, as the user that started pintle";
            r.report(Problem::error(&at.span, reason.note(note)).about(path));
            None
        }
    }
}

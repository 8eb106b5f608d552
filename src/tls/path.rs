//! The paths from a leaf to the last given certificate, as clients build them (RFC 5280 section 6):
//! finds all paths, the rules that each one breaks, and the best path.
//!
//! A client may trust any issuer on a path, so the path may end early. Above the leaf's own issuer,
//! an expired certificate or an obsolete signature is usual for a cross-sign after some years.

use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, UnixTime,
};
use x509_parser::error::X509Error;
use x509_parser::prelude::X509Certificate;

use super::constraints;
use super::extensions;
use super::rule::{Rule, ends_soon};
use crate::keys::key_file::{KeyAlgorithm, algorithm_of};

/// The most paths that are examined.
const PATHS_MAX: usize = 16;
/// The most steps of the search: the certificates of a file may all have issued each other.
const STEPS_MAX: usize = 256;
/// The minimum that browsers require, in bits.
const RSA_MIN: usize = 2048;
/// The largest key whose signatures are verified here.
const RSA_MAX: usize = 8192;

/// A certificate of a file, as a node of the paths.
#[derive(Debug, Clone)]
struct Node {
    not_before: Timestamp,
    not_after: Timestamp,
    /// It is signed by its own key: clients have their own copy, or do not trust it.
    is_root: bool,
}

/// One path: positions in the file, from 0, the leaf's first; and the rules that it always breaks.
#[derive(Debug, Clone)]
struct CertPath {
    places: Vec<usize>,
    rules: Vec<Rule>,
}

/// All paths of a file.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    nodes: Vec<Option<Node>>,
    /// At least one.
    all: Vec<CertPath>,
    /// Faults of the file as a list.
    rules: Vec<Rule>,
    /// The positions that are served, in order.
    pub(super) served: Vec<usize>,
    /// By position: `true` if the certificate has certainly signed the leaf.
    pub(super) has_signed_leaf: Vec<bool>,
}

impl Paths {
    /// Finds the paths of a file. Returns `None` if there are other certificates, but none issued
    /// the leaf.
    pub(super) fn find(certificates: &[X509Certificate<'_>], der: &[CertificateDer<'static>]) -> Option<Self> {
        let copies: Vec<Option<usize>> =
            (0..der.len()).map(|at| der[..at].iter().position(|other| *other == der[at])).collect();
        let (signed, has_signed_leaf) = signed(certificates);
        let file = CertFile { certificates, der, signed };
        let mut search = Search { file: &file, copies: &copies, steps: 0, found: Vec::new() };
        search.go(&mut vec![0]);
        let mut all: Vec<CertPath> =
            search.found.into_iter().map(|places| CertPath { rules: file.judge(&places), places }).collect();
        let others = copies.iter().skip(1).any(Option::is_none);
        if others && all.iter().all(|path| path.places.len() == 1) {
            return None;
        }
        // The best path comes first; expiry is judged later.
        all.sort_by_key(|path| path.rules.iter().filter(|r| r.is_fatal()).count());
        let mut served = all.first().map(|path| path.places.clone()).unwrap_or_default();
        let mut rules = Vec::new();
        for (at, copy) in copies.iter().enumerate() {
            match copy {
                Some(of) => rules.push(Rule::Copy { at: at + 1, of: of + 1 }),
                None if served.contains(&at) => {}
                None if all.iter().any(|path| path.places.contains(&at)) => served.push(at),
                None => rules.push(Rule::Stranger(at + 1)),
            }
        }
        let first = &served[..all.first().map_or(0, |path| path.places.len())];
        if !first.is_sorted() {
            rules.push(Rule::Order);
        }
        let nodes = (0..certificates.len()).map(|at| file.node(at)).collect();
        Some(Self { nodes, all, rules, served, has_signed_leaf })
    }

    /// Returns the rules that the best path breaks at a time; none is fatal if any client can use a
    /// path.
    pub(super) fn judge(&self, now: Timestamp) -> Vec<Rule> {
        let judged = self.all.iter().map(|path| self.at_time(path, now));
        let weight = |rules: &Vec<Rule>| (rules.iter().filter(|r| r.is_fatal()).count(), rules.len());
        let mut rules = judged.min_by_key(weight).unwrap_or_default();
        rules.extend(self.rules.iter().cloned());
        rules
    }

    fn at_time(&self, path: &CertPath, now: Timestamp) -> Vec<Rule> {
        let mut rules = path.rules.clone();
        for (step, place) in path.places.iter().enumerate().skip(1) {
            let Some(node) = self.nodes.get(*place).and_then(Option::as_ref) else { continue };
            let (at, is_above) = (place + 1, step > 1 || node.is_root);
            if now > node.not_after {
                rules.push(Rule::IssuerExpired { at, on: node.not_after, is_above });
            } else if now < node.not_before {
                rules.push(Rule::IssuerNotYetValid { at, on: node.not_before, is_above });
            } else if step == 1 && !node.is_root && ends_soon(node.not_before, node.not_after, now) {
                rules.push(Rule::IssuerExpiresSoon { at, on: node.not_after });
                continue;
            } else {
                continue;
            }
            if !is_above {
                continue;
            }
            // A client that continues trusts this certificate as a root: the rest is not on its
            // path.
            rules.retain(|rule| rule.place().is_none_or(|other| !path.places[step + 1..].contains(&(other - 1))));
            break;
        }
        rules
    }
}

/// The algorithms of signatures that [`signed`] has verified: with ten thousand sites, a second time is
/// half a second.
static VERIFIED: LazyLock<Vec<VerifiedAlgorithm>> = LazyLock::new(|| {
    super::config::provider().signature_verification_algorithms.all.iter().copied().map(VerifiedAlgorithm).collect()
});

/// An algorithm that takes signatures as good. Nothing but [`CertFile::refusal`] may use it.
#[derive(Debug)]
struct VerifiedAlgorithm(&'static dyn SignatureVerificationAlgorithm);

impl SignatureVerificationAlgorithm for VerifiedAlgorithm {
    fn verify_signature(&self, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.0.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }
}

/// The certificates of a file.
struct CertFile<'a> {
    certificates: &'a [X509Certificate<'a>],
    der: &'a [CertificateDer<'static>],
    /// By two positions: `true` if the first certificate names the second as its issuer and is
    /// signed by its key. Computed once, since signatures are expensive.
    signed: Vec<Vec<bool>>,
}

/// Returns the table of [`CertFile::signed`], and which certificates have certainly signed the first one.
fn signed(certificates: &[X509Certificate<'_>]) -> (Vec<Vec<bool>>, Vec<bool>) {
    let mut of_leaf = Vec::with_capacity(certificates.len());
    let mut is_signed = |at: usize, certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>| {
        let is_named = certificate.issuer().as_raw() == issuer.subject().as_raw();
        let verified = is_named.then(|| certificate.verify_signature(Some(issuer.public_key())));
        if at == 0 {
            of_leaf.push(matches!(verified, Some(Ok(()))));
        }
        // Clients judge algorithms that are unknown here.
        let may_be = matches!(verified, Some(Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm)));
        may_be || is_named && !is_judged(issuer)
    };
    let row = |(at, one)| certificates.iter().map(|other| is_signed(at, one, other)).collect();
    (certificates.iter().enumerate().map(row).collect(), of_leaf)
}

/// Returns `true` if signatures of this key can be verified here: clients refuse other sizes.
fn is_judged(issuer: &X509Certificate<'_>) -> bool {
    !matches!(algorithm_of(issuer.public_key()), KeyAlgorithm::Rsa(bits) if !(RSA_MIN..=RSA_MAX).contains(&bits))
}

fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

/// A depth-first search for paths.
struct Search<'a> {
    file: &'a CertFile<'a>,
    copies: &'a [Option<usize>],
    steps: usize,
    found: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn go(&mut self, path: &mut Vec<usize>) {
        self.steps += 1;
        let certificates = self.file.certificates;
        let here = path[path.len() - 1];
        let head = &certificates[here];
        let is_new = |candidate: &X509Certificate<'_>| {
            path.iter().map(|at| &certificates[*at]).all(|c| {
                c.subject().as_raw() != candidate.subject().as_raw() || c.public_key().raw != candidate.public_key().raw
            })
        };
        let named = |at: &usize| {
            let candidate = &certificates[*at];
            self.copies[*at].is_none() && candidate.subject().as_raw() == head.issuer().as_raw() && is_new(candidate)
        };
        let named: Vec<usize> = (1..certificates.len()).filter(named).collect();
        let signed: Vec<usize> = named.iter().copied().filter(|at| self.file.signed[here][*at]).collect();
        // Without a matching key, falls back to other CAs of this name: the file meant one of them.
        let next = if signed.is_empty() && !self.file.is_root(here) { named } else { signed };
        if next.is_empty() {
            self.found.push(path.clone());
        }
        for at in next {
            if self.found.len() >= PATHS_MAX || self.steps >= STEPS_MAX {
                break;
            }
            path.push(at);
            self.go(path);
            path.pop();
        }
        if self.found.is_empty() {
            self.found.push(path.clone());
        }
    }
}

impl CertFile<'_> {
    fn is_root(&self, at: usize) -> bool {
        self.signed[at][at]
    }

    /// Returns `None` if a date is out of range.
    fn node(&self, at: usize) -> Option<Node> {
        let validity = self.certificates[at].validity();
        Some(Node {
            not_before: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
            not_after: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
            is_root: self.is_root(at),
        })
    }

    /// Returns the rules that a path always breaks.
    fn judge(&self, places: &[usize]) -> Vec<Rule> {
        let mut rules = Vec::new();
        let Some((first, issuers)) = places.split_first() else { return rules };
        let leaf = &self.certificates[*first];
        let is_own_root = issuers.is_empty() && self.is_root(*first);
        let digest = extensions::weak_digest(leaf).filter(|_| !is_own_root);
        rules.extend(digest.map(|digest| Rule::Digest { at: 1, digest, is_above: false }));
        rules.extend(extensions::unknown_critical(leaf).map(|oid| Rule::Critical { at: 1, oid }));
        // Counts the certificates below that a path length limits: those not issued by themselves
        // (RFC 5280 section 4.2.1.9).
        let mut below = 0;
        for (step, place) in issuers.iter().enumerate() {
            let (issuer, at) = (&self.certificates[*place], place + 1);
            let subject = places[step];
            if !self.signed[subject][*place] {
                rules.push(Rule::Signature { at: subject + 1, by: at });
            }
            rules.extend(self.judge_issuer(*place, below));
            if let Some(name) = constraints::violation(issuer, leaf) {
                rules.push(Rule::Constraints { at, name });
            }
            if !is_self_issued(issuer) {
                below += 1;
            }
            if !self.is_root(*place)
                && let Some(digest) = extensions::weak_digest(issuer)
            {
                let is_above = step > 0;
                rules.push(Rule::Digest { at, digest, is_above });
                if is_above {
                    return rules;
                }
            }
        }
        if !rules.iter().any(Rule::is_fatal) && !issuers.is_empty() {
            rules.extend(self.refusal(places));
        }
        rules
    }

    /// Judges an issuer by itself. A root is a client's own copy: only its statements about itself
    /// count.
    fn judge_issuer(&self, place: usize, below: usize) -> Vec<Rule> {
        let (issuer, at, is_root) = (&self.certificates[place], place + 1, self.is_root(place));
        let mut rules = Vec::new();
        let basic = issuer.basic_constraints().ok().flatten().map(|b| b.value);
        match basic {
            Some(basic) if !basic.ca => rules.push(Rule::NoAuthority(at)),
            None if !is_root => rules.push(Rule::NoAuthority(at)),
            _ => {}
        }
        if issuer.key_usage().ok().flatten().is_some_and(|usage| !usage.value.key_cert_sign()) {
            rules.push(Rule::MayNotSign(at));
        }
        if let algorithm @ KeyAlgorithm::Rsa(bits) = algorithm_of(issuer.public_key())
            && bits < RSA_MIN
        {
            rules.push(Rule::WeakIssuer { at, algorithm });
        }
        if is_root {
            return rules;
        }
        let length = basic.and_then(|b| b.path_len_constraint);
        if let Some(length) = length.filter(|length| usize::try_from(*length).is_ok_and(|length| length < below)) {
            rules.push(Rule::PathLength { at, length });
        }
        if let Ok(Some(usage)) = issuer.extended_key_usage()
            && !usage.value.server_auth
            && !usage.value.any
        {
            rules.push(Rule::IssuerUsage(at));
        }
        rules.extend(extensions::unknown_critical(issuer).map(|oid| Rule::Critical { at, oid }));
        rules
    }

    /// Returns the refusal of rustls' own verification, at a time when all certificates are valid.
    /// It covers rules unknown to this module. The signatures of these places are verified already.
    fn refusal(&self, places: &[usize]) -> Option<Rule> {
        use webpki::Error as E;
        let (leaf, issuers) = places.split_first()?;
        let (last, between) = issuers.split_last()?;
        let validity = |at: &usize| self.certificates[*at].validity();
        let begin = places.iter().map(|at| validity(at).not_before.timestamp()).max()?;
        let end = places.iter().map(|at| validity(at).not_after.timestamp()).min()?;
        if begin > end {
            return None;
        }
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(begin).ok()?));
        let anchors = [webpki::anchor_from_trusted_cert(&self.der[*last]).ok()?];
        let between: Vec<CertificateDer<'_>> = between.iter().map(|at| self.der[*at].clone()).collect();
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> = VERIFIED.iter().map(|known| known as _).collect();
        let usage = webpki::KeyUsage::server_auth();
        let verdict = webpki::EndEntityCert::try_from(&self.der[*leaf]).and_then(|leaf| {
            leaf.verify_for_usage(&algorithms, &anchors, &between, time, usage, None, None).map(|_| ())
        });
        match verdict {
            // The other errors are reported above, or only rustls has them.
            Err(
                error @ (E::BadDer
                | E::BadDerTime
                | E::ExtensionValueInvalid
                | E::InvalidSerialNumber
                | E::MalformedExtensions
                | E::MalformedDnsIdentifier
                | E::EmptyEkuExtension
                | E::SignatureAlgorithmMismatch
                | E::TrailingData(_)),
            ) => Some(Rule::Refused(error.to_string())),
            _ => None,
        }
    }
}

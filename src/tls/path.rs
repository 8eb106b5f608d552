//! The way from a leaf up to the last certificate that is given, as a client goes it (RFC 5280 section 6): which rule fails
//! where, and which of several ways is the best one.
//!
//! A client may know any issuer on the way as a root of its own, so that a way may end early: a certificate above the
//! leaf's own issuer that has expired, or bears a signature that nobody takes any more, is what a cross-sign is after some years.

use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::error::X509Error;
use x509_parser::prelude::X509Certificate;

use super::constraints;
use super::extensions;
use super::preflight::SOON;
use super::rule::Rule;
use crate::keys::key_file::{KeyAlgorithm, algorithm_of};

/// Ways that are looked at.
const PATHS_MAX: usize = 16;
/// Steps in looking for them: the certificates of a file may all have issued each other.
const STEPS_MAX: usize = 256;
/// What browsers ask for, in bits.
const RSA_MIN: usize = 2048;
/// The largest key whose signatures are verified here.
const RSA_MAX: usize = 8192;

/// A certificate of a file, as a step on the way.
#[derive(Debug, Clone)]
struct Link {
    not_before: Timestamp,
    not_after: Timestamp,
    /// It is signed by its own key: clients have their own copy, or do not trust it.
    is_root: bool,
}

/// One way: places in the file, from 0, the leaf's first; and what is wrong with it at any time.
#[derive(Debug, Clone)]
struct Path {
    places: Vec<usize>,
    rules: Vec<Rule>,
}

/// All ways that a file has.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    links: Vec<Option<Link>>,
    /// At least one.
    all: Vec<Path>,
    /// What is wrong with the file as a list.
    rules: Vec<Rule>,
    /// The places that are to be served, in their order.
    pub(super) served: Vec<usize>,
}

impl Paths {
    /// Finds the ways in a file; `None` where no certificate has issued the leaf, though others are there.
    pub(super) fn find(certificates: &[X509Certificate<'_>], der: &[CertificateDer<'static>]) -> Option<Self> {
        let copies: Vec<Option<usize>> =
            (0..der.len()).map(|at| der[..at].iter().position(|other| *other == der[at])).collect();
        let file = File { certificates, der, signed: signed(certificates) };
        let mut search = Search { file: &file, copies: &copies, steps: 0, found: Vec::new() };
        search.go(&mut vec![0]);
        let mut all: Vec<Path> =
            search.found.into_iter().map(|places| Path { rules: file.judge(&places), places }).collect();
        let others = copies.iter().skip(1).any(Option::is_none);
        if others && all.iter().all(|path| path.places.len() == 1) {
            return None;
        }
        // The first of the best ones comes first; what the time says comes later.
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
        let links = (0..certificates.len()).map(|at| file.link(at)).collect();
        Some(Self { links, all, rules, served })
    }

    /// What is wrong with the best way at a time; nothing that is fatal, if a client has a way to go.
    pub(super) fn judge(&self, now: Timestamp) -> Vec<Rule> {
        let judged = self.all.iter().map(|path| self.at_time(path, now));
        let weight = |rules: &Vec<Rule>| (rules.iter().filter(|r| r.is_fatal()).count(), rules.len());
        let mut rules = judged.min_by_key(weight).unwrap_or_default();
        rules.extend(self.rules.iter().cloned());
        rules
    }

    fn at_time(&self, path: &Path, now: Timestamp) -> Vec<Rule> {
        let mut rules = path.rules.clone();
        for (step, place) in path.places.iter().enumerate().skip(1) {
            let Some(link) = self.links.get(*place).and_then(Option::as_ref) else { continue };
            let (at, is_above) = (place + 1, step > 1 || link.is_root);
            if now > link.not_after {
                rules.push(Rule::IssuerExpired { at, on: link.not_after, is_above });
            } else if now < link.not_before {
                rules.push(Rule::IssuerNotYetValid { at, on: link.not_before, is_above });
            } else if step == 1 && !link.is_root && now + SOON > link.not_after {
                rules.push(Rule::IssuerExpiresSoon { at, on: link.not_after });
                continue;
            } else {
                continue;
            }
            if !is_above {
                continue;
            }
            // A client that goes on knows this one as a root: the rest is not on its way.
            rules.retain(|rule| rule.place().is_none_or(|other| !path.places[step + 1..].contains(&(other - 1))));
            break;
        }
        rules
    }
}

/// The certificates of a file.
struct File<'a> {
    certificates: &'a [X509Certificate<'a>],
    der: &'a [CertificateDer<'static>],
    /// By two places: whether the first one is issued by the name of the second, and signed by its key. Looked at once,
    /// since signatures cost.
    signed: Vec<Vec<bool>>,
}

fn signed(certificates: &[X509Certificate<'_>]) -> Vec<Vec<bool>> {
    // Algorithms that are not known here are for clients to judge.
    let is_signed = |certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>| {
        let verified = || certificate.verify_signature(Some(issuer.public_key()));
        certificate.issuer().as_raw() == issuer.subject().as_raw()
            && (matches!(verified(), Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm)) || !is_judged(issuer))
    };
    certificates.iter().map(|one| certificates.iter().map(|other| is_signed(one, other)).collect()).collect()
}

/// Whether a signature by this key can be judged here: not one of a size that clients refuse.
fn is_judged(issuer: &X509Certificate<'_>) -> bool {
    !matches!(algorithm_of(issuer.public_key()), KeyAlgorithm::Rsa(bits) if !(RSA_MIN..=RSA_MAX).contains(&bits))
}

fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

/// A search for ways, depth first.
struct Search<'a> {
    file: &'a File<'a>,
    copies: &'a [Option<usize>],
    steps: usize,
    found: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn go(&mut self, way: &mut Vec<usize>) {
        self.steps += 1;
        let certificates = self.file.certificates;
        let here = way[way.len() - 1];
        let head = &certificates[here];
        let is_new = |candidate: &X509Certificate<'_>| {
            way.iter().map(|at| &certificates[*at]).all(|c| {
                c.subject().as_raw() != candidate.subject().as_raw() || c.public_key().raw != candidate.public_key().raw
            })
        };
        let named = |at: &usize| {
            let candidate = &certificates[*at];
            self.copies[*at].is_none() && candidate.subject().as_raw() == head.issuer().as_raw() && is_new(candidate)
        };
        let named: Vec<usize> = (1..certificates.len()).filter(named).collect();
        let signed: Vec<usize> = named.iter().copied().filter(|at| self.file.signed[here][*at]).collect();
        // Another CA of the same name: the one that was meant, if there is no better one.
        let next = if signed.is_empty() && !self.file.is_root(here) { named } else { signed };
        if next.is_empty() {
            self.found.push(way.clone());
        }
        for at in next {
            if self.found.len() >= PATHS_MAX || self.steps >= STEPS_MAX {
                break;
            }
            way.push(at);
            self.go(way);
            way.pop();
        }
        if self.found.is_empty() {
            self.found.push(way.clone());
        }
    }
}

impl File<'_> {
    fn is_root(&self, at: usize) -> bool {
        self.signed[at][at]
    }

    /// `None` for dates that no calendar has.
    fn link(&self, at: usize) -> Option<Link> {
        let validity = self.certificates[at].validity();
        Some(Link {
            not_before: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
            not_after: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
            is_root: self.is_root(at),
        })
    }

    /// What is wrong with a way at any time.
    fn judge(&self, places: &[usize]) -> Vec<Rule> {
        let mut rules = Vec::new();
        let Some((first, issuers)) = places.split_first() else { return rules };
        let leaf = &self.certificates[*first];
        let is_own_root = issuers.is_empty() && self.is_root(*first);
        let digest = extensions::weak_digest(leaf).filter(|_| !is_own_root);
        rules.extend(digest.map(|digest| Rule::Digest { at: 1, digest, is_above: false }));
        rules.extend(extensions::unknown_critical(leaf).map(|oid| Rule::Critical { at: 1, oid }));
        // Certificates below that count for a length: those that are not issued by themselves (RFC 5280 section 4.2.1.9).
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

    /// An issuer by itself; a root is a client's own copy, of which only what it says about itself counts.
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

    /// What rustls' own verification says at a time when all of them are valid: the last word on what the rules above do not know.
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
        let algorithms = super::config::provider().signature_verification_algorithms.all;
        let usage = webpki::KeyUsage::server_auth();
        let verdict = webpki::EndEntityCert::try_from(&self.der[*leaf]).and_then(|leaf| {
            leaf.verify_for_usage(algorithms, &anchors, &between, time, usage, None, None).map(|_| ())
        });
        match verdict {
            // Others are told of above, or are what only rustls does not know.
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

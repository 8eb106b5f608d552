//! The preflight of a chain: judges in one place, for chains of any source, if clients would accept
//! it.
//!
//! [`Chain`] and [`super::Certificate`] guarantee that it is readable, in order and matches its
//! key. The guard checks promises. The preflight covers everything between.

use std::fmt;

use jiff::Timestamp;

use super::certificate::{Chain, Leaf};
use super::rule::{Rule, day, ends_soon};
use super::transparency;
use crate::host::HostPattern;
use crate::keys::key_file::KeyAlgorithm;

/// The minimum that browsers and the CA/Browser Forum require, in bits.
const RSA_MIN: usize = 2048;

/// A fault of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainFault {
    /// It expired at this time.
    Expired(Timestamp),
    /// It is valid from this time.
    NotYetValid(Timestamp),
    /// It expires soon, at this time.
    ExpiresSoon(Timestamp),
    /// It does not cover these names.
    Names(Vec<HostPattern>),
    /// Its path breaks a rule.
    Path(Rule),
    /// The leaf requires an OCSP staple, and pintle sends none.
    MustStaple,
    /// The leaf's key may not sign handshakes.
    KeyUsage,
    /// A key type that browsers do not accept.
    Unusual(KeyAlgorithm),
    /// It is valid for longer than clients accept.
    Lifetime {
        /// Its days of validity.
        days: i64,
        /// The most days that clients accept.
        max: i64,
        /// `true` if it looks like one of a public authority, for which other rules apply.
        is_public: bool,
    },
    /// The leaf is not for servers.
    Usage,
    /// The leaf is a CA's own certificate.
    Authority,
    /// The leaf is alone, though it names the place of its issuer: clients that do not fetch that
    /// cannot verify it.
    Alone,
    /// It has this many certificates, and the chain in use has this many.
    Shorter(usize, usize),
    /// The key is too weak.
    Weak(KeyAlgorithm),
    /// It expires before the one in use.
    Older {
        /// The end of its validity.
        ends: Timestamp,
        /// The end of validity of the one in use.
        in_use: Timestamp,
    },
    /// It is from a public CA, and browsers want more promises of Certificate Transparency logs.
    Transparency(transparency::TooFew),
}

impl ChainFault {
    /// Returns `true` if the chain must not be served.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Path(rule) => rule.is_fatal(),
            Self::ExpiresSoon(_)
            | Self::Older { .. }
            | Self::Authority
            | Self::Alone
            | Self::Shorter(..)
            | Self::Unusual(_)
            | Self::Lifetime { .. }
            | Self::Transparency(_) => false,
            _ => true,
        }
    }

    /// Returns `true` if time alone makes and mends it.
    #[must_use]
    pub fn is_of_time(&self) -> bool {
        matches!(self, Self::Expired(_) | Self::NotYetValid(_) | Self::ExpiresSoon(_))
    }

    /// Returns the remedy.
    #[must_use]
    pub fn hint(&self, leaf: &Leaf) -> String {
        match self {
            Self::Expired(_) => "renew it; browsers refuse it".into(),
            Self::NotYetValid(_) => "wait until then, or set this host's clock".into(),
            Self::ExpiresSoon(_) => "renew it now".into(),
            Self::Names(_) if !leaf.unusable_names().is_empty() => format!(
                "it is for {}; clients match no host with {}: a name in a certificate has no trailing dot and no port, and \
                 an address needs an IP entry (`subjectAltName = IP:192.0.2.1`)",
                leaf.names(),
                leaf.unusable_names().iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
            ),
            Self::Names(_) => {
                format!("it is for {}; get one for all hosts of the site, or make two sites", leaf.names())
            }
            Self::Path(rule) => rule.hint().into(),
            Self::MustStaple => {
                "get one without OCSP must-staple: certbot without --must-staple, or a CSR without `tlsfeature`".into()
            }
            Self::KeyUsage => "ask the CA for one with digitalSignature in its key usage".into(),
            Self::Unusual(_) => {
                "make a key for all browsers: `pintle key new --role next --algorithm ecdsa-p256`".into()
            }
            Self::Lifetime { .. } => "have it issued for a shorter time, and renew it more often".into(),
            Self::Usage => "ask the CA for one with the extended key usage serverAuth".into(),
            Self::Authority => "issue a separate certificate for the site with this CA".into(),
            Self::Alone | Self::Shorter(..) => {
                "put the intermediates after the leaf: use certbot's fullchain.pem instead of cert.pem".into()
            }
            Self::Weak(_) => "make a new key: `pintle key new --role next`".into(),
            Self::Older { .. } => "check that no old file has replaced the current one".into(),
            Self::Transparency(_) => {
                "have it issued again, by a CA that submits its certificates to current logs".into()
            }
        }
    }
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(at) => write!(f, "expired on {}", day(*at)),
            Self::NotYetValid(at) => write!(f, "not valid before {}", day(*at)),
            Self::ExpiresSoon(at) => write!(f, "expires on {}", day(*at)),
            Self::Names(missing) => {
                let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
                write!(f, "does not cover {}", missing.join(", "))
            }
            Self::Path(rule) => rule.fmt(f),
            Self::MustStaple => f.write_str(
                "must be served with an OCSP staple (must-staple), which pintle does not send: clients refuse it",
            ),
            Self::KeyUsage => f.write_str("its key may not sign handshakes (no digitalSignature in its key usage)"),
            Self::Unusual(algorithm) => write!(f, "not all browsers accept its key: {algorithm}"),
            Self::Lifetime { days, max, is_public } => {
                let whose =
                    if *is_public { "browsers accept from public CAs" } else { "Apple's systems accept from any CA" };
                write!(f, "is valid for {days} days, more than the {max} that {whose}")
            }
            Self::Usage => f.write_str("is not for servers (no serverAuth in its extended key usage)"),
            Self::Authority => f.write_str("is a CA's own certificate; some clients do not accept it from a server"),
            Self::Alone => f.write_str("has no intermediates: clients that do not know them cannot verify it"),
            Self::Shorter(one, in_use) => {
                write!(f, "the chain is shorter than the one in use: {one} instead of {in_use} certificates")
            }
            Self::Weak(algorithm) => write!(f, "its key is too weak for today's clients: {algorithm}"),
            Self::Older { ends, in_use } => {
                write!(f, "expires on {}, before the one in use, which expires on {}", day(*ends), day(*in_use))
            }
            Self::Transparency(too_few) => too_few.fmt(f),
        }
    }
}

/// Judges a chain to be served for these names from now on, instead of the one in use.
#[must_use]
pub fn judge(chain: &Chain, hosts: &[HostPattern], now: Timestamp, in_use: Option<&Chain>) -> Vec<ChainFault> {
    let leaf = &chain.leaf;
    let mut faults = Vec::new();
    if now > leaf.not_after {
        faults.push(ChainFault::Expired(leaf.not_after));
    } else if now < leaf.not_before {
        faults.push(ChainFault::NotYetValid(leaf.not_before));
    } else if ends_soon(leaf.not_before, leaf.not_after, now) {
        faults.push(ChainFault::ExpiresSoon(leaf.not_after));
    }
    // Each certificate of a site must cover all its names: the client's choice depends on the
    // algorithm only.
    let missing: Vec<HostPattern> = hosts.iter().filter(|h| !leaf.covers_pattern(h)).cloned().collect();
    if !missing.is_empty() {
        faults.push(ChainFault::Names(missing));
    }
    faults.extend(chain.broken_rules(now).into_iter().map(ChainFault::Path));
    if !leaf.is_for_servers {
        faults.push(ChainFault::Usage);
    }
    if leaf.is_authority {
        faults.push(ChainFault::Authority);
    }
    if leaf.must_staple {
        faults.push(ChainFault::MustStaple);
    }
    if !leaf.may_sign {
        faults.push(ChainFault::KeyUsage);
    }
    faults.extend(lifetime(leaf));
    if let transparency::TransparencyVerdict::TooFew(too_few) = transparency::judge_chain(chain.der(), now) {
        faults.push(ChainFault::Transparency(too_few));
    }
    if matches!(leaf.algorithm, KeyAlgorithm::Ed25519 | KeyAlgorithm::EcdsaP521) {
        faults.push(ChainFault::Unusual(leaf.algorithm));
    }
    if matches!(leaf.algorithm, KeyAlgorithm::Rsa(bits) if bits < RSA_MIN) {
        faults.push(ChainFault::Weak(leaf.algorithm));
    }
    if leaf.has_issuer_elsewhere && chain.pins.len() == 1 {
        faults.push(ChainFault::Alone);
    }
    if let Some(in_use) = in_use {
        if in_use.leaf.not_after > leaf.not_after {
            faults.push(ChainFault::Older { ends: leaf.not_after, in_use: in_use.leaf.not_after });
        }
        if in_use.pins.len() > chain.pins.len() {
            faults.push(ChainFault::Shorter(chain.pins.len(), in_use.pins.len()));
        }
    }
    faults
}

/// The longest validity of a certificate that begins at a time, in days: CA/Browser Forum, Baseline
/// Requirements section 6.3.2.
const PUBLIC_LIFETIMES: [(Timestamp, i64); 4] = [
    // 2029-03-15, 2027-03-15, 2026-03-15
    (Timestamp::constant(1_868_227_200, 0), 47),
    (Timestamp::constant(1_805_068_800, 0), 100),
    (Timestamp::constant(1_773_532_800, 0), 200),
    (Timestamp::constant(0, 0), 398),
];
/// The limit for private CAs, in days: what Apple's systems accept (support.apple.com/HT210176).
const PRIVATE_LIFETIME: i64 = 825;

fn lifetime(leaf: &Leaf) -> Option<ChainFault> {
    // Both ends are included (RFC 5280 section 4.1.2.5); one second beyond the last day is
    // tolerated.
    let seconds = leaf.not_after.duration_since(leaf.not_before).as_secs();
    let days = seconds.saturating_add(86399) / 86400;
    let public = || PUBLIC_LIFETIMES.iter().find(|(from, _)| leaf.not_before >= *from).map_or(398, |(_, max)| *max);
    let max = if leaf.looks_public { public() } else { PRIVATE_LIFETIME };
    (seconds > max * 86400).then_some(ChainFault::Lifetime { days, max, is_public: leaf.looks_public })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use jiff::ToSpan as _;
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    fn authority() -> (rcgen::Certificate, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap(), Issuer::new(params, key))
    }

    fn chain(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Chain {
        let (ca, issuer) = authority();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let now = time::OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - time::Duration::days(1), now + time::Duration::days(90));
        change(&mut params);
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        Chain::from_pem((leaf.pem() + &ca.pem()).as_bytes()).unwrap()
    }

    fn faults(chain: &Chain, host: &str, now: Timestamp) -> Vec<String> {
        judge(chain, &[HostPattern::parse(host).unwrap()], now, None).iter().map(|f| format!("{f:?}")).collect()
    }

    #[test]
    fn judgement() {
        let now = Timestamp::now();
        let good = chain(&["a.example"], |_| {});
        assert_eq!(faults(&good, "a.example", now), Vec::<String>::new());
        assert!(faults(&good, "b.example", now)[0].starts_with("Names"));
        assert!(faults(&good, "a.example", now + (24 * 91).hours())[0].starts_with("Expired"));
        assert!(faults(&good, "a.example", now + (24 * 88).hours())[0].starts_with("ExpiresSoon"));
        // Of six days, a sixth: ACME renews at half of them.
        let short = chain(&["a.example"], |p| p.not_after = p.not_before + time::Duration::hours(160));
        let day = |hours: i64| faults(&short, "a.example", now + (hours - 24).hours());
        assert_eq!(day(132), Vec::<String>::new());
        assert!(day(135)[0].starts_with("ExpiresSoon"), "{:?}", day(135));
        assert!(faults(&good, "a.example", now - (24 * 2).hours())[0].starts_with("NotYetValid"));
        let for_clients = chain(&["a.example"], |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
        assert_eq!(faults(&for_clients, "a.example", now), ["Usage"]);
        let for_both = chain(&["a.example"], |p| {
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        });
        assert_eq!(faults(&for_both, "a.example", now), Vec::<String>::new());
        let older = judge(&good, &[], now, Some(&chain(&["a.example"], |p| p.not_after += time::Duration::days(9))));
        assert!(matches!(older[..], [ChainFault::Older { .. }]) && !older[0].is_fatal());
    }

    #[test]
    fn without_its_intermediates() {
        // Authority information access (RFC 5280 section 4.2.2.1): caIssuers, at http://.
        let access = b"\x30\x15\x30\x13\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x07http://".to_vec();
        let extension = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access);
        let whole = chain(&["a.example"], |p| p.custom_extensions.push(extension));
        let now = Timestamp::now();
        assert_eq!(faults(&whole, "a.example", now), Vec::<String>::new());
        let mut alone = whole.clone();
        alone.pins.truncate(1);
        let found = judge(&alone, &[], now, Some(&whole));
        assert_eq!(found, [ChainFault::Alone, ChainFault::Shorter(1, 2)]);
        assert!(!found.iter().any(ChainFault::is_fatal));
        // A private CA that issues leaves directly is not a fault.
        let mut private = chain(&["a.example"], |_| {});
        private.pins.truncate(1);
        assert_eq!(faults(&private, "a.example", now), Vec::<String>::new());
    }

    /// Two CAs with the same name: the order looks right, the signature is wrong.
    #[test]
    fn a_stranger_of_the_same_name() {
        let (_, issuer) = authority();
        let (other, _) = authority();
        let mut leaf = CertificateParams::new(vec!["a.example".into()]).unwrap();
        leaf.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(1);
        leaf.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(90);
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let chain = Chain::from_pem((leaf.pem() + &other.pem()).as_bytes()).unwrap();
        assert_eq!(faults(&chain, "a.example", Timestamp::now()), ["Path(Signature { at: 1, by: 2 })"]);
    }

    /// The Baseline Requirements apply to public authorities, the limits of clients to private
    /// ones.
    #[test]
    fn lifetimes() {
        let check = |begins: &str, days: i64, is_public: bool, want: Option<i64>| {
            let chain = chain(&["a.example"], |_| {});
            let not_before: Timestamp = begins.parse().unwrap();
            let not_after = not_before + SignedDuration::from_hours(days * 24);
            let mut leaf = chain.leaf;
            (leaf.not_before, leaf.not_after, leaf.looks_public) = (not_before, not_after, is_public);
            let found = lifetime(&leaf).map(|fault| match fault {
                ChainFault::Lifetime { max, .. } => max,
                other => panic!("{other:?}"),
            });
            assert_eq!(found, want, "{begins} {days} {is_public}");
        };
        check("2026-01-01T00:00:00Z", 398, true, None);
        check("2026-01-01T00:00:00Z", 399, true, Some(398));
        check("2026-03-15T00:00:00Z", 200, true, None);
        check("2026-03-15T00:00:00Z", 201, true, Some(200));
        check("2027-03-14T23:59:59Z", 101, true, None);
        check("2027-03-15T00:00:00Z", 101, true, Some(100));
        check("2029-03-15T00:00:00Z", 47, true, None);
        check("2029-03-15T00:00:00Z", 48, true, Some(47));
        check("2029-03-15T00:00:00Z", 825, false, None);
        check("2026-01-01T00:00:00Z", 826, false, Some(825));
    }
}

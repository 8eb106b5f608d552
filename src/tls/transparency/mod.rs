//! Certificate Transparency (RFC 6962): the promises of logs (SCTs) in a certificate, counted and
//! judged as browsers do.
//!
//! Signatures are not verified: an SCT in a certificate is signed by its CA, too. pintle sends no
//! SCT by TLS, so only those in the certificate count.

use std::fmt;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The list of logs.
const LOGS: &str = include_str!("logs.txt");
/// The age at which a list judges nothing any more: browsers' own lists end then, too.
const LIST_MAX_AGE: SignedDuration = SignedDuration::from_hours(70 * 24);
/// The lifetime up to which fewer SCTs are enough.
const SHORT: SignedDuration = SignedDuration::from_hours(180 * 24);

/// The rules of a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrowserPolicy {
    /// Its name.
    pub name: &'static str,
    /// SCTs of distinct logs for a lifetime of at most 180 days.
    pub short: usize,
    /// The same for a longer one.
    pub long: usize,
    /// Distinct operators of these logs.
    pub operators: usize,
}

/// Chrome's rules of 2026-07-22, which are Firefox's too, and Apple's since 2021-04-21.
pub const POLICIES: [BrowserPolicy; 2] = [
    BrowserPolicy { name: "Chrome and Firefox", short: 2, long: 3, operators: 2 },
    BrowserPolicy { name: "Apple's systems", short: 2, long: 3, operators: 1 },
];

/// A log's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogState {
    /// Qualified, usable or read-only.
    Current,
    /// Retired at this time: SCTs from before count.
    Retired(Timestamp),
    /// Pending or rejected: none counts.
    Other,
}

/// A log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Log {
    id: [u8; 32],
    state: LogState,
    operator: String,
}

/// The known logs at a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    dated: Timestamp,
    all: Vec<Log>,
}

impl Logs {
    /// Returns the list of this version of pintle.
    #[must_use]
    pub fn built_in() -> &'static Self {
        static BUILT_IN: LazyLock<Logs> = LazyLock::new(|| Logs::parse(LOGS));
        &BUILT_IN
    }

    /// Returns the date of the list.
    #[must_use]
    pub fn dated(&self) -> Timestamp {
        self.dated
    }

    /// Reads a list. Unreadable lines are left out; a test reads all of ours.
    fn parse(text: &str) -> Self {
        let mut logs = Self { dated: Timestamp::UNIX_EPOCH, all: Vec::new() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line.strip_prefix("date ") {
                Some(date) => logs.dated = date.parse().unwrap_or(Timestamp::UNIX_EPOCH),
                None => logs.all.extend(Log::parse(line)),
            }
        }
        logs
    }
}

impl Log {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        let id = BASE64_STANDARD.decode(words.next()?).ok()?.try_into().ok()?;
        let (state, since) = (words.next()?, words.next()?);
        let state = match state {
            "qualified" | "usable" | "readonly" => LogState::Current,
            "retired" => LogState::Retired(since.parse().ok()?),
            _ => LogState::Other,
        };
        Some(Self { id, state, operator: words.next()?.to_owned() })
    }
}

/// An SCT in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sct {
    /// The log.
    pub log: [u8; 32],
    /// Its time, in milliseconds since 1970.
    pub at: u64,
}

/// Returns the SCTs in a certificate. `None` if the extension is malformed.
#[must_use]
pub fn embedded(certificate: &X509Certificate<'_>) -> Option<Vec<Sct>> {
    let mut all = Vec::new();
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SCT(list) => {
                all.extend(list.iter().map(|sct| Sct { log: *sct.id.key_id, at: sct.timestamp }));
            }
            ParsedExtension::ParseError { .. } if extension.oid.to_id_string() == "1.3.6.1.4.1.11129.2.4.2" => {
                return None;
            }
            _ => {}
        }
    }
    Some(all)
}

/// The judgement of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransparencyVerdict {
    /// It meets every policy.
    Enough {
        /// SCTs of distinct logs.
        scts: usize,
    },
    /// It is from a private CA, for which no policy holds.
    Private,
    /// The list of logs is too old to tell.
    Unknown {
        /// SCTs of distinct logs, known or not.
        scts: usize,
        /// The date of the list.
        dated: Timestamp,
    },
    /// A browser refuses it.
    TooFew(TooFew),
}

/// The reason why a browser refuses a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFew {
    /// The SCTs that count.
    pub scts: usize,
    /// The SCTs that it needs.
    pub needed: usize,
    /// The browser.
    pub by: &'static str,
    /// The shortfall.
    pub lack: TransparencyLack,
}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scts, needed, by, lack } = self;
        match lack {
            TransparencyLack::All => write!(f, "has no Certificate Transparency timestamp (SCT): {by} refuse it"),
            TransparencyLack::Number => write!(
                f,
                "has too few Certificate Transparency timestamps (SCT) that count: {scts} of {needed}; {by} refuse it"
            ),
            TransparencyLack::Operators => {
                write!(f, "has Certificate Transparency timestamps (SCT) of one operator only; {by} refuse it")
            }
            TransparencyLack::Current => {
                write!(f, "has Certificate Transparency timestamps (SCT) of retired logs only; {by} refuse it")
            }
        }
    }
}

/// The missing part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransparencyLack {
    /// There are none, or they are unreadable.
    All,
    /// There are too few from logs that count.
    Number,
    /// They are from one operator.
    Operators,
    /// All their logs are retired.
    Current,
}

/// Returns the number of SCTs in the leaf of a chain, in DER.
#[must_use]
pub fn count(chain: &[impl AsRef<[u8]>]) -> usize {
    let leaf = chain.first().and_then(|leaf| X509Certificate::from_der(leaf.as_ref()).ok());
    leaf.and_then(|(_, leaf)| embedded(&leaf)).map_or(0, |scts| scts.len())
}

/// Judges a chain, the leaf first, in DER.
#[must_use]
pub fn judge_chain(chain: &[impl AsRef<[u8]>], now: Timestamp) -> TransparencyVerdict {
    let parsed = |der: &[u8]| X509Certificate::from_der(der).ok().map(|(_, certificate)| is_of_public_ca(&certificate));
    if !chain.iter().any(|der| parsed(der.as_ref()).unwrap_or(false)) {
        return TransparencyVerdict::Private;
    }
    let Some(leaf) = chain.first() else { return TransparencyVerdict::Private };
    let Ok((_, leaf)) = X509Certificate::from_der(leaf.as_ref()) else { return TransparencyVerdict::Private };
    let validity = leaf.validity();
    let life = validity.not_after.timestamp().saturating_sub(validity.not_before.timestamp());
    judge(&embedded(&leaf).unwrap_or_default(), SignedDuration::from_secs(life), Logs::built_in(), now)
}

/// Returns `true` if a root that browsers trust has issued it.
fn is_of_public_ca(certificate: &X509Certificate<'_>) -> bool {
    let issuer = certificate.issuer().as_raw();
    // The roots' names lack the tag and length of their SEQUENCE.
    webpki_roots::TLS_SERVER_ROOTS.iter().any(|root| {
        let name: &[u8] = root.subject.as_ref();
        issuer.len() > name.len() && issuer.len() <= name.len() + 6 && issuer.ends_with(name)
    })
}

/// Judges SCTs for a lifetime.
#[must_use]
pub fn judge(scts: &[Sct], life: SignedDuration, logs: &Logs, now: Timestamp) -> TransparencyVerdict {
    let mut distinct: Vec<&Sct> = Vec::new();
    for sct in scts {
        if distinct.iter().all(|known| known.log != sct.log) {
            distinct.push(sct);
        }
    }
    let needed = |policy: &BrowserPolicy| if life <= SHORT { policy.short } else { policy.long };
    let too_few = |policy: &BrowserPolicy, scts: usize, lack: TransparencyLack| {
        TransparencyVerdict::TooFew(TooFew { scts, needed: needed(policy), by: policy.name, lack })
    };
    // A number that is too small is so by any list.
    if let Some(policy) = POLICIES.iter().find(|policy| distinct.len() < needed(policy)) {
        let lack = if distinct.is_empty() { TransparencyLack::All } else { TransparencyLack::Number };
        return too_few(policy, distinct.len(), lack);
    }
    if now.duration_since(logs.dated) > LIST_MAX_AGE {
        return TransparencyVerdict::Unknown { scts: distinct.len(), dated: logs.dated };
    }
    let counted: Vec<&Log> = distinct.iter().filter_map(|sct| logs.counts(sct)).collect();
    let mut operators: Vec<&str> = counted.iter().map(|log| log.operator.as_str()).collect();
    operators.sort_unstable();
    operators.dedup();
    for policy in &POLICIES {
        if counted.len() < needed(policy) {
            return too_few(policy, counted.len(), TransparencyLack::Number);
        }
        if operators.len() < policy.operators {
            return too_few(policy, counted.len(), TransparencyLack::Operators);
        }
        if counted.iter().all(|log| log.state != LogState::Current) {
            return too_few(policy, counted.len(), TransparencyLack::Current);
        }
    }
    TransparencyVerdict::Enough { scts: counted.len() }
}

impl Logs {
    /// Returns the log of an SCT that counts.
    fn counts(&self, sct: &Sct) -> Option<&Log> {
        let log = self.all.iter().find(|log| log.id == sct.log)?;
        let counts = match log.state {
            LogState::Current => true,
            LogState::Retired(at) => u64::try_from(at.as_millisecond()).is_ok_and(|retired| sct.at < retired),
            LogState::Other => false,
        };
        counts.then_some(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).map(|c| c.unwrap()).collect()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_list_is_readable() {
        let logs = Logs::built_in();
        let lines = LOGS.lines().filter(|line| !line.starts_with('#') && !line.starts_with("date ")).count();
        assert_eq!(logs.all.len(), lines);
        assert!(lines > 20);
        assert!(logs.dated > at("2026-01-01T00:00:00Z"));
        assert!(logs.all.iter().all(|log| log.state != LogState::Other));
    }

    /// Certificates of Let's Encrypt and of Amazon, as their servers have sent them.
    #[test]
    fn public_certificates() {
        let letsencrypt = chain(include_str!("letsencrypt.pem"));
        let then = at("2026-09-01T00:00:00Z");
        assert_eq!(judge_chain(&letsencrypt, then), TransparencyVerdict::Enough { scts: 2 });
        let (_, leaf) = X509Certificate::from_der(&letsencrypt[0]).unwrap();
        let scts = embedded(&leaf).unwrap();
        assert_eq!((scts.len(), scts[0].at), (2, 1_783_354_984_810));
        // A list that has grown old judges nothing.
        let later = at("2026-11-08T00:00:00Z");
        assert!(matches!(judge_chain(&letsencrypt, later), TransparencyVerdict::Unknown { scts: 2, .. }));
        let amazon = chain(include_str!("amazon.pem"));
        let (_, leaf) = X509Certificate::from_der(&amazon[0]).unwrap();
        assert_eq!(embedded(&leaf).unwrap().len(), 3);
    }

    #[test]
    fn a_private_ca_is_exempt() {
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        assert_eq!(judge_chain(&[own.der().to_vec()], at("2026-09-01T00:00:00Z")), TransparencyVerdict::Private);
        let none: [Vec<u8>; 0] = [];
        assert_eq!(judge_chain(&none, at("2026-09-01T00:00:00Z")), TransparencyVerdict::Private);
    }

    #[test]
    fn policies() {
        let id = |n: u8| BASE64_STANDARD.encode([n; 32]);
        let logs = Logs::parse(&format!(
            "date 2026-09-01T00:00:00Z\n{} usable 2024-01-01T00:00:00Z A\n{} readonly 2024-01-01T00:00:00Z A\n\
             {} qualified 2024-01-01T00:00:00Z B\n{} retired 2026-01-01T00:00:00Z B\n{} retired 2026-01-01T00:00:00Z C\n\
             {} pending 2026-01-01T00:00:00Z C\n",
            id(1),
            id(2),
            id(3),
            id(4),
            id(5),
            id(6)
        ));
        let (before, after) = (1_760_000_000_000, 1_770_000_000_000);
        let verdict = |scts: &[(u8, u64)], days: i64| {
            let scts: Vec<Sct> = scts.iter().map(|(n, at)| Sct { log: [*n; 32], at: *at }).collect();
            judge(&scts, SignedDuration::from_hours(days * 24), &logs, at("2026-09-02T00:00:00Z"))
        };
        let lack = |scts: &[(u8, u64)], days| match verdict(scts, days) {
            TransparencyVerdict::TooFew(TooFew { scts, needed, lack, .. }) => Some((scts, needed, lack)),
            _ => None,
        };
        assert_eq!(verdict(&[(1, after), (3, after)], 90), TransparencyVerdict::Enough { scts: 2 });
        assert_eq!(verdict(&[(1, after), (3, after)], 180), TransparencyVerdict::Enough { scts: 2 });
        assert_eq!(lack(&[(1, after), (3, after)], 181), Some((2, 3, TransparencyLack::Number)));
        assert_eq!(verdict(&[(1, after), (2, after), (3, after)], 398), TransparencyVerdict::Enough { scts: 3 });
        assert_eq!(lack(&[], 90), Some((0, 2, TransparencyLack::All)));
        assert_eq!(lack(&[(1, after), (1, after)], 90), Some((1, 2, TransparencyLack::Number)));
        assert_eq!(lack(&[(1, after), (2, after)], 90), Some((2, 2, TransparencyLack::Operators)));
        assert_eq!(verdict(&[(1, after), (4, before)], 90), TransparencyVerdict::Enough { scts: 2 });
        assert_eq!(lack(&[(1, after), (4, after)], 90), Some((1, 2, TransparencyLack::Number)));
        assert_eq!(lack(&[(4, before), (5, before)], 90), Some((2, 2, TransparencyLack::Current)));
        assert_eq!(lack(&[(1, after), (6, after)], 90), Some((1, 2, TransparencyLack::Number)));
        assert_eq!(lack(&[(1, after), (9, after)], 90), Some((1, 2, TransparencyLack::Number)));
    }
}

//! The versions, cipher suites and groups that TLS listeners can offer, by the names that operators
//! know.

use rustls::SupportedCipherSuite;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};

/// The versions that may be offered; at least one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// TLS 1.2
    pub tls12: bool,
    /// TLS 1.3
    pub tls13: bool,
}

/// A cipher suite.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// Its names: IANA's, and OpenSSL's if that differs.
    pub names: [&'static str; 2],
    /// `true` if it belongs to TLS 1.3.
    pub tls13: bool,
    suite: SupportedCipherSuite,
}

/// A key exchange group.
#[derive(Clone, Copy)]
pub struct KxGroup {
    /// Its names: IANA's, then aliases.
    pub names: &'static [&'static str],
    /// `true` if it works in TLS 1.3 only: groups with ML-KEM.
    pub tls13_only: bool,
    group: &'static dyn SupportedKxGroup,
}

/// All supported suites, those of TLS 1.3 first.
pub const SUITES: [Suite; 9] = [
    suite13("TLS_AES_128_GCM_SHA256", cipher_suite::TLS13_AES_128_GCM_SHA256),
    suite13("TLS_AES_256_GCM_SHA384", cipher_suite::TLS13_AES_256_GCM_SHA384),
    suite13("TLS_CHACHA20_POLY1305_SHA256", cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
    suite12(
        ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"],
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    suite12(
        ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"],
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    suite12(
        ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"],
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    suite12(
        ["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"],
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    suite12(
        ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"],
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    suite12(
        ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"],
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// All supported groups. The first four are the default: both of Mozilla's profiles have them.
pub const GROUPS: [KxGroup; 5] = [
    KxGroup { names: &["X25519MLKEM768"], tls13_only: true, group: kx_group::X25519MLKEM768 },
    KxGroup { names: &["x25519"], tls13_only: false, group: kx_group::X25519 },
    KxGroup { names: &["secp256r1", "prime256v1", "P-256"], tls13_only: false, group: kx_group::SECP256R1 },
    KxGroup { names: &["secp384r1", "P-384"], tls13_only: false, group: kx_group::SECP384R1 },
    KxGroup { names: &["SecP256r1MLKEM768"], tls13_only: true, group: kx_group::SECP256R1MLKEM768 },
];
const USUAL_GROUPS: usize = 4;

const fn suite13(name: &'static str, suite: SupportedCipherSuite) -> Suite {
    Suite { names: [name, name], tls13: true, suite }
}

const fn suite12(names: [&'static str; 2], suite: SupportedCipherSuite) -> Suite {
    Suite { names, tls13: false, suite }
}

impl Suite {
    /// Returns the suite with this name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        SUITES.into_iter().find(|suite| suite.names.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }
}

impl KxGroup {
    /// Returns the group with this name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        GROUPS.into_iter().find(|group| group.names.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// Returns `true` if both of Mozilla's profiles have it.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        GROUPS[..USUAL_GROUPS].iter().any(|usual| usual.names == self.names)
    }
}

impl std::fmt::Debug for KxGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.names[0])
    }
}

/// The offer of the TLS listeners.
#[derive(Debug, Clone)]
pub struct TlsOffer {
    /// Versions.
    pub versions: Versions,
    /// Suites, including those of versions that are not offered.
    pub suites: Vec<Suite>,
    /// Groups, in order of preference.
    pub groups: Vec<KxGroup>,
}

impl TlsOffer {
    /// Returns the default offer for these versions.
    #[must_use]
    pub fn usual(versions: Versions) -> Self {
        Self { versions, suites: SUITES.to_vec(), groups: GROUPS[..USUAL_GROUPS].to_vec() }
    }

    pub(super) fn cipher_suites(&self) -> Vec<SupportedCipherSuite> {
        self.suites.iter().map(|suite| suite.suite).collect()
    }

    pub(super) fn kx_groups(&self) -> Vec<&'static dyn SupportedKxGroup> {
        self.groups.iter().map(|group| group.group).collect()
    }
}

//! The public authorities that the configuration knows by name.

/// A public authority.
pub(super) struct KnownAuthority {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) directory: &'static str,
    /// Its account belongs to a customer account.
    pub(super) needs_eab: bool,
    /// Its profiles; empty if it has none.
    pub(super) profiles: &'static [&'static str],
    /// The profile that certificates for addresses need.
    pub(super) for_addresses: Option<&'static str>,
}

const LETS_ENCRYPT: [&str; 3] = ["classic", "tlsserver", "shortlived"];
pub(super) const KNOWN: [KnownAuthority; 4] = [
    KnownAuthority {
        name: "letsencrypt",
        title: "Let's Encrypt",
        directory: "https://acme-v02.api.letsencrypt.org/directory",
        needs_eab: false,
        profiles: &LETS_ENCRYPT,
        for_addresses: Some("shortlived"),
    },
    KnownAuthority {
        name: "letsencrypt-staging",
        title: "Let's Encrypt",
        directory: "https://acme-staging-v02.api.letsencrypt.org/directory",
        needs_eab: false,
        profiles: &LETS_ENCRYPT,
        for_addresses: Some("shortlived"),
    },
    KnownAuthority {
        name: "zerossl",
        title: "ZeroSSL",
        directory: "https://acme.zerossl.com/v2/DV90",
        needs_eab: true,
        profiles: &[],
        for_addresses: None,
    },
    KnownAuthority {
        name: "google",
        title: "Google Trust Services",
        directory: "https://dv.acme-v02.api.pki.goog/directory",
        needs_eab: true,
        profiles: &[],
        for_addresses: None,
    },
];

/// Finds an authority by its name.
pub(super) fn known(name: &str) -> Option<&'static KnownAuthority> {
    KNOWN.iter().find(|known| known.name == name)
}

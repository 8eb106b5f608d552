//! The recorded answers.

use std::net::SocketAddr;

use super::answer::{ProbeOutcome, UpstreamAnswer};
use crate::host::HostPattern;
use crate::policy::Scheme;
use crate::verify::target::Url;

/// The verdict on the certificate that the server showed for its own name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CertificateEvidence {
    /// None was seen.
    #[default]
    Unseen,
    /// A client accepts it.
    Trusted,
    /// A client refuses it, for this reason.
    Refused(String),
}

/// The recorded answers of a blog.
#[derive(Debug)]
pub struct Evidence {
    /// The URL to look at: the blog's own name.
    pub url: Url,
    /// The site's names.
    pub hosts: Vec<HostPattern>,
    /// The site's name that is asked for.
    pub public: String,
    /// The own name over https.
    pub secure: ProbeOutcome,
    /// Its certificate.
    pub certificate: CertificateEvidence,
    /// `true` if it is refused only because it is for another name.
    pub is_misnamed: bool,
    /// The own name over http.
    pub plain: ProbeOutcome,
    /// The own name over http, with `X-Forwarded-Proto: https`.
    pub declared: ProbeOutcome,
    /// The public name, by Host.
    pub foreign: ProbeOutcome,
    /// The certificate shown for the public name, if that name was sent as SNI.
    pub foreign_certificate: CertificateEvidence,
    /// The start page, asked for as pintle will ask.
    pub rehearsal: ProbeOutcome,
    /// `/robots.txt`.
    pub robots: ProbeOutcome,
    /// The feed that the start page names.
    pub feed: ProbeOutcome,
    /// `/wp-login.php`, asked for as pintle will ask.
    pub login: ProbeOutcome,
    /// The address that answered over https.
    pub secure_address: Option<SocketAddr>,
    /// The address that answered over http.
    pub plain_address: Option<SocketAddr>,
    /// The number of requests that were sent.
    pub requests: usize,
}

impl Evidence {
    /// Returns empty records about a URL.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self {
            url,
            hosts: Vec::new(),
            public: String::new(),
            secure: ProbeOutcome::NotAsked,
            certificate: CertificateEvidence::Unseen,
            is_misnamed: false,
            plain: ProbeOutcome::NotAsked,
            declared: ProbeOutcome::NotAsked,
            foreign: ProbeOutcome::NotAsked,
            foreign_certificate: CertificateEvidence::Unseen,
            rehearsal: ProbeOutcome::NotAsked,
            robots: ProbeOutcome::NotAsked,
            feed: ProbeOutcome::NotAsked,
            login: ProbeOutcome::NotAsked,
            secure_address: None,
            plain_address: None,
            requests: 0,
        }
    }

    /// Sets the site's names. The first exact name is the one to ask for; of a wildcard, a name below.
    pub fn set_hosts(&mut self, hosts: Vec<HostPattern>) {
        let exact = hosts.iter().find_map(|host| host.exact().map(str::to_owned));
        let below = || hosts.first().map(|host| format!("www.{}", host.base()));
        self.public = exact.or_else(below).unwrap_or_default();
        self.hosts = hosts;
    }

    /// Returns `true` for a name of the site.
    #[must_use]
    pub fn is_public(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }

    /// Returns `true` if the blog's own name is a name of the site, too.
    #[must_use]
    pub fn is_own_public(&self) -> bool {
        self.is_public(&self.url.host)
    }

    /// Returns the Host field of the blog's own name over this scheme.
    #[must_use]
    pub fn own_authority(&self, scheme: Scheme) -> String {
        self.url.over(scheme).authority()
    }

    /// Returns the answers under the blog's own name.
    pub fn own(&self) -> impl Iterator<Item = &UpstreamAnswer> {
        [&self.secure, &self.plain, &self.declared].into_iter().filter_map(ProbeOutcome::answer)
    }

    /// Returns all answers that describe the blog: those of its own name, and pages under the public
    /// one.
    pub fn of_blog(&self) -> impl Iterator<Item = &UpstreamAnswer> {
        let others =
            [&self.foreign, &self.rehearsal].into_iter().filter_map(ProbeOutcome::answer).filter(|a| a.is_page());
        self.own().chain(others).filter(|answer| !answer.is_refusal())
    }

    /// Returns the address that answered over this scheme.
    #[must_use]
    pub fn address(&self, scheme: Scheme) -> Option<SocketAddr> {
        match scheme {
            Scheme::Https => self.secure_address,
            Scheme::Http => self.plain_address,
        }
    }
}

//! The pages over TLS: their addresses, certificates and clients.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use rustls::ServerConfig;

use super::admin::AdminRole;
use super::stamp::Stamp;
use crate::limits::Limits;
use crate::reason::Reason;
use crate::tls::client_auth::ClientAuthority;
use crate::tls::{CertificateSet, preflight};

/// The pages over TLS, as configured (`[admin.https]`).
#[derive(Clone)]
pub struct AdminHttps {
    /// The addresses of the listeners.
    pub listen: Vec<SocketAddr>,
    /// The certificates and their configuration; `None` while there are none.
    pub tls: Option<AdminTls>,
    /// The authorities of client certificates, and the permissions of their readers.
    pub clients: Option<(Arc<ClientAuthority>, AdminRole)>,
    /// The value of Strict-Transport-Security, if the site of the certificate has it.
    pub hsts: Option<String>,
    /// The limits of its connections.
    pub limits: AdminHttpsLimits,
    /// The reasons why the files in place are not served.
    pub troubles: Vec<Reason>,
    /// The files that it was made from.
    pub stamps: Vec<(PathBuf, Stamp)>,
}

/// Certificates of the pages, and rustls' configuration with them.
#[derive(Clone)]
pub struct AdminTls {
    /// The certificates.
    pub certificates: CertificateSet,
    /// `true` if they are a site's, which reports about them.
    pub is_of_site: bool,
    /// The configuration.
    pub config: Arc<ServerConfig>,
}

/// The limits of the connections to the pages over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminHttpsLimits {
    /// Connections at the same time.
    pub connections: usize,
    /// The same for one client network.
    pub connections_per_client: usize,
    /// Time limit for a handshake.
    pub handshake: Duration,
}

impl AdminHttpsLimits {
    /// The limits of a configuration.
    #[must_use]
    pub fn of(limits: &Limits) -> Self {
        Self {
            connections: limits.admin_connections,
            connections_per_client: limits.admin_connections_per_client,
            handshake: limits.handshake,
        }
    }
}

impl fmt::Debug for AdminHttps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminHttps").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl AdminHttps {
    /// `true` if one of the certificates is for a host, a name or an address.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let address = host.parse::<IpAddr>().map(|address| address.to_canonical().to_string());
        let mut leaves = self.tls.iter().flat_map(|tls| tls.certificates.iter()).map(|c| &c.chain.leaf);
        leaves.any(|leaf| match &address {
            Ok(address) => leaf.all_names().any(|name| name == *address),
            Err(_) => leaf.covers(&host),
        })
    }

    /// The present reasons for the operator to act: those of the files, and of certificates that have an end.
    #[must_use]
    pub fn attention(&self, now: Timestamp) -> Vec<Reason> {
        let own = self.tls.iter().filter(|tls| !tls.is_of_site).flat_map(|tls| tls.certificates.iter());
        let ends = own.flat_map(|certificate| {
            let ends = preflight::judge(&certificate.chain, &[], now, None)
                .into_iter()
                .filter(preflight::ChainFault::is_of_time);
            ends.map(|fault| {
                Reason::new(format!("admin.https.chain: {fault}")).hint(fault.hint(&certificate.chain.leaf))
            })
        });
        self.troubles.iter().cloned().chain(ends).collect()
    }
}

/// The settings in use, for the thread of the pages; `None` without `[admin.https]`.
#[derive(Debug, Clone, Default)]
pub struct SharedAdminHttps(Arc<RwLock<Option<Arc<AdminHttps>>>>);

impl SharedAdminHttps {
    /// The settings in use.
    #[must_use]
    pub fn now(&self) -> Option<Arc<AdminHttps>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other settings in use.
    pub fn replace(&self, https: Option<Arc<AdminHttps>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = https;
    }
}

//! DNS as a certificate authority sees it: without /etc/hosts and search domains, and with errors
//! distinguished from missing records.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::timeout;

use crate::upstream::dns::{NameServers, words};

/// The time for one question, all attempts together.
const LOOKUP: Duration = Duration::from_secs(12);
/// The time for one attempt.
const ATTEMPT: Duration = Duration::from_secs(4);
/// The most records of one answer that are read.
const RECORDS_MAX: usize = 64;
/// The most name servers of a zone that are asked.
const SERVERS_MAX: usize = 8;
/// The most aliases that are followed.
const ALIASES_MAX: usize = 8;
/// A name that exists wherever DNS does.
const ROOT_SERVER: &str = "a.root-servers.net";
/// The port of DNS.
const PORT: u16 = 53;

/// A CAA record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaaRecord {
    /// `true` if a CA that does not know the tag must not issue.
    pub critical: bool,
    /// The tag, in any case.
    pub tag: String,
    /// The value.
    pub value: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupAnswer<T> {
    /// Records, at least one.
    Records(Vec<T>),
    /// The name does not exist, or has no such record.
    Nothing,
    /// No answer, or an error.
    Failed(String),
}

impl<T> LookupAnswer<T> {
    /// Returns the records, none for any other answer.
    #[must_use]
    pub fn records(self) -> Vec<T> {
        self.known().unwrap_or_default()
    }

    /// Returns the records, none if the name has none.
    ///
    /// # Errors
    ///
    /// The reason why the lookup failed.
    pub fn known(self) -> Result<Vec<T>, String> {
        match self {
            Self::Records(records) => Ok(records),
            Self::Nothing => Ok(Vec::new()),
            Self::Failed(why) => Err(why),
        }
    }
}

/// A resolver without a memory.
#[derive(Clone)]
pub struct Lookup {
    resolver: TokioResolver,
    /// The port of the zones' own servers.
    port: u16,
}

impl Lookup {
    /// Makes one for these name servers; for those of the system, if there are none.
    ///
    /// # Errors
    ///
    /// If the system has no readable configuration.
    pub fn new(servers: &NameServers) -> Result<Self, String> {
        let provider = TokioRuntimeProvider::default();
        let builder = if servers.0.is_empty() {
            TokioResolver::builder(provider).map_err(|e| format!("/etc/resolv.conf: {e}"))?
        } else {
            TokioResolver::builder_with_config(of_servers(&servers.0), provider)
        };
        Self::build(builder, true).map(|resolver| Self { resolver, port: PORT })
    }

    fn build(
        mut builder: hickory_resolver::ResolverBuilder<TokioRuntimeProvider>,
        recursion: bool,
    ) -> Result<TokioResolver, String> {
        configure(builder.options_mut(), recursion);
        builder.build().map_err(|e| e.to_string())
    }

    /// Looks up the A records, or the AAAA records.
    pub async fn addresses(&self, name: &str, v6: bool) -> LookupAnswer<IpAddr> {
        let kind = if v6 { RecordType::AAAA } else { RecordType::A };
        self.ask(name, kind, |data| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        })
        .await
    }

    /// Looks up the CAA records of exactly this name.
    pub async fn caa(&self, name: &str) -> LookupAnswer<CaaRecord> {
        self.ask(name, RecordType::CAA, |data| match data {
            RData::CAA(caa) => {
                Some(CaaRecord { critical: caa.issuer_critical, tag: caa.tag.clone(), value: caa.value.clone() })
            }
            _ => None,
        })
        .await
    }

    /// Returns the name that has the records of this one: itself, or the last of its aliases.
    pub async fn owner(&self, name: &str) -> String {
        let mut at = name.to_owned();
        for _ in 0..ALIASES_MAX {
            match self.alias(&at).await.records().into_iter().next() {
                Some(next) if next != at => at = next,
                _ => break,
            }
        }
        at
    }

    /// Looks up the name that this one is an alias of.
    async fn alias(&self, name: &str) -> LookupAnswer<String> {
        self.ask(name, RecordType::CNAME, |data| match data {
            RData::CNAME(cname) => Some(cname.0.to_ascii().trim_end_matches('.').to_owned()),
            _ => None,
        })
        .await
    }

    /// Looks up the TXT records, the strings of each joined.
    pub async fn txt(&self, name: &str) -> LookupAnswer<String> {
        self.ask(name, RecordType::TXT, |data| match data {
            RData::TXT(txt) => {
                let bytes: Vec<u8> = txt.txt_data.iter().flat_map(|part| part.iter().copied()).collect();
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => None,
        })
        .await
    }

    /// Returns a resolver for each name server of the zone that has this name. Empty if nobody
    /// names them.
    pub async fn authoritative(&self, name: &str) -> Vec<(String, Self)> {
        let mut zone = Some(name.trim_end_matches('.'));
        while let Some(at) = zone {
            let servers = self.ask(at, RecordType::NS, |data| match data {
                RData::NS(ns) => Some(ns.0.to_ascii()),
                _ => None,
            });
            let LookupAnswer::Records(servers) = servers.await else {
                zone = at.split_once('.').map(|(_, above)| above);
                continue;
            };
            let mut resolvers = Vec::new();
            for server in servers.into_iter().take(SERVERS_MAX) {
                let mut addresses = self.addresses(&server, false).await.records();
                addresses.extend(self.addresses(&server, true).await.records());
                let to: Vec<SocketAddr> = addresses.into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect();
                if to.is_empty() {
                    continue;
                }
                let builder = TokioResolver::builder_with_config(of_servers(&to), TokioRuntimeProvider::default());
                if let Ok(resolver) = Self::build(builder, false) {
                    resolvers.push((server.trim_end_matches('.').to_owned(), Self { resolver, port: self.port }));
                }
            }
            return resolvers;
        }
        Vec::new()
    }

    /// Returns `true` if the name servers answer a question that has nothing to do with any site.
    pub async fn works(&self) -> bool {
        let questions = [(".", RecordType::NS), (ROOT_SERVER, RecordType::A)];
        let asked = questions.map(|(name, kind)| self.ask(name, kind, |_| Some(())));
        join_all(asked).await.iter().any(|found| !matches!(found, LookupAnswer::Failed(_)))
    }

    async fn ask<T>(&self, name: &str, kind: RecordType, read: impl Fn(&RData) -> Option<T>) -> LookupAnswer<T> {
        let Ok(mut name) = Name::from_ascii(name) else { return LookupAnswer::Failed("no valid DNS name".into()) };
        name.set_fqdn(true);
        let Ok(answer) = timeout(LOOKUP, self.resolver.lookup(name, kind)).await else {
            return LookupAnswer::Failed("timeout".into());
        };
        match answer {
            Ok(found) => {
                let records: Vec<T> =
                    found.answers().iter().filter_map(|record| read(&record.data)).take(RECORDS_MAX).collect();
                if records.is_empty() { LookupAnswer::Nothing } else { LookupAnswer::Records(records) }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => LookupAnswer::Nothing,
            Err(error) => LookupAnswer::Failed(words(&error)),
        }
    }
}

fn of_servers(servers: &[SocketAddr]) -> ResolverConfig {
    let one = |address: &SocketAddr| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = address.port();
        }
        NameServerConfig::new(address.ip(), true, connections)
    };
    ResolverConfig::from_name_servers(servers.iter().map(one).collect())
}

fn configure(options: &mut ResolverOpts, recursion: bool) {
    // As for upstreams: some servers do not answer queries with EDNS.
    options.edns0 = false;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 0;
    options.attempts = 2;
    options.timeout = ATTEMPT;
    options.recursion_desired = recursion;
    options.try_tcp_on_error = true;
}

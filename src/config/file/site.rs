//! `[[site]]`, as written.

use std::ops::Range;
use std::time::Duration;

use super::cache::CacheTable;
use super::compression::CompressionTable;
use super::mixed::MixedTable;
use super::rate::RateTable;
use crate::config::problem::At;
use crate::config::reader::Reader;
use crate::keys::key_file::KeyAlgorithm;

/// One site. There may be ten thousand of these, so rare tables are boxed.
#[derive(Debug, Default)]
pub(in crate::config) struct SiteTable {
    pub(in crate::config) span: Range<usize>,
    /// The key exists, perhaps with a wrong type.
    pub(in crate::config) has_hosts: bool,
    pub(in crate::config) has_upstream: bool,
    pub(in crate::config) hosts: Option<Vec<At<String>>>,
    pub(in crate::config) upstream: Option<At<String>>,
    pub(in crate::config) canonical_redirect: Option<At<bool>>,
    pub(in crate::config) accept_lockout_until: Option<At<String>>,
    pub(in crate::config) log: Option<At<bool>>,
    pub(in crate::config) buffer_request: Option<At<bool>>,
    pub(in crate::config) upstream_options: Option<Box<UpstreamTable>>,
    pub(in crate::config) circuit_breaker: Option<Box<BreakerTable>>,
    pub(in crate::config) health_check: Option<Box<CheckTable>>,
    pub(in crate::config) cache: Option<Box<CacheTable>>,
    pub(in crate::config) compression: Option<Box<CompressionTable>>,
    pub(in crate::config) rate: Option<Box<RateTable>>,
    pub(in crate::config) mixed_content: Option<Box<MixedTable>>,
    pub(in crate::config) certificates: Vec<CertificateTable>,
    /// The next keys of pairs that pintle obtains.
    pub(in crate::config) own_next: Vec<At<String>>,
    pub(in crate::config) hsts: Option<Box<HstsTable>>,
    pub(in crate::config) hpkp: Option<Box<HpkpTable>>,
    pub(in crate::config) request_headers: Option<Box<HeadersTable>>,
    pub(in crate::config) response_headers: Option<Box<HeadersTable>>,
}

#[derive(Debug, Default)]
pub(in crate::config) struct UpstreamTable {
    pub(in crate::config) connect: Option<At<String>>,
    pub(in crate::config) server_name: Option<At<String>>,
    pub(in crate::config) verify_name: Option<At<String>>,
    pub(in crate::config) host_header: Option<At<String>>,
    pub(in crate::config) ca: Option<At<String>>,
    pub(in crate::config) insecure_skip_verify: Option<At<bool>>,
    pub(in crate::config) http2: Option<At<bool>>,
    pub(in crate::config) connect_timeout: Option<At<Duration>>,
    pub(in crate::config) response_timeout: Option<At<Duration>>,
    pub(in crate::config) total_timeout: Option<At<Duration>>,
}

#[derive(Debug, Default)]
pub(in crate::config) struct BreakerTable {
    pub(in crate::config) failures: Option<At<u64>>,
    pub(in crate::config) open: Option<At<Duration>>,
    pub(in crate::config) open_max: Option<At<Duration>>,
}

#[derive(Debug, Default)]
pub(in crate::config) struct CheckTable {
    pub(in crate::config) span: Range<usize>,
    pub(in crate::config) path: Option<At<String>>,
    pub(in crate::config) interval: Option<At<Duration>>,
    pub(in crate::config) timeout: Option<At<Duration>>,
    pub(in crate::config) healthy: Option<At<u64>>,
    pub(in crate::config) unhealthy: Option<At<u64>>,
    pub(in crate::config) status: Option<At<String>>,
}

#[derive(Debug, Default)]
pub(in crate::config) struct CertificateTable {
    pub(in crate::config) span: Range<usize>,
    pub(in crate::config) chain: Option<At<String>>,
    pub(in crate::config) key: Option<At<String>>,
    pub(in crate::config) acme: Option<At<bool>>,
    pub(in crate::config) algorithms: Option<Vec<At<String>>>,
    /// Set where pintle obtains the certificate: `chain` and `key` are its own files then.
    pub(in crate::config) managed: Option<Box<ManagedTable>>,
}

/// A pair that pintle obtains by ACME.
#[derive(Debug)]
pub(in crate::config) struct ManagedTable {
    pub(in crate::config) algorithm: KeyAlgorithm,
    /// The file of a key that becomes the first live key.
    pub(in crate::config) adopt: Option<At<String>>,
}

impl CertificateTable {
    /// Returns the place of `acme = true`.
    pub(in crate::config) fn by_acme(&self) -> Option<&Range<usize>> {
        self.acme.as_ref().filter(|acme| acme.value).map(|acme| &acme.span)
    }
}

#[derive(Debug, Default)]
pub(in crate::config) struct HstsTable {
    pub(in crate::config) span: Range<usize>,
    pub(in crate::config) max_age: Option<At<Duration>>,
    pub(in crate::config) include_subdomains: Option<At<bool>>,
    pub(in crate::config) preload: Option<At<bool>>,
    pub(in crate::config) upstream: Option<At<String>>,
    pub(in crate::config) ramp: RampKeys,
}

#[derive(Debug, Default)]
pub(in crate::config) struct HpkpTable {
    pub(in crate::config) span: Range<usize>,
    pub(in crate::config) mode: Option<At<String>>,
    pub(in crate::config) max_age: Option<At<Duration>>,
    pub(in crate::config) backups: Option<Vec<At<String>>>,
    /// The next keys of pairs that pintle obtains: backups by themselves.
    pub(in crate::config) own: Vec<At<String>>,
    pub(in crate::config) include_subdomains: Option<At<bool>>,
    pub(in crate::config) report_uri: Option<At<String>>,
    pub(in crate::config) ramp: RampKeys,
}

/// `ramp` and `ramp_every`.
#[derive(Debug, Default)]
pub(in crate::config) struct RampKeys {
    pub(in crate::config) steps: Option<Vec<At<Duration>>>,
    pub(in crate::config) every: Option<At<Duration>>,
}

/// `set`, `add` and `remove`.
#[derive(Debug, Default)]
pub(in crate::config) struct HeadersTable {
    pub(in crate::config) set: Vec<(At<String>, At<String>)>,
    pub(in crate::config) add: Vec<(At<String>, At<String>)>,
    pub(in crate::config) remove: Vec<At<String>>,
    pub(in crate::config) trailers: Vec<At<String>>,
}

impl SiteTable {
    pub(super) fn read(t: Reader<'_>) -> Self {
        let site = Self {
            span: t.span.clone(),
            has_hosts: t.has("hosts"),
            has_upstream: t.has("upstream"),
            hosts: t.texts("hosts"),
            upstream: t.text("upstream"),
            canonical_redirect: t.boolean("canonical_redirect"),
            accept_lockout_until: t.text("accept_lockout_until"),
            log: t.boolean("log"),
            buffer_request: t.boolean("buffer_request"),
            upstream_options: t.table("upstream_options").map(UpstreamTable::read).map(Box::new),
            circuit_breaker: t.table("circuit_breaker").map(BreakerTable::read).map(Box::new),
            health_check: t.table("health_check").map(CheckTable::read).map(Box::new),
            cache: t.table("cache").map(CacheTable::read).map(Box::new),
            compression: t.table("compression").map(CompressionTable::read).map(Box::new),
            rate: t.table("rate").map(RateTable::read).map(Box::new),
            mixed_content: t.table("mixed_content").map(MixedTable::read).map(Box::new),
            certificates: t.tables("certificate").into_iter().map(CertificateTable::read).collect(),
            own_next: Vec::new(),
            hsts: t.table("hsts").map(HstsTable::read).map(Box::new),
            hpkp: t.table("hpkp").map(HpkpTable::read).map(Box::new),
            request_headers: t.table("request_headers").map(HeadersTable::read).map(Box::new),
            response_headers: t.table("response_headers").map(HeadersTable::read).map(Box::new),
        };
        t.finish();
        site
    }
}

impl UpstreamTable {
    fn read(t: Reader<'_>) -> Self {
        let table = Self {
            connect: t.text("connect"),
            server_name: t.text("server_name"),
            verify_name: t.text("verify_name"),
            host_header: t.text("host_header"),
            ca: t.text("ca"),
            insecure_skip_verify: t.boolean("insecure_skip_verify"),
            http2: t.boolean("http2"),
            connect_timeout: t.duration("connect_timeout"),
            response_timeout: t.duration("response_timeout"),
            total_timeout: t.duration("total_timeout"),
        };
        t.finish();
        table
    }
}

impl BreakerTable {
    fn read(t: Reader<'_>) -> Self {
        let table = Self { failures: t.number("failures"), open: t.duration("open"), open_max: t.duration("open_max") };
        t.finish();
        table
    }
}

impl CheckTable {
    fn read(t: Reader<'_>) -> Self {
        let table = Self {
            span: t.span.clone(),
            path: t.text("path"),
            interval: t.duration("interval"),
            timeout: t.duration("timeout"),
            healthy: t.number("healthy"),
            unhealthy: t.number("unhealthy"),
            status: t.text("status"),
        };
        t.finish();
        table
    }
}

impl CertificateTable {
    fn read(t: Reader<'_>) -> Self {
        let table = Self {
            span: t.span.clone(),
            chain: t.text("chain"),
            key: t.text("key"),
            // If it is something else, the operator wants a certificate from a CA all the same.
            acme: t.boolean("acme").or_else(|| t.has("acme").then(|| At { value: true, span: t.span.clone() })),
            algorithms: t.texts("algorithms"),
            managed: None,
        };
        t.finish();
        table
    }
}

impl HstsTable {
    fn read(t: Reader<'_>) -> Self {
        let table = Self {
            span: t.span.clone(),
            max_age: t.duration("max_age"),
            include_subdomains: t.boolean("include_subdomains"),
            preload: t.boolean("preload"),
            upstream: t.text("upstream"),
            ramp: RampKeys::read(&t),
        };
        t.finish();
        table
    }
}

impl RampKeys {
    fn read(t: &Reader<'_>) -> Self {
        Self { steps: t.durations("ramp"), every: t.duration("ramp_every") }
    }
}

impl HpkpTable {
    fn read(t: Reader<'_>) -> Self {
        let table = Self {
            span: t.span.clone(),
            mode: t.text("mode"),
            max_age: t.duration("max_age"),
            backups: t.texts("backups"),
            own: Vec::new(),
            include_subdomains: t.boolean("include_subdomains"),
            report_uri: t.text("report_uri"),
            ramp: RampKeys::read(&t),
        };
        t.finish();
        table
    }
}

impl HpkpTable {
    /// Returns all backups: pintle's own next keys, then those of the file.
    pub(in crate::config) fn listed(&self) -> impl Iterator<Item = &At<String>> {
        self.own.iter().chain(self.backups.iter().flatten())
    }
}

impl HeadersTable {
    fn read(t: Reader<'_>) -> Self {
        let table = Self {
            set: t.pairs("set"),
            add: t.pairs("add"),
            remove: t.texts("remove").unwrap_or_default(),
            trailers: t.texts("trailers").unwrap_or_default(),
        };
        t.finish();
        table
    }
}

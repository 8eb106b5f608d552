//! The configuration file as it is written: every key, with its place, and nothing decided yet.

mod limits;

use std::ops::Range;
use std::time::Duration;

use super::problem::At;
use super::reader::Reader;

pub(super) use limits::LimitsTable;

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) listen: ListenTable,
    pub(super) tls: TlsTable,
    pub(super) limits: LimitsTable,
    pub(super) admin_listen: Option<At<String>>,
    pub(super) state_directory: Option<At<String>>,
    pub(super) log: LogTable,
    pub(super) name_servers: Option<Vec<At<String>>>,
    pub(super) acme_webroot: Option<At<String>>,
    pub(super) reports: Option<ReportsTable>,
    pub(super) process: ProcessTable,
    pub(super) sandbox: SandboxTable,
    pub(super) sites: Vec<SiteTable>,
}

#[derive(Debug, Default)]
pub(super) struct ListenTable {
    pub(super) https: Option<Vec<At<String>>>,
    pub(super) http: Option<Vec<At<String>>>,
    pub(super) trusted_proxies: Vec<At<String>>,
    pub(super) trust: Option<At<String>>,
    pub(super) proxy_protocol: Option<At<bool>>,
    pub(super) health_path: Option<At<String>>,
    pub(super) error_details: Option<At<String>>,
    pub(super) workers: Option<At<u64>>,
    pub(super) public_https_port: Option<At<u64>>,
}

#[derive(Debug, Default)]
pub(super) struct TlsTable {
    pub(super) versions: Option<Vec<At<String>>>,
    pub(super) profile: Option<At<String>>,
    pub(super) cipher_suites: Option<Vec<At<String>>>,
    pub(super) groups: Option<Vec<At<String>>>,
    pub(super) unknown_name: Option<At<String>>,
    pub(super) default_site: Option<At<String>>,
    pub(super) key_process: Option<At<bool>>,
    pub(super) span: Range<usize>,
}

#[derive(Debug, Default)]
pub(super) struct LogTable {
    pub(super) access: Option<At<String>>,
    pub(super) format: Option<At<String>>,
}

#[derive(Debug, Default)]
pub(super) struct ReportsTable {
    pub(super) span: Range<usize>,
    pub(super) host: Option<At<String>>,
    pub(super) path: Option<At<String>>,
}

#[derive(Debug, Default)]
pub(super) struct ProcessTable {
    pub(super) user: Option<At<String>>,
    pub(super) group: Option<At<String>>,
    pub(super) allow_root: Option<At<bool>>,
    pub(super) bind_low_ports: Option<At<bool>>,
    pub(super) prove_upstream: Option<At<bool>>,
}

#[derive(Debug, Default)]
pub(super) struct SandboxTable {
    pub(super) landlock: Option<At<String>>,
    pub(super) seccomp: Option<At<String>>,
    pub(super) connect: Option<At<String>>,
    pub(super) connect_ports: Vec<At<u64>>,
    pub(super) read: Vec<At<String>>,
    pub(super) write: Vec<At<String>>,
}

/// There may be ten thousand of these; what most of them leave out takes no room.
#[derive(Debug, Default)]
pub(super) struct SiteTable {
    pub(super) span: Range<usize>,
    /// The keys that every site must have are there, if perhaps of the wrong type.
    pub(super) has_hosts: bool,
    pub(super) has_upstream: bool,
    pub(super) hosts: Option<Vec<At<String>>>,
    pub(super) upstream: Option<At<String>>,
    pub(super) canonical_redirect: Option<At<bool>>,
    pub(super) accept_lockout_until: Option<At<String>>,
    pub(super) upstream_options: Option<Box<UpstreamTable>>,
    pub(super) circuit_breaker: Option<Box<BreakerTable>>,
    pub(super) health_check: Option<Box<CheckTable>>,
    pub(super) certificates: Vec<CertificateTable>,
    pub(super) hsts: Option<Box<HstsTable>>,
    pub(super) hpkp: Option<Box<HpkpTable>>,
    pub(super) request_headers: Option<Box<HeadersTable>>,
    pub(super) response_headers: Option<Box<HeadersTable>>,
}

#[derive(Debug, Default)]
pub(super) struct UpstreamTable {
    pub(super) connect: Option<At<String>>,
    pub(super) server_name: Option<At<String>>,
    pub(super) verify_name: Option<At<String>>,
    pub(super) host_header: Option<At<String>>,
    pub(super) ca: Option<At<String>>,
    pub(super) insecure_skip_verify: Option<At<bool>>,
    pub(super) http2: Option<At<bool>>,
    pub(super) connect_timeout: Option<At<Duration>>,
    pub(super) response_timeout: Option<At<Duration>>,
    pub(super) total_timeout: Option<At<Duration>>,
}

#[derive(Debug, Default)]
pub(super) struct BreakerTable {
    pub(super) failures: Option<At<u64>>,
    pub(super) open: Option<At<Duration>>,
    pub(super) open_max: Option<At<Duration>>,
}

#[derive(Debug, Default)]
pub(super) struct CheckTable {
    pub(super) span: Range<usize>,
    pub(super) path: Option<At<String>>,
    pub(super) interval: Option<At<Duration>>,
    pub(super) timeout: Option<At<Duration>>,
    pub(super) healthy: Option<At<u64>>,
    pub(super) unhealthy: Option<At<u64>>,
    pub(super) status: Option<At<String>>,
}

#[derive(Debug, Default)]
pub(super) struct CertificateTable {
    pub(super) span: Range<usize>,
    pub(super) chain: Option<At<String>>,
    pub(super) key: Option<At<String>>,
}

#[derive(Debug, Default)]
pub(super) struct HstsTable {
    pub(super) span: Range<usize>,
    pub(super) max_age: Option<At<Duration>>,
    pub(super) include_subdomains: Option<At<bool>>,
    pub(super) preload: Option<At<bool>>,
    pub(super) upstream: Option<At<String>>,
    pub(super) ramp: RampKeys,
}

#[derive(Debug, Default)]
pub(super) struct HpkpTable {
    pub(super) span: Range<usize>,
    pub(super) mode: Option<At<String>>,
    pub(super) max_age: Option<At<Duration>>,
    pub(super) backups: Option<Vec<At<String>>>,
    pub(super) include_subdomains: Option<At<bool>>,
    pub(super) report_uri: Option<At<String>>,
    pub(super) ramp: RampKeys,
}

/// `ramp` and `ramp_every`.
#[derive(Debug, Default)]
pub(super) struct RampKeys {
    pub(super) steps: Option<Vec<At<Duration>>>,
    pub(super) every: Option<At<Duration>>,
}

/// `set`, `add` and `remove`.
#[derive(Debug, Default)]
pub(super) struct HeadersTable {
    pub(super) set: Vec<(At<String>, At<String>)>,
    pub(super) add: Vec<(At<String>, At<String>)>,
    pub(super) remove: Vec<At<String>>,
    pub(super) trailers: Vec<At<String>>,
}

impl File {
    pub(super) fn read(root: Reader<'_>) -> Self {
        let mut file = Self::default();
        if let Some(t) = root.table("listen") {
            file.listen = ListenTable {
                https: t.texts("https"),
                http: t.texts("http"),
                trusted_proxies: t.texts("trusted_proxies").unwrap_or_default(),
                trust: t.text("trust"),
                proxy_protocol: t.boolean("proxy_protocol"),
                health_path: t.text("health_path"),
                error_details: t.text("error_details"),
                workers: t.number("workers"),
                public_https_port: t.number("public_https_port"),
            };
            t.finish();
        }
        if let Some(t) = root.table("tls") {
            file.tls = TlsTable {
                span: t.span.clone(),
                versions: t.texts("versions"),
                profile: t.text("profile"),
                cipher_suites: t.texts("cipher_suites"),
                groups: t.texts("groups"),
                unknown_name: t.text("unknown_name"),
                default_site: t.text("default_site"),
                key_process: t.boolean("key_process"),
            };
            t.finish();
        }
        if let Some(t) = root.table("limits") {
            file.limits = LimitsTable::read(&t);
            t.finish();
        }
        if let Some(t) = root.table("admin") {
            file.admin_listen = t.text("listen");
            t.finish();
        }
        if let Some(t) = root.table("state") {
            file.state_directory = t.text("directory");
            t.finish();
        }
        if let Some(t) = root.table("log") {
            file.log = LogTable { access: t.text("access"), format: t.text("format") };
            t.finish();
        }
        if let Some(t) = root.table("resolver") {
            file.name_servers = t.texts("name_servers");
            t.finish();
        }
        if let Some(t) = root.table("acme") {
            file.acme_webroot = t.text("webroot");
            t.finish();
        }
        if let Some(t) = root.table("reports") {
            file.reports = Some(ReportsTable { span: t.span.clone(), host: t.text("host"), path: t.text("path") });
            t.finish();
        }
        if let Some(t) = root.table("process") {
            file.process = ProcessTable {
                user: t.text("user"),
                group: t.text("group"),
                allow_root: t.boolean("allow_root"),
                bind_low_ports: t.boolean("bind_low_ports"),
                prove_upstream: t.boolean("prove_upstream"),
            };
            t.finish();
        }
        if let Some(t) = root.table("sandbox") {
            file.sandbox = SandboxTable::read(&t);
            t.finish();
        }
        file.sites = root.tables("site").into_iter().map(SiteTable::read).collect();
        root.finish();
        file
    }
}

impl SandboxTable {
    fn read(t: &Reader<'_>) -> Self {
        Self {
            landlock: t.text("landlock"),
            seccomp: t.text("seccomp"),
            connect: t.text("connect"),
            connect_ports: t.numbers("connect_ports").unwrap_or_default(),
            read: t.texts("read").unwrap_or_default(),
            write: t.texts("write").unwrap_or_default(),
        }
    }
}

impl SiteTable {
    fn read(t: Reader<'_>) -> Self {
        let site = Self {
            span: t.span.clone(),
            has_hosts: t.has("hosts"),
            has_upstream: t.has("upstream"),
            hosts: t.texts("hosts"),
            upstream: t.text("upstream"),
            canonical_redirect: t.boolean("canonical_redirect"),
            accept_lockout_until: t.text("accept_lockout_until"),
            upstream_options: t.table("upstream_options").map(UpstreamTable::read).map(Box::new),
            circuit_breaker: t.table("circuit_breaker").map(BreakerTable::read).map(Box::new),
            health_check: t.table("health_check").map(CheckTable::read).map(Box::new),
            certificates: t.tables("certificate").into_iter().map(CertificateTable::read).collect(),
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
        let table = Self { span: t.span.clone(), chain: t.text("chain"), key: t.text("key") };
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
            include_subdomains: t.boolean("include_subdomains"),
            report_uri: t.text("report_uri"),
            ramp: RampKeys::read(&t),
        };
        t.finish();
        table
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

//! The configuration file as written: every key with its place, and nothing decided yet.

mod acme;
mod admin;
mod cache;
mod compression;
mod limits;
mod mixed;
mod rate;
mod site;
mod telemetry;

use std::ops::Range;

use super::problem::At;
use super::reader::Reader;

pub(super) use acme::{AcmeTable, EabTable};
pub(super) use admin::{AdminHttpsTable, AdminTable, AdminUserTable};
pub(super) use cache::{CacheTable, QueryKey};
pub(super) use compression::CompressionTable;
pub(super) use limits::LimitsTable;
pub(super) use mixed::MixedTable;
pub(super) use rate::{PathRateTable, RateTable};
pub(super) use site::{
    BreakerTable, CertificateTable, CheckTable, HeadersTable, HpkpTable, HstsTable, ManagedTable, RampKeys, SiteTable,
    UpstreamTable,
};
pub(super) use telemetry::{HookTable, MetricsTable};

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    pub(super) listen: ListenTable,
    pub(super) tls: TlsTable,
    pub(super) limits: LimitsTable,
    pub(super) admin_listen: Option<At<String>>,
    pub(super) admin: AdminTable,
    pub(super) state_directory: Option<At<String>>,
    pub(super) log: LogTable,
    pub(super) name_servers: Option<Vec<At<String>>>,
    pub(super) acme: AcmeTable,
    pub(super) reports: Option<ReportsTable>,
    pub(super) process: ProcessTable,
    pub(super) sandbox: SandboxTable,
    pub(super) metrics: MetricsTable,
    pub(super) hooks: Vec<HookTable>,
    pub(super) rates: Vec<PathRateTable>,
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
    pub(super) fields: Option<Vec<At<String>>>,
    pub(super) sample: Option<At<f64>>,
    pub(super) redact: Vec<At<String>>,
    pub(super) recent: Option<At<u64>>,
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

impl ConfigFile {
    pub(super) fn read(root: Reader<'_>) -> Self {
        let mut file = Self::default();
        if let Some(t) = root.table("listen") {
            file.listen = ListenTable::read(&t);
            t.finish();
        }
        if let Some(t) = root.table("tls") {
            file.tls = TlsTable::read(&t);
            t.finish();
        }
        if let Some(t) = root.table("limits") {
            file.limits = LimitsTable::read(&t);
            t.finish();
        }
        if let Some(t) = root.table("admin") {
            file.admin_listen = t.text("listen");
            file.admin = AdminTable::read(&t);
            t.finish();
        }
        if let Some(t) = root.table("state") {
            file.state_directory = t.text("directory");
            t.finish();
        }
        if let Some(t) = root.table("log") {
            file.log = LogTable::read(&t);
            t.finish();
        }
        if let Some(t) = root.table("resolver") {
            file.name_servers = t.texts("name_servers");
            t.finish();
        }
        if let Some(t) = root.table("acme") {
            file.acme = AcmeTable::read(t);
        }
        if let Some(t) = root.table("reports") {
            file.reports = Some(ReportsTable { span: t.span.clone(), host: t.text("host"), path: t.text("path") });
            t.finish();
        }
        if let Some(t) = root.table("process") {
            file.process = ProcessTable::read(&t);
            t.finish();
        }
        if let Some(t) = root.table("sandbox") {
            file.sandbox = SandboxTable::read(&t);
            t.finish();
        }
        if let Some(t) = root.table("metrics") {
            file.metrics = MetricsTable::read(t);
        }
        file.hooks = root.tables("hook").into_iter().map(HookTable::read).collect();
        file.rates = root.tables("rate").into_iter().map(PathRateTable::read).collect();
        file.sites = root.tables("site").into_iter().map(SiteTable::read).collect();
        root.finish();
        file
    }
}

impl LogTable {
    fn read(t: &Reader<'_>) -> Self {
        Self {
            access: t.text("access"),
            format: t.text("format"),
            fields: t.texts("fields"),
            sample: t.fraction("sample"),
            redact: t.texts("redact").unwrap_or_default(),
            recent: t.number("recent"),
        }
    }
}

impl ListenTable {
    fn read(t: &Reader<'_>) -> Self {
        Self {
            https: t.texts("https"),
            http: t.texts("http"),
            trusted_proxies: t.texts("trusted_proxies").unwrap_or_default(),
            trust: t.text("trust"),
            proxy_protocol: t.boolean("proxy_protocol"),
            health_path: t.text("health_path"),
            error_details: t.text("error_details"),
            workers: t.number("workers"),
            public_https_port: t.number("public_https_port"),
        }
    }
}

impl TlsTable {
    fn read(t: &Reader<'_>) -> Self {
        Self {
            span: t.span.clone(),
            versions: t.texts("versions"),
            profile: t.text("profile"),
            cipher_suites: t.texts("cipher_suites"),
            groups: t.texts("groups"),
            unknown_name: t.text("unknown_name"),
            default_site: t.text("default_site"),
            key_process: t.boolean("key_process"),
        }
    }
}

impl ProcessTable {
    fn read(t: &Reader<'_>) -> Self {
        Self {
            user: t.text("user"),
            group: t.text("group"),
            allow_root: t.boolean("allow_root"),
            bind_low_ports: t.boolean("bind_low_ports"),
            prove_upstream: t.boolean("prove_upstream"),
        }
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

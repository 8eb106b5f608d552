//! `[acme]`, as written.

use std::ops::Range;
use std::time::Duration;

use crate::config::problem::At;
use crate::config::reader::Reader;

#[derive(Debug, Default)]
pub(in crate::config) struct AcmeTable {
    pub(in crate::config) span: Range<usize>,
    pub(in crate::config) webroot: Option<At<String>>,
    pub(in crate::config) directory: Option<At<String>>,
    pub(in crate::config) email: Option<At<String>>,
    pub(in crate::config) terms: Option<At<bool>>,
    pub(in crate::config) fallback: Option<At<String>>,
    pub(in crate::config) profile: Option<At<String>>,
    pub(in crate::config) eab: Option<EabTable>,
    pub(in crate::config) fallback_eab: Option<EabTable>,
    pub(in crate::config) ca: Option<At<String>>,
    pub(in crate::config) rotate_every: Option<At<Duration>>,
    pub(in crate::config) dns_hook: Option<At<String>>,
    pub(in crate::config) challenges: Option<Vec<At<String>>>,
    pub(in crate::config) http_port: Option<At<u64>>,
    pub(in crate::config) tls_port: Option<At<u64>>,
}

/// `eab` and `fallback_eab`.
#[derive(Debug, Default)]
pub(in crate::config) struct EabTable {
    pub(in crate::config) span: Range<usize>,
    pub(in crate::config) key_id: Option<At<String>>,
    pub(in crate::config) hmac_key_file: Option<At<String>>,
}

impl AcmeTable {
    pub(super) fn read(t: Reader<'_>) -> Self {
        let table = Self {
            span: t.span.clone(),
            webroot: t.text("webroot"),
            directory: t.text("directory"),
            email: t.text("email"),
            terms: t.boolean("terms"),
            fallback: t.text("fallback"),
            profile: t.text("profile"),
            eab: t.table("eab").map(EabTable::read),
            fallback_eab: t.table("fallback_eab").map(EabTable::read),
            ca: t.text("ca"),
            rotate_every: t.duration("rotate_every"),
            dns_hook: t.text("dns_hook"),
            challenges: t.texts("challenges"),
            http_port: t.number("http_port"),
            tls_port: t.number("tls_port"),
        };
        t.finish();
        table
    }
}

impl EabTable {
    fn read(t: Reader<'_>) -> Self {
        let table = Self { span: t.span.clone(), key_id: t.text("key_id"), hmac_key_file: t.text("hmac_key_file") };
        t.finish();
        table
    }
}

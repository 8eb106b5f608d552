//! `[site.rate]` and `[[rate]]`, as written.

use std::ops::Range;

use crate::config::problem::At;
use crate::config::reader::Reader;

/// The keys that both tables have.
#[derive(Debug, Default)]
pub(in crate::config) struct RateTable {
    pub(in crate::config) span: Range<usize>,
    /// A key that limits something exists, perhaps with a wrong value.
    pub(in crate::config) has_limit: bool,
    pub(in crate::config) requests: Option<At<String>>,
    pub(in crate::config) burst: Option<At<u64>>,
    pub(in crate::config) concurrent: Option<At<u64>>,
    pub(in crate::config) crawlers: Option<At<String>>,
    pub(in crate::config) allow: Vec<At<String>>,
    pub(in crate::config) deny: Vec<At<String>>,
    pub(in crate::config) per: Option<At<String>>,
    pub(in crate::config) headers: Option<At<bool>>,
}

/// One `[[rate]]`.
#[derive(Debug, Default)]
pub(in crate::config) struct PathRateTable {
    pub(in crate::config) rate: RateTable,
    pub(in crate::config) name: Option<At<String>>,
    pub(in crate::config) sites: Option<Vec<At<String>>>,
    pub(in crate::config) paths: Option<Vec<At<String>>>,
    pub(in crate::config) methods: Option<Vec<At<String>>>,
}

impl RateTable {
    pub(super) fn read(t: Reader<'_>) -> Self {
        let table = Self::keys(&t);
        t.finish();
        table
    }

    fn keys(t: &Reader<'_>) -> Self {
        Self {
            span: t.span.clone(),
            has_limit: ["requests", "concurrent", "crawlers", "deny"].into_iter().any(|key| t.has(key)),
            requests: t.text("requests"),
            burst: t.number("burst"),
            concurrent: t.number("concurrent"),
            crawlers: t.text("crawlers"),
            allow: t.texts("allow").unwrap_or_default(),
            deny: t.texts("deny").unwrap_or_default(),
            per: t.text("per"),
            headers: t.boolean("headers"),
        }
    }
}

impl PathRateTable {
    pub(super) fn read(t: Reader<'_>) -> Self {
        let table = Self {
            rate: RateTable::keys(&t),
            name: t.text("name"),
            sites: t.texts("sites"),
            paths: t.texts("paths"),
            methods: t.texts("methods"),
        };
        t.finish();
        table
    }
}

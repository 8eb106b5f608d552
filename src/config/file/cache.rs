//! `[site.cache]`, as written.

use std::ops::Range;
use std::time::Duration;

use crate::config::problem::At;
use crate::config::reader::Reader;

/// The cache of a site.
#[derive(Debug, Default)]
pub(in crate::config) struct CacheTable {
    pub(in crate::config) span: Range<usize>,
    pub(in crate::config) profile: Option<At<String>>,
    pub(in crate::config) memory: Option<At<u64>>,
    pub(in crate::config) disk: Option<At<u64>>,
    pub(in crate::config) max_object: Option<At<u64>>,
    pub(in crate::config) default_ttl: Option<At<Duration>>,
    pub(in crate::config) negative: Option<At<Duration>>,
    pub(in crate::config) heuristic: Option<At<Duration>>,
    pub(in crate::config) stale_if_error: Option<At<Duration>>,
    pub(in crate::config) stale_while_revalidate: Option<At<Duration>>,
    pub(in crate::config) query: QueryKey,
    pub(in crate::config) query_drop: Vec<At<String>>,
    pub(in crate::config) query_sort: Option<At<bool>>,
    pub(in crate::config) honour_client: Option<At<String>>,
    pub(in crate::config) collapse_wait: Option<At<Duration>>,
}

/// `query`: a word, or the names of the parameters that are kept.
#[derive(Debug, Default)]
pub(in crate::config) enum QueryKey {
    #[default]
    Missing,
    Word(At<String>),
    Names(Vec<At<String>>),
}

impl CacheTable {
    pub(super) fn read(t: Reader<'_>) -> Self {
        let table = Self {
            span: t.span.clone(),
            profile: t.text("profile"),
            memory: t.size("memory"),
            disk: t.size("disk"),
            max_object: t.size("max_object"),
            default_ttl: t.duration("default_ttl"),
            negative: t.duration("negative"),
            heuristic: t.duration("heuristic"),
            stale_if_error: t.duration("stale_if_error"),
            stale_while_revalidate: t.duration("stale_while_revalidate"),
            query: match t.is_list("query") {
                true => t.texts("query").map_or(QueryKey::Missing, QueryKey::Names),
                false => t.text("query").map_or(QueryKey::Missing, QueryKey::Word),
            },
            query_drop: t.texts("query_drop").unwrap_or_default(),
            query_sort: t.boolean("query_sort"),
            honour_client: t.text("honour_client"),
            collapse_wait: t.duration("collapse_wait"),
        };
        t.finish();
        table
    }
}

//! `[site.cache]`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::checker::Checker;
use crate::cache::CacheRules;
use crate::cache::directives::AGE_MAX;
use crate::cache::freshness::TimeRules;
use crate::cache::profile::CacheProfile;
use crate::cache::query::QueryRules;
use crate::cache::reuse::{Honour, Stale};
use crate::config::file::{CacheTable, ConfigFile, QueryKey, SiteTable};
use crate::config::problem::At;
use crate::config::value::{show_duration, show_size};

/// The bytes that a store may take, and its usual size.
const MEMORY: RangeInclusive<u64> = 1 << 20..=1 << 40;
const MEMORY_DEFAULT: u64 = 64 << 20;
/// The bytes that the part on disk may take, unless it is switched off by 0.
const DISK: RangeInclusive<u64> = 16 << 20..=1 << 44;
/// The part of the memory that one body may take, as a divisor: the usual one, and the largest.
const OBJECT_PART: u64 = 16;
const OBJECT_PART_LEAST: u64 = 4;
/// The smallest bound of a body, in bytes.
const OBJECT_LEAST: u64 = 1 << 10;
/// The wait for another request's response.
const COLLAPSE_WAIT: Duration = Duration::from_secs(5);
const COLLAPSE_WAIT_MAX: Duration = Duration::from_secs(60);

/// Returns the rules of a site's cache; `None` if it has none. `compresses` says that pintle compresses its responses.
pub(super) fn build(table: &SiteTable, compresses: bool, r: &mut Checker<'_>) -> Option<Arc<CacheRules>> {
    let cache = table.cache.as_deref()?;
    if !table.has_upstream {
        r.warn(&cache.span, "site.cache: has no effect without upstream", "set upstream, or remove [site.cache]");
        return None;
    }
    let profiles =
        [("wordpress", CacheProfile::WordPress), ("ghost", CacheProfile::Ghost), ("static", CacheProfile::Static)];
    let profile = r.choice("site.cache.profile", cache.profile.as_ref(), &profiles, CacheProfile::None);
    let memory = size("memory", cache.memory.as_ref(), MEMORY, MEMORY_DEFAULT, r);
    let disk = cache.disk.as_ref().map(|at| match at.value {
        0 => 0,
        _ => size("disk", Some(at), DISK, 0, r),
    });
    let bounds = OBJECT_LEAST..=memory / OBJECT_PART_LEAST;
    let max_object = size("max_object", cache.max_object.as_ref(), bounds, memory / OBJECT_PART, r);
    let usual = profile.times();
    let times = TimeRules {
        default_ttl: seconds(cache.default_ttl.as_ref()).or(usual.default_ttl),
        negative: seconds(cache.negative.as_ref()).or(usual.negative),
        heuristic_max: seconds(cache.heuristic.as_ref()).or(usual.heuristic_max),
        ..usual
    };
    let honours = [("yes", Honour::Yes), ("cheap", Honour::Cheap), ("no", Honour::No)];
    let collapse_wait = cache.collapse_wait.as_ref().map_or(COLLAPSE_WAIT, |wait| wait.value);
    if let Some(at) = cache.collapse_wait.as_ref().filter(|wait| wait.value > COLLAPSE_WAIT_MAX) {
        let most = show_duration(COLLAPSE_WAIT_MAX);
        r.error(&at.span, format!("site.cache.collapse_wait: must be at most {most}"));
    }
    Some(Arc::new(CacheRules {
        profile,
        memory,
        disk,
        max_object,
        times: TimeRules { default_ttl: times.default_ttl.filter(|ttl| *ttl > 0), ..times },
        stale: Stale {
            if_error: seconds(cache.stale_if_error.as_ref()),
            while_revalidate: seconds(cache.stale_while_revalidate.as_ref()),
            despite_s_maxage: false,
        },
        query: query(cache, r),
        honour: r.choice("site.cache.honour_client", cache.honour_client.as_ref(), &honours, Honour::Cheap),
        collapse_wait,
        compresses,
    }))
}

/// Refuses a part on disk without a folder for it.
pub(super) fn check_state(file: &ConfigFile, r: &mut Checker<'_>) {
    let tables = file.sites.iter().filter_map(|site| site.cache.as_deref());
    for disk in tables.filter_map(|cache| cache.disk.as_ref()).filter(|disk| disk.value > 0) {
        let hint = "set directory in [state], or leave site.cache.disk out";
        r.error_with_hint(&disk.span, "site.cache.disk: needs state.directory", hint);
    }
}

fn seconds(given: Option<&At<Duration>>) -> Option<u32> {
    given.map(|time| u32::try_from(time.value.as_secs()).unwrap_or(AGE_MAX).min(AGE_MAX))
}

fn size(key: &str, given: Option<&At<u64>>, bounds: RangeInclusive<u64>, default: u64, r: &mut Checker<'_>) -> u64 {
    let Some(at) = given else { return default };
    if !bounds.contains(&at.value) {
        let (least, most) = (show_size(*bounds.start()), show_size(*bounds.end()));
        let of = match key {
            "max_object" => ", a quarter of memory",
            "disk" => ", or 0 for none",
            _ => "",
        };
        r.error(&at.span, format!("site.cache.{key}: must be between {least} and {most}{of}"));
    }
    at.value.clamp(*bounds.start(), (*bounds.end()).max(*bounds.start()))
}

fn query(cache: &CacheTable, r: &mut Checker<'_>) -> QueryRules {
    let boxed =
        |names: &[At<String>]| -> Vec<Box<str>> { names.iter().map(|name| name.value.as_str().into()).collect() };
    let keep = match &cache.query {
        QueryKey::Missing => None,
        QueryKey::Word(word) => {
            r.choice("site.cache.query", Some(word), &[("all", ())], ());
            None
        }
        QueryKey::Names(names) => {
            names.iter().for_each(|name| check_name("query", name, r));
            Some(boxed(names))
        }
    };
    cache.query_drop.iter().for_each(|name| check_name("query_drop", name, r));
    let sort = cache.query_sort.as_ref().is_some_and(|sort| sort.value);
    QueryRules { drop: boxed(&cache.query_drop), keep, sort }
}

/// Refuses names that no parameter can have.
fn check_name(key: &str, name: &At<String>, r: &mut Checker<'_>) {
    let text = name.value.strip_suffix('*').unwrap_or(&name.value);
    if name.value.is_empty() || text.bytes().any(|b| !b.is_ascii_graphic() || b"*&=?;#%[]".contains(&b)) {
        let message = format!("site.cache.{key}: {:?} is not the name of a parameter", name.value);
        r.error_with_hint(&name.span, message, format!("{key} = [\"page\"], or with a * at the end: [\"utm_*\"]"));
    }
}

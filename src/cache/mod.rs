//! A shared cache (RFC 9111): the rules, and the store of one site, in memory and on disk.
//!
//! The rules are functions of values: directives, ages, conditions, ranges. [`store`] keeps responses, [`disk`] keeps them
//! over a restart, and [`filling`] shares one that is still under way. `src/server/cached` puts them on the path of a
//! request.

mod changes;
pub mod conditional;
pub mod counts;
pub mod date;
pub mod directives;
pub mod disk;
pub mod earlier;
pub mod editors;
pub mod encoded;
pub mod encoding;
pub mod filling;
pub mod freshness;
pub mod handed;
pub mod key;
pub mod page;
pub mod page_key;
pub mod partial;
pub mod profile;
pub mod purge;
pub mod purge_pace;
pub mod query;
pub mod range;
pub mod reuse;
pub mod rules;
pub mod site_cache;
pub mod status;
pub mod store;
pub mod stored_fields;
pub mod stored_head;
pub mod storing;
pub mod tags;
pub mod under_way;
pub mod vary;

pub use rules::CacheRules;
pub use site_cache::SiteCache;

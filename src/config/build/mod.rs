//! From the text to what is served: checks every value, and reports every problem.
//!
//! A site is made in two steps. Its plan comes from the text and the files alone, and is reused as long as these stay
//! the same. Its entry adds what the ledger and the time contribute. The guard then judges all sites together.

mod acme;
mod acme_sites;
mod addresses;
mod admin;
mod admin_https;
mod admin_pins;
mod all;
mod apart;
mod assemble;
mod authorities;
mod breach;
mod builder;
mod burnt;
mod cache;
mod compression;
mod candidate;
mod certificates;
mod checker;
mod entry;
mod globals;
mod guard;
mod headers;
mod health;
mod held_pins;
mod hooks;
mod hosts;
mod hsts;
mod keep;
mod limits;
mod listen;
mod metrics;
mod mixed;
mod needed_copies;
mod noted_promises;
mod offer;
mod pins;
mod plan;
mod process;
mod rate;
mod settle;
mod stand_in;
mod stand_in_copies;
mod config;
mod context;
mod files;
mod files_ahead;
mod loaded;
mod own_keys;
mod pair_files;
mod log;
mod pin_plan;
mod planning;
mod suites;
mod traces;
mod unserved;
mod upstream;
mod upstream_url;
pub(in crate::config) mod refusal;
pub mod report;

pub use config::{AccessTarget, Config, KeptSite};
pub use context::{AcceptedByCommand, CheckContext, MayLack, NamedKeys, ServedBefore, StandIn};
pub(super) use entry::by_name;
pub use report::DaysInUse;

//! Events for the operator's other programs: webhooks and commands (`[[hook]]`), in the form of Standard Webhooks.
//!
//! The control thread hands an event to each hook that wants it, and forgets it. A thread of its own delivers: one task
//! for each hook, one event at a time. Events wait in memory only. A new process does not know those of the previous one,
//! but reports each present trouble anew.

mod deliver;
mod hook;
mod kind;
mod line;
mod outcome;
pub mod programs;
mod sign;

pub use deliver::Hooks;
pub use hook::{Hook, HookLimits, HookTarget, RETRY, is_of_name};
pub use kind::{Event, EventKind, Pattern, known_patterns};
pub use line::{HookCounters, HookLine};
pub use outcome::Tried;
pub use sign::{SECRETS_MAX, Secret, secrets};

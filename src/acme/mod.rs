//! Automatic certificates (RFC 8555): when to order, with which key, and at which CA.
//!
//! Renewal is not rotation: pintle renews on the live key. It changes over to the next key only
//! after every living promise has contained that key for long enough. `plan` decides, from facts and
//! the time; it performs no I/O.

pub mod account;
pub mod asked;
pub mod backoff;
pub mod budget;
mod checking;
pub mod client;
mod directory;
pub mod dns;
pub mod driver;
pub mod due;
pub mod facts;
mod fault;
pub mod held;
pub mod hook;
mod invalid;
pub mod lost;
pub mod issued;
pub mod lookup;
mod order;
pub mod outlook;
pub mod plan;
pub mod preflight;
pub mod problem;
mod prove;
pub mod renewal_info;
pub mod request;
mod revoke;
mod shown;
pub mod step;
pub mod store;
mod task;
mod words;
mod work;

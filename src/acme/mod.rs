//! Certificates by themselves (RFC 8555): when to order, with which key, and at which CA.
//!
//! Renewal is not rotation: pintle renews on the live key. It changes over to the next key only
//! after every living promise has contained that key for long enough. `plan` decides, from facts and
//! the time; it performs no I/O.

pub mod backoff;
pub mod budget;
mod due;
pub mod facts;
pub mod plan;
pub mod problem;
pub mod renewal_info;
pub mod step;

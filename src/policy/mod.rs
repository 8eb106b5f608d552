//! The rules that pintle exists for, as pure functions of values and the time.
//!
//! No I/O and no runtime: callers act on the decisions.

pub mod forwarded;
pub mod guard;
pub mod hpkp;
pub mod hsts;
pub mod promise;
pub mod ramp;
pub mod rate;
pub mod redirect;
pub mod rotation;

pub use redirect::Scheme;

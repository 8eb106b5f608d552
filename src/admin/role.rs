//! The permissions of a reader.

pub use crate::config::admin::AdminRole;

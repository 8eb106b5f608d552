//! The pages: one file each, with its view and its template in `templates/` of the crate.

pub mod axis;
pub mod config;
pub mod doctor;
pub mod error;
pub mod explain;
pub mod fingerprint;
pub mod first;
pub mod install;
pub mod keys;
pub mod login;
pub mod logs;
pub mod moment;
pub mod overview;
pub mod rates;
pub mod rotate;
pub mod site;
pub mod spark;
mod timeline;
pub mod value;

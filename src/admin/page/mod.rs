//! The pages: one file each, with its view and its template in `templates/` of the crate.

pub mod error;
pub mod overview;

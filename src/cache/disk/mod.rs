//! The part of a site's store that survives the process: a file for each response, below `state.directory`.
//!
//! Memory comes first: what is stored is written later, by a thread of its own, and what memory does not have is read by
//! another. [`site`] knows what is there, and [`service`] runs the threads. A file that is not whole counts as missing.

mod file;
mod folder;
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod name;
mod reader;
pub mod service;
pub mod site;
mod state;
mod sweep;
mod writer;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use service::DiskTask;

/// The folder of all sites, in that of the state.
pub const FOLDER: &str = "cache";

pub use name::PageFileName;
pub use service::DiskService;
pub use site::{SiteDisk, folder_for};
pub use state::{Recalled, Settled};

impl DiskTask for SiteDisk {
    fn step(&self) -> bool {
        writer::step(self)
    }

    fn read(self: Arc<Self>, key: &[u8]) {
        reader::read(&self, key);
    }
}

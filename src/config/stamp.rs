//! The state of files at the time they were read.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The state of a file when it was read. It changes with every write, and with every replacement of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stamp {
    /// The file existed.
    File([i64; 7]),
    /// The file did not exist.
    Absent,
    /// Its contents were given instead.
    Given,
}

impl Stamp {
    /// The state now. Follows symbolic links, and needs no file descriptor.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        fs::metadata(path).map_or(Self::Absent, |m| {
            let signed = |n: u64| i64::from_ne_bytes(n.to_ne_bytes());
            let (size, device, inode) = (signed(m.size()), signed(m.dev()), signed(m.ino()));
            Self::File([device, inode, size, m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()])
        })
    }
}

/// Stamps of many files, taken beforehand: ten thousand sites have twenty thousand files.
#[derive(Debug, Default)]
pub struct Stamps(HashMap<OsString, Stamp, foldhash::fast::RandomState>);

impl Stamps {
    /// Takes the stamps. This blocks, and may take long.
    #[must_use]
    pub fn at(files: Vec<PathBuf>) -> Self {
        let look = |path: PathBuf| {
            let stamp = Stamp::of(&path);
            (path.into_os_string(), stamp)
        };
        Self(files.into_iter().map(look).collect())
    }

    pub(super) fn is_still(&self, path: &Path, stamp: &Stamp) -> bool {
        self.0.get(path.as_os_str()).map_or_else(|| Stamp::of(path) == *stamp, |looked| looked == stamp)
    }
}

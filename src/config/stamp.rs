//! What files were like when they were read.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What a file was like when it was read: whatever is written to it, or put in its place, changes this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stamp {
    /// There was a file.
    File([i64; 7]),
    /// There was none.
    Absent,
    /// Its contents were given in place of it.
    Given,
}

impl Stamp {
    /// What it is like now. Follows symbolic links, and needs no file descriptor.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        fs::metadata(path).map_or(Self::Absent, |m| {
            let signed = |n: u64| i64::from_ne_bytes(n.to_ne_bytes());
            let (size, device, inode) = (signed(m.size()), signed(m.dev()), signed(m.ino()));
            Self::File([device, inode, size, m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()])
        })
    }
}

/// What many files are like, looked at beforehand: ten thousand sites have twenty thousand.
#[derive(Debug, Default)]
pub struct Looked(HashMap<OsString, Stamp, foldhash::fast::RandomState>);

impl Looked {
    /// Looks at them. Takes its time.
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

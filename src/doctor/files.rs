//! Files of the host, below a root folder. Reads are bounded, and never wait for a writer.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, StatVfsMountFlags, statvfs};

/// The most bytes of one file.
const FILE_MAX: u64 = 1 << 20;
/// The most bytes of a table of the kernel, such as /proc/net/tcp: 400,000 sockets.
const TABLE_MAX: u64 = 64 << 20;
/// The most names of one folder.
const NAMES_MAX: usize = 65_536;

/// The files of a host.
#[derive(Debug, Clone)]
pub struct HostFiles {
    root: PathBuf,
}

impl HostFiles {
    /// The files below a folder.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns `true` if these are the files of the running host.
    #[must_use]
    pub fn are_real(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Returns the place of a file, whose path is absolute.
    #[must_use]
    pub fn place(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Reads a text. Bytes that are not UTF-8 are replaced, and a file beyond 1 MiB is cut.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read(&self, path: &str) -> io::Result<String> {
        self.read_some(path, FILE_MAX)
    }

    /// Reads a text, if that is possible.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        self.read(path).ok()
    }

    /// Reads a table of the kernel, if that is possible.
    #[must_use]
    pub fn table(&self, path: &str) -> Option<String> {
        self.read_some(path, TABLE_MAX).ok()
    }

    fn read_some(&self, path: &str, max: u64) -> io::Result<String> {
        let mut options = OpenOptions::new();
        // A pipe in the place of a file would block.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = options.read(true).custom_flags(flags).open(self.place(path))?;
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut bytes = Vec::new();
        match file.take(max).read_to_end(&mut bytes) {
            // /dev/null, and a pipe without a writer.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// Reads the first word of a file, such as a value of the kernel.
    #[must_use]
    pub fn word(&self, path: &str) -> Option<String> {
        self.text(path)?.split_whitespace().next().map(str::to_owned)
    }

    /// Reads the first number of a file.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<u64> {
        self.word(path)?.parse().ok()
    }

    /// Returns the names in a folder, sorted bytewise. Empty if it cannot be read.
    #[must_use]
    pub fn names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.place(path)) else { return Vec::new() };
        let names = entries.take(NAMES_MAX).flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    }

    /// Returns `true` if there is something, even a link that leads nowhere.
    #[must_use]
    pub fn is_there(&self, path: &str) -> bool {
        fs::symlink_metadata(self.place(path)).is_ok()
    }

    /// Returns `true` for a folder.
    #[must_use]
    pub fn is_folder(&self, path: &str) -> bool {
        fs::metadata(self.place(path)).is_ok_and(|metadata| metadata.is_dir())
    }

    /// Returns the permissions of a file.
    #[must_use]
    pub fn mode(&self, path: &str) -> Option<u32> {
        Some(fs::metadata(self.place(path)).ok()?.permissions().mode() & 0o7777)
    }

    /// Returns the last part of a link's target.
    #[must_use]
    pub fn link_name(&self, path: &str) -> Option<String> {
        Some(fs::read_link(self.place(path)).ok()?.file_name()?.to_str()?.to_owned())
    }

    /// Returns a link's target as a text.
    #[must_use]
    pub fn link(&self, path: &str) -> Option<String> {
        Some(fs::read_link(self.place(path)).ok()?.to_str()?.to_owned())
    }

    /// Returns `true` if two paths lead to one file.
    #[must_use]
    pub fn are_one(&self, one: &str, other: &str) -> bool {
        let real = |path| fs::canonicalize(self.place(path)).ok();
        real(one).is_some_and(|one| real(other) == Some(one))
    }

    /// Returns `true` if the file system of a file is mounted read-only.
    #[must_use]
    pub fn is_read_only(&self, path: &str) -> bool {
        statvfs(self.place(path)).is_ok_and(|of| of.f_flag.contains(StatVfsMountFlags::RDONLY))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A tree of files for a test: path and contents. A content `-> TARGET` makes a link, one that ends in `/` a folder.
    pub(in crate::doctor) fn tree(files: &[(&str, &str)]) -> (TempDir, HostFiles) {
        let folder = TempDir::new().unwrap();
        for (path, contents) in files {
            let place = folder.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            match contents.strip_prefix("-> ") {
                Some(target) => symlink(target, &place).unwrap(),
                None if path.ends_with('/') => fs::create_dir_all(&place).unwrap(),
                None => fs::write(&place, contents).unwrap(),
            }
        }
        let files = HostFiles::below(folder.path());
        (folder, files)
    }

    #[test]
    fn reads_are_bounded_and_never_wait() {
        let (folder, files) =
            tree(&[("/proc/x", " 12 34\n"), ("/d/b", ""), ("/d/a", "-> nowhere"), ("/null", "-> /dev/null")]);
        assert_eq!(files.number("/proc/x"), Some(12));
        assert_eq!(files.names("/d"), ["a", "b"]);
        assert!(files.is_there("/d/a") && files.text("/d/a").is_none());
        assert!(files.are_one("/d/b", "/d/../d/b") && !files.are_one("/d/b", "/null"));
        assert_eq!(files.text("/null").as_deref(), Some(""));
        assert_eq!(files.read("/d").unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert!(files.is_folder("/d") && !files.is_folder("/proc/x") && files.names("/none").is_empty());
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(files.text("/fifo").as_deref(), Some(""));
        fs::write(folder.path().join("bytes"), [0xff, b'a', 0, b'\n']).unwrap();
        assert_eq!(files.text("/bytes").as_deref(), Some("\u{fffd}a\0\n"));
        fs::write(folder.path().join("long"), vec![b'x'; 3 << 20]).unwrap();
        assert_eq!(files.text("/long").unwrap().len(), 1 << 20);
    }
}

//! Files that are opened in folders where somebody else can put things: never through a link, and nothing but regular
//! files. A link leads anywhere, and a FIFO or a device may hold up whoever opens it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Links on the way to one file.
const LINKS_MAX: usize = 40;

/// A file that was opened to be written.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// `true` if it was made just now.
    pub is_new: bool,
}

/// Opens a file to be read.
///
/// # Errors
///
/// If it cannot be opened, or is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().read(true).custom_flags(flags()).open(path).map_err(named)?)
}

/// Reads a file whole.
///
/// # Errors
///
/// If it cannot be read, is no regular file, or is longer than `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_opened(open(path)?, most)
}

/// Reads an open file whole.
///
/// # Errors
///
/// If it cannot be read, or is longer than `most` bytes.
pub fn read_opened(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut contents)?;
    if u64::try_from(contents.len()).is_ok_and(|length| length <= most) {
        Ok(contents)
    } else {
        Err(io::ErrorKind::FileTooLarge.into())
    }
}

/// Opens a file to be written, as `options` say; it is made with that mode if it is not there; one that is there must be
/// [believed].
///
/// # Errors
///
/// If it cannot be opened, or is not such a file.
pub fn open_or_make(path: &Path, options: &OpenOptions, mode: u32) -> io::Result<Opened> {
    let mut options = options.clone();
    options.mode(mode).custom_flags(flags());
    match options.clone().create_new(true).open(path) {
        Ok(file) => return Ok(Opened { file, is_new: true }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let file = believed(regular(options.create(false).open(path).map_err(named)?)?, path)?;
    Ok(Opened { file, is_new: false })
}

/// Gives an open file back if it may be used. Where root is at work in another user's folder, it must be that user's or,
/// with one name only, root's: another one, by a hard link, was put there to be read or written by somebody who may.
///
/// # Errors
///
/// If it is somebody else's.
pub fn believed(file: File, path: &Path) -> io::Result<File> {
    let (is, folder) = (file.metadata()?, fs::metadata(folder_of(path))?);
    let is_anothers = rustix::process::geteuid().is_root() && folder.uid() != 0;
    if is_anothers && is.uid() != folder.uid() && (is.uid() != 0 || is.nlink() != 1) {
        let why = "it belongs to somebody else than its folder, or has another name elsewhere";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(file)
}

/// The folder that a path is in.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Follows the links on the way to a file, but only those that root or this user has made: others are not believed.
///
/// # Errors
///
/// If a link is somebody else's, or there are too many of them.
pub fn follow_own_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    let own = rustix::process::geteuid().as_raw();
    for _ in 0..LINKS_MAX {
        let (link, target) = match first_link(&path)? {
            Ok(followed) => followed,
            Err(plain) => return Ok(plain),
        };
        let owner = fs::symlink_metadata(&link)?.uid();
        if owner != own && owner != 0 {
            let why = format!("{} is a symbolic link that somebody else has made", link.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        path = target;
    }
    Err(io::Error::other("there are too many symbolic links"))
}

/// The first link on the way to a path, and the path with that link followed; or the path without detours, if there is
/// none.
fn first_link(path: &Path) -> io::Result<Result<(PathBuf, PathBuf), PathBuf>> {
    let mut walked = PathBuf::new();
    let mut components = path.components();
    while let Some(component) = components.next() {
        match component {
            Component::ParentDir => _ = walked.pop(),
            other => walked.push(other),
        }
        if let (Ok(target), Some(parent)) = (fs::read_link(&walked), walked.parent()) {
            let next = std::path::absolute(parent.join(target))?.join(components.as_path());
            return Ok(Ok((walked, next)));
        }
    }
    Ok(Err(walked))
}

/// No links, and no waiting for whoever is at the other end.
fn flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
    }
}

/// The system's words for a link are about loops.
fn named(error: io::Error) -> io::Error {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if is(Errno::LOOP) {
        return io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link, and none is followed here");
    }
    // A FIFO that nobody reads.
    if is(Errno::NXIO) { io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file") } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    #[test]
    fn what_is_no_plain_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("plain"), "12345").unwrap();
        symlink(at("plain"), at("link")).unwrap();
        symlink(at("missing"), at("dangling")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
        let mut append = OpenOptions::new();
        append.append(true);
        for name in ["link", "dangling", "folder", "fifo"] {
            assert!(read(&at(name), 100).is_err(), "{name}");
            assert!(open_or_make(&at(name), &append, 0o600).is_err(), "{name}");
        }
        assert!(!at("missing").exists());
        assert_eq!(read(&at("plain"), 5).unwrap(), b"12345");
        assert_eq!(read(&at("plain"), 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(!open_or_make(&at("plain"), &append, 0o600).unwrap().is_new);
        let new = open_or_make(&at("new"), &append, 0o600).unwrap();
        assert_eq!((new.is_new, new.file.metadata().unwrap().mode() & 0o777), (true, 0o600));
    }

    #[test]
    fn links_of_others_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("archive")).unwrap();
        fs::write(at("archive/1.pem"), "x").unwrap();
        symlink("archive", at("live")).unwrap();
        symlink("1.pem", at("archive/cert.pem")).unwrap();
        let real = fs::canonicalize(at("archive/1.pem")).unwrap();
        assert_eq!(follow_own_links(&at("live/cert.pem")).unwrap(), real);
        assert_eq!(follow_own_links(&at("live/../archive/new.pem")).unwrap(), real.with_file_name("new.pem"));
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(at("archive/cert.pem"), Some(1), Some(1)).unwrap();
            let error = follow_own_links(&at("live/cert.pem")).unwrap_err().to_string();
            assert!(error.contains("cert.pem is a symbolic link that somebody else has made"), "{error}");
        }
        symlink("loop", at("loop")).unwrap();
        assert!(follow_own_links(&at("loop")).is_err());
    }
}

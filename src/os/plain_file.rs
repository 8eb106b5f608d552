//! Files in folders where other users can create entries. Only regular files are opened, and never
//! through a link: a link leads anywhere, and a FIFO or a device may block the opener.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Symbolic links on the way to one file.
const LINKS_MAX: usize = 40;
/// Names that are tried for a file that must be new.
const TRIALS_MAX: usize = 16;

/// A file opened for writing.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// `true` if it was just created.
    pub is_new: bool,
}

/// Opens a file for reading.
///
/// # Errors
///
/// If it cannot be opened, or is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().read(true).custom_flags(flags()).open(path).map_err(named)?)
}

/// Reads a whole file.
///
/// # Errors
///
/// If it cannot be read, is not a regular file, or is longer than `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_opened(open(path)?, most)
}

/// Reads a whole file that the operator named. Follows links, as certbot's files are links. Waits for nobody: a FIFO
/// would block the reader for ever.
///
/// # Errors
///
/// If it cannot be read, is not a regular file, or is longer than `most` bytes.
pub fn read_named(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let is = file.metadata()?;
    match is.is_file() {
        true => read_sized(file, is.len(), most),
        false if is.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        false => Err(not_regular()),
    }
}

/// Reads an open file to its end.
///
/// # Errors
///
/// If it cannot be read, or is longer than `most` bytes.
pub fn read_opened(file: File, most: u64) -> io::Result<Vec<u8>> {
    let expected = file.metadata()?.len();
    read_sized(file, expected, most)
}

/// The same. A file of the expected length takes two reads, and no part of a key stays behind in memory because the list
/// has grown.
fn read_sized(file: File, expected: u64, most: u64) -> io::Result<Vec<u8>> {
    let mut contents = Vec::with_capacity(usize::try_from(expected.min(most)).unwrap_or(0).saturating_add(1));
    file.take(most.saturating_add(1)).read_to_end(&mut contents)?;
    if u64::try_from(contents.len()).is_ok_and(|length| length <= most) {
        Ok(contents)
    } else {
        Err(io::ErrorKind::FileTooLarge.into())
    }
}

/// Opens a file for writing as `options` say. A missing file is created with that mode. An existing
/// one must be [believed].
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

/// Creates a missing file and syncs it to disk. An existing one, even a link that leads nowhere, is
/// left alone: `AlreadyExists`.
///
/// # Errors
///
/// If it cannot be created or written; no file is left then.
pub fn create(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(contents).and_then(|()| file.sync_all());
    let written = written.and_then(|()| File::open(folder_of(path))?.sync_all());
    if written.is_err() {
        // The file is ours, and half of it is useless.
        let _ = fs::remove_file(path);
    }
    written
}

/// Writes a file whole or not at all, with at most the permissions of `mode`.
///
/// # Errors
///
/// If it cannot be written.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let new = new_beside(path);
    let _ = fs::remove_file(&new);
    write(open_new(&new, mode)?, contents)?;
    fs::rename(new, path)
}

/// Replaces a file, whole or not at all, and syncs it to disk. Follows symbolic links of root and
/// of this user only, and keeps the owner.
///
/// # Errors
///
/// If it cannot be written, or cannot keep its owner. The file is as it was then.
pub fn put(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let path = follow_own_links(path)?;
    let owner = fs::symlink_metadata(&path).ok().map(|m| (m.uid(), m.gid()));
    let new = new_beside(&path);
    let _ = fs::remove_file(&new);
    let file = open_new(&new, mode)?;
    let written = take_over(&file, owner, mode).and_then(|()| {
        write(file, contents)?;
        fs::rename(&new, &path)
    });
    if written.is_err() {
        // It may be a key.
        let _ = fs::remove_file(&new);
    }
    written?;
    File::open(folder_of(&path))?.sync_all()
}

/// Tries whether [`put`] may succeed, by a file of its own that it makes and removes. Several may try at the same time.
///
/// # Errors
///
/// If it would not.
pub fn try_put(path: &Path, mode: u32) -> io::Result<()> {
    let path = follow_own_links(path)?;
    let owner = fs::symlink_metadata(&path).ok().map(|m| (m.uid(), m.gid()));
    let (trial, file) = make_trial(&path, mode)?;
    let tried = take_over(&file, owner, mode);
    let _ = fs::remove_file(&trial);
    tried
}

/// Makes a file beside another one, under a name that nobody else has.
fn make_trial(path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut taken = None;
    for _ in 0..TRIALS_MAX {
        let end = format!(".pintle-try-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let trial = path.with_file_name(with_end(path, &end));
        match open_new(&trial, mode) {
            Ok(file) => return Ok((trial, file)),
            // Of a process that died and had the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(taken.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()))
}

/// Gives a new file its owner and its mode. Through the open file, not by name: somebody else may have replaced the file.
fn take_over(file: &File, owner: Option<(u32, u32)>, mode: u32) -> io::Result<()> {
    let made = file.metadata()?;
    if let Some((user, group)) = owner
        && (made.uid(), made.gid()) != (user, group)
    {
        fchown(file, Some(user), Some(group))?;
    }
    // The umask may have removed permissions.
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// The name of a file with an end.
#[must_use]
pub fn with_end(path: &Path, end: &str) -> OsString {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(end);
    name
}

/// The name of the next version of a file until that is whole. No operator gives it to a file of their own, so that one of an
/// interrupted write can be removed.
fn new_beside(path: &Path) -> PathBuf {
    path.with_file_name(with_end(path, ".pintle-new"))
}

fn open_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

fn write(mut file: File, contents: &[u8]) -> io::Result<()> {
    file.write_all(contents)?;
    file.sync_all()
}

/// Returns an open file if it may be used. If root works in another user's folder, the file must
/// belong to that user, or to root under a single name. A second name would be a hard link, planted
/// so that root reads or writes the file.
///
/// # Errors
///
/// If it belongs to another user.
pub fn believed(file: File, path: &Path) -> io::Result<File> {
    let (is, folder) = (file.metadata()?, fs::metadata(folder_of(path))?);
    let is_anothers = rustix::process::geteuid().is_root() && folder.uid() != 0;
    if is_anothers && is.uid() != folder.uid() && (is.uid() != 0 || is.nlink() != 1) {
        let why = "it belongs to another user than its folder, or has another hard link";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(file)
}

/// The folder of a path.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Returns a path for people: without `.`, and without `NAME/..` unless NAME is a link or missing.
#[must_use]
pub fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for component in path.components() {
        let is_folder = || fs::symlink_metadata(&tidied).is_ok_and(|found| found.is_dir());
        match (component, tidied.components().next_back()) {
            (Component::CurDir, _) | (Component::ParentDir, Some(Component::RootDir)) => {}
            (Component::ParentDir, Some(Component::Normal(_))) if is_folder() => _ = tidied.pop(),
            _ => tidied.push(component),
        }
    }
    if tidied.as_os_str().is_empty() { PathBuf::from(".") } else { tidied }
}

/// Follows the symbolic links on the way to a file, but only links that root or this user has made.
///
/// # Errors
///
/// If another user made a link, or there are too many links.
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
            let why = format!("{} is a symbolic link of another user", link.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        path = target;
    }
    Err(io::Error::other("too many symbolic links"))
}

/// The first symbolic link on a path, and the path with that link followed. Without a link, the
/// path without `.` and `..`.
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

/// Follows no link, and does not wait for the other end of a FIFO.
fn flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// The system reports a link as a loop.
fn named(error: io::Error) -> io::Error {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if is(Errno::LOOP) {
        return io::Error::new(io::ErrorKind::InvalidInput, "a symbolic link; links are not followed here");
    }
    // A FIFO without a reader.
    if is(Errno::NXIO) { not_regular() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    #[test]
    fn what_is_there_stays() {
        let folder = tempfile::TempDir::new().unwrap();
        let (file, link) = (folder.path().join("a.key"), folder.path().join("b.key"));
        create(&file, b"one", 0o600).unwrap();
        let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        assert_eq!(create(&file, b"two", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"one");
        symlink(folder.path().join("elsewhere"), &link).unwrap();
        assert_eq!(create(&link, b"two", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!folder.path().join("elsewhere").exists());
        replace(&file, b"three", 0o644).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"three");
        try_put(&file, 0o600).unwrap();
        assert!(try_put(&folder.path().join("no/folder"), 0o600).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"three");
        put(&file, b"four", 0o640).unwrap();
        assert_eq!((fs::read(&file).unwrap(), mode()), (b"four".to_vec(), 0o640));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    /// An operator's own files of such names stay, and trials at the same time do not hinder each other.
    #[test]
    fn trials_and_writes_touch_nothing_else() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("a.key");
        let own = ["a.key.try", "a.key.new"].map(|name| folder.path().join(name));
        own.iter().for_each(|own| fs::write(own, b"my own").unwrap());
        std::thread::scope(|scope| {
            let trials: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..50).try_for_each(|_| try_put(&file, 0o600)))).collect();
            trials.into_iter().for_each(|trial| trial.join().unwrap().unwrap());
        });
        put(&file, b"one", 0o600).unwrap();
        replace(&file, b"two", 0o600).unwrap();
        own.iter().for_each(|own| assert_eq!(fs::read(own).unwrap(), b"my own"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn tidy_paths() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        symlink(dir.path(), dir.path().join("link")).unwrap();
        let here = dir.path().display();
        for (path, want) in [
            ("a.pem".to_owned(), "a.pem".to_owned()),
            ("./a.pem".to_owned(), "a.pem".to_owned()),
            ("../a.pem".to_owned(), "../a.pem".to_owned()),
            ("../../a.pem".to_owned(), "../../a.pem".to_owned()),
            ("/../a.pem".to_owned(), "/a.pem".to_owned()),
            (".".to_owned(), ".".to_owned()),
            (String::new(), ".".to_owned()),
            (format!("{here}/folder/../a.pem"), format!("{here}/a.pem")),
            (format!("{here}/folder/./../folder//a.pem"), format!("{here}/folder/a.pem")),
            (format!("{here}/link/../a.pem"), format!("{here}/link/../a.pem")),
            (format!("{here}/missing/../a.pem"), format!("{here}/missing/../a.pem")),
            (format!("{here}/missing/../../a.pem"), format!("{here}/missing/../../a.pem")),
        ] {
            assert_eq!(tidy(Path::new(&path)), Path::new(&want), "{path}");
        }
    }

    #[test]
    fn named_files() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("plain"), "12345").unwrap();
        symlink(at("plain"), at("link")).unwrap();
        assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
        assert_eq!(read_named(&at("link"), 5).unwrap(), b"12345");
        let check = |path: &Path, want: io::ErrorKind| assert_eq!(read_named(path, 4).unwrap_err().kind(), want);
        check(&at("plain"), io::ErrorKind::FileTooLarge);
        check(&at("fifo"), io::ErrorKind::InvalidInput);
        check(Path::new("/dev/zero"), io::ErrorKind::InvalidInput);
        check(dir.path(), io::ErrorKind::IsADirectory);
        check(&at("missing"), io::ErrorKind::NotFound);
    }

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
            assert!(error.contains("cert.pem is a symbolic link of another user"), "{error}");
        }
        symlink("loop", at("loop")).unwrap();
        assert!(follow_own_links(&at("loop")).is_err());
    }
}

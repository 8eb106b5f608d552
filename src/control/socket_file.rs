//! The file of the admin socket: its folder, its permissions, and the process that it belongs to.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::os::words::words;

/// The longest socket path that the kernel takes, in bytes.
const SOCKET_PATH_MAX: usize = 107;
/// Everybody may write in the folder; with the sticky bit, they cannot replace files of others.
const WRITABLE_BY_ALL: u32 = 0o002;
const STICKY: u32 = 0o1000;

pub(super) fn file_of(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// Creates the folder of a socket, for this user alone.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Creates a socket for this user alone. It gets its name after its permissions, so that there is
/// no moment between.
pub(super) fn bind_unix(path: &Path, replaces: bool) -> io::Result<UnixListener> {
    let error = |e: &io::Error| named(&path.display().to_string(), e);
    let fresh = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
    if fresh.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(error(&io::Error::new(io::ErrorKind::InvalidInput, "the path is too long for a socket")));
    }
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        make_folder(folder).map_err(|e| error(&e))?;
        let mode = fs::metadata(folder).map_err(|e| error(&e))?.mode();
        if mode & WRITABLE_BY_ALL != 0 && mode & STICKY == 0 {
            let why = format!("everybody can replace the socket: chmod o-w {}", folder.display());
            return Err(error(&io::Error::new(io::ErrorKind::PermissionDenied, why)));
        }
    }
    // A live process answers; a dead one has left its socket behind.
    if !replaces && std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(error(&io::Error::new(io::ErrorKind::AddrInUse, "another pintle listens there")));
    }
    if fs::symlink_metadata(path).is_ok_and(|m| !m.file_type().is_socket()) {
        return Err(error(&io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is not a socket")));
    }
    let _ = fs::remove_file(&fresh);
    let bound = std::os::unix::net::UnixListener::bind(&fresh).map_err(|e| error(&e))?;
    let named = fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).and_then(|()| fs::rename(&fresh, path));
    if let Err(e) = named {
        let _ = fs::remove_file(&fresh);
        return Err(error(&e));
    }
    bound.set_nonblocking(true)?;
    UnixListener::from_std(bound)
}

pub(super) fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("admin.listen: {what}: {}", words(error)))
}

//! The file of a log.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// Opens a log's file and creates it if needed: a regular file, or a character device such as
/// `/dev/null`. Never waits for the other end of a FIFO.
///
/// # Errors
///
/// If it cannot be opened for writing, or is neither of these.
pub fn open_log(path: &Path) -> io::Result<File> {
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    // Only the operator's group may read clients' addresses.
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(nonblock).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        // A FIFO without a reader, or a socket.
        Some(number) if number == Errno::NXIO.raw_os_error() => no_file(),
        _ => error,
    })?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_char_device() {
        return Err(no_file());
    }
    // A terminal is slow, and is given its time.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// Waits until it can be written, at most a second. Returns `WouldBlock` after that.
pub(super) fn wait(fd: BorrowedFd<'_>) -> io::Result<()> {
    let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&patience))?;
    if ready == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

/// The remedy for an error.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidInput => {
            "the name belongs to a FIFO, a socket or a disk: move it away, and pintle creates a file there"
        }
        io::ErrorKind::NotFound => "create its folder again, for the serving user; pintle retries every second",
        io::ErrorKind::PermissionDenied => {
            "let the serving user write in its folder; a folder created after the start is outside the sandbox: \
             `pintle upgrade`, or a restart, takes it in"
        }
        io::ErrorKind::IsADirectory => "the name belongs to a folder: move it away; pintle retries every second",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on its disk",
        io::ErrorKind::BrokenPipe => "the reader of standard output has ended: restart pintle, or name a file",
        _ => "check its disk; pintle retries",
    }
}

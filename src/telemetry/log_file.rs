//! The file of a log.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use tokio::time::Instant;

/// The longest wait for a receiver that takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

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
    let until = Instant::now() + PATIENCE;
    ready_by(until, |left| poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(left)))
}

/// Asks until the answer is there. A signal interrupts the question, and says nothing about the answer.
fn ready_by(until: Instant, mut ask: impl FnMut(&Timespec) -> rustix::io::Result<usize>) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match ask(&Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_ends_no_wait() {
        let until = Instant::now() + PATIENCE;
        let mut answers = vec![Ok(1), Err(Errno::INTR), Err(Errno::INTR)];
        ready_by(until, |_| answers.pop().unwrap()).unwrap();
        assert!(answers.is_empty());
        let (mut asked, mut interrupted) = (Vec::new(), 3);
        let ended = ready_by(until, |left| {
            asked.push((left.tv_sec, left.tv_nsec));
            interrupted -= 1;
            if interrupted > 0 { Err(Errno::INTR) } else { Ok(0) }
        });
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(asked.len() == 3 && asked.is_sorted_by(|earlier, later| earlier >= later), "{asked:?}");
        assert_eq!(ready_by(until, |_| Err(Errno::BADF)).unwrap_err().raw_os_error(), Some(Errno::BADF.raw_os_error()));
    }
}

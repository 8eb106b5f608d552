//! The destination of a log: a stream, a file, the journal or syslog.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use rustix::io::Errno;

use super::journal::Journal;
use super::log_file::wait;
use super::syslog::Syslog;

/// The destination of a log.
pub(super) enum LogTarget {
    /// Nobody reads the log, but its recent records.
    Nowhere,
    Stdout,
    Stderr,
    File(PathBuf, File),
    /// Each batch is one event.
    Journal(Journal),
    /// Each line is one message.
    Syslog(Syslog),
}

impl LogTarget {
    /// The file that takes lines. `None` for the journal and syslog.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Stdout => Some(rustix::stdio::stdout()),
            Self::Stderr => Some(rustix::stdio::stderr()),
            Self::File(_, file) => Some(file.as_fd()),
            Self::Journal(_) | Self::Syslog(_) | Self::Nowhere => None,
        }
    }

    /// Writes lines. Returns the number of written bytes, and the error if these are not all.
    pub(super) fn write(&self, batch: &[u8]) -> (usize, io::Result<()>) {
        let Some(fd) = self.fd() else { return (batch.len(), Ok(())) };
        let mut written = 0;
        while let Some(rest) = batch.get(written..).filter(|rest| !rest.is_empty()) {
            // Without the buffers of the standard library: after an error, nobody would know what they hold.
            match rustix::io::write(fd, rest) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(len) => written += len,
                Err(Errno::INTR) => {}
                // Somebody has made the pipe non-blocking: this thread may wait.
                Err(Errno::AGAIN) => {
                    if let Err(error) = wait(fd) {
                        return (written, Err(error));
                    }
                }
                Err(error) => return (written, Err(error.into())),
            }
        }
        (written, Ok(()))
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Nowhere => "nowhere".into(),
            Self::Stdout => "standard output".into(),
            Self::Stderr => "standard error".into(),
            Self::File(path, _) => path.display().to_string(),
            Self::Journal(journal) => journal.name(),
            Self::Syslog(syslog) => syslog.name(),
        }
    }
}

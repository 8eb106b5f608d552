//! Faults of the ledger's files: traces of a crash, and possible losses.

use std::fmt;
use std::io;

use super::names::{HEAD, LOCK};
use crate::os::words::words;

/// A fault that the operator should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The last record is incomplete. Writing it did not finish, and nobody has acted on it.
    Torn {
        /// Ignored bytes.
        bytes: usize,
    },
    /// A line is damaged. A readable record in it counts: that makes the guard stricter, never
    /// laxer.
    Damaged {
        /// Its number, from 1.
        line: usize,
        /// `true` if its record is readable.
        believed: bool,
    },
    /// Lines are missing before this one, or it is in the wrong place.
    Missing {
        /// Its number, from 1.
        line: usize,
        /// The number of missing records; `None` if the line belongs elsewhere.
        records: Option<u64>,
    },
    /// The file ends before its head: it was truncated, or it is an old copy.
    Behind {
        /// The number of its last record.
        ends: u64,
        /// The number of the head's.
        head: u64,
    },
    /// Both files are an older pair: the file ends before a record that this folder's ledger had.
    OldPair {
        /// The number of its last record.
        ends: u64,
        /// The number of the newest known one.
        newest: u64,
    },
    /// The file is another ledger's, while this folder's own one had records.
    OtherLedger {
        /// The number of the own one's newest record.
        newest: u64,
    },
    /// The head exists, and the file does not.
    Gone {
        /// The number of the head's record.
        head: u64,
    },
    /// The head exists, or this folder's ledger had a record, and no file has one.
    Emptied,
    /// This folder's ledger had a record, and both files are missing.
    Deleted {
        /// The number of the newest known one.
        newest: u64,
    },
    /// The newest line of the head is damaged, so nothing shows if the file was truncated.
    DamagedHead,
    /// The file has records, and there is no head: nothing shows if the file was truncated. Somebody has put a copy of
    /// the file here, or deleted the head.
    NoHead,
    /// A clock that was behind, and was set right since, dated promises. Their dates are corrected.
    DatedEarly {
        /// The error, in seconds.
        seconds: i64,
    },
    /// A newer version wrote the file.
    Newer {
        /// The number of the format.
        format: u32,
    },
}

impl Notice {
    /// Returns `true` if a promise may be lost.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        !matches!(self, Self::Torn { .. } | Self::Newer { .. } | Self::NoHead | Self::DatedEarly { .. })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn { bytes } => {
                write!(f, "the last record is incomplete ({bytes} bytes) and ignored: no pins were sent for it")
            }
            Self::Damaged { line, believed } => {
                let kept = if *believed { "; pintle can read its record, and keeps it" } else { "" };
                write!(f, "line {line} is damaged: a promise may be lost{kept}")
            }
            Self::Missing { line, records: Some(1) } => {
                write!(f, "1 record is missing before line {line}: a promise may be lost")
            }
            Self::Missing { line, records: Some(records) } => {
                write!(f, "{records} records are missing before line {line}: promises may be lost")
            }
            Self::Missing { line, records: None } => {
                write!(f, "line {line} does not follow the previous line: promises between them may be lost")
            }
            Self::Behind { ends, head } => write!(
                f,
                "the file ends with record {ends}, but {HEAD} names record {head}: the file was truncated or is an old \
                 copy, and promises may be lost"
            ),
            Self::OldPair { ends, newest } => write!(
                f,
                "the file ends with record {ends}, and this folder's ledger had record {newest}: the file and {HEAD} are \
                 old copies, and promises may be lost"
            ),
            Self::OtherLedger { newest } => write!(
                f,
                "the file is another ledger's, and this folder's own ledger had {newest} records: promises may be lost"
            ),
            Self::Gone { head } => {
                write!(f, "the file is missing, and {HEAD} names {head} records: all promises in it are lost")
            }
            Self::Emptied => {
                write!(f, "neither the file nor {HEAD} has a record: they were emptied; all promises in them are lost")
            }
            Self::Deleted { newest } => write!(
                f,
                "the file and {HEAD} are missing, and {LOCK} names {newest} records: they were deleted, and all promises in \
                 them are lost"
            ),
            Self::DamagedHead => {
                write!(f, "{HEAD} is damaged: nothing shows if the file was truncated, and promises may be lost")
            }
            Self::NoHead => write!(
                f,
                "{HEAD} is missing: nothing shows if the file was truncated, or is an old copy. If promises are missing, put \
                 both files of the newest copy back"
            ),
            Self::DatedEarly { seconds } => write!(
                f,
                "the clock was {seconds} s behind when promises were written: they are held for that much longer"
            ),
            Self::Newer { format } => write!(f, "written by a newer pintle, in format {format}"),
        }
    }
}

/// The reason why a ledger cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another process holds it.
    Locked,
    /// Promises may be lost. A copy of the file is kept beside it.
    Damaged(Vec<Notice>),
    /// The folder or the file cannot be used.
    Io(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("another process has the ledger"),
            Self::Damaged(notices) => {
                for (at, notice) in notices.iter().filter(|n| n.is_loss()).enumerate() {
                    write!(f, "{}{notice}", if at == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Self::Io(error) => write!(f, "cannot open the ledger: {}", words(error)),
        }
    }
}

impl std::error::Error for OpenError {}

//! What there is to say about the ledger's files: what a crash has left, and what may be lost.

use std::fmt;
use std::io;

/// Something about the file that the operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The last record has no end: its writing was not finished, and nobody has acted upon it.
    Torn {
        /// Bytes that were ignored.
        bytes: usize,
    },
    /// A line is damaged. What can be made out of it is believed, as that makes the guard stricter, never laxer.
    Damaged {
        /// Its number, from 1.
        line: usize,
        /// Whether its record could be made out.
        believed: bool,
    },
    /// Lines are missing before this one, or it stands in the wrong place.
    Missing {
        /// Its number, from 1.
        line: usize,
        /// How many records are missing; none if the line is from elsewhere.
        records: Option<u64>,
    },
    /// The file ends before its head does: it was cut, or it is an old copy.
    Behind {
        /// The number of its last record.
        ends: u64,
        /// The number of the head's.
        head: u64,
    },
    /// There is a head, and no file.
    Gone {
        /// The number of the head's record.
        head: u64,
    },
    /// A newer program wrote the file.
    Newer {
        /// The format's number.
        format: u32,
    },
}

impl Notice {
    /// Whether a promise may be lost.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        !matches!(self, Self::Torn { .. } | Self::Newer { .. })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn { bytes } => {
                write!(f, "the last record is torn ({bytes} bytes): ignored, as nothing was sent under it")
            }
            Self::Damaged { line, believed: true } => write!(
                f,
                "line {line} is damaged, and a promise may be lost with it; what can be made out of it is believed"
            ),
            Self::Damaged { line, believed: false } => {
                write!(f, "line {line} is damaged, and a promise may be lost with it")
            }
            Self::Missing { line, records: Some(1) } => {
                write!(f, "a record is missing before line {line}, and a promise may be lost with it")
            }
            Self::Missing { line, records: Some(records) } => {
                write!(f, "{records} records are missing before line {line}, and promises may be lost with them")
            }
            Self::Missing { line, records: None } => {
                write!(f, "line {line} does not follow the one before it: promises may be lost between them")
            }
            Self::Behind { ends, head } => write!(
                f,
                "the file ends with record {ends}, and {} says that record {head} was written: the file was cut, or it is \
                 an old copy, and promises may be lost",
                super::HEAD
            ),
            Self::Gone { head } => write!(
                f,
                "the file is gone, and {} says that it had {head} records: all promises in it are lost",
                super::HEAD
            ),
            Self::Newer { format } => write!(f, "written by a newer pintle, as format {format}"),
        }
    }
}

/// Why a ledger cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it.
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
            Self::Io(error) => write!(f, "the ledger cannot be opened: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

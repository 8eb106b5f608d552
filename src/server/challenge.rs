//! Challenges of an ACME client, by http-01 (RFC 8555 section 8.3): small files in a folder that other programs write to, on
//! plain HTTP, for everybody. So pintle serves a file only if it has the form of an answer to the token that was asked for.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, openat};
use tokio::sync::Semaphore;

use super::rejection::Rejection;
use super::snapshot::Snapshot;
use crate::message::RequestHead;
use crate::os::plain_file;

/// The path of challenges, up to the token.
pub(super) const PATH: &str = "/.well-known/acme-challenge/";
/// The folders that lead to them, below the configured one.
const FOLDERS: [&str; 2] = [".well-known", "acme-challenge"];
/// The longest token of a challenge, and the longest file that answers one: a token of that length, and the longest
/// thumbprint.
const TOKEN_MAX: usize = 128;
const FILE_MAX: u64 = 512;
/// A SHA-256 has 43 characters; a SHA-512 has this many.
const THUMBPRINT_MAX: usize = 86;

/// The challenges that may be read at once, on threads that may wait for a disk.
#[derive(Debug, Clone)]
pub(super) struct ReadSlots {
    free: Arc<Semaphore>,
    max: usize,
}

impl ReadSlots {
    /// Returns `max` free slots.
    pub(super) fn new(max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(max)), max }
    }

    /// Returns the slots, with `max` of them; a reload may have changed that. After a change, reads under way no longer
    /// count.
    fn fit(&mut self, max: usize) -> Arc<Semaphore> {
        if self.max != max {
            *self = Self::new(max);
        }
        self.free.clone()
    }
}

/// Returns the answer to a challenge of pintle's own orders.
pub(super) fn answered(head: &RequestHead, shared: &Snapshot) -> Option<Bytes> {
    shared.answers.http(head.host_bytes(), head.path().strip_prefix(PATH)?)
}

/// Reads the key authorization of the token in a request's path, from the configured folder.
pub(super) async fn read(
    head: &RequestHead,
    shared: &Snapshot,
    slots: &RefCell<ReadSlots>,
) -> Result<Bytes, Rejection> {
    let folder = shared.acme_webroot.clone().ok_or(Rejection::NoChallenge)?;
    let token = head.path().strip_prefix(PATH).filter(|token| is_token(token)).ok_or(Rejection::NoChallenge)?;
    let free = slots.borrow_mut().fit(shared.limits.challenges);
    let slot = free.try_acquire_owned().map_err(|_| Rejection::TooManyChallenges)?;
    let token = token.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        // The slot is free when the file is read, even if the client has left before: the threads are scarce.
        let _slot = slot;
        read_file(&folder, &token)
    });
    let contents = reading.await.ok().and_then(Result::ok).ok_or(Rejection::NoChallenge)?;
    Ok(Bytes::from(contents))
}

/// Reads the key authorization of a token from its file.
fn read_file(folder: &Path, token: &str) -> io::Result<Vec<u8>> {
    let contents = plain_file::read_opened(open(folder, token)?, FILE_MAX)?;
    let answer = contents.trim_ascii_end();
    if is_key_authorization(answer, token) { Ok(answer.to_owned()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Opens the file of a token, step by step from the folder that the operator has named. Follows no link below it, and does
/// not wait for a FIFO.
fn open(folder: &Path, token: &str) -> io::Result<File> {
    let by_name = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, folder, by_name, Mode::empty())?;
    for name in FOLDERS {
        at = openat(&at, name, by_name | OFlags::NOFOLLOW, Mode::empty())?;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat(&at, token, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn is_base64url(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// RFC 8555 section 8.3: base64url. The authority ensures that it has at least 128 bits.
fn is_token(text: &str) -> bool {
    text.len() <= TOKEN_MAX && is_base64url(text.as_bytes())
}

/// RFC 8555 section 8.1: the token, a dot, and the thumbprint of the account's key.
fn is_key_authorization(contents: &[u8], token: &str) -> bool {
    let thumbprint = contents.strip_prefix(token.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
    thumbprint.is_some_and(|thumbprint| thumbprint.len() <= THUMBPRINT_MAX && is_base64url(thumbprint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_authorizations() {
        let check = |contents: &str, is: bool| {
            assert_eq!(is_key_authorization(contents.as_bytes(), "tok-en_1"), is, "{contents:?}");
        };
        check("tok-en_1.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI", true);
        check("tok-en_1.x", true);
        check("tok-en_1.", false);
        check("tok-en_1", false);
        check("tok-en_1.a.b", false);
        check("tok-en_1.a b", false);
        check("tok-en_1.a\n-----BEGIN", false);
        check("other.x", false);
        check("-----BEGIN PRIVATE KEY-----\n", false);
        check("", false);
        check(&format!("tok-en_1.{}", "x".repeat(86)), true);
        check(&format!("tok-en_1.{}", "x".repeat(87)), false);
    }
}

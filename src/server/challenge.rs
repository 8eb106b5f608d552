//! Challenges of an ACME client, by http-01 (RFC 8555 section 8.3): small files of a folder that other programs write to, on
//! plain HTTP, for everybody. So nothing is served but what has the form of an answer to the very question that is asked.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use rustix::fs::{CWD, Mode, OFlags, openat};
use tokio::sync::Semaphore;

use super::context::Context;
use super::page;
use super::rejection::Rejection;
use super::reply::Reply;
use super::service::{Asked, own};
use crate::message::RequestHead;
use crate::os::plain_file;

/// Where challenges are asked for.
pub(super) const CHALLENGES: &str = "/.well-known/acme-challenge/";
/// The folders that lead to them, below the configured one.
const FOLDERS: [&str; 2] = [".well-known", "acme-challenge"];
/// The longest token of a challenge, and the longest file that answers one: with a token of that length, and the longest
/// thumbprint that there is.
const TOKEN_MAX: usize = 128;
const FILE_MAX: u64 = 512;
/// A SHA-256 has 43 characters; other hashes, up to SHA-512, as many as this.
const THUMBPRINT_MAX: usize = 86;

/// The places of those whose challenge is being read, on threads that may wait for a disk.
#[derive(Debug, Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    most: usize,
}

impl Places {
    /// So many; by [`Self::fit`], as many as the limit says when it matters.
    pub(super) fn new(most: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), most }
    }

    /// As many as this limit says, which a reload may have changed: what is being read then is counted no more.
    pub(super) fn fit(&mut self, most: usize) -> Arc<Semaphore> {
        if self.most != most {
            *self = Self::new(most);
        }
        self.free.clone()
    }
}

/// Answers a challenge from the configured folder.
pub(super) async fn answer(head: &RequestHead, asked: &Asked, context: &Context) -> Result<Reply, Rejection> {
    let shared = &asked.view.shared;
    let folder = shared.acme_webroot.clone().ok_or(Rejection::NoChallenge)?;
    let token = head.path().strip_prefix(CHALLENGES).filter(|token| is_token(token)).ok_or(Rejection::NoChallenge)?;
    let free = context.worker.challenges.borrow_mut().fit(shared.limits.challenges);
    let place = free.try_acquire_owned().map_err(|_| Rejection::TooManyChallenges)?;
    let token = token.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        // Given back when it is read, and not when nobody waits for it any more: the threads are what is scarce.
        let _place = place;
        read(&folder, &token)
    });
    let contents = reading.await.ok().and_then(Result::ok).ok_or(Rejection::NoChallenge)?;
    let mut response = page::answer(StatusCode::OK);
    response.fields.push(b"Content-Type", b"application/octet-stream");
    Ok(own(response, Bytes::from(contents), asked, false, context))
}

/// The key authorization of a token.
fn read(folder: &Path, token: &str) -> io::Result<Vec<u8>> {
    let contents = plain_file::read_opened(open(folder, token)?, FILE_MAX)?;
    let answer = contents.trim_ascii_end();
    if is_key_authorization(answer, token) { Ok(answer.to_owned()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Opens the file of a token, step by step from the folder that the operator has named: no link is followed below it, and
/// nothing waited for that a FIFO would make wait.
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

/// RFC 8555 section 8.3: base64url, and at least 128 bits of it, which is for the authority to see to.
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
    fn what_is_a_key_authorization() {
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

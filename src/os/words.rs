//! The words of an error of the operating system.

use std::io;

use nix::errno::Errno;

/// Returns the message of an error as part of a sentence: in lower case, without the system's number.
#[must_use]
pub fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => in_lower_case(Errno::from_raw(number).desc()),
        None => error.to_string(),
    }
}

/// Returns a message with a small first letter, unless it begins with an abbreviation.
fn in_lower_case(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some('a'..='z' | ' ')) => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_without_numbers() {
        let check = |error: io::Error, want: &str| assert_eq!(words(&error), want);
        check(Errno::EADDRINUSE.into(), "address already in use");
        check(Errno::ENOTDIR.into(), "not a directory");
        check(Errno::EACCES.into(), "permission denied");
        check(Errno::EIO.into(), "I/O error");
        // Our own words stay as they are.
        check(io::Error::other("HTTP/2: closed"), "HTTP/2: closed");
        check(io::ErrorKind::TimedOut.into(), "timed out");
    }
}

//! Questions on a terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use crate::host::HostPattern;
use crate::init::evidence::Evidence;
use crate::init::given::{Given, email, hosts};
use crate::init::write::TERMS;
use crate::reason::Reason;

/// The longest answer, in bytes.
const ANSWER_MAX: u64 = 4096;
/// The most attempts to answer a question.
const ATTEMPTS_MAX: usize = 5;

/// Returns `true` if somebody can answer.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for names, address and agreement, as far as the arguments do not have them.
pub(super) fn fill(given: &mut Given, evidence: &Evidence) -> Result<(), Reason> {
    if given.hosts.is_empty() {
        let named = redirect_host(evidence);
        let suggested = named.as_ref().map(|host| format!(" [{host}]")).unwrap_or_default();
        let question = format!("Names under which visitors will see the blog, separated by spaces{suggested}: ");
        given.hosts = repeat(&question, |answer| match (answer, &named) {
            ("", Some(named)) => hosts(named),
            (answer, _) => hosts(answer),
        })?;
    }
    if given.email.is_none() {
        let question = "E-mail address for the certificate authority, or nothing for certificates from elsewhere: ";
        given.email = repeat(question, |answer| match answer {
            "" => Ok(None),
            answer => email(answer).map(Some),
        })?;
    }
    if given.email.is_some() && !given.terms {
        let question = format!("Do you agree to the terms of Let's Encrypt ({TERMS})? [y/N] ");
        given.terms = repeat(&question, |answer| match answer.to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(true),
            "" | "n" | "no" => Ok(false),
            _ => Err("answer y or n".into()),
        })?;
    }
    Ok(())
}

/// The name that the blog redirects to: probably its public one.
fn redirect_host(evidence: &Evidence) -> Option<String> {
    let mut targets = evidence.own().filter_map(|answer| answer.redirect());
    let host = targets.find(|to| to.host != evidence.url.host)?.host;
    HostPattern::of_site(&host).ok().map(|host| host.to_string())
}

/// Asks until the answer is good.
fn repeat<T>(question: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, Reason> {
    for _ in 0..ATTEMPTS_MAX {
        eprint!("{question}");
        let mut line = String::new();
        let length = io::stdin().lock().take(ANSWER_MAX).read_line(&mut line);
        if !length.is_ok_and(|length| length > 0) {
            eprintln!();
            break;
        }
        match read(line.trim()) {
            Ok(value) => return Ok(value),
            Err(why) => eprintln!("{why}"),
        }
    }
    Err(Reason::new("no answer: nothing was written").hint("give --host and --email as arguments"))
}

//! Questions on a terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use crate::host::HostPattern;
use crate::init::evidence::Evidence;
use crate::init::write::TERMS;
use crate::reason::Reason;

/// The longest answer, in bytes.
const ANSWER_MAX: u64 = 4096;
/// The most attempts to answer a question.
const ATTEMPTS_MAX: usize = 5;
/// The longest address (RFC 5321 section 4.5.3.1.3, without the brackets).
const EMAIL_MAX: usize = 254;

/// The facts that init cannot find out: from arguments, or from a terminal.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The site's names.
    pub hosts: Vec<HostPattern>,
    /// The address for the certificate authority.
    pub email: Option<String>,
    /// `true` if the operator agrees to the authority's terms.
    pub terms: bool,
}

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

fn hosts(answer: &str) -> Result<Vec<HostPattern>, String> {
    let words = answer.split([' ', ',', '\t']).filter(|word| !word.is_empty());
    let mut hosts: Vec<HostPattern> = Vec::new();
    for word in words {
        let host = HostPattern::of_site(word).map_err(|error| format!("{word:?}: {error}"))?;
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    if hosts.is_empty() { Err("at least one name is needed".into()) } else { Ok(hosts) }
}

/// Checks an e-mail address as far as a configuration needs it.
///
/// # Errors
///
/// The reason, for people.
pub fn email(text: &str) -> Result<String, String> {
    let text = text.strip_prefix("mailto:").unwrap_or(text);
    let plain = text.len() <= EMAIL_MAX && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\,;<>".contains(&b));
    let parts =
        text.split_once('@').filter(|(user, host)| !user.is_empty() && host.contains('.') && !host.contains('@'));
    match parts.filter(|_| plain).map(|(_, host)| HostPattern::parse(host)) {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err("not an address like you@example.com".into()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["you@example.com", "first.last+tag@sub.example.org", "mailto:you@example.com"] {
            assert!(email(good).is_ok(), "{good}");
        }
        for bad in
            ["", "you", "@example.com", "you@", "you@localhost", "a@b@example.com", "a b@example.com", "a\"@b.example"]
        {
            assert!(email(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn several_hosts() {
        let read = |text: &str| hosts(text).map(|hosts| hosts.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(
            read(" Blog.example.com, www.example.com blog.example.com"),
            Ok(vec!["blog.example.com".into(), "www.example.com".into()])
        );
        assert!(read("").is_err() && read("https://blog.example.com").is_err() && read("a..b").is_err());
    }
}

//! The operator's answers: names, address and agreement.

use crate::host::HostPattern;

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

/// Reads names that are separated by spaces or commas.
///
/// # Errors
///
/// The reason, for people.
pub fn hosts(answer: &str) -> Result<Vec<HostPattern>, String> {
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

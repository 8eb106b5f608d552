//! Answers to the challenges of pintle's own orders: from memory, on all workers, before every rule.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};

use crate::host::{HostPattern, bracketed};
use crate::tls::acme_challenge;

/// An answer to one challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeAnswer {
    /// The name that is proved, as a client sends it in Host.
    pub name: String,
    /// The token of http-01; `None` for tls-alpn-01.
    pub token: Option<String>,
    /// The key authorization.
    pub authorization: String,
}

impl ChallengeAnswer {
    /// Makes an answer. `name` is as the authority writes it: an IPv6 address without brackets.
    #[must_use]
    pub fn new(name: &str, token: Option<String>, authorization: String) -> Self {
        Self { name: bracketed(name).into_owned(), token, authorization }
    }
}

/// The pending answers. All workers share them, through every snapshot.
#[derive(Default)]
pub struct Answers {
    /// `true` if there is an answer to tls-alpn-01: without one, no handshake looks further.
    by_tls: AtomicBool,
    pending: RwLock<PendingAnswers>,
}

#[derive(Default)]
struct PendingAnswers {
    /// By token and name: the order, and the contents.
    http: HashMap<String, (String, Bytes)>,
    /// By the name in SNI: the orders, and their settings. The last one counts.
    tls: HashMap<String, Vec<(String, Arc<ServerConfig>)>>,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

impl Answers {
    /// Replaces the answers of one order; with none, removes it. Every request and handshake that begins later sees
    /// the new answers.
    pub fn set(&self, order: &str, answers: Vec<ChallengeAnswer>) {
        // Keys and certificates are made before the lock: every handshake may wait for it.
        let (mut http, mut tls) = (Vec::new(), Vec::new());
        for ChallengeAnswer { name, token, authorization } in answers {
            match token {
                Some(token) => {
                    http.push((place(&token, name.as_bytes()), (order.to_owned(), Bytes::from(authorization))))
                }
                None => match acme_challenge::server(&name, &authorization) {
                    Ok(config) => tls.push((sni(&name), (order.to_owned(), config))),
                    Err(error) => tracing::error!(name, %error, "cannot make the certificate of tls-alpn-01"),
                },
            }
        }
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        pending.http.retain(|_, (of, _)| of != order);
        pending.tls.retain(|_, all| {
            all.retain(|(of, _)| of != order);
            !all.is_empty()
        });
        pending.http.extend(http);
        for (name, answer) in tls {
            pending.tls.entry(name).or_default().push(answer);
        }
        self.by_tls.store(!pending.tls.is_empty(), Ordering::Release);
    }

    /// Returns the key authorization of a token for a host.
    #[must_use]
    pub fn http(&self, host: &[u8], token: &str) -> Option<Bytes> {
        let pending = self.pending.read().unwrap_or_else(PoisonError::into_inner);
        if pending.http.is_empty() {
            return None;
        }
        pending.http.get(&place(token, host)).map(|(_, contents)| contents.clone())
    }

    /// Returns the TLS settings for a client that validates tls-alpn-01. `received` begins with its ClientHello.
    #[must_use]
    pub fn tls(&self, received: &[u8]) -> Option<Arc<ServerConfig>> {
        if !self.by_tls.load(Ordering::Acquire) {
            return None;
        }
        let name = acme_challenge::asked_name(received)?;
        let pending = self.pending.read().unwrap_or_else(PoisonError::into_inner);
        pending.tls.get(&name)?.last().map(|(_, config)| config.clone())
    }
}

/// Returns the key of an answer to http-01. A token has no white space.
fn place(token: &str, host: &[u8]) -> String {
    format!("{token} {}", String::from_utf8_lossy(host))
}

/// Returns the name in the SNI of a validation: for an address, its name for reverse lookups (RFC 8738 section 6).
fn sni(name: &str) -> String {
    match HostPattern::parse(name).ok().and_then(|host| host.address()) {
        Some(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Some(IpAddr::V6(address)) => {
            let digits =
                address.octets().iter().rev().map(|b| format!("{:x}.{:x}.", b & 15, b >> 4)).collect::<String>();
            format!("{digits}ip6.arpa")
        }
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_sni() {
        assert_eq!(sni("blog.example.com"), "blog.example.com");
        assert_eq!(sni("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        let want = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(sni("[2001:db8::1]"), want);
    }

    #[test]
    fn answers_of_http() {
        let answers = Answers::default();
        let one = |name: &str, token: &str| ChallengeAnswer {
            name: name.to_owned(),
            token: Some(token.to_owned()),
            authorization: format!("{token}.x"),
        };
        answers.set("a", vec![one("a.example", "t1"), one("b.example", "t2")]);
        answers.set("b", vec![one("a.example", "t3"), one("b.example", "t3")]);
        assert_eq!(answers.http(b"a.example", "t1").as_deref(), Some(&b"t1.x"[..]));
        assert_eq!(answers.http(b"a.example", "t3").as_deref(), Some(&b"t3.x"[..]));
        assert_eq!(answers.http(b"b.example", "t1"), None);
        assert!(answers.http(b"b.example", "t3").is_some());
        assert_eq!(answers.http(b"a.example", "t4"), None);
        answers.set("a", Vec::new());
        assert_eq!(answers.http(b"a.example", "t1"), None);
        assert!(answers.http(b"a.example", "t3").is_some());
    }
}

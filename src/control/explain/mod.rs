//! `pintle explain`: a request as an operator describes it, and the decisions about it with the lines behind them. The
//! running process and the command make the same report.

mod fields;
mod limits;
mod policies;
mod record;
mod steps;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::Control;
use crate::config::{Config, Draft, Lines, report};
use crate::message::is_token;
use crate::policy::Scheme;
use crate::reason::Reason;
use crate::server::explain::{Explanation, FieldList, Question, RequestBytes, explain};
use crate::verify::target::Url;

pub use super::admin::DescribedRequest;

/// The peer of a request that names none: an address for documentation.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// The longest text of a value in a report, in characters.
const TEXT_MAX: usize = 8 * 1024;

/// The inputs of a report.
pub(super) struct Inputs<'a> {
    pub(super) asked: &'a DescribedRequest,
    pub(super) url: &'a Url,
    pub(super) question: &'a Question,
    pub(super) listening: &'a [(SocketAddr, Scheme)],
    pub(super) draft: &'a Draft,
    pub(super) config: &'a Config,
    pub(super) found: &'a Explanation,
    pub(super) lines: &'a Lines,
    pub(super) site: Option<&'a report::SiteReport>,
    /// The reason why the running process sends no pins of this site; `None` from a command.
    pub(super) live: Option<Option<String>>,
    /// The reader may see the secrets of the configuration.
    pub(super) shows_secrets: bool,
}

/// Explains a request without a running process: as a process would decide that has just started, and can write its
/// ledger.
///
/// # Errors
///
/// If the request cannot be sent by any client.
pub async fn explained(draft: &Draft, config: &Config, asked: &DescribedRequest) -> Result<Value, Reason> {
    config.pledges.iter().for_each(|pledge| pledge.lease.grant(u64::MAX));
    let https = config.https.iter().map(|address| (*address, Scheme::Https));
    let listening: Vec<_> = https.chain(config.http.iter().map(|address| (*address, Scheme::Http))).collect();
    report((draft, config), &listening, asked, None, true).await
}

impl Control {
    /// Explains a request by the configuration in use, the leases and the health of upstreams.
    pub(super) async fn explain(&self, asked: &DescribedRequest, shows_secrets: bool) -> Result<Value, Reason> {
        report((&self.draft, &self.config), self.listening(), asked, Some(self), shows_secrets).await
    }
}

async fn report(
    (draft, config): (&Draft, &Config),
    listening: &[(SocketAddr, Scheme)],
    asked: &DescribedRequest,
    running: Option<&Control>,
    shows_secrets: bool,
) -> Result<Value, Reason> {
    let url: Url = asked.url.parse().map_err(|error: String| Reason::new(format!("{:?}: {error}", asked.url)))?;
    let question = question(asked, &url, listening)?;
    // The workers' warnings are for requests that were sent.
    let found = {
        let quiet = tracing::subscriber::NoSubscriber::new();
        let found = explain(&config.snapshot, &question);
        tracing::instrument::WithSubscriber::with_subscriber(found, quiet).await
    };
    let index = found.site.map(|(index, _)| index);
    let site = index.and_then(|index| config.sites().nth(index));
    // Where TLS is refused, the site of the name in SNI is the one to look at.
    let named = question.name.as_deref().and_then(|name| config.snapshot.by_host.get(name)).copied();
    let lines = draft.lines(index.or(named));
    let inputs = Inputs {
        asked,
        url: &url,
        question: &question,
        listening,
        draft,
        config,
        found: &found,
        lines: &lines,
        site,
        live: running.map(|control| site.and_then(|site| control.why_not_sent(site))),
        shows_secrets,
    };
    Ok(inputs.report())
}

/// Makes the question of a request.
fn question(asked: &DescribedRequest, url: &Url, listening: &[(SocketAddr, Scheme)]) -> Result<Question, Reason> {
    let listener = if asked.http { Scheme::Http } else { url.scheme };
    let method = asked.method.as_deref().unwrap_or("GET");
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Reason::new(format!("{method:?}: not a method")))?;
    check(&asked.fields)?;
    check(&asked.response_fields)?;
    if asked.http2 && listener == Scheme::Http {
        let what = "a plain listener speaks HTTP/1.1 only";
        return Err(Reason::new(what).hint("leave --http2 out, or ask about an https URL without --http"));
    }
    let https_ports = listening.iter().filter(|(_, scheme)| *scheme == Scheme::Https);
    let address = url.address();
    Ok(Question {
        listener,
        https_ports: https_ports.map(|(address, _)| address.port()).collect(),
        from: asked.from.unwrap_or(STRANGER),
        reached: address,
        // SNI cannot carry an address (RFC 6066 section 3).
        name: asked.sni.clone().or_else(|| address.is_none().then(|| url.host.clone())),
        proxy_header: asked.proxy.as_deref().map(proxy_header).transpose()?,
        head: if asked.http2 {
            RequestBytes::Http2(http2_fields(asked, url, &method))
        } else {
            http1_head(asked, url, &method)
        },
        response: with_fields("HTTP/1.1 200 OK\r\n".to_owned(), &asked.response_fields),
    })
}

fn http1_head(asked: &DescribedRequest, url: &Url, method: &Method) -> RequestBytes {
    let mut head = format!("{method} {} HTTP/1.1\r\n", url.target);
    if !asked.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("Host: {}\r\n", url.authority()));
    }
    RequestBytes::Http1(with_fields(head, &asked.fields))
}

/// The fields of HTTP/2. As with curl, a Host takes the place of the URL's in `:authority`.
fn http2_fields(asked: &DescribedRequest, url: &Url, method: &Method) -> FieldList {
    let mut fields = asked.fields.clone();
    let host = fields.iter().position(|(name, _)| name.eq_ignore_ascii_case("host"));
    let authority = host.map_or_else(|| url.authority(), |at| fields.remove(at).1);
    let pseudo =
        [(":method", method.as_str()), (":scheme", "https"), (":authority", &authority), (":path", &url.target)];
    let pseudo = pseudo.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    let own = fields.into_iter().map(|(name, value)| (name.to_ascii_lowercase().into_bytes(), value.into_bytes()));
    pseudo.chain(own).collect()
}

fn with_fields(mut head: String, fields: &[(String, String)]) -> Vec<u8> {
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Refuses fields that would end the line, and others that no client can send.
fn check(fields: &[(String, String)]) -> Result<(), Reason> {
    for (name, value) in fields {
        if !HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| is_token(&name)) {
            return Err(Reason::new(format!("{name:?}: not a field name")).hint("-H 'Name: value'"));
        }
        if HeaderValue::from_str(value).is_err() {
            let what = format!("{name}: the value has characters that no field can carry");
            return Err(Reason::new(what).hint("remove line breaks and control characters"));
        }
    }
    Ok(())
}

/// Reads a PROXY header as the operator writes it.
fn proxy_header(text: &str) -> Result<Vec<u8>, Reason> {
    let Some(digits) = text.strip_prefix("hex:") else { return Ok(format!("{}\r\n", text.trim_end()).into_bytes()) };
    let pair = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(pair).collect();
    bytes.ok_or_else(|| Reason::new("the PROXY header is not hexadecimal"))
}

/// Bytes of a message as a text of bounded length.
fn text(bytes: &[u8]) -> String {
    let all = String::from_utf8_lossy(bytes);
    match all.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}...", &all[..end]),
        None => all.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(url: &str, fields: &[(&str, &str)]) -> Result<Question, Reason> {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let asked = DescribedRequest { url: url.to_owned(), fields, ..DescribedRequest::default() };
        question(&asked, &url.parse().unwrap(), &[])
    }

    #[test]
    fn questions() {
        let head = |url: &str, fields: &[(&str, &str)]| match ask(url, fields).unwrap().head {
            RequestBytes::Http1(head) => String::from_utf8(head).unwrap(),
            RequestBytes::Http2(_) => panic!("HTTP/2"),
        };
        assert_eq!(head("https://A.example", &[]), "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert_eq!(head("http://a.example:8080/x?y", &[]), "GET /x?y HTTP/1.1\r\nHost: a.example:8080\r\n\r\n");
        assert_eq!(head("https://a.example/", &[("host", "b")]), "GET / HTTP/1.1\r\nhost: b\r\n\r\n");
        let question = ask("https://[2001:db8::1]/", &[]).unwrap();
        assert_eq!((question.name, question.reached), (None, "2001:db8::1".parse().ok()));
    }

    #[test]
    fn fields_that_no_client_can_send() {
        for (name, value) in [("", "x"), ("a b", "x"), ("a\r\nb", "x"), ("a", "x\r\nEvil: y"), ("a:", "x"), ("a", "\0")]
        {
            assert!(ask("https://a.example/", &[(name, value)]).is_err(), "{name:?}: {value:?}");
        }
    }

    #[test]
    fn proxy_headers() {
        assert_eq!(proxy_header("PROXY UNKNOWN").unwrap(), b"PROXY UNKNOWN\r\n");
        assert_eq!(proxy_header("hex:0d0a").unwrap(), b"\r\n");
        for wrong in ["hex:0", "hex:0g", "hex:é"] {
            assert!(proxy_header(wrong).is_err(), "{wrong}");
        }
    }
}

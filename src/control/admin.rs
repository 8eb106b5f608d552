//! The HTTP interface behind the admin socket.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::events::{self, Tested};
use super::explain::{DescribedRequest, QUESTION_MAX};
use super::reload::{Installed, ReloadOutcome};
use super::served::{CertificateToJudge, Objection};
use super::socket::Caller;
use super::upgrade::UpgradeOutcome;
use super::{Control, acme};
use crate::acme::request::ask;
use crate::config::{DaysInUse, TOKEN};
use crate::host::bare;
use crate::keys::pin::Pin;
use crate::ledger::Record;
use crate::policy::promise::Seconds;
use crate::reason::Reason;
use crate::telemetry::exposition::Format;

/// The longest body of a command, in bytes: a ledger of another node.
const BODY_MAX: usize = 64 << 20;
/// Time limit for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The header that commands over TCP must carry: a browser asks before it sends it elsewhere.
pub const HEADER: &str = "pintle-admin";
/// The answer of `/ready` from a process that accepts no connections any more.
pub(super) const DRAINING: &str = "draining";

/// A command of the operator.
pub(super) enum AdminCommand {
    Reload(oneshot::Sender<ReloadOutcome>),
    /// Look at a site's files now, and accept a lockout until `accept`: by any chain, or by the installed one.
    Certificates {
        host: String,
        accept: Option<String>,
        installed: Option<Installed>,
        reply: oneshot::Sender<ReloadOutcome>,
    },
    Status(oneshot::Sender<Value>),
    Metrics {
        format: Format,
        reply: oneshot::Sender<String>,
    },
    /// Is this process accepting connections? `strict`: and has each site its certificate, and no renewal is overdue? The
    /// reason if not.
    Ready {
        strict: bool,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Upgrade(oneshot::Sender<UpgradeOutcome>),
    /// Add records to the ledger. Answers with the number of new ones.
    Ledger {
        records: Vec<Record>,
        reply: oneshot::Sender<Result<usize, Reason>>,
    },
    /// Make promises for another program. Refused if a chain in use breaks them.
    Promise {
        records: Vec<Record>,
        reply: oneshot::Sender<Result<usize, Objection>>,
    },
    /// Return the served sites.
    Served(oneshot::Sender<Value>),
    /// May this certificate be served? It is not in place yet.
    Judge {
        asked: CertificateToJudge,
        reply: oneshot::Sender<ReloadOutcome>,
    },
    /// Since when is each pin of a site promised?
    Promised {
        site: String,
        reply: oneshot::Sender<Vec<(Pin, i64)>>,
    },
    /// About the certificates that pintle obtains.
    Acme(acme::AcmeCommand),
    /// Explain a request.
    Explain {
        asked: Box<DescribedRequest>,
        reply: oneshot::Sender<Result<Value, Reason>>,
    },
    /// Send a test to a hook, or to all. Answers with each hook and its failure.
    TestHooks {
        name: Option<String>,
        reply: oneshot::Sender<Tested>,
    },
    /// All records of the ledger.
    Book(oneshot::Sender<PromisesInForce>),
}

/// The process's knowledge of promises, and its time for judgements.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PromisesInForce {
    /// The time, in seconds since 1970.
    pub now: Seconds,
    /// The book, one line per record.
    pub lines: Vec<String>,
    /// The days in `accept_lockout_until` of the configuration in use.
    #[serde(default)]
    pub days: Option<DaysInUse>,
}

pub(super) type AdminAnswer = Response<Full<Bytes>>;

pub(super) async fn answer(
    request: Request<Incoming>,
    caller: &Caller,
    commands: &mpsc::Sender<AdminCommand>,
) -> AdminAnswer {
    if let Some(refusal) = refusal(&request, caller) {
        return refusal;
    }
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let answered = match *request.method() {
        // hyper leaves the body out of responses to HEAD.
        Method::GET | Method::HEAD => shown(&path, &query, preferred(request.headers()), commands).await,
        Method::POST => done(request, &path, &query, commands).await,
        _ => None,
    };
    answered.unwrap_or_else(|| match path.as_str() {
        "/status" | "/metrics" | "/ready" | "/promised" | "/served" | "/acme" => other_method("GET, HEAD"),
        "/ledger" => other_method("GET, HEAD, POST"),
        "/reload"
        | "/explain"
        | "/acme/renew"
        | "/acme/revoke"
        | "/certificates"
        | "/certificates/judge"
        | "/hook/test"
        | "/ledger/promise"
        | "/upgrade" => other_method("POST"),
        _ => json_answer(StatusCode::NOT_FOUND, &json!({ "error": "no such command" })),
    })
}

/// The format of metrics that a client prefers.
fn preferred(headers: &HeaderMap) -> Format {
    let fields = headers.get_all(ACCEPT).iter().filter_map(|field| field.to_str().ok());
    Format::of(&fields.collect::<Vec<_>>().join(","))
}

pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

/// Answers a question; `None` if the path is unknown.
async fn shown(path: &str, query: &str, format: Format, commands: &mpsc::Sender<AdminCommand>) -> Option<AdminAnswer> {
    let json = |shown: Option<Value>| shown.map_or_else(gone, |shown| json_answer(StatusCode::OK, &shown));
    Some(match path {
        "/status" => json(ask(commands, AdminCommand::Status).await),
        "/metrics" => match ask(commands, |reply| AdminCommand::Metrics { format, reply }).await {
            Some(text) => text_answer(format.content_type(), text),
            None => gone(),
        },
        "/ready" => {
            let strict = query.split('&').any(|name| name == "strict");
            let ready = ask(commands, |reply| AdminCommand::Ready { strict, reply }).await;
            match ready.unwrap_or_else(|| Err(DRAINING.to_owned())) {
                Ok(()) => text_answer("text/plain; charset=utf-8", "ready\n".into()),
                Err(why) => {
                    let mut answer = text_answer("text/plain; charset=utf-8", format!("{why}\n"));
                    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    answer
                }
            }
        }
        "/promised" => {
            let site = parameter(query, "site").unwrap_or_default();
            let promised = ask(commands, |reply| AdminCommand::Promised { site, reply }).await;
            let row = |(pin, since): (Pin, i64)| json!({ "pin": pin.to_string(), "since": since });
            json(promised.map(|pins| pins.into_iter().map(row).collect::<Vec<_>>().into()))
        }
        "/ledger" => json(ask(commands, AdminCommand::Book).await.map(|known| json!(known))),
        "/served" => json(ask(commands, AdminCommand::Served).await),
        "/acme" => json(ask(commands, |reply| AdminCommand::Acme(acme::AcmeCommand::Plans(reply))).await),
        _ => return None,
    })
}

/// Carries a command out; `None` if the path is unknown.
async fn done(
    request: Request<Incoming>,
    path: &str,
    query: &str,
    commands: &mpsc::Sender<AdminCommand>,
) -> Option<AdminAnswer> {
    Some(match path {
        "/reload" => verdict(ask(commands, AdminCommand::Reload).await),
        "/upgrade" => match ask(commands, AdminCommand::Upgrade).await {
            Some(upgraded) => {
                json_answer(if upgraded.ok { StatusCode::OK } else { StatusCode::CONFLICT }, &json!(upgraded))
            }
            None => gone(),
        },
        "/acme/renew" | "/acme/revoke" => return acme::done(path, query, commands).await,
        "/certificates" => {
            let Ok(pin) = parameter(query, "pin").map(|pin| pin.parse()).transpose() else {
                return Some(bad("pin: not a pin in base64"));
            };
            let installed = pin.zip(parameter(query, "serial")).map(|(pin, serial)| Installed { pin, serial });
            let host = parameter(query, "host").unwrap_or_default();
            let accept = parameter(query, "accept_lockout_until");
            verdict(ask(commands, |reply| AdminCommand::Certificates { host, accept, installed, reply }).await)
        }
        "/hook/test" => {
            let name = parameter(query, "name");
            events::tested(ask(commands, |reply| AdminCommand::TestHooks { name, reply }).await)
        }
        "/explain" => match body(request, QUESTION_MAX).await {
            Ok(body) => explain(&body, commands).await,
            Err(answer) => answer,
        },
        "/ledger" | "/ledger/promise" | "/certificates/judge" => match body(request, BODY_MAX).await {
            Ok(body) if path == "/certificates/judge" => judge(&body, commands).await,
            Ok(body) => ledger(&body, path == "/ledger/promise", commands).await,
            Err(answer) => answer,
        },
        #[cfg(debug_assertions)]
        "/attempt" => {
            attempt(parameter(query, "what").unwrap_or_default(), parameter(query, "with").unwrap_or_default()).await
        }
        _ => return None,
    })
}

/// The refusal of a caller who may not send commands; `None` if the caller may.
fn refusal<B>(request: &Request<B>, caller: &Caller) -> Option<AdminAnswer> {
    let error = |status, why: String| Some(json_answer(status, &json!({ "error": why })));
    match caller {
        Caller::Owner => None,
        Caller::Stranger => {
            error(StatusCode::FORBIDDEN, format!("ask as the user {}, or as root", crate::os::privileges::user()))
        }
        Caller::Tcp(_) if !is_from_here(request) => {
            error(StatusCode::FORBIDDEN, format!("send the header {HEADER}: 1, and this host's address as Host"))
        }
        Caller::Tcp(token) if !token.fits(request.headers()) => {
            let why = format!("send Authorization: Bearer with the contents of {TOKEN} in state.directory");
            let mut answer = error(StatusCode::UNAUTHORIZED, why)?;
            let scheme = HeaderValue::from_static("Bearer realm=\"pintle\"");
            answer.headers_mut().insert(http::header::WWW_AUTHENTICATE, scheme);
            Some(answer)
        }
        Caller::Tcp(_) => None,
    }
}

/// Protects against pages that make a browser talk to this port: such a request names another host,
/// or cannot carry the header.
fn is_from_here<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(http::header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let authority = host.parse::<http::uri::Authority>();
    let name = authority.as_ref().map(|a| bare(a.host())).unwrap_or_default();
    let local = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    local && (reads || request.headers().contains_key(HEADER))
}

/// Reads the body of a command, of at most `max` bytes.
async fn body(request: Request<Incoming>, max: usize) -> Result<Bytes, AdminAnswer> {
    let too_long = || {
        let why = format!("the body is longer than {max} bytes");
        json_answer(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "error": why }))
    };
    if request.body().size_hint().lower() > max as u64 {
        return Err(too_long());
    }
    let body = Limited::new(request.into_body(), max).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(bad("the body is incomplete")),
        Err(_) => Err(json_answer(StatusCode::REQUEST_TIMEOUT, &json!({ "error": "the body took too long" }))),
    }
}

pub(super) fn bad(why: &str) -> AdminAnswer {
    json_answer(StatusCode::BAD_REQUEST, &json!({ "error": why }))
}

/// Takes records as ledger lines: those of another node, or promises for another program.
async fn ledger(body: &[u8], are_new: bool, commands: &mpsc::Sender<AdminCommand>) -> AdminAnswer {
    let (book, notices) = crate::ledger::read_book(body);
    if !notices.is_empty() {
        let texts: Vec<String> = notices.iter().map(ToString::to_string).collect();
        return bad(&texts.join("; "));
    }
    let records = book.records().collect();
    let taken = match are_new {
        true => ask(commands, |reply| AdminCommand::Promise { records, reply }).await,
        false => ask(commands, |reply| AdminCommand::Ledger { records, reply })
            .await
            .map(|taken| taken.map_err(Objection::from)),
    };
    match taken {
        Some(Ok(news)) => json_answer(StatusCode::OK, &json!({ "ok": true, "news": news })),
        Some(Err(objection)) => json_answer(StatusCode::CONFLICT, &json!(objection)),
        None => gone(),
    }
}

async fn explain(body: &[u8], commands: &mpsc::Sender<AdminCommand>) -> AdminAnswer {
    let asked = match serde_json::from_slice(body) {
        Ok(asked) => Box::new(asked),
        Err(error) => return bad(&error.to_string()),
    };
    match ask(commands, |reply| AdminCommand::Explain { asked, reply }).await {
        Some(Ok(report)) => json_answer(StatusCode::OK, &report),
        Some(Err(reason)) => bad(&reason.line()),
        None => gone(),
    }
}

async fn judge(body: &[u8], commands: &mpsc::Sender<AdminCommand>) -> AdminAnswer {
    match serde_json::from_slice(body) {
        Ok(asked) => verdict(ask(commands, |reply| AdminCommand::Judge { asked, reply }).await),
        Err(error) => bad(&error.to_string()),
    }
}

/// For the tests of the sandbox: makes an attempt that must fail, on an ordinary thread.
#[cfg(debug_assertions)]
async fn attempt(what: String, with: String) -> AdminAnswer {
    let tried = tokio::task::spawn_blocking(move || crate::os::sandbox::attempts::attempt(&what, &with)).await;
    let outcome = match tried {
        Ok(Ok(())) => "done".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic.to_string(),
    };
    json_answer(StatusCode::OK, &json!({ "outcome": outcome }))
}

fn verdict(verdict: Option<ReloadOutcome>) -> AdminAnswer {
    match verdict {
        Some(verdict) => {
            let status = if verdict.ok { StatusCode::OK } else { StatusCode::CONFLICT };
            json_answer(status, &json!(verdict))
        }
        None => gone(),
    }
}

fn other_method(allowed: &'static str) -> AdminAnswer {
    let mut answer = json_answer(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": format!("only {allowed}") }));
    answer.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

pub(super) fn gone() -> AdminAnswer {
    json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "pintle is stopping" }))
}

pub(super) fn json_answer(status: StatusCode, value: &Value) -> AdminAnswer {
    let mut answer = text_answer("application/json", format!("{value:#}\n"));
    *answer.status_mut() = status;
    answer
}

fn text_answer(kind: &'static str, text: String) -> AdminAnswer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

impl Control {
    /// Carries out a command. The answer is dropped if its caller has gone.
    pub(super) async fn obey(&mut self, command: AdminCommand) {
        match command {
            AdminCommand::Reload(reply) => {
                let verdict = self.reload().await;
                let _ = reply.send(verdict);
            }
            AdminCommand::Certificates { host, accept, installed, reply } => {
                let verdict = self.look_at_site(&host, accept, installed).await;
                let _ = reply.send(verdict);
            }
            AdminCommand::Ready { strict, reply } => {
                let _ = reply.send(if strict { self.strictly_ready() } else { Ok(()) });
            }
            AdminCommand::Upgrade(reply) => self.begin_upgrade(Some(reply)),
            AdminCommand::Status(reply) => {
                let _ = reply.send(self.status());
            }
            AdminCommand::Metrics { format, reply } => {
                let _ = reply.send(self.metrics(format));
            }
            AdminCommand::Ledger { records, reply } => {
                let result = self.merge(records).await;
                let _ = reply.send(result);
            }
            AdminCommand::Promise { records, reply } => {
                let result = self.promise(records).await;
                let _ = reply.send(result);
            }
            AdminCommand::Served(reply) => {
                let _ = reply.send(self.served());
            }
            AdminCommand::Judge { asked, reply } => {
                let _ = reply.send(self.judge_certificate(&asked));
            }
            AdminCommand::Promised { site, reply } => {
                let _ = reply.send(self.promised(&site));
            }
            AdminCommand::Explain { asked, reply } => {
                let report = self.explain(&asked).await;
                let _ = reply.send(report);
            }
            AdminCommand::Acme(asked) => self.ask_acme(asked),
            AdminCommand::TestHooks { name, reply } => self.test_hooks(name.as_deref(), reply),
            AdminCommand::Book(reply) => {
                // The caller reads the file, too.
                let _ = self.keep_ledger().await;
                let _ = reply.send(self.known());
            }
        }
    }

    /// The book, and the time for judgements.
    pub(super) fn known(&self) -> PromisesInForce {
        let now = self.now();
        let lines = self.ledger().book().records().map(|record| record.line()).collect();
        PromisesInForce { now, lines, days: Some(self.config.days()) }
    }

    pub(super) fn promised(&self, site: &str) -> Vec<(Pin, i64)> {
        let ledger = self.ledger();
        let mut since: std::collections::BTreeMap<Pin, i64> = std::collections::BTreeMap::new();
        for promise in ledger.book().promises().iter().filter(|p| p.site == site) {
            for pin in &promise.pins {
                let first = since.entry(*pin).or_insert(promise.first_sent);
                *first = (*first).min(promise.first_sent);
            }
        }
        since.into_iter().collect()
    }
}

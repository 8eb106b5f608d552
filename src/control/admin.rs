//! The HTTP interface behind the admin socket.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, ETAG, HOST, IF_MATCH, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use super::api::CommandChannel;
use super::events::Tested;
use super::explain::DescribedRequest;
use super::reload::{Installed, ReloadOutcome};
use super::served::{CertificateToJudge, Objection};
use super::token::Token;
use super::upgrade::UpgradeOutcome;
use super::{Control, acme, metrics_body, records, views};
use crate::admin::api::{Answer, Api as _, Call, JSON, find};
use crate::admin::role::AdminRole;
use crate::admin::session::PageSession;
use crate::admin::{self, AnswerBody, Pages, is_safe};
use crate::config::{DaysInUse, TOKEN};
use crate::host::bare;
use crate::keys::pin::Pin;
use crate::ledger::Record;
use crate::policy::promise::Seconds;
use crate::reason::Reason;
use crate::telemetry::exposition::{Exposition, Format};

/// The longest body of a form, in bytes.
const FORM_MAX: usize = 1 << 20;
/// The name of the reader whom the socket's permissions or the token let in.
const OWNER: &str = "owner";
/// Time limit for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The header that commands over TCP must carry: a browser asks before it sends it elsewhere.
pub const HEADER: &str = "pintle-admin";

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
        reply: oneshot::Sender<Exposition>,
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
    /// Return the recent records of the access log.
    Records(oneshot::Sender<records::KeptRecords>),
    /// Tell why a record's request ended as it did.
    ExplainRecord {
        record: Box<Value>,
        reply: oneshot::Sender<Value>,
    },
    /// Send a test to a hook, or to all. Answers with each hook and its failure.
    TestHooks {
        name: Option<String>,
        reply: oneshot::Sender<Tested>,
    },
    /// All records of the ledger.
    Book(oneshot::Sender<PromisesInForce>),
    /// Answer a question of a page.
    View {
        question: views::PageQuestion,
        reply: oneshot::Sender<views::Answered>,
    },
    /// Keep the report of `pintle doctor`.
    Findings {
        report: Value,
        reply: oneshot::Sender<()>,
    },
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

/// The origin of a request.
pub(super) enum Caller {
    /// From the Unix socket, by a process of this user or of root.
    Owner,
    /// From the Unix socket, by a process of another user, whatever the file's permissions.
    Stranger,
    /// From this host over TCP; the token decides.
    Tcp(Arc<Token>),
}

/// The admin thread's part in an answer.
pub(super) struct AdminShared {
    pub(super) api: CommandChannel,
    pub(super) pages: Pages,
}

/// Answers a request of the admin listener: the API's, or that for a page.
pub(super) async fn answer(request: Request<Incoming>, caller: &Caller, shared: &AdminShared) -> Response<AnswerBody> {
    if let Some(refusal) = refusal(&request, caller) {
        return refusal;
    }
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path();
    let is_page = admin::is_page(&parts.method, path);
    let max = if is_page { FORM_MAX } else { find(path).map_or(0, |path| path.body) };
    let bytes = match body(incoming, max).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refusal,
    };
    if is_page {
        return shared.pages.answer(&shared.api, Request::from_parts(parts, bytes), owner()).await;
    }
    // hyper leaves the body out of responses to HEAD.
    let method = if parts.method == Method::HEAD { Method::GET } else { parts.method };
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let accept = parts.headers.get_all(ACCEPT).iter().filter_map(|field| field.to_str().ok()).collect::<Vec<_>>();
    let call = Call {
        query: parts.uri.query().unwrap_or_default().to_owned(),
        body: bytes,
        if_match: text(IF_MATCH),
        accept: accept.join(","),
        who: OWNER.to_owned(),
        ..Call::new(method, path)
    };
    match shared.api.metrics(&call).await {
        Some(metrics) => respond_with(metrics),
        None => respond(shared.api.call(call).await),
    }
}

/// The reader behind the admin socket, or with the token.
fn owner() -> PageSession {
    PageSession { who: OWNER.to_owned(), role: AdminRole::Configure, csrf: String::new() }
}

fn respond_with(metrics: Exposition) -> Response<AnswerBody> {
    let kind = HeaderValue::from_static(metrics.format().content_type());
    let mut response = Response::new(metrics_body::written(metrics));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    admin::guard::protect(response.headers_mut());
    response
}

fn respond(answer: Answer) -> Response<AnswerBody> {
    let text = match answer.body {
        Value::String(text) if answer.kind != JSON => text,
        value => format!("{value:#}\n"),
    };
    let mut response = Response::new(admin::body(text));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.kind));
    for (name, value) in [(ETAG, answer.etag), (ALLOW, answer.allow)] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    admin::guard::protect(headers);
    response
}

/// The refusal of a caller who may not send commands; `None` if the caller may.
fn refusal<B>(request: &Request<B>, caller: &Caller) -> Option<Response<AnswerBody>> {
    let error = |status, why: String| Some(respond(Answer::error(status, &why)));
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
            answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            Some(answer)
        }
        Caller::Tcp(_) => None,
    }
}

/// Protects against pages that make a browser talk to this port: such a request names another host,
/// or cannot carry the header.
fn is_from_here<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let authority = host.parse::<http::uri::Authority>();
    let name = authority.as_ref().map(|a| bare(a.host())).unwrap_or_default();
    let local = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    local && (is_safe(request.method()) || request.headers().contains_key(HEADER))
}

/// Reads a body of at most `max` bytes. With 0, leaves it unread.
async fn body(incoming: Incoming, max: usize) -> Result<Bytes, Response<AnswerBody>> {
    let too_long = || {
        let why = format!("the body is longer than {max} bytes");
        respond(Answer::error(StatusCode::PAYLOAD_TOO_LARGE, &why))
    };
    if max == 0 {
        return Ok(Bytes::new());
    }
    if incoming.size_hint().lower() > max as u64 {
        return Err(too_long());
    }
    let body = Limited::new(incoming, max).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(respond(Answer::bad("the body is incomplete"))),
        Err(_) => Err(respond(Answer::error(StatusCode::REQUEST_TIMEOUT, "the body took too long"))),
    }
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
            AdminCommand::Records(reply) => {
                let _ = reply.send(self.kept_records());
            }
            AdminCommand::ExplainRecord { record, reply } => {
                let told = self.explain_record(&record).await;
                let _ = reply.send(told);
            }
            AdminCommand::Acme(asked) => self.ask_acme(asked),
            AdminCommand::TestHooks { name, reply } => self.test_hooks(name.as_deref(), reply),
            AdminCommand::View { question, reply } => _ = reply.send(self.view(question)),
            AdminCommand::Findings { report, reply } => self.keep_findings(report, reply),
            AdminCommand::Book(reply) => {
                // The caller reads the file, too.
                let _ = self.keep_ledger().await;
                let _ = reply.send(self.known());
            }
        }
    }
}

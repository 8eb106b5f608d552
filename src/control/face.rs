//! The HTTP face of the admin listener: who asks, for what, and whether they may.

use std::any::Any;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, ETAG, EXPECT, IF_MATCH, STRICT_TRANSPORT_SECURITY, UPGRADE,
    WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use serde_json::{Value, json};

use super::admin_body::{body, discard};
use super::api::CommandChannel;
use super::metrics_body;
use super::state::Caller;
use super::visitor_places::VisitorPlaces;
use crate::admin::api::{Answer, Api as _, Call, JSON, find, without_version};
use crate::admin::asked::parameter;
use crate::admin::entrance::{ClientProof, PageVisitor, is_entrance};
use crate::admin::guard::{self, CSRF_HEADER, is_safe};
use crate::admin::session::{LINK_LIFE, PageSession};
use crate::admin::{self, AnswerBody, PageReader, Pages};
use crate::config::TOKEN;
use crate::config::admin::{AdminRole, is_name};
use crate::config::admin_https::SharedAdminHttps;
use crate::telemetry::exposition::Exposition;

/// The longest body of a form, in bytes.
const FORM_MAX: usize = 1 << 20;
/// The longest form that is waited for before it is refused, in bytes: a browser that still sends shows no answer.
const UPLOAD_MAX: u64 = 64 << 20;
/// The longest form of somebody who has no session, in bytes: a name and a password.
const LOG_IN_MAX: usize = 4 << 10;
/// The longest form whose text goes back to a reader whose session has ended, in bytes.
const TEXT_MAX: usize = 128 << 10;
/// Time limit for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The header that commands over TCP must carry: a browser asks before it sends it elsewhere.
pub(super) const HEADER: &str = "pintle-admin";
/// The header with the name of the user behind a command, for the log.
pub(super) const WHO: &str = "pintle-who";
/// The name of the caller if the command does not say it.
const OWNER: &str = "owner";
/// The protocol that a connection changes to before it carries a browser's requests.
pub(super) const BROWSER: &str = "pintle-browser";

/// A connection of the admin listener.
pub(super) struct AdminConnection {
    pub(super) caller: Caller,
    pub(super) shared: Rc<AdminShared>,
    /// The permit for the connection, given back when it ends.
    pub(super) permit: Rc<dyn Any>,
}

/// The admin thread's part in an answer.
pub(super) struct AdminShared {
    pub(super) api: CommandChannel,
    pub(super) pages: Pages,
    /// The pages over TLS, as configured.
    pub(super) https: SharedAdminHttps,
    /// The places of their connections.
    pub(super) places: Rc<VisitorPlaces>,
}

impl Caller {
    fn visitor(&self) -> PageVisitor {
        let (address, is_secure, client) = match self {
            Self::Owner | Self::Stranger | Self::Browser => (None, false, ClientProof::NotWanted),
            Self::Tcp { from, .. } => (Some(from.ip()), false, ClientProof::NotWanted),
            Self::Visitor { from, client, .. } => (Some(from.ip()), true, client.clone()),
        };
        PageVisitor { address, is_secure, client }
    }

    /// The reason against the field `Host` of a browser.
    fn misnamed(&self, headers: &HeaderMap) -> Option<&'static str> {
        match self {
            Self::Visitor { https, .. } => {
                let why = "the field Host has a name that the certificate of the pages does not cover: open another";
                (!guard::names(headers, |name| https.covers(name))).then_some(why)
            }
            _ => {
                let why = "the field Host names another machine (DNS rebinding): open 127.0.0.1 or localhost";
                (!guard::names_this_machine(headers)).then_some(why)
            }
        }
    }
}

/// Serves a connection, which may become that of a browser.
pub(super) async fn serve(
    stream: impl Read + Write + Unpin + Send + 'static,
    connection: AdminConnection,
) -> hyper::Result<()> {
    let connection = &connection;
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(request, connection).await) });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(stream, service)
        .with_upgrades()
        .await
}

/// Answers a request of the admin listener: the API's, or that for a page.
async fn answer(request: Request<Incoming>, connection: &AdminConnection) -> Response<AnswerBody> {
    let mut response = answer_by_caller(request, connection).await;
    if let Caller::Visitor { https, .. } = &connection.caller
        && let Some(policy) = https.hsts.as_ref().and_then(|policy| HeaderValue::try_from(policy).ok())
    {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, policy);
    }
    response
}

async fn answer_by_caller(request: Request<Incoming>, connection: &AdminConnection) -> Response<AnswerBody> {
    let AdminConnection { caller, shared, .. } = connection;
    let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
    let is_commander = match caller {
        Caller::Owner | Caller::Stranger => true,
        Caller::Browser | Caller::Visitor { .. } => false,
        Caller::Tcp { .. } => headers.contains_key(AUTHORIZATION),
    };
    if !is_commander {
        let session = shared.pages.entrance.session(headers, &caller.visitor());
        if session.is_some() || admin::is_for_browsers(method, path) || matches!(caller, Caller::Visitor { .. }) {
            return browser(request, session, connection).await;
        }
    }
    if let Some(refusal) = refusal(method, headers, caller) {
        return refusal;
    }
    let owner = PageSession { who: who(headers), role: AdminRole::Configure, csrf: String::new() };
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path();
    if admin::is_page(&parts.method, path) {
        let bytes = match form(incoming, &parts, &owner, connection).await {
            Ok(bytes) => bytes,
            Err(refusal) => return refusal,
        };
        let request = Request::from_parts(parts, bytes);
        return shared.pages.answer(&shared.api, request, PageReader::Owner(owner), &caller.visitor()).await;
    }
    let bytes = match body(incoming, body_max(path)).await {
        Ok(bytes) => bytes,
        Err(refusal) => return respond(refusal),
    };
    match (&parts.method, without_version(path)) {
        (&Method::POST, "/page/link") => link(parts.uri.query().unwrap_or_default(), &owner.who, shared),
        (&Method::POST, "/page/browser") => change_to_browser(parts, connection),
        _ => called(call(&parts, bytes, owner, &caller.visitor()), shared).await,
    }
}

/// Answers a call of the API.
async fn called(call: Call, shared: &AdminShared) -> Response<AnswerBody> {
    match shared.api.metrics(&call).await {
        Some(metrics) => respond_with(metrics),
        None => respond(shared.api.call(call).await),
    }
}

fn respond_with(metrics: Exposition) -> Response<AnswerBody> {
    let kind = HeaderValue::from_static(metrics.format().content_type());
    let mut response = Response::new(metrics_body::written(metrics));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    guard::protect(response.headers_mut());
    response
}

/// Answers a browser: its session decides, and it proves that the request is from a page of ours.
async fn browser(
    request: Request<Incoming>,
    session: Option<(PageSession, String)>,
    connection: &AdminConnection,
) -> Response<AnswerBody> {
    let AdminConnection { caller, shared, .. } = connection;
    let visitor = caller.visitor();
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path();
    let forged = guard::forgery(&parts.method, &parts.headers);
    let why = forged.or_else(|| caller.misnamed(&parts.headers));
    if let Some(why) = why {
        if shared.pages.entrance.may_warn() {
            tracing::warn!(why, from = visitor.from(), "request of a browser refused");
        }
        return respond(Answer::error(StatusCode::FORBIDDEN, why));
    }
    if admin::is_page(&parts.method, path) {
        let read = match &session {
            Some((reader, _)) => form(incoming, &parts, reader, connection).await,
            None if is_entrance(&parts.method, path) => body(incoming, LOG_IN_MAX).await.map_err(respond),
            // The session may have ended while its reader wrote: the text goes back to them.
            None if incoming.size_hint().upper().is_some_and(|length| length <= TEXT_MAX as u64) => {
                body(incoming, TEXT_MAX).await.map_err(respond)
            }
            None => {
                discard(incoming, FORM_MAX as u64).await;
                Ok(Bytes::new())
            }
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(refusal) => return refusal,
        };
        let request = Request::from_parts(parts, bytes);
        return shared.pages.answer(&shared.api, request, PageReader::Browser(session), &visitor).await;
    }
    // Before the body is read: nobody fills the memory without the role to.
    let session = match caller_of_api(&parts, session, &visitor) {
        Ok(session) => session,
        Err(refusal) => {
            discard(incoming, FORM_MAX as u64).await;
            return respond(refusal);
        }
    };
    match body(incoming, body_max(path)).await {
        Ok(bytes) => called(call(&parts, bytes, session, &visitor), shared).await,
        Err(refusal) => respond(refusal),
    }
}

/// The session of a browser that may make this call.
fn caller_of_api(
    parts: &Parts,
    session: Option<(PageSession, String)>,
    visitor: &PageVisitor,
) -> Result<PageSession, Answer> {
    let Some((session, id)) = session else {
        let why = visitor.client.objection();
        let why = why.map_or_else(|| "sign in first".to_owned(), |why| format!("sign in first. {why}"));
        return Err(Answer::error(StatusCode::UNAUTHORIZED, &why));
    };
    let token = parts.headers.get(CSRF_HEADER).and_then(|token| token.to_str().ok()).unwrap_or_default();
    // A program with a certificate has no page that gives it a token. Pages of other origins cannot send the header.
    let is_program = id.is_empty() && parts.headers.contains_key(HEADER);
    if !is_safe(&parts.method) && !session.fits(token) && !is_program {
        let why = format!("send the header {CSRF_HEADER} with the token of this session");
        return Err(Answer::error(StatusCode::FORBIDDEN, &why));
    }
    let path = parts.uri.path();
    match find(path).and_then(|path| path.role(&parts.method)) {
        Some(needed) if !session.may(needed) => Err(Answer::needs_role(needed)),
        _ if without_version(path).starts_with("/page/") => {
            Err(Answer::error(StatusCode::FORBIDDEN, "only the command `pintle page` may do this"))
        }
        _ => Ok(session),
    }
}

/// The longest body that a path of the API reads.
fn body_max(path: &str) -> usize {
    find(path).map_or(0, |path| path.body)
}

/// The call of the API behind a request. hyper leaves the body out of responses to HEAD.
fn call(parts: &Parts, body: Bytes, session: PageSession, visitor: &PageVisitor) -> Call {
    let method = if parts.method == Method::HEAD { Method::GET } else { parts.method.clone() };
    let accept = parts.headers.get_all(ACCEPT).iter().filter_map(|field| field.to_str().ok()).collect::<Vec<_>>();
    Call {
        query: parts.uri.query().unwrap_or_default().to_owned(),
        body,
        if_match: parts.headers.get(IF_MATCH).and_then(|value| value.to_str().ok()).map(str::to_owned),
        accept: accept.join(","),
        shows_secrets: session.may(AdminRole::Configure),
        who: session.who,
        is_confidential: visitor.is_confidential(),
        ..Call::new(method, parts.uri.path())
    }
}

/// The user behind a command, as the command states it: its caller may do everything in any case.
fn who(headers: &HeaderMap) -> String {
    let stated = headers.get(WHO).and_then(|who| who.to_str().ok()).unwrap_or_default();
    if is_name(stated) { stated.to_owned() } else { OWNER.to_owned() }
}

/// Makes a one-time link for a browser.
fn link(query: &str, who: &str, shared: &AdminShared) -> Response<AnswerBody> {
    let role = parameter(query, "role").map_or(Ok(AdminRole::Configure), |role| role.parse());
    let role = match role {
        Ok(role) => role,
        Err(expected) => return respond(Answer::bad(&format!("role: {expected}"))),
    };
    respond(match shared.pages.entrance.link(who, role) {
        Some(path) => {
            let body = json!({ "path": path, "role": role.name(), "seconds": LINK_LIFE.as_secs() });
            Answer::json(StatusCode::OK, body)
        }
        None => Answer::error(StatusCode::SERVICE_UNAVAILABLE, "no random bytes"),
    })
}

/// Turns a connection of the owner into one of a browser: what comes then needs a session.
fn change_to_browser(parts: Parts, connection: &AdminConnection) -> Response<AnswerBody> {
    let wants = parts.headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes() == BROWSER.as_bytes());
    if !wants || !matches!(connection.caller, Caller::Owner) {
        return respond(Answer::bad(&format!("send Upgrade: {BROWSER} to a Unix socket")));
    }
    let upgrade = hyper::upgrade::on(Request::from_parts(parts, ()));
    let browser = AdminConnection {
        caller: Caller::Browser,
        shared: connection.shared.clone(),
        permit: connection.permit.clone(),
    };
    tokio::task::spawn_local(async move {
        if let Ok(upgraded) = upgrade.await {
            let _ = serve(upgraded, browser).await;
        }
    });
    let mut response = Response::new(admin::body(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(BROWSER));
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
    guard::protect(headers);
    response
}

/// The refusal of a caller who may not send commands; `None` if the caller may.
fn refusal(method: &Method, headers: &HeaderMap, caller: &Caller) -> Option<Response<AnswerBody>> {
    let error = |status, why: String| Some(respond(Answer::error(status, &why)));
    match caller {
        Caller::Owner => None,
        Caller::Stranger => {
            error(StatusCode::FORBIDDEN, format!("ask as the user {}, or as root", crate::os::privileges::user()))
        }
        Caller::Browser | Caller::Visitor { .. } => error(StatusCode::UNAUTHORIZED, "sign in first".to_owned()),
        // A page can make a browser talk to this port: such a request names another host, or cannot carry the header.
        Caller::Tcp { .. }
            if !guard::names_this_machine(headers) || !is_safe(method) && !headers.contains_key(HEADER) =>
        {
            error(StatusCode::FORBIDDEN, format!("send the header {HEADER}: 1, and this host's address as Host"))
        }
        Caller::Tcp { token, .. } if !token.fits(headers) => {
            let why = format!("send Authorization: Bearer with the contents of {TOKEN} in state.directory");
            let mut answer = error(StatusCode::UNAUTHORIZED, why)?;
            let scheme = HeaderValue::from_static("Bearer realm=\"pintle\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            Some(answer)
        }
        Caller::Tcp { .. } => None,
    }
}

/// Reads the form of a page. The refusal is a page, too.
async fn form(
    incoming: Incoming,
    parts: &Parts,
    reader: &PageSession,
    connection: &AdminConnection,
) -> Result<Bytes, Response<AnswerBody>> {
    let AdminConnection { caller, shared, .. } = connection;
    // Whoever waits for 100 (Continue) sends nothing.
    let is_sending = !parts.headers.contains_key(EXPECT);
    let read = if is_sending && incoming.size_hint().lower() > FORM_MAX as u64 {
        discard(incoming, UPLOAD_MAX).await;
        Err(StatusCode::PAYLOAD_TOO_LARGE)
    } else {
        body(incoming, FORM_MAX).await.map_err(|refusal| refusal.status)
    };
    read.map_err(|status| shared.pages.unread(parts, reader.clone(), status, &caller.visitor()))
}

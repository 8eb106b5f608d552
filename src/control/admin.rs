//! The admin socket: HTTP for the operator's commands, on a socket that only he can open.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, spawn_local};

use super::Control;
use super::reload::Verdict;
use crate::config::AdminAddress;
use crate::ledger::{Book, Record};
use crate::pin::Pin;

/// The longest body of a command: a ledger of another node.
const BODY_MAX: usize = 64 << 20;
/// Connections at the same time.
const CONNECTIONS_MAX: usize = 32;
/// How long a client may take to say what it wants.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// What a command over TCP must carry. A page in a browser cannot send it to another origin without being asked first.
pub const HEADER: &str = "pintle-admin";
/// The longest path of a socket that the kernel takes.
const SOCKET_PATH_MAX: usize = 107;

/// Something that the operator wants.
pub(super) enum Command {
    Reload(oneshot::Sender<Verdict>),
    /// Look at a site's files now; the day until which a lockout is accepted, if one is.
    Certificates {
        host: String,
        accept: Option<String>,
        reply: oneshot::Sender<Verdict>,
    },
    Status(oneshot::Sender<Value>),
    Metrics(oneshot::Sender<String>),
    /// Records that are to be added to the ledger: how many were news.
    Ledger {
        records: Vec<Record>,
        reply: oneshot::Sender<Result<usize, String>>,
    },
    /// Since when each pin of a site is promised.
    Promised {
        site: String,
        reply: oneshot::Sender<Vec<(Pin, i64)>>,
    },
}

/// The socket, while it is open.
pub struct Listening {
    address: AdminAddress,
    task: AbortHandle,
}

impl Listening {
    pub(super) fn address(&self) -> &AdminAddress {
        &self.address
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        if let AdminAddress::Unix(path) = &self.address {
            let _ = fs::remove_file(path);
        }
    }
}

/// Begins to listen.
pub(super) fn listen(address: &AdminAddress, commands: mpsc::Sender<Command>) -> io::Result<Listening> {
    let limit = Rc::new(Semaphore::new(CONNECTIONS_MAX));
    let task = match address {
        AdminAddress::Unix(path) => {
            let listener = bind_unix(path)?;
            spawn_local(async move {
                loop {
                    match listener.accept().await {
                        Ok((socket, _)) => begin(socket, false, &commands, &limit),
                        Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                    }
                }
            })
        }
        AdminAddress::Tcp(address) => {
            let listener = std::net::TcpListener::bind(address).map_err(|e| named(&address.to_string(), &e))?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            spawn_local(async move {
                loop {
                    match listener.accept().await {
                        Ok((socket, _)) => begin(socket, true, &commands, &limit),
                        Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                    }
                }
            })
        }
    };
    Ok(Listening { address: address.clone(), task: task.abort_handle() })
}

fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("admin.listen: {what}: {error}"))
}

/// A socket for this user alone. It gets its name when it has its permissions, so that there is no moment between.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let error = |e: &io::Error| named(&path.display().to_string(), e);
    let fresh = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
    if fresh.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(error(&io::Error::new(io::ErrorKind::InvalidInput, "the path is too long for a socket")));
    }
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| error(&e))?;
    }
    // Another process that is alive answers; one that is dead has left its name behind.
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(error(&io::Error::new(io::ErrorKind::AddrInUse, "another pintle listens there")));
    }
    let _ = fs::remove_file(&fresh);
    let bound = std::os::unix::net::UnixListener::bind(&fresh).map_err(|e| error(&e))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path).map_err(|e| error(&e))?;
    bound.set_nonblocking(true)?;
    UnixListener::from_std(bound)
}

fn begin(
    socket: impl AsyncRead + AsyncWrite + Unpin + 'static,
    over_tcp: bool,
    commands: &mpsc::Sender<Command>,
    limit: &Rc<Semaphore>,
) {
    let Ok(permit) = limit.clone().try_acquire_owned_local() else { return };
    let commands = commands.clone();
    spawn_local(async move {
        let _permit = permit;
        let service = service_fn(|request| {
            let commands = commands.clone();
            async move { Ok::<_, std::convert::Infallible>(answer(request, over_tcp, &commands).await) }
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .keep_alive(false)
            .serve_connection(TokioIo::new(socket), service)
            .await;
    });
}

/// A place among the connections, given back when it is dropped.
struct Permit(Rc<Semaphore>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

trait AcquireLocal {
    fn try_acquire_owned_local(self) -> Result<Permit, tokio::sync::TryAcquireError>;
}

impl AcquireLocal for Rc<Semaphore> {
    fn try_acquire_owned_local(self) -> Result<Permit, tokio::sync::TryAcquireError> {
        self.try_acquire()?.forget();
        Ok(Permit(self))
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(request: Request<Incoming>, over_tcp: bool, commands: &mpsc::Sender<Command>) -> Answer {
    if over_tcp && !is_from_here(&request) {
        return json_answer(
            StatusCode::FORBIDDEN,
            &json!({ "error": format!("send the header {HEADER}: 1, and this host's address as Host") }),
        );
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let parameter =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
    match (&method, path.as_str()) {
        (&Method::GET, "/status") => match ask(commands, Command::Status).await {
            Some(status) => json_answer(StatusCode::OK, &status),
            None => gone(),
        },
        (&Method::GET, "/metrics") => match ask(commands, Command::Metrics).await {
            Some(text) => text_answer("text/plain; version=0.0.4; charset=utf-8", text),
            None => gone(),
        },
        (&Method::GET, "/ready") => text_answer("text/plain; charset=utf-8", "ready\n".into()),
        (&Method::GET, "/promised") => {
            let site = parameter("site").unwrap_or_default();
            match ask(commands, |reply| Command::Promised { site, reply }).await {
                Some(pins) => {
                    let pins: Vec<Value> = pins
                        .into_iter()
                        .map(|(pin, since)| json!({ "pin": pin.to_string(), "since": since }))
                        .collect();
                    json_answer(StatusCode::OK, &json!(pins))
                }
                None => gone(),
            }
        }
        (&Method::POST, "/reload") => verdict(ask(commands, Command::Reload).await),
        (&Method::POST, "/certificates") => {
            let (host, accept) = (parameter("host").unwrap_or_default(), parameter("accept_lockout_until"));
            verdict(ask(commands, |reply| Command::Certificates { host, accept, reply }).await)
        }
        (&Method::POST, "/ledger") => ledger(request, commands).await,
        (_, "/status" | "/metrics" | "/ready" | "/promised" | "/reload" | "/certificates" | "/ledger") => {
            json_answer(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "another method" }))
        }
        _ => json_answer(StatusCode::NOT_FOUND, &json!({ "error": "no such command" })),
    }
}

/// Against pages that make a browser talk to this port: it names another host, or cannot send the header.
fn is_from_here<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(http::header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let local = name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let reads = *request.method() == Method::GET;
    local && (reads || request.headers().contains_key(HEADER))
}

async fn ask<T>(commands: &mpsc::Sender<Command>, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.ok()?;
    answer.await.ok()
}

/// Records come as the ledger has them, a line each.
async fn ledger(request: Request<Incoming>, commands: &mpsc::Sender<Command>) -> Answer {
    let bad = |why: &str| json_answer(StatusCode::BAD_REQUEST, &json!({ "error": why }));
    let Ok(body) = Limited::new(request.into_body(), BODY_MAX).collect().await else {
        return bad("the body is too long");
    };
    let (book, notices) = crate::ledger::read_book(&body.to_bytes());
    if !notices.is_empty() {
        let told: Vec<String> = notices.iter().map(ToString::to_string).collect();
        return bad(&told.join("; "));
    }
    let records = book.records().collect();
    match ask(commands, |reply| Command::Ledger { records, reply }).await {
        Some(Ok(news)) => json_answer(StatusCode::OK, &json!({ "ok": true, "news": news })),
        Some(Err(why)) => json_answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": why })),
        None => gone(),
    }
}

fn verdict(verdict: Option<Verdict>) -> Answer {
    match verdict {
        Some(verdict) => {
            let status = if verdict.ok { StatusCode::OK } else { StatusCode::CONFLICT };
            json_answer(status, &json!(verdict))
        }
        None => gone(),
    }
}

fn gone() -> Answer {
    json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "pintle is stopping" }))
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let mut answer = text_answer("application/json", format!("{value:#}\n"));
    *answer.status_mut() = status;
    answer
}

fn text_answer(kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

impl Control {
    /// Carries a command out. Who does not wait for the answer does not get one.
    pub(super) async fn obey(&mut self, command: Command) {
        match command {
            Command::Reload(reply) => {
                let verdict = self.reload().await;
                let _ = reply.send(verdict);
            }
            Command::Certificates { host, accept, reply } => {
                let verdict = self.look_at_site(&host, accept).await;
                let _ = reply.send(verdict);
            }
            Command::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Command::Metrics(reply) => {
                let _ = reply.send(self.metrics());
            }
            Command::Ledger { records, reply } => {
                let result = self.merge(records).await;
                let _ = reply.send(result);
            }
            Command::Promised { site, reply } => {
                let _ = reply.send(self.promised(&site));
            }
        }
    }

    async fn merge(&mut self, records: Vec<Record>) -> Result<usize, String> {
        let mut other = Book::default();
        for record in records.into_iter().filter(Record::travels) {
            other.apply(record);
        }
        let news = self.ledger().book().news(&other);
        let count = news.len();
        self.record(news).await.map_err(|e| format!("the ledger cannot be written: {e}"))?;
        if count > 0 {
            // What is promised elsewhere binds here, too.
            self.look_at_files().await;
        }
        Ok(count)
    }

    fn promised(&self, site: &str) -> Vec<(Pin, i64)> {
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

//! The client of the admin socket: how commands reach the running process.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, sink};
use tokio::net::{TcpStream, UnixStream};

use super::face::{BROWSER, HEADER, WHO};
use super::token;
use crate::admin::api::{ApiPath, VERSION, find, without_version};
use crate::config::AdminAddress;
use crate::config::admin::is_of_name;
use crate::os::words::words;

/// Time limit for a command: a reload reads every file, and writes the ledger.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Time for the rest of a request that nobody reads.
const LAST_BYTES: Duration = Duration::from_secs(2);
/// The longest answer, in bytes.
const ANSWER_MAX: usize = 256 << 20;

/// The reason why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// No process listens.
    NotRunning(String),
    /// This user has no permission.
    Forbidden(String),
    /// Another process listens, or this one with another configuration: the place of its token is empty.
    Elsewhere(String),
    /// Any other failure.
    Other(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(place) => write!(f, "no pintle listens at {place}"),
            Self::Forbidden(place) => write!(f, "{place}: this user may not open it"),
            Self::Elsewhere(place) => write!(
                f,
                "{place}: the process that listens on this port has left no token there: it runs with another configuration"
            ),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ClientError {}

/// Sends a request to the running process. Returns the status code and the answer.
///
/// # Errors
///
/// [`ClientError`] if there is no answer.
pub fn ask(
    address: &AdminAddress,
    method: Method,
    path: &str,
    body: String,
) -> Result<(StatusCode, String), ClientError> {
    ask_for(address, method, path, body, PATIENCE)
}

/// The same, with a time limit of the caller's.
///
/// # Errors
///
/// [`ClientError`] if there is no answer.
pub fn ask_for(
    address: &AdminAddress,
    method: Method,
    path: &str,
    body: String,
    patience: Duration,
) -> Result<(StatusCode, String), ClientError> {
    ask_if(address, method, path, body, None, patience)
}

/// The same, if the state still has the tag of `if_match`.
///
/// # Errors
///
/// [`ClientError`] if there is no answer.
pub fn ask_if(
    address: &AdminAddress,
    method: Method,
    path: &str,
    body: String,
    if_match: Option<&str>,
    patience: Duration,
) -> Result<(StatusCode, String), ClientError> {
    let other = |e: &dyn fmt::Display| ClientError::Other(e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| other(&e))?;
    runtime.block_on(async {
        let asking = async {
            let path = without_version(path);
            let message = |path| AdminMessage { method: method.clone(), path, body: body.clone(), if_match };
            let answer = once(address, message(format!("{VERSION}{path}"))).await?;
            // A process of an older version has the path without the version only.
            let name = path.split('?').next().unwrap_or_default();
            let has_alias = find(name).is_none_or(ApiPath::has_alias);
            let is_older = answer.0 == StatusCode::NOT_FOUND && has_alias;
            if is_older { once(address, message(path.to_owned())).await } else { Ok(answer) }
        };
        tokio::time::timeout(patience, asking)
            .await
            .unwrap_or_else(|_| Err(ClientError::Other(format!("no answer from pintle within {patience:?}"))))
    })
}

/// A request to the running process.
struct AdminMessage<'a> {
    method: Method,
    path: String,
    body: String,
    if_match: Option<&'a str>,
}

async fn once(address: &AdminAddress, message: AdminMessage<'_>) -> Result<(StatusCode, String), ClientError> {
    match address {
        AdminAddress::Unix(socket) => {
            let place = format!("unix:{}", socket.display());
            let stream = UnixStream::connect(socket).await.map_err(|e| refused(&e, place))?;
            exchange(stream, message, None).await
        }
        AdminAddress::Tcp { address, token } => {
            let stream = TcpStream::connect(address).await.map_err(|e| refused(&e, address.to_string()))?;
            let token = token.as_deref().map(of_file).transpose()?;
            exchange(stream, message, token).await
        }
    }
}

/// Connects a browser to a process, through its Unix socket: the process asks for a session there.
///
/// # Errors
///
/// If the process does not listen, or a connection breaks.
pub async fn relay(socket: &Path, mut browser: TcpStream) -> io::Result<()> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::post("/v1/page/browser")
        .header(http::header::HOST, "localhost")
        .header(http::header::CONNECTION, "upgrade")
        .header(http::header::UPGRADE, BROWSER)
        .body(Full::new(Bytes::new()))
        .map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(io::Error::other(format!("pintle answered {}", answer.status())));
    }
    let upgraded = TokioIo::new(hyper::upgrade::on(answer).await.map_err(io::Error::other)?);
    let (mut from_pintle, mut to_pintle) = tokio::io::split(upgraded);
    let (mut from_browser, mut to_browser) = browser.split();
    let up = async {
        match copy(&mut from_browser, &mut to_pintle).await {
            Ok(_) => to_pintle.shutdown().await,
            // pintle has answered without reading on. The browser reads the answer only if nobody resets its connection.
            Err(_) => copy(&mut from_browser, &mut sink()).await.map(drop),
        }
    };
    let down = async {
        let copied = copy(&mut from_pintle, &mut to_browser).await;
        to_browser.shutdown().await.and(copied).map(drop)
    };
    tokio::pin!(up, down);
    let passed = tokio::select! {
        passed = &mut down => passed,
        _ = &mut up => return down.await,
    };
    let _ = tokio::time::timeout(LAST_BYTES, up).await;
    passed
}

/// The user who types the command, also behind sudo.
fn user_behind() -> String {
    let name = std::env::var("SUDO_USER").ok().filter(|_| crate::os::privileges::is_root());
    let name = name.unwrap_or_else(crate::os::privileges::user);
    name.chars().filter(|c| is_of_name(*c)).collect()
}

fn refused(error: &io::Error, place: String) -> ClientError {
    match error.kind() {
        // Nothing listens below a file.
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning(place)
        }
        io::ErrorKind::PermissionDenied => ClientError::Forbidden(place),
        _ => ClientError::Other(format!("{place}: {}", words(error))),
    }
}

/// Reads the token of the process that listens on a port.
fn of_file(path: &Path) -> Result<String, ClientError> {
    token::of_running(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Forbidden(path.display().to_string()),
        io::ErrorKind::NotFound => ClientError::Elsewhere(path.display().to_string()),
        _ => ClientError::Other(format!(
            "{0}: {1}; the process that listens on this port makes another token within seconds: try again, or \
             else: rm {0}",
            path.display(),
            words(&error)
        )),
    })
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    AdminMessage { method, path, body, if_match }: AdminMessage<'_>,
    token: Option<String>,
) -> Result<(StatusCode, String), ClientError> {
    let other = |e: &dyn fmt::Display| ClientError::Other(format!("admin socket: {e}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| other(&e))?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "localhost")
        .header(HEADER, "1")
        .header(WHO, user_behind());
    if let Some(token) = token {
        request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if let Some(tag) = if_match {
        request = request.header(http::header::IF_MATCH, tag);
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|e| other(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| other(&e))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(|e| other(&e))?;
    Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}

//! The blog behind the demo: a few pages, a picture, a form, and a WebSocket that echoes. It plays the hosted blog
//! that knows only its own name and plain http.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A comment, and how many are kept.
const COMMENT_MAX: usize = 4096;
const COMMENTS_MAX: usize = 50;

type Comments = Arc<Mutex<Vec<String>>>;

/// Gives the blog a port of the system's choice.
pub(super) fn bind() -> io::Result<(std::net::TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Starts it, in a thread of its own.
pub(super) fn start(listener: std::net::TcpListener, address: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("blog".into()).spawn(move || runtime.block_on(serve(listener, address)))?;
    Ok(())
}

async fn serve(listener: std::net::TcpListener, address: SocketAddr) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let comments = Comments::default();
    loop {
        if let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(connection(socket, address, comments.clone()));
        }
    }
}

async fn connection(socket: TcpStream, address: SocketAddr, comments: Comments) {
    let service = service_fn(move |request| answer(request, address, comments.clone()));
    let http = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(socket), service);
    let _ = http.with_upgrades().await;
}

async fn answer(
    request: Request<Incoming>,
    address: SocketAddr,
    comments: Comments,
) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => page("A quiet blog", &front(&comments), cookie()),
        (&Method::GET | &Method::HEAD, "/about") => page("About", &about(&request), None),
        (&Method::GET | &Method::HEAD, "/echo") if is_websocket(&request) => echo(request),
        (&Method::GET | &Method::HEAD, "/echo") => page("Echo", ECHO, None),
        (&Method::GET | &Method::HEAD, "/gate.svg") => picture(),
        // As hosted blogs do: an absolute URL under the only name it knows. pintle tells it as the site's.
        (&Method::GET | &Method::HEAD, "/old-page") => {
            redirect(StatusCode::MOVED_PERMANENTLY, &format!("http://{address}/about"))
        }
        (&Method::POST, "/comment") => comment(request, address, &comments).await,
        _ => {
            let mut response = page("Not found", "<p>There is no such page.</p>", None);
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

fn front(comments: &Comments) -> String {
    let comments = comments.lock().unwrap_or_else(PoisonError::into_inner);
    let list: String = comments.iter().rev().map(|c| format!("<li>{}</li>\n", escape(c))).collect();
    let list = if list.is_empty() { "<li><em>No comments yet.</em></li>".to_owned() } else { list };
    format!(
        "<img src=\"/gate.svg\" alt=\"A gate on its pintle\" width=\"320\" height=\"200\">\n\
         <p>A gate hangs on its pintle. This page is served by a small program that speaks plain HTTP on a port of its \
         own; what stands between you and it is pintle, which speaks TLS, and adds the headers that keep you there.</p>\n\
         <h2>Say something</h2>\n\
         <form method=\"post\" action=\"/comment\"><input name=\"text\" maxlength=\"200\" required aria-label=\"Your comment\"> \
         <button>Post</button></form>\n<ul>\n{list}</ul>\n"
    )
}

/// The page that shows a visitor's request, as pintle passed it on.
fn about(request: &Request<Incoming>) -> String {
    let rows: String = request
        .headers()
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            format!(
                "<tr><td><code>{}</code></td><td><code>{}</code></td></tr>\n",
                escape(name.as_str()),
                escape(&value)
            )
        })
        .collect();
    format!(
        "<p>The blog has never seen your connection. pintle gave it these facts about your request \
         (<code>{} {}</code>):</p>\n<table>\n{rows}</table>\n",
        escape(request.method().as_str()),
        escape(&request.uri().to_string()),
    )
}

const ECHO: &str = "<p>A WebSocket through the proxy. What you type comes back.</p>\n\
    <form id=\"f\"><input id=\"t\" autocomplete=\"off\" aria-label=\"Text\"> <button>Send</button></form>\n<ul id=\"l\"></ul>\n\
    <script>\n\
    const say = text => { const li = document.createElement('li'); li.textContent = text; l.prepend(li); };\n\
    const socket = new WebSocket(location.href.replace(/^http/, 'ws'));\n\
    socket.onopen = () => say('connected');\n\
    socket.onmessage = event => say('echo: ' + event.data);\n\
    socket.onclose = () => say('closed');\n\
    f.onsubmit = event => { event.preventDefault(); socket.send(t.value); t.value = ''; };\n\
    </script>\n";

fn page(title: &str, body: &str, cookie: Option<HeaderValue>) -> Response<Full<Bytes>> {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n:root {{ color-scheme: light dark; --line: #8884 }}\n\
         body {{ font: 1.05rem/1.65 Georgia, serif; max-width: 40rem; margin: 3rem auto; padding: 0 1.25rem }}\n\
         h1, h2, nav {{ font-family: system-ui, sans-serif; line-height: 1.25 }}\n\
         nav a {{ margin-right: 1.2rem }}\n\
         img {{ max-width: 100%; height: auto; border-radius: .5rem; border: 1px solid var(--line) }}\n\
         table {{ border-collapse: collapse; width: 100%; font-size: .9rem }}\n\
         td {{ border-top: 1px solid var(--line); padding: .35rem .5rem .35rem 0; vertical-align: top; overflow-wrap: anywhere }}\n\
         input, button {{ font: inherit; padding: .3rem .6rem }}\n</style>\n\
         <nav><a href=\"/\">Blog</a><a href=\"/about\">About</a><a href=\"/echo\">Echo</a></nav>\n\
         <h1>{title}</h1>\n{body}</html>\n"
    );
    let mut response = Response::new(Full::new(Bytes::from(html)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Some(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Without Secure, as a blog sets it that does not know about TLS; pintle adds it.
fn cookie() -> Option<HeaderValue> {
    Some(HeaderValue::from_static("visited=yes; Path=/; HttpOnly; SameSite=Lax"))
}

fn picture() -> Response<Full<Bytes>> {
    let svg = include_str!("gate.svg");
    let mut response = Response::new(Full::new(Bytes::from_static(svg.as_bytes())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("image/svg+xml"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    response
}

fn redirect(status: StatusCode, to: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

async fn comment(request: Request<Incoming>, address: SocketAddr, comments: &Comments) -> Response<Full<Bytes>> {
    let Ok(form) = Limited::new(request.into_body(), COMMENT_MAX).collect().await else {
        return redirect(StatusCode::SEE_OTHER, "/");
    };
    let form = form.to_bytes();
    let text = form.split(|b| *b == b'&').find_map(|pair| pair.strip_prefix(b"text=")).map(decode).unwrap_or_default();
    if !text.trim().is_empty() {
        let mut comments = comments.lock().unwrap_or_else(PoisonError::into_inner);
        comments.push(text.trim().chars().take(200).collect());
        if comments.len() > COMMENTS_MAX {
            comments.remove(0);
        }
    }
    redirect(StatusCode::SEE_OTHER, &format!("http://{address}/"))
}

/// `application/x-www-form-urlencoded`
fn decode(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [a, b, after @ ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                let digit = |d: &u8| char::from(*d).to_digit(16).and_then(|d| u8::try_from(d).ok()).unwrap_or(0);
                bytes.push(digit(a) * 16 + digit(b));
                rest = after;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

fn is_websocket(request: &Request<Incoming>) -> bool {
    request.headers().get(header::UPGRADE).is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn echo(mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let accept = derive_accept_key(key.as_bytes());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || ((message.is_text() || message.is_binary()) && socket.send(message).await.is_err())
            {
                break;
            }
        }
    });
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        assert_eq!(decode(b"a+b%20c%C3%A9%zz%4"), "a b c\u{e9}%zz%4");
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}

//! A browser in miniature: one request at a time, byte by byte, and the answers' fields.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::harness::{PATIENCE, Pintle};

/// A running `pintle page`.
pub struct PageCommand {
    child: Child,
    pub address: SocketAddr,
    /// The path of the one-time link.
    pub link: String,
}

impl PageCommand {
    pub fn start(pintle: &Pintle, more: &[&str]) -> Self {
        let mut command = pintle.command("page");
        command.args(["--no-open", "--json"]).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let url = answer["url"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        let (address, link) = url.split_once('/').unwrap();
        Self { child, address: address.parse().unwrap(), link: format!("/{link}") }
    }
}

impl Drop for PageCommand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    pub code: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The session cookie as a request sends it back.
    pub fn cookie(&self) -> String {
        let set = self.field("set-cookie").unwrap_or_else(|| panic!("no cookie: {}", self.head));
        set.split(';').next().unwrap().to_owned()
    }

    /// The token in the page's forms.
    pub fn token(&self) -> String {
        let (_, rest) =
            self.body.split_once("name=\"csrf\" value=\"").unwrap_or_else(|| panic!("no form: {}", self.body));
        rest.split('"').next().unwrap().to_owned()
    }
}

/// Sends a request with these lines of the head and this body.
pub fn send(address: SocketAddr, method: &str, path: &str, fields: &[&str], body: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !fields.iter().any(|field| field.starts_with("Host:")) {
        head += &format!("Host: {address}\r\n");
    }
    for field in fields {
        head += &format!("{field}\r\n");
    }
    let _ = stream.write_all(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    Response { code, head: head.to_owned(), body: body.to_owned() }
}

pub fn get(address: SocketAddr, path: &str, fields: &[&str]) -> Response {
    send(address, "GET", path, fields, b"")
}

/// A form of a page: percent-encode what needs it.
pub fn post(address: SocketAddr, path: &str, fields: &[&str], form: &str) -> Response {
    let kind = "Content-Type: application/x-www-form-urlencoded";
    send(address, "POST", path, &[&[kind], fields].concat(), form.as_bytes())
}

/// Runs a program and gives it a line on standard input.
pub fn fed(command: &mut Command, line: &str) -> (i32, String, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(line.as_bytes());
    let done = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (done.status.code().unwrap_or(-1), text(done.stdout), text(done.stderr))
}

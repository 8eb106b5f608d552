//! Headless Chromium, driven by ChromeDriver over WebDriver.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use base64::Engine;
use serde_json::{Value, json};

use super::programs::{Program, free_port, program};
use super::{Authority, output};

/// The key under which WebDriver hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser that trusts the test's CA, and finds all names at one address.
pub struct Browser {
    port: u16,
    session: String,
    _driver: Program,
}

impl Browser {
    #[track_caller]
    pub fn start(authority: &Authority, https: SocketAddr, http: SocketAddr) -> Self {
        let home = authority.folder().join("browser-home");
        let database = home.join(".pki/nssdb");
        std::fs::create_dir_all(&database).unwrap();
        let sql = format!("sql:{}", database.display());
        output(Command::new(program("certutil")).args(["-N", "--empty-password", "-d", &sql]));
        output(
            Command::new(program("certutil"))
                .args(["-A", "-t", "C,,", "-n", "test", "-d", &sql, "-i"])
                .arg(authority.ca_path()),
        );
        let port = free_port();
        let mut command = Command::new(program("chromedriver"));
        command.arg(format!("--port={port}")).env("HOME", &home);
        let driver = Program::start(&mut command, &home, "chromedriver").listens(port);
        let rules =
            format!("MAP *.example.com:443 {https}, MAP *.example.com:80 {http}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1");
        let profile = home.join("profile");
        let arguments = json!([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1200,900",
            // It would try https of its own accord, and never see the redirect.
            "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,HttpsFirstModeV2",
            format!("--host-resolver-rules={rules}"),
            format!("--user-data-dir={}", profile.display()),
        ]);
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "performance": "ALL", "browser": "ALL" },
            "goog:chromeOptions": { "binary": program("chromium"), "args": arguments },
        } } });
        let mut browser = Self { port, session: String::new(), _driver: driver };
        let answer = browser.call("POST", "/session", &capabilities);
        browser.session = answer["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer}")).to_owned();
        browser
    }

    /// One WebDriver command; gives its value.
    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        let body = if method == "GET" { String::new() } else { body.to_string() };
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )
        .unwrap();
        let answer = read_answer(&mut socket);
        let value: Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{method} {path}: {e}: {answer}"));
        assert!(value["value"]["error"].is_null(), "{method} {path}: {value}");
        value["value"].clone()
    }

    #[track_caller]
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.call(method, &format!("/session/{}{path}", self.session), body)
    }

    #[track_caller]
    pub fn go(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    pub fn url(&self) -> String {
        self.command("GET", "/url", &Value::Null).as_str().unwrap().to_owned()
    }

    pub fn title(&self) -> String {
        self.command("GET", "/title", &Value::Null).as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn element(&self, css: &str) -> String {
        let found = self.command("POST", "/element", &json!({ "using": "css selector", "value": css }));
        found[ELEMENT].as_str().unwrap_or_else(|| panic!("{css}: {found}")).to_owned()
    }

    #[track_caller]
    pub fn fill(&self, css: &str, text: &str) {
        let element = self.element(css);
        self.command("POST", &format!("/element/{element}/clear"), &json!({}));
        self.command("POST", &format!("/element/{element}/value"), &json!({ "text": text }));
    }

    #[track_caller]
    pub fn click(&self, css: &str) {
        let element = self.element(css);
        self.command("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// Presses a key, by its character.
    #[track_caller]
    pub fn press(&self, key: char) {
        let strokes = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let keyboard = json!([{ "type": "key", "id": "keyboard", "actions": strokes }]);
        self.command("POST", "/actions", &json!({ "actions": keyboard }));
    }

    /// The value of an expression of JavaScript.
    #[track_caller]
    pub fn evaluate(&self, expression: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({ "script": format!("return {expression};"), "args": [] }))
    }

    pub fn screenshot(&self, path: &Path) {
        let png = self.command("GET", "/screenshot", &Value::Null);
        std::fs::write(path, base64::engine::general_purpose::STANDARD.decode(png.as_str().unwrap()).unwrap()).unwrap();
    }

    /// All URLs that were asked for since the last call.
    pub fn requests(&self) -> Vec<String> {
        let entries = self.command("POST", "/se/log", &json!({ "type": "performance" }));
        let url = |entry: &Value| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &message["message"];
            let sent = message["method"] == "Network.requestWillBeSent";
            sent.then(|| message["params"]["request"]["url"].as_str().map(str::to_owned)).flatten()
        };
        entries.as_array().unwrap().iter().filter_map(url).collect()
    }

    /// The complaints of the browser since the last call.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.command("POST", "/se/log", &json!({ "type": "browser" }));
        entries.as_array().unwrap().iter().filter_map(|e| e["message"].as_str().map(str::to_owned)).collect()
    }
}

/// The body of an answer. ChromeDriver keeps the connection, even after `Connection: close`.
fn read_answer(socket: &mut TcpStream) -> String {
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            if length.is_some_and(|length| body.len() >= length) {
                return body.to_owned();
            }
        }
        let mut buffer = [0; 64 * 1024];
        let len = socket.read(&mut buffer).unwrap();
        assert!(len > 0, "ChromeDriver broke off: {}", String::from_utf8_lossy(&received));
        received.extend_from_slice(&buffer[..len]);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.command("DELETE", "", &json!({}));
        }
    }
}

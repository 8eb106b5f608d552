//! The cache of a site, through the front door: an origin that answers as the test says and counts its requests, and
//! clients of HTTP/1.1 and HTTP/2.

mod deceived;
mod disk;
mod fresh;
mod model;
mod names;
mod poison;
mod purge;
mod requirements;
mod seams;
mod stale;
mod upgraded;
mod waiting;

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::harness::{Authority, BLOG, Origin, Pintle, Received, Reply, blog, eventually, output};

const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

/// The answer to a path.
#[derive(Debug, Clone)]
struct Page {
    status: &'static str,
    fields: String,
    body: String,
}

type Pages = Arc<Mutex<HashMap<String, Page>>>;

/// An origin with pages that the test sets, and a pintle with a cache in front of it.
struct Bed {
    authority: Authority,
    origin: Origin,
    pages: Pages,
    pintle: Pintle,
}

/// A response, as curl prints it.
#[derive(Debug, Clone)]
struct Got {
    status: u16,
    fields: Vec<(String, String)>,
    body: String,
    whole: bool,
}

impl Got {
    fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// pintle's member of Cache-Status.
    #[track_caller]
    fn cache(&self) -> &str {
        self.all("cache-status").last().copied().unwrap_or_else(|| panic!("no Cache-Status: {self:?}"))
    }

    #[track_caller]
    fn is_hit(&self) -> bool {
        let status = self.cache();
        assert!(status.starts_with("pintle"), "{status}");
        status.split(';').any(|part| part.trim() == "hit")
    }
}

impl Bed {
    /// A bed with these lines in `[site.cache]`.
    fn new(cache: &str) -> Self {
        Self::with(cache, "")
    }

    /// The same, with tables of the site behind it.
    fn with(cache: &str, more: &str) -> Self {
        let pages = Pages::default();
        let served = pages.clone();
        let origin = Origin::start(move |received| answer(&served, received));
        Self::before(origin, pages, cache, more)
    }

    /// The same, with these lines in `[listen]`.
    fn listening(listen: &str, cache: &str) -> Self {
        let pages = Pages::default();
        let served = pages.clone();
        Self::start(Origin::start(move |received| answer(&served, received)), pages, listen, cache, "")
    }

    fn before(origin: Origin, pages: Pages, cache: &str, more: &str) -> Self {
        Self::start(origin, pages, "", cache, more)
    }

    fn start(origin: Origin, pages: Pages, listen: &str, cache: &str, more: &str) -> Self {
        let authority = Authority::new();
        let state = authority.folder().join("state");
        let site = blog(&authority, &origin);
        let config = format!("[state]\ndirectory = {state:?}\n{site}[site.cache]\n{cache}\n{more}");
        let pintle = Pintle::start_listening(&authority, listen, &config);
        Self { authority, origin, pages, pintle }
    }

    /// Sets the answer to a path.
    fn page(&self, path: &str, status: &'static str, fields: &str, body: &str) {
        let page = Page { status, fields: fields.to_owned(), body: body.to_owned() };
        self.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    /// The same, with 200 and Cache-Control.
    fn fresh(&self, path: &str, control: &str, body: &str) {
        self.page(path, "200 OK", &format!("Cache-Control: {control}\r\n"), body);
    }

    fn curl(&self, version: &str, path: &str, more: &[&str]) -> Command {
        let mut curl = self.pintle.curl();
        curl.args([version, "--include", "--path-as-is"]).args(more).arg(format!("https://{BLOG}{path}"));
        curl
    }

    #[track_caller]
    fn get(&self, version: &str, path: &str, more: &[&str]) -> Got {
        read(&mut self.curl(version, path, more))
    }

    /// The requests for a path at the origin.
    fn count(&self, path: &str) -> usize {
        self.origin.received().iter().filter(|received| received.path() == path).count()
    }

    /// The last request for a path at the origin.
    #[track_caller]
    fn last(&self, path: &str) -> Received {
        self.origin.received().into_iter().rev().find(|received| received.path() == path).expect(path)
    }

    /// Waits for an access record of a path with this part of the cache: records come by a pipe, later than answers.
    #[track_caller]
    fn recorded(&self, path: &str, part: &str) {
        eventually(&format!("a record of {path} with {part}"), || {
            let records = self.pintle.access();
            records.iter().any(|record| record["target"] == path && record["cache"] == part).then_some(())
        });
    }

    #[track_caller]
    fn command(&self, words: &str) -> String {
        output(&mut self.pintle.command(words))
    }
}

#[track_caller]
fn read(curl: &mut Command) -> Got {
    let out = curl.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{out:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap();
    let fields = lines.filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    Got { status, fields, body: body.to_owned(), whole: out.status.success() }
}

/// Answers with the page of the path; with 304 if its ETag is the one that pintle asks about.
fn answer(pages: &Pages, received: &Received) -> Reply {
    let Some(page) = pages.lock().unwrap().get(received.path()).cloned() else {
        return Reply::new("404 Not Found", "", "no such page");
    };
    let tag = page.fields.lines().find_map(|line| line.strip_prefix("ETag: ")).map(str::trim);
    if page.status == "200 OK" && tag.is_some() && received.field("if-none-match") == tag {
        return Reply::new("304 Not Modified", &page.fields, "");
    }
    match page.status {
        "closed" => Reply::Close(Vec::new()),
        status if received.line().starts_with("HEAD") => {
            let length = page.body.len();
            Reply::Bytes(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{}\r\n", page.fields).into_bytes())
        }
        status => Reply::new(status, &page.fields, &page.body),
    }
}

//! Mixed content: reports of browsers, the upgrade, and the rewriting of references, through the front door.

mod report;
mod rewrite;

use std::process::Command;

use crate::harness::{Authority, BLOG, Origin, Pintle, Received, Reply, blog};

/// A page with references by http: to the site, to the upstream, to a listed host, to strangers.
const PAGE: &str = "<!doctype html><title>http://blog.example.com/</title><img src=\"http://blog.example.com/a.png\">\
    <a href='http://127.0.0.1/b'>b</a><img src=http://cdn.example.com/c.png><img src=http://evil.example/d.png>";

/// pintle with these lines in `[site.mixed_content]`, in front of an origin.
struct Bed {
    authority: Authority,
    origin: Origin,
    pintle: Pintle,
}

impl Bed {
    fn new(mixed: &str, answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(mixed, "", answer)
    }

    /// The same, with more tables of the site.
    fn with(mixed: &str, more: &str, answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let (authority, origin) = (Authority::new(), Origin::start(answer));
        let state = authority.folder().join("state");
        let site = blog(&authority, &origin);
        let table = if mixed.is_empty() { String::new() } else { format!("[site.mixed_content]\n{mixed}\n") };
        let pintle = Pintle::start(&authority, &format!("[state]\ndirectory = {state:?}\n{site}{table}{more}"));
        Self { authority, origin, pintle }
    }

    fn curl(&self, path: &str, more: &[&str]) -> Command {
        let mut curl = self.pintle.curl();
        curl.args(["--include"]).args(more).arg(format!("https://{BLOG}{path}"));
        curl
    }

    #[track_caller]
    fn get(&self, path: &str, more: &[&str]) -> Got {
        let out = self.curl(path, more).output().unwrap();
        // A reset stream may take its head along.
        let at = out.stdout.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(out.stdout.len());
        assert!(at < out.stdout.len() || !out.status.success(), "{out:?}");
        let head = String::from_utf8_lossy(&out.stdout[..at]).into_owned();
        Got { head, body: out.stdout.get(at + 4..).unwrap_or_default().to_vec(), whole: out.status.success() }
    }

    fn metrics(&self) -> String {
        crate::admin::get(&self.authority.folder().join("state/admin.sock"), "/metrics")
    }
}

/// A response, as curl prints it.
#[derive(Debug)]
struct Got {
    head: String,
    body: Vec<u8>,
    whole: bool,
}

impl Got {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default().trim()
    }

    fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn html(body: &str) -> Reply {
    Reply::new("200 OK", "Content-Type: text/html; charset=UTF-8\r\n", body)
}

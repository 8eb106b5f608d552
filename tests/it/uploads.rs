//! `buffer_request`: the upstream is asked once a request's body is complete, as far as there is room for it.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use crate::harness::{Authority, BLOG, Client, Origin, Pintle, Reply, blog, eventually, output};

/// The number that stands for a body in answers.
fn sum(body: &[u8]) -> String {
    let sum = body.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    format!("{} {sum:016x}", body.len())
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// An origin that answers with the sum of the body.
fn summing() -> Origin {
    Origin::start(|request| Reply::ok(&sum(&request.body)))
}

fn buffering(authority: &Authority, origin: &Origin) -> String {
    let site = blog(authority, origin).replacen("[[site]]\n", "[[site]]\nbuffer_request = true\n", 1);
    format!("[state]\ndirectory = {:?}\n{site}", authority.folder().join("state"))
}

fn counter(pintle: &Pintle, name: &str) -> u64 {
    pintle.status()["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
}

/// The files without a name that the process holds open.
fn unnamed_files(pintle: &Pintle) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", pintle.pid())).unwrap();
    let leads = |entry: fs::DirEntry| fs::read_link(entry.path()).unwrap_or_default();
    open.flatten().map(leads).filter(|to| to.to_string_lossy().ends_with(" (deleted)")).count()
}

fn unnamed_files_become(pintle: &Pintle, count: usize) {
    eventually("the file is there, or gone", || (unnamed_files(pintle) == count).then_some(()));
}

#[test]
fn a_slow_upload_holds_no_connection_of_the_origin() {
    let (authority, origin) = (Authority::new(), summing());
    let pintle = Pintle::start(&authority, &buffering(&authority, &origin));
    let body = bytes(300_000);

    let mut slow = Client::new(&authority).connect(pintle.https(), BLOG);
    slow.send(format!("POST /slow HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {}\r\n\r\n", body.len()));
    slow.send(&body[..200_000]);
    // It is in a file by now.
    unnamed_files_become(&pintle, 1);
    let other = Client::new(&authority).get(pintle.https(), BLOG, "/quick");
    assert_eq!(other.status, 200);
    assert!(origin.received().iter().all(|request| request.path() == "/quick"), "the origin was asked too early");

    slow.send(&body[200_000..]);
    assert_eq!(slow.response("POST").text(), sum(&body));
    assert_eq!(origin.request("/slow").field("content-length"), Some("300000"));
    unnamed_files_become(&pintle, 0);
    assert_eq!(counter(&pintle, "uploads_buffered"), 1);
    let named = fs::read_dir(authority.folder().join("state")).into_iter().flatten().flatten();
    let names: Vec<_> =
        named.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().contains("upload")).collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn bodies_of_all_sizes_arrive_whole_and_with_their_length() {
    let (authority, origin) = (Authority::new(), summing());
    let pintle = Pintle::start(&authority, &buffering(&authority, &origin));
    for length in [0, 1, 65_535, 65_536, 65_537, 131_073, 3_000_000] {
        let body = bytes(length);
        let file = authority.write(&format!("upload-{length}"), &body);
        for (version, framing) in [("--http1.1", ""), ("--http1.1", "Transfer-Encoding: chunked"), ("--http2", "")] {
            let path = format!("/{length}{version}{}", framing.len());
            let mut curl = pintle.curl();
            curl.args([version, "--max-time", "60", "--data-binary", &format!("@{}", file.display())]);
            curl.args(["--header", framing, "--header", "Expect:"]).arg(format!("https://{BLOG}{path}"));
            assert_eq!(output(&mut curl), sum(&body), "{path}");
            let received = origin.request(&path);
            assert_eq!(received.field("content-length"), Some(&*length.to_string()), "{path}");
            assert_eq!(received.field("transfer-encoding"), None, "{path}");
        }
    }
    // A body of unknown length over HTTP/2.
    let mut curl = pintle.curl();
    curl.args(["--http2", "--max-time", "60", "--upload-file", "-"]).arg(format!("https://{BLOG}/unknown"));
    let mut curl = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    curl.stdin.take().unwrap().write_all(&bytes(100_000)).unwrap();
    let answer = curl.wait_with_output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&answer), sum(&bytes(100_000)));
    assert_eq!(origin.request("/unknown").field("content-length"), Some("100000"));
}

#[test]
fn a_client_that_waits_for_100_gets_it_from_pintle() {
    let (authority, origin) = (Authority::new(), summing());
    let pintle = Pintle::start(&authority, &buffering(&authority, &origin));
    let mut client = Client::new(&authority).connect(pintle.https(), BLOG);
    client.send(format!("POST /c HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(client.response("POST").status, 100);
    assert!(origin.received().is_empty());
    client.send("12345");
    assert_eq!(client.response("POST").text(), sum(b"12345"));
    assert_eq!(origin.request("/c").field("expect"), None);
}

#[test]
fn without_room_a_body_goes_on_as_it_comes() {
    for (limits, body, buffered) in [
        // No memory at all, no file at all, and a file for a part.
        ("buffer_memory = 0\n", 200_000, 0),
        ("buffer_files = 0\n", 200_000, 0),
        ("buffer_files = \"256KiB\"\n", 3_000_000, 0),
        ("buffer_files = 0\n", 60_000, 1),
    ] {
        let (authority, origin) = (Authority::new(), summing());
        let config = format!("[limits]\n{limits}{}", buffering(&authority, &origin));
        let pintle = Pintle::start(&authority, &config);
        let file = authority.write("upload", bytes(body));
        for version in ["--http1.1", "--http2"] {
            let mut curl = pintle.curl();
            curl.args([version, "--max-time", "60", "--data-binary", &format!("@{}", file.display())]);
            assert_eq!(output(curl.arg(format!("https://{BLOG}/"))), sum(&bytes(body)), "{limits} {version}");
        }
        assert_eq!(counter(&pintle, "uploads_buffered"), 2 * buffered, "{limits}");
        assert_eq!(counter(&pintle, "uploads_unbuffered"), 2 - 2 * buffered, "{limits}");
        unnamed_files_become(&pintle, 0);
    }
}

#[test]
fn an_upload_that_breaks_off_is_no_request() {
    let (authority, origin) = (Authority::new(), summing());
    let config =
        format!("[limits]\nbuffer_memory = \"128KiB\"\nrequest_body = \"1MiB\"\n{}", buffering(&authority, &origin));
    let pintle = Pintle::start(&authority, &config);
    // More than the memory has room for at once: each gives its part back.
    for _ in 0..5 {
        let mut client = Client::new(&authority).connect(pintle.https(), BLOG);
        client.send(format!("POST /gone HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 200000\r\n\r\n"));
        client.send(bytes(150_000));
        unnamed_files_become(&pintle, 1);
        drop(client);
        unnamed_files_become(&pintle, 0);
    }
    // Too large, without a length that would say so.
    let mut client = Client::new(&authority).connect(pintle.https(), BLOG);
    client.send(format!("POST /large HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n"));
    let piece = bytes(100_000);
    for _ in 0..11 {
        client.send(format!("{:x}\r\n", piece.len()));
        client.send(&piece);
        client.send("\r\n");
    }
    assert_eq!(client.response("POST").status, 413);
    // Chunks that are none.
    let mut client = Client::new(&authority).connect(pintle.https(), BLOG);
    client.send(format!("POST /wrong HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"));
    assert_eq!(client.response("POST").status, 400);
    assert!(origin.received().is_empty());
    assert_eq!(counter(&pintle, "uploads_buffered"), 0);
}

#[test]
fn a_client_that_stops_gets_408_and_the_origin_nothing() {
    let (authority, origin) = (Authority::new(), summing());
    let config = format!("[limits]\nbody_progress = \"1s\"\n{}", buffering(&authority, &origin));
    let pintle = Pintle::start(&authority, &config);
    let mut client = Client::new(&authority).connect(pintle.https(), BLOG);
    client.send(format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 10\r\n\r\n12345"));
    assert_eq!(client.response("POST").status, 408);
    assert!(origin.received().is_empty());
    assert_eq!(pintle.access_line("/")["limit"], "body_progress");
}

#[test]
fn explain_names_the_buffering() {
    let (authority, origin) = (Authority::new(), summing());
    let pintle = Pintle::start(&authority, &buffering(&authority, &origin));
    let mut explain = pintle.command("explain");
    let explanation = output(explain.args(["--json", "--method", "POST"]).arg(format!("https://{BLOG}/")));
    for key in ["site.buffer_request", "limits.buffer_memory", "limits.buffer_files"] {
        assert!(explanation.contains(key), "{key}: {explanation}");
    }
}

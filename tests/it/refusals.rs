//! Refusals, and whose policies they carry: only those of the host that the request names, where that host is a site's and
//! the connection's certificate is that site's. A client notes policies for the host that it asked for.

use crate::harness::{Authority, BLOG, Client, Connection, Origin, Pintle, Reply, blog, eventually, policies};

const OTHER: &str = "other.example.com";

struct Setting {
    authority: Authority,
    origin: Origin,
    pintle: Pintle,
}

/// A site with policies, another one with a certificate of its own and none, and small limits.
fn setting() -> Setting {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/broken" => Reply::Close(b"what?\r\n\r\n".to_vec()),
        _ => Reply::ok("hello"),
    });
    let leaf = authority.leaf("other", &[OTHER]);
    let limits = "[limits]\nrequest_line = \"1KiB\"\nheader_size = \"4KiB\"\nheader_count = 20\nrequest_header = \"1s\"\nbody_progress = \"1s\"\n";
    let other = format!(
        "[[site]]\nhosts = [\"{OTHER}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        origin.url(),
        leaf.chain,
        leaf.key
    );
    let config = limits.to_owned() + &blog(&authority, &origin) + &policies(&authority) + &other;
    let pintle = Pintle::start(&authority, &config);
    Setting { authority, origin, pintle }
}

fn connect(setting: &Setting, name: &str) -> Connection {
    Client::new(&setting.authority).connect(setting.pintle.https(), name)
}

#[test]
fn policies_are_those_of_the_host_that_was_asked_for() {
    let setting = setting();
    let long = "x".repeat(1100);
    let many = "X-Test: y\r\n".repeat(30);
    let large = format!("X-Test: {}\r\n", "x".repeat(5000));
    let of_blog = format!("Host: {BLOG}\r\n");
    let of = |host: &str| format!("Host: {host}\r\n");
    let cases: Vec<(String, u16, bool)> = vec![
        // Nobody's.
        ("GET / HTTP/1.1\r\n\r\n".into(), 400, false),
        (format!("GET / HTTP/1.1\r\n{of_blog}{}\r\n", of("x.example.net")), 400, false),
        (format!("GET https://x.example.net/ HTTP/1.1\r\n{of_blog}\r\n"), 400, false),
        (format!("GET / HTTP/1.1\r\n{}\r\n", of("x.example.net")), 421, false),
        (format!("GET / HTTP/1.1\r\n{}\r\n", of("x y")), 400, false),
        (format!("GET / HTTP/3.0\r\n{of_blog}\r\n"), 505, false),
        (format!("GET /a#b HTTP/1.1\r\n{of_blog}\r\n"), 400, false),
        (format!("GET /{long} HTTP/1.1\r\n{of_blog}\r\n"), 414, false),
        (format!("GET /{long} HTTP/1.1\r\n{}\r\n", of("x.example.net")), 414, false),
        (format!("GET / HTTP/1.1\r\n{}{many}\r\n", of("x.example.net")), 431, false),
        (format!("GET / HTTP/1.1\r\n{}{large}\r\n", of("x.example.net")), 431, false),
        (format!("GET / HTTP/1.1\r\n{}X-Test: y", of("x.example.net")), 408, false),
        // Another site's: its certificate is not the connection's.
        (format!("GET / HTTP/1.1\r\n{}\r\n", of(OTHER)), 421, false),
        (format!("POST / HTTP/1.1\r\n{}Content-Length: 5, 5\r\n\r\n", of(OTHER)), 400, false),
        (format!("POST / HTTP/1.1\r\n{}Content-Length: 5, 5\r\n\r\n", of("x.example.net")), 400, false),
        (format!("TRACE / HTTP/1.1\r\n{}\r\n", of(OTHER)), 421, false),
        (format!("GET http://{BLOG}/ HTTP/1.1\r\n{of_blog}\r\n"), 421, false),
        // The site's own.
        (format!("POST / HTTP/1.1\r\n{of_blog}Content-Length: 5, 5\r\n\r\n"), 400, true),
        (format!("POST / HTTP/1.1\r\n{of_blog}Transfer-Encoding: gzip, chunked\r\n\r\n"), 501, true),
        (format!("POST / HTTP/1.1\r\n{of_blog}Content-Length: 5\r\n\r\n"), 408, true),
        (format!("TRACE / HTTP/1.1\r\n{of_blog}\r\n"), 405, true),
        (format!("GET /broken HTTP/1.1\r\n{of_blog}\r\n"), 502, true),
        (format!("GET / HTTP/1.1\r\n{of_blog}\r\n"), 200, true),
    ];
    for (request, status, carries) in cases {
        let mut connection = connect(&setting, BLOG);
        connection.send(&request);
        let response = connection.response("GET");
        let shown = &request[..request.len().min(100)];
        assert_eq!(response.status, status, "{shown:?}");
        for name in ["strict-transport-security", "public-key-pins"] {
            assert_eq!(response.all(name).len(), usize::from(carries), "{shown:?}: {name}");
        }
    }
    // The site that has no policies gives none of its neighbour's.
    let mut connection = connect(&setting, OTHER);
    connection.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(connection.response("GET").field("strict-transport-security"), None);
}

/// The same by HTTP/2, where one connection may ask for several hosts.
#[test]
fn policies_by_http2() {
    let setting = setting();
    let long = "x".repeat(1100);
    let many = vec![("x-test", "y"); 30];
    type Case = (String, Vec<(&'static str, &'static str)>, u16, bool);
    let cases: Vec<Case> = vec![
        ("https://x.example.net/1".into(), vec![], 421, false),
        (format!("https://{OTHER}/2"), vec![], 421, false),
        ("https://x.example.net/3".into(), many.clone(), 431, false),
        (format!("https://{OTHER}/4"), many.clone(), 431, false),
        (format!("https://x.example.net/5{long}"), vec![], 414, false),
        (format!("https://{BLOG}/6"), vec![("host", "x.example.net")], 400, false),
        (format!("https://{BLOG}/7"), vec![("x-test", " y")], 400, true),
        ("https://x.example.net/8".into(), vec![("x-test", " y")], 400, false),
        (format!("https://{BLOG}/9"), many, 431, true),
        (format!("https://{BLOG}/10{long}"), vec![], 414, true),
        (format!("http://{BLOG}/11"), vec![], 421, false),
        (format!("ftp://{BLOG}/12"), vec![], 400, false),
        (format!("https://{BLOG}/\u{fc}"), vec![], 400, true),
        (format!("https://{BLOG}/13"), vec![("content-length", "")], 400, true),
        (format!("https://{BLOG}/broken"), vec![], 502, true),
        (format!("https://{BLOG}/14"), vec![], 200, true),
    ];
    let count = cases.len();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let sender = super::http2::connect(&setting.authority, &setting.pintle).await;
        for (uri, fields, status, carries) in cases {
            let mut request = http::Request::builder().method("POST").uri(&uri);
            for (name, value) in fields {
                request = request.header(name, value);
            }
            let mut sender = sender.clone().ready().await.unwrap();
            let (response, mut send) = sender.send_request(request.body(()).unwrap(), false).unwrap();
            send.send_data(bytes::Bytes::new(), true).unwrap();
            let head = response.await.unwrap().into_parts().0;
            let shown = &uri[..uri.len().min(100)];
            assert_eq!(head.status.as_u16(), status, "{shown}");
            for name in ["strict-transport-security", "public-key-pins"] {
                let all = head.headers.get_all(name).iter().count();
                assert_eq!(all, usize::from(carries), "{shown}: {name}");
            }
        }
    });
    eventually("a line in the log for each", || (setting.pintle.access().len() == count).then_some(()));
}

/// HTTP/1.0 needs no Host: the name in SNI is the site's. No policy goes with it, since the request names nobody.
#[test]
fn http_1_0_without_host() {
    let setting = setting();
    let mut connection = connect(&setting, BLOG);
    connection.send("GET /old HTTP/1.0\r\n\r\n");
    let response = connection.response("GET");
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(response.field("strict-transport-security"), None);
    assert_eq!(response.field("public-key-pins"), None);
    assert_eq!(setting.origin.request("/old").field("x-forwarded-host"), Some(BLOG));
    assert_eq!(setting.pintle.access_line("/old")["host"], BLOG);
    // With a host it is as ever, and without TLS there is no name.
    for (request, status, carries) in [
        (format!("GET / HTTP/1.0\r\nHost: {BLOG}\r\n\r\n"), 200, 1),
        (format!("GET https://{BLOG}/ HTTP/1.0\r\n\r\n"), 200, 1),
        ("GET / HTTP/1.0\r\nHost: \r\n\r\n".to_owned(), 400, 0),
        (format!("GET / HTTP/1.0\r\nHost: {OTHER}\r\n\r\n"), 421, 0),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, 0),
    ] {
        let mut connection = connect(&setting, BLOG);
        connection.send(&request);
        let response = connection.response("GET");
        assert_eq!((response.status, response.all("public-key-pins").len()), (status, carries), "{request:?}");
    }
    let mut plain = Connection::plain(setting.pintle.http());
    plain.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(plain.response("GET").status, 421);
}

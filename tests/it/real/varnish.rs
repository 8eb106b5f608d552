//! Varnish on either side: as the upstream, and in front, where an offloader hands it what came by TLS.

use crate::harness::{
    Authority, BLOG, Origin, Pintle, Reply, blog, blog_at, curl, free_port, nginx, output, policies, varnish,
};

#[test]
fn behind() {
    let authority = Authority::new();
    let origin = Origin::start(|request| {
        Reply::new("200 OK", "Cache-Control: max-age=60\r\n", &format!("{} {}", request.path(), "x".repeat(100_000)))
    });
    let port = free_port();
    let _varnish = varnish(
        authority.folder(),
        port,
        origin.address.port(),
        "sub vcl_deliver { unset resp.http.X-Varnish; unset resp.http.Age; }",
    );
    let pintle = Pintle::start(&authority, &blog_at(&authority, &format!("http://127.0.0.1:{port}")));
    for version in ["--http1.1", "--http2"] {
        for _ in 0..3 {
            let page = output(pintle.curl().arg(version).arg(format!("https://{BLOG}/cached")));
            assert_eq!(page.len(), 100_008);
        }
    }
    // Varnish has cached it; its answers are as good as the origin's.
    assert_eq!(origin.received().iter().filter(|r| r.path() == "/cached").count(), 1);
    assert_eq!(origin.request("/cached").field("x-forwarded-proto"), Some("https"));
}

/// Client — nginx, which ends TLS — Varnish, which caches — pintle — origin.
#[test]
fn in_front_as_the_offloaders_next_hop() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let config = blog(&authority, &origin) + &policies(&authority);
    let pintle = Pintle::start_listening(&authority, "trusted_proxies = [\"127.0.0.1\"]", &config);
    let (tls, plain, middle) = (free_port(), free_port(), free_port());
    let _varnish = varnish(authority.folder(), middle, pintle.http().port(), "");
    let leaf = authority.leaf("offloader", &[BLOG]);
    let offloader = format!(
        "proxy_set_header Host {BLOG}; proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;\n\
         server {{ listen 127.0.0.1:{tls} ssl; ssl_certificate {}; ssl_certificate_key {}; location / {{ proxy_pass http://127.0.0.1:{middle}; }} }}\n\
         server {{ listen 127.0.0.1:{plain}; location / {{ proxy_pass http://127.0.0.1:{middle}; }} }}",
        leaf.chain.display(),
        leaf.key.display()
    );
    let _nginx = nginx(authority.folder(), tls, &offloader);
    let get = |scheme: &str, port: u16, path: &str| {
        let resolve = format!("{BLOG}:{port}:127.0.0.1");
        output(
            curl(&authority).args(["--include", "--resolve", &resolve]).arg(format!("{scheme}://{BLOG}:{port}{path}")),
        )
        .to_ascii_lowercase()
    };
    // Both schemes, the same URL, in turns: the cache between must not mix them up.
    for _ in 0..3 {
        let page = get("https", tls, "/page");
        assert!(page.starts_with("http/1.1 200 ") && page.ends_with("hello from the origin"), "{page}");
        assert_eq!(page.matches("strict-transport-security: max-age=31536000\r\n").count(), 1);
        assert_eq!(page.matches("public-key-pins: ").count(), 1);
        let moved = get("http", plain, "/page");
        assert!(
            moved.starts_with("http/1.1 301 ") && moved.contains(&format!("location: https://{BLOG}/page\r\n")),
            "{moved}"
        );
        assert!(!moved.contains("strict-transport-security"), "{moved}");
    }
    let received = origin.request("/page");
    assert_eq!(received.field("x-forwarded-proto"), Some("https"));
    // The client's own address is the first of the chain; all hops are on this host.
    assert!(received.field("x-forwarded-for").unwrap().starts_with("127.0.0.1"));
}

/// Varnish as it comes caches redirects for two minutes, whatever fields a request has that nobody named in `Vary`.
#[test]
fn in_front_with_and_without_the_field() {
    for (trust, field) in [("x-forwarded", "X-Forwarded-Proto: https"), ("forwarded", "Forwarded: proto=https")] {
        let authority = Authority::new();
        let origin = Origin::hello();
        let listen = format!("trusted_proxies = [\"127.0.0.1\"]\ntrust = {trust:?}");
        let pintle = Pintle::start_listening(&authority, &listen, &blog(&authority, &origin));
        let port = free_port();
        let _varnish = varnish(authority.folder(), port, pintle.http().port(), "");
        let get = |path: &str, fields: &[&str]| {
            let mut curl = curl(&authority);
            curl.arg("--include").arg("--connect-to").arg(format!("{BLOG}:80:127.0.0.1:{port}"));
            for field in fields {
                curl.args(["--header", field]);
            }
            let text = output(curl.arg(format!("http://{BLOG}{path}")));
            let status: u16 = text.split(' ').nth(1).unwrap().parse().unwrap();
            (status, text)
        };
        // No proxy names the scheme: the loop reaches pintle, which logs it.
        assert_eq!(get("/loop", &[]).0, 301, "{trust}");
        let (status, text) = get("/loop", &[]);
        assert!(status == 508 && text.contains(field), "{trust}: {text}");
        // Once the operator has mended that, all see the page; those who still come by http are redirected.
        for path in ["/loop", "/page"] {
            for _ in 0..3 {
                let (status, text) = get(path, &[field]);
                assert!(status == 200 && text.ends_with("hello from the origin"), "{trust}: {text}");
                let (status, text) = get(path, &[]);
                assert!(status == 301 && text.contains(&format!("https://{BLOG}{path}\r\n")), "{trust}: {text}");
            }
        }
    }
}

/// Varnish that says everything by the PROXY header: there is no field that `Vary` could name.
#[test]
fn in_front_with_a_proxy_header() {
    let authority = Authority::new();
    let listen = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\ntrust = \"proxy\"";
    let pintle = Pintle::start_listening(&authority, listen, &blog(&authority, &Origin::hello()));
    let port = free_port();
    let vcl = format!(
        "backend pintle {{ .host = \"127.0.0.1\"; .port = \"{}\"; .proxy_header = 2; }}\n\
         sub vcl_recv {{ set req.backend_hint = pintle; }}",
        pintle.http().port()
    );
    let _varnish = varnish(authority.folder(), port, pintle.http().port(), &vcl);
    let resolve = format!("{BLOG}:{port}:127.0.0.1");
    for n in 1..=3 {
        let mut curl = curl(&authority);
        curl.args(["--include", "--user-agent", &n.to_string(), "--resolve", &resolve]);
        let text =
            output(curl.args(["--header", "X-Forwarded-Proto: https"]).arg(format!("http://{BLOG}:{port}/page")));
        assert!(text.starts_with("HTTP/1.1 301 "), "{text}");
        crate::harness::eventually("pintle was asked again", || {
            (pintle.access().iter().filter(|line| line["target"] == "/page").count() == n).then_some(())
        });
    }
}

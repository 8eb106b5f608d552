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

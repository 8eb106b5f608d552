//! nginx as the upstream: static files, ranges, conditional requests, compression, and HTTP/2 over TLS.

use std::fs;

use crate::harness::{Authority, BLOG, Pintle, blog_at, free_port, nginx, output};

#[test]
fn a_static_site() {
    let authority = Authority::new();
    let root = authority.folder().join("root");
    fs::create_dir_all(root.join("folder")).unwrap();
    let picture: Vec<u8> = (0..300_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(root.join("picture.png"), &picture).unwrap();
    fs::write(root.join("folder/index.html"), "<p>index</p>").unwrap();
    fs::write(root.join("large.txt"), "all work and no play\n".repeat(5000)).unwrap();
    let port = free_port();
    let server = format!(
        "types {{ text/html html; image/png png; text/plain txt; }} gzip on; gzip_types text/plain; gzip_proxied any;\n\
         server {{ listen 127.0.0.1:{port}; root {}; }}",
        root.display()
    );
    let _nginx = nginx(authority.folder(), port, &server);
    let pintle =
        Pintle::start(&authority, &(blog_at(&authority, &format!("http://127.0.0.1:{port}")) + "[site.hsts]\n"));
    for version in ["--http1.1", "--http2"] {
        let file = authority.folder().join("got");
        output(pintle.curl().args([version, "--output"]).arg(&file).arg(format!("https://{BLOG}/picture.png")));
        assert_eq!(fs::read(&file).unwrap(), picture);
        let range = output(
            pintle
                .curl()
                .args([version, "--include", "--range", "5-14", "--output", "-"])
                .arg(format!("https://{BLOG}/large.txt")),
        );
        assert!(range.contains(" 206 ") && range.ends_with("ork and no"), "{range}");
        let head = output(pintle.curl().args([version, "--head"]).arg(format!("https://{BLOG}/picture.png")))
            .to_ascii_lowercase();
        assert!(head.contains("content-length: 300000\r\n") && head.contains("accept-ranges: bytes"), "{head}");
        let etag = head.lines().find_map(|l| l.strip_prefix("etag: ")).unwrap().trim().to_owned();
        let conditional = format!("If-None-Match: {etag}");
        let status = output(
            pintle
                .curl()
                .args([version, "--write-out", "%{http_code}", "--header", &conditional])
                .arg(format!("https://{BLOG}/picture.png")),
        );
        assert_eq!(status, "304");
        let zipped = output(
            pintle
                .curl()
                .args([version, "--compressed", "--write-out", " %{size_download}"])
                .arg(format!("https://{BLOG}/large.txt")),
        );
        let (text, size) = zipped.rsplit_once(' ').unwrap();
        assert!(text.len() == 105_000 && size.parse::<usize>().unwrap() < 2000, "{size}");
        // nginx sends an absolute redirect under the name and the scheme that it knows.
        let moved =
            output(pintle.curl().args([version, "--head"]).arg(format!("https://{BLOG}/folder"))).to_ascii_lowercase();
        assert!(moved.contains(&format!("location: https://{BLOG}/folder/\r\n")), "{moved}");
        let followed = output(
            pintle
                .curl()
                .args([version, "--location", "--write-out", "%{num_redirects}"])
                .arg(format!("http://{BLOG}/folder")),
        );
        assert_eq!(followed, "<p>index</p>2");
    }
}

#[test]
fn over_tls_and_http_2() {
    let authority = Authority::new();
    let leaf = authority.leaf("upstream", &["origin.example.net"]);
    let port = free_port();
    let server = format!(
        "server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {}; ssl_certificate_key {};\n\
         location / {{ return 200 \"$server_protocol $host $http_x_forwarded_proto\\n\"; }} }}",
        leaf.chain.display(),
        leaf.key.display()
    );
    let _nginx = nginx(authority.folder(), port, &server);
    let options = |more: &str| {
        format!("[site.upstream_options]\nconnect = \"127.0.0.1:{port}\"\nca = {:?}\n{more}\n", authority.ca_path())
    };
    for (more, protocol) in [("", "HTTP/2.0"), ("http2 = false", "HTTP/1.1")] {
        let pintle = Pintle::start(&authority, &(blog_at(&authority, "https://origin.example.net") + &options(more)));
        for _ in 0..3 {
            let said = output(pintle.curl().arg(format!("https://{BLOG}/")));
            assert_eq!(said, format!("{protocol} origin.example.net https\n"));
        }
    }
}

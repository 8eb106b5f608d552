//! HSTS and pins: exactly one field each, on every secure answer, and nothing of the upstream's in between.

use std::process::Command;

use crate::harness::{Authority, BLOG, Client, KeyKind, Origin, Pintle, Reply, blog, blog_at, output, policies};

/// The pin of a file's key, by the openssl command line alone.
pub fn openssl_pin(arguments: &[&str], file: &std::path::Path) -> String {
    let command = format!(
        "openssl {} -in '{}' | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64",
        arguments.join(" "),
        file.display()
    );
    output(Command::new("sh").args(["-c", &command])).trim().to_owned()
}

#[test]
fn every_secure_answer_carries_them_once() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/204" => Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        "/304" => Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n".to_vec()),
        "/301" => Reply::new("301 Moved Permanently", "Location: /other\r\n", ""),
        "/404" => Reply::new("404 Not Found", "", "no"),
        "/500" => Reply::new("500 Internal Server Error", "", "no"),
        "/garbage" => Reply::Close(b"what?\r\n\r\n".to_vec()),
        _ => Reply::new(
            "200 OK",
            "Strict-Transport-Security: max-age=1; preload\r\nStrict-Transport-Security: max-age=2\r\n\
             Public-Key-Pins: pin-sha256=\"x\"\r\nPublic-Key-Pins-Report-Only: pin-sha256=\"y\"\r\n",
            "ok",
        ),
    });
    let pintle = Pintle::start(&authority, &(blog(&authority, &origin) + &policies(&authority)));
    let live = openssl_pin(&["x509", "-pubkey", "-noout"], &authority.folder().join("blog.pem"));
    let backup = |name: &str| openssl_pin(&["pkey", "-pubin", "-pubout"], &authority.folder().join(name));
    let pins = format!(
        "pin-sha256=\"{live}\"; pin-sha256=\"{}\"; pin-sha256=\"{}\"; max-age=2592000",
        backup("next.pub"),
        backup("spare.pub")
    );
    let client = Client::new(&authority);
    let mut connection = client.connect(pintle.https(), BLOG);
    for (target, status) in
        [("/200", 200), ("/204", 204), ("/304", 304), ("/301", 301), ("/404", 404), ("/500", 500), ("/garbage", 502)]
    {
        for method in ["GET", "HEAD", "POST"] {
            connection.send(format!("{method} {target} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
            let response = connection.response(method);
            assert_eq!(response.status, status, "{method} {target}");
            assert_eq!(response.one("strict-transport-security"), "max-age=31536000");
            assert_eq!(response.one("public-key-pins"), pins);
            assert_eq!(response.field("public-key-pins-report-only"), None);
        }
    }
    // A head that cannot be read names no host: nobody's policies go with the answer.
    for request in ["GET / HTTP/1.1\r\n\r\n", "GET /\u{0} HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut connection = client.connect(pintle.https(), BLOG);
        connection.send(request);
        let response = connection.response("GET");
        assert_eq!(response.status, 400);
        assert_eq!(response.field("strict-transport-security"), None);
        assert_eq!(response.field("public-key-pins"), None);
    }
    // h2, by curl.
    let head = output(pintle.curl().args(["--http2", "--head"]).arg(format!("https://{BLOG}/200")));
    assert_eq!(head.matches("strict-transport-security: max-age=31536000\r\n").count(), 1, "{head}");
    assert_eq!(head.matches(&format!("public-key-pins: {pins}\r\n")).count(), 1, "{head}");
}

#[test]
fn an_upstream_policy_is_kept_if_the_site_says_so() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/own" => {
            Reply::new("200 OK", "Strict-Transport-Security: max-age=7\r\nStrict-Transport-Security: max-age=8\r\n", "")
        }
        _ => Reply::ok(""),
    });
    let hsts = |keys: &str| blog(&authority, &origin) + "[site.hsts]\nmax_age = \"1h\"\n" + keys;
    let client = Client::new(&authority);
    let check = |config: &str, own: &str, none: Option<&str>| {
        let pintle = Pintle::start(&authority, config);
        assert_eq!(client.get(pintle.https(), BLOG, "/own").one("strict-transport-security"), own);
        assert_eq!(client.get(pintle.https(), BLOG, "/none").field("strict-transport-security"), none);
    };
    check(&hsts("upstream = \"keep\""), "max-age=7", Some("max-age=3600"));
    check(&hsts("upstream = \"replace\""), "max-age=3600", Some("max-age=3600"));
    check(&blog(&authority, &origin), "max-age=7", None);
    check(
        &hsts("include_subdomains = true"),
        "max-age=3600; includeSubDomains",
        Some("max-age=3600; includeSubDomains"),
    );
}

#[test]
fn modes_of_the_pin_header() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let (next, spare) = (authority.public_key("next"), authority.public_key("spare"));
    let get = |keys: &str| {
        let config = blog(&authority, &origin)
            + &format!("[site.hpkp]\nmax_age = \"1h\"\nbackups = [{next:?}, {spare:?}]\n{keys}");
        let pintle = Pintle::start(&authority, &config);
        Client::new(&authority).get(pintle.https(), BLOG, "/")
    };
    let response = get("mode = \"report-only\"\nreport_uri = \"https://reports.example.net/hpkp\"\n");
    assert!(
        response
            .one("public-key-pins-report-only")
            .ends_with("; max-age=3600; report-uri=\"https://reports.example.net/hpkp\"")
    );
    assert_eq!(response.field("public-key-pins"), None);
    let response = get("mode = \"withdraw\"\n");
    assert!(response.one("public-key-pins").ends_with("; max-age=0"));
    assert_eq!(response.one("public-key-pins").matches("pin-sha256=").count(), 3);
    let response = get("include_subdomains = true\n");
    assert!(response.one("public-key-pins").ends_with("; max-age=3600; includeSubDomains"));
}

/// Each kind of key that a site may have, and the pin that openssl computes for it.
#[test]
fn pins_of_a_pair_of_certificates() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let ecdsa = authority.leaf_of("ecdsa", &[BLOG], KeyKind::Ecdsa, -1, 90);
    let rsa = authority.leaf_of("rsa", &[BLOG], KeyKind::Rsa, -1, 90);
    let pair =
        |leaf: &crate::harness::Leaf| format!("[[site.certificate]]\nchain = {:?}\nkey = {:?}\n", leaf.chain, leaf.key);
    let site = format!("[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n", origin.url());
    let pintle = Pintle::start(&authority, &(site + &pair(&rsa) + &pair(&ecdsa) + &policies(&authority)));
    let header = Client::new(&authority).get(pintle.https(), BLOG, "/").one("public-key-pins").to_owned();
    for leaf in [&rsa, &ecdsa] {
        let pin = openssl_pin(&["x509", "-pubkey", "-noout"], &leaf.chain);
        assert_eq!(pin, leaf.pin);
        assert!(header.contains(&format!("pin-sha256=\"{pin}\"")), "{header}");
        // curl enforces the pin of whichever key it is shown.
        let curl = ["--pinnedpubkey", &format!("sha256//{}", rsa.pin), "--tls-max", "1.2"];
        let suites = if leaf.pin == rsa.pin { "ECDHE-RSA-AES128-GCM-SHA256" } else { "ECDHE-ECDSA-AES128-GCM-SHA256" };
        let status =
            pintle.curl().args(curl).args(["--ciphers", suites]).arg(format!("https://{BLOG}/")).output().unwrap();
        assert_eq!(status.status.success(), leaf.pin == rsa.pin, "{suites}");
    }
}

#[test]
fn an_offloader_in_front_needs_no_key_here() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let leaf = authority.leaf("blog", &[BLOG]);
    let site = format!(
        "[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\n",
        origin.url(),
        leaf.chain
    );
    let pintle =
        Pintle::start_listening(&authority, "trusted_proxies = [\"127.0.0.1\"]", &(site + &policies(&authority)));
    let mut connection = crate::harness::Connection::plain(pintle.http());
    connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nX-Forwarded-Proto: https\r\n\r\n"));
    let response = connection.response("GET");
    assert_eq!(response.status, 200);
    assert!(response.one("public-key-pins").contains(&leaf.pin));
    // Without the key, there is no TLS for that name.
    assert!(Client::new(&authority).try_connect(pintle.https(), BLOG).is_err());
}

#[test]
fn a_refused_connection_carries_them() {
    let authority = Authority::new();
    let pintle = Pintle::start(&authority, &(blog_at(&authority, "http://127.0.0.1:1") + &policies(&authority)));
    let response = Client::new(&authority).get(pintle.https(), BLOG, "/");
    assert_eq!(response.status, 502);
    response.one("strict-transport-security");
    response.one("public-key-pins");
}

/// Pages of our own, and redirects, are answers of the site like others: rules hold for them, but for what makes them
/// what they are.
#[test]
fn rules_hold_for_our_own_answers() {
    let authority = Authority::new();
    let leaf = authority.leaf("two", &[BLOG, "www.example.com"]);
    let config = format!(
        "[limits]\nrequest_line = \"1KiB\"\nrequest_body = \"1KiB\"\n\
         [[site]]\nhosts = [\"{BLOG}\", \"www.example.com\"]\ncanonical_redirect = true\nupstream = \"http://127.0.0.1:1\"\n\
         [site.certificate]\nchain = {:?}\nkey = {:?}\n[site.hsts]\n\
         [site.response_headers]\nset = {{ \"X-Content-Type-Options\" = \"nosniff\", \"Cache-Control\" = \"public\", \"Location\" = \"/\" }}\n\
         add = {{ \"X-Frame-Options\" = \"DENY\" }}\nremove = [\"Proxy-Status\", \"Content-Type\"]\n",
        leaf.chain, leaf.key
    );
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    let long = "x".repeat(2000);
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"), 502),
        (format!("GET /{long} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nHost: {BLOG}\r\n\r\n"), 400),
        (format!("TRACE / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"), 405),
        (format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nExpect: x\r\n\r\n"), 417),
        (format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 5000\r\n\r\n"), 413),
        ("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n".to_owned(), 421),
        ("GET /page HTTP/1.1\r\nHost: www.example.com\r\n\r\n".to_owned(), 301),
        (format!("OPTIONS * HTTP/1.1\r\nHost: {BLOG}\r\nMax-Forwards: 0\r\n\r\n"), 204),
    ] {
        let mut connection = client.connect(pintle.https(), BLOG);
        connection.send(&request);
        let response = connection.response("GET");
        assert_eq!(response.status, status, "{request}");
        assert_eq!(response.one("x-content-type-options"), "nosniff", "{status}");
        assert_eq!(response.one("x-frame-options"), "DENY", "{status}");
        assert_eq!(response.field("proxy-status"), None, "{status}");
        // Policies only where the host of the request is certain, and the site's.
        let policies = usize::from(!matches!(status, 414 | 400 | 421));
        assert_eq!(response.all("strict-transport-security").len(), policies, "{status}");
        match status {
            301 => assert!(response.one("location").starts_with(&format!("https://{BLOG}")), "{response:?}"),
            204 => {}
            _ => {
                assert_eq!(response.one("cache-control"), "no-store", "{status}");
                assert!(response.one("content-type").starts_with("text/plain"), "{status}");
            }
        }
    }
    // HTTP/2 the same; and over http there is nothing but what leads to https.
    let head = output(pintle.curl().args(["--http2", "--head"]).arg(format!("https://{BLOG}/")));
    assert!(head.contains("x-content-type-options: nosniff\r\n") && !head.contains("proxy-status"), "{head}");
    let plain = crate::harness::Connection::plain(pintle.http()).get(BLOG, "/");
    assert_eq!((plain.status, plain.field("x-content-type-options")), (301, None));
}

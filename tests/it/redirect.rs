//! Plain HTTP is sent to https: for configured hosts only, path and query to the letter.

use crate::harness::{Authority, BLOG, Client, Connection, Origin, Pintle, Reply, Response, blog, policies};

fn ask(pintle: &Pintle, method: &str, authority: &str, target: &str) -> Response {
    let mut connection = Connection::plain(pintle.http());
    connection.send(format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
    connection.response(method)
}

#[test]
fn every_method_and_target() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = blog(&authority, &origin) + &policies(&authority);
    let pintle = Pintle::start(&authority, &config);
    let https_port = pintle.https().port();
    for (method, host, target, want) in [
        ("GET", BLOG, "/a/b?c=%20d&e", format!("https://{BLOG}/a/b?c=%20d&e")),
        ("HEAD", BLOG, "/", format!("https://{BLOG}/")),
        ("POST", BLOG, "/form", format!("https://{BLOG}/form")),
        ("OPTIONS", BLOG, "*", format!("https://{BLOG}/")),
        ("GET", "Blog.EXAMPLE.com.", "//evil.example/%2e%2e/", format!("https://{BLOG}//evil.example/%2e%2e/")),
        ("GET", "blog.example.com:8080", "/x", format!("https://{BLOG}:{https_port}/x")),
        ("GET", "blog.example.com:80", "/?", format!("https://{BLOG}/?")),
    ] {
        let response = ask(&pintle, method, host, target);
        assert_eq!((response.status, response.one("location")), (301, want.as_str()), "{method} {host} {target}");
        // RFC 6797 section 7.2, RFC 7469 section 2.2.2: never on plain HTTP.
        assert_eq!(response.field("strict-transport-security"), None);
        assert_eq!(response.field("public-key-pins"), None);
        assert_eq!(response.one("content-length"), "0");
        response.one("date");
    }
    assert!(origin.received().is_empty());
}

#[test]
fn other_hosts_are_misdirected() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    for host in ["other.example.com", "blog.example.com.evil.example", "127.0.0.1"] {
        let response = ask(&pintle, "GET", host, "/");
        assert_eq!((response.status, response.field("location")), (421, None), "{host}");
    }
}

#[test]
fn the_connection_is_kept() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut connection = Connection::plain(pintle.http());
    for n in 0..3 {
        let response = connection.get(BLOG, &format!("/{n}"));
        assert_eq!(response.one("location"), format!("https://{BLOG}/{n}"));
    }
}

#[test]
fn wildcards_keep_the_name_that_was_asked_for() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let leaf = authority.leaf("wild", &["*.example.com"]);
    let config = format!(
        "[[site]]\nhosts = [\"*.example.com\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        origin.url(),
        leaf.chain,
        leaf.key
    );
    let pintle = Pintle::start(&authority, &config);
    assert_eq!(ask(&pintle, "GET", "a.example.com", "/x").one("location"), "https://a.example.com/x");
    assert_eq!(ask(&pintle, "GET", "a.b.example.com", "/x").status, 421);
}

#[test]
fn a_public_port_is_named() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start_listening(&authority, "public_https_port = 9443", &blog(&authority, &origin));
    assert_eq!(ask(&pintle, "GET", BLOG, "/x").one("location"), format!("https://{BLOG}:9443/x"));
}

/// A client may write any port behind the host; it must not come back as a link.
#[test]
fn ports_that_a_client_makes_up_are_not_repeated() {
    let authority = Authority::new();
    let to = format!("Location: http://{BLOG}/to\r\n");
    let origin = Origin::start(move |_| Reply::new("302 Found", &to, ""));
    let leaf = authority.leaf("both", &["blog.example.com", "www.example.com"]);
    let config = format!(
        "[[site]]\nhosts = [\"blog.example.com\", \"www.example.com\"]\nupstream = \"{}\"\ncanonical_redirect = true\n\
         [site.certificate]\nchain = {:?}\nkey = {:?}\n",
        origin.url(),
        leaf.chain,
        leaf.key
    );
    let client = Client::new(&authority);
    let check = |listen: &str, named: &dyn Fn(&Pintle) -> String, want: &dyn Fn(&Pintle) -> String| {
        let pintle = Pintle::start_listening(&authority, listen, &config);
        let (named, want) = (named(&pintle), want(&pintle));
        let plain = ask(&pintle, "GET", &format!("{BLOG}{named}"), "/x");
        assert!(named == want || plain.one("location") != format!("https://{BLOG}{named}/x"), "{plain:?}");
        let mut connection = client.connect(pintle.https(), "www.example.com");
        let response = connection.get(&format!("www.example.com{named}"), "/x");
        assert_eq!(response.one("location"), format!("https://{BLOG}{want}/x"), "{listen} {named}");
        // The upstream's own redirects come back under our name.
        let mut connection = client.connect(pintle.https(), BLOG);
        let response = connection.get(&format!("{BLOG}{named}"), "/x");
        assert_eq!(response.one("location"), format!("https://{BLOG}{want}/to"), "{listen} {named}");
    };
    let nothing = |_: &Pintle| String::new();
    let made_up = |_: &Pintle| ":1".to_owned();
    let own = |pintle: &Pintle| format!(":{}", pintle.https().port());
    let public = |_: &Pintle| ":9443".to_owned();
    check("", &made_up, &nothing);
    check("", &nothing, &nothing);
    check("", &own, &own);
    check("public_https_port = 9443", &public, &public);
    check("public_https_port = 9443", &made_up, &public);
    check("public_https_port = 443", &made_up, &nothing);
}

#[test]
fn other_names_of_a_site_lead_to_the_first() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let leaf = authority.leaf("both", &["blog.example.com", "www.example.com"]);
    let config = format!(
        "[[site]]\nhosts = [\"blog.example.com\", \"www.example.com\"]\nupstream = \"{}\"\ncanonical_redirect = true\n\
         [site.certificate]\nchain = {:?}\nkey = {:?}\n[site.hsts]\n",
        origin.url(),
        leaf.chain,
        leaf.key
    );
    let pintle = Pintle::start(&authority, &config);
    // Plain HTTP goes to https under the same name first: the preload list wants it so.
    assert_eq!(ask(&pintle, "GET", "www.example.com", "/x").one("location"), "https://www.example.com/x");
    let client = Client::new(&authority);
    let response = client.get(pintle.https(), "www.example.com", "/x?y");
    assert_eq!((response.status, response.one("location")), (301, "https://blog.example.com/x?y"));
    assert_eq!(response.one("strict-transport-security"), "max-age=31536000");
    let mut connection = client.connect(pintle.https(), "www.example.com");
    connection.send("POST /x HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(connection.response("POST").status, 308);
    assert_eq!(client.get(pintle.https(), "blog.example.com", "/x").status, 200);
}

/// WordPress with an https address of its own, behind a proxy whose X-Forwarded-Proto it does not read: it sends whoever
/// asks over https to where they are.
#[test]
fn a_redirect_of_the_upstream_to_the_same_url_is_answered_once() {
    let authority = Authority::new();
    let origin = Origin::start(|request| {
        let (path, query) = request.path().split_once('?').unwrap_or_else(|| (request.path(), ""));
        let here = format!("Location: https://{BLOG}{}\r\n", request.path());
        match path {
            _ if request.fields("cookie").iter().any(|c| c.contains("seen=1")) => Reply::ok("in"),
            "/cookie" => Reply::new("302 Found", &format!("{here}Set-Cookie: seen=1; Secure\r\n"), ""),
            "/later" => Reply::new("302 Found", &format!("{here}Retry-After: 1\r\n"), ""),
            "/relative" => Reply::new("307 Temporary Redirect", &format!("Location: /relative?{query}\r\n"), ""),
            "/slash" => Reply::new("301 Moved Permanently", &format!("Location: https://{BLOG}/slash/\r\n"), ""),
            _ => Reply::new("302 Found", &here, ""),
        }
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let ask = |method: &str, path: &str, fields: &str| {
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        connection.send(format!("{method} {path} HTTP/1.1\r\nHost: {BLOG}\r\n{fields}\r\n"));
        connection.response(method)
    };
    for (method, path) in
        [("GET", "/wp-login.php"), ("HEAD", "/wp-login.php"), ("GET", "/a?b=c"), ("GET", "/relative?x")]
    {
        let page = ask(method, path, "");
        assert_eq!((page.status, page.field("location"), page.one("cache-control")), (508, None, "no-store"), "{path}");
        if method == "GET" {
            let line = "if (($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https') { $_SERVER['HTTPS'] = 'on'; }";
            assert!(page.text().contains(line), "{}", page.text());
        }
    }
    pintle.logs("redirect loop: the upstream redirects to the page that was asked for");
    // Redirects that may end by themselves pass: a cookie, a wait, another path, another method.
    for (method, path) in [("GET", "/cookie"), ("GET", "/later"), ("GET", "/slash"), ("POST", "/wp-login.php")] {
        assert!(matches!(ask(method, path, "").status, 301 | 302), "{method} {path}");
    }
    assert_eq!(ask("GET", "/cookie", "Cookie: seen=1\r\n").text(), "in");
    // With a cookie, the upstream may have noted something: once.
    let statuses = [0; 3].map(|_| ask("GET", "/session", "Cookie: id=1\r\n").status);
    assert_eq!(statuses, [302, 508, 302]);
    assert_eq!(ask("GET", "/session", "Cookie: id=1\r\nUser-Agent: other\r\n").status, 302);
}

/// A hosted blog that sends its second name to the first one: over https, X-Forwarded-Proto is no remedy.
#[test]
fn an_https_upstream_that_redirects_to_itself_is_not_told_of_wordpress() {
    let authority = Authority::new();
    let leaf = authority.leaf("upstream", &["localhost"]);
    let origin = crate::harness::SecureServer::start(&[&leaf], |_, _| {
        format!("HTTP/1.1 301 Moved Permanently\r\nLocation: https://{BLOG}/\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let upstream = format!("https://localhost:{}", origin.address.port());
    let ca = format!("[site.upstream_options]\nca = {:?}\n", authority.ca_path());
    let pintle = Pintle::start(&authority, &(crate::harness::blog_at(&authority, &upstream) + &ca));
    let page = Client::new(&authority).get(pintle.https(), BLOG, "/");
    assert_eq!(page.status, 508);
    assert!(!page.text().contains("HTTP_X_FORWARDED_PROTO") && page.text().contains("this name"), "{}", page.text());
}

//! Limits of requests: rates and bursts of clients, requests under way, paths, addresses, crawlers. Rates are of hours and
//! days, so that none of these tests depends on how fast the machine is.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;

use tokio_tungstenite::tungstenite;

use crate::admin::Bed;
use crate::harness::{
    Authority, BLOG, Client, Connection, Origin, PATIENCE, Pintle, Reply, Response, blog, blog_at, eventually, outcome,
    output,
};
use crate::http2::{block_on, connect as connect_http2, request as http2_request};
use crate::upgrade::Line;
use crate::websocket::echo_server;

const BEHIND_FIELDS: &str = "trusted_proxies = [\"127.0.0.1\"]";
const BEHIND_PROXY: &str = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\ntrust = \"proxy\"";

/// A request with these fields.
fn ask(connection: &mut Connection, method: &str, path: &str, fields: &str) -> Response {
    connection.send(format!("{method} {path} HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 0\r\n{fields}\r\n"));
    connection.response(method)
}

/// A request of a client that a trusted proxy names in X-Forwarded-For, on a connection of its own.
fn ask_as(authority: &Authority, pintle: &Pintle, client: &str, path: &str) -> Response {
    let mut connection = Client::new(authority).connect(pintle.https(), BLOG);
    ask(&mut connection, "GET", path, &format!("X-Forwarded-For: {client}\r\nX-Forwarded-Proto: https\r\n"))
}

/// Another site, in front of the same origin.
fn other_site(authority: &Authority, origin: &Origin) -> String {
    let leaf = authority.leaf("other", &["other.example"]);
    let (url, chain, key) = (origin.url(), &leaf.chain, &leaf.key);
    format!(
        "[[site]]\nhosts = [\"other.example\"]\nupstream = {url:?}\n[site.certificate]\nchain = {chain:?}\nkey = {key:?}\n"
    )
}

/// An origin that answers `/hold` when it is told to, and everything else at once.
fn holding_origin() -> (Origin, mpsc::Sender<()>) {
    let (word, wait) = mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |request| {
        if request.path() == "/hold" {
            let _ = wait.lock().unwrap().recv();
        }
        Reply::ok("ok")
    });
    (origin, word)
}

#[test]
fn a_burst_then_429_with_the_time_to_wait() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = blog(&authority, &origin) + "[site.hsts]\nmax_age = \"1y\"\n[site.rate]\nrequests = \"3/h\"\n";
    let pintle = Pintle::start(&authority, &config);
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    for left in [2, 1, 0] {
        let response = connection.get(BLOG, "/page");
        assert_eq!((response.status, response.one("ratelimit-policy")), (200, "\"site\";q=3;w=3600"));
        let quota = response.one("ratelimit");
        let next: u64 = quota.strip_prefix(&format!("\"site\";r={left};t=")).expect(quota).parse().unwrap();
        assert!((1..=1200).contains(&next), "{quota}");
    }
    // On the same connection: a refusal does not end it.
    for _ in 0..2 {
        let refused = connection.get(BLOG, "/refused");
        assert_eq!((refused.status, refused.one("cache-control")), (429, "no-store"));
        let wait: u64 = refused.one("retry-after").parse().unwrap();
        assert!((1..=1200).contains(&wait), "{wait}");
        assert_eq!(refused.one("ratelimit"), format!("\"site\";r=0;t={wait}"));
        assert_eq!(refused.one("ratelimit-policy"), "\"site\";q=3;w=3600");
        assert_eq!(refused.one("strict-transport-security"), "max-age=31536000");
        assert!(refused.text().contains("Too many requests"), "{}", refused.text());
    }
    assert_eq!(origin.received().len(), 3);
    let line = pintle.access_line("/refused");
    assert_eq!((line["status"].as_u64(), line["ended"].as_str()), (Some(429), Some("limit")));
    assert_eq!(line["limit"], "rate_requests");
    assert_eq!(line["error"], "more requests than site.rate.requests accepts (rule \"site\")");
}

/// A page from the cache counts as one from the upstream does.
#[test]
fn hits_of_the_cache_count() {
    let authority = Authority::new();
    let origin = Origin::start(|_| Reply::new("200 OK", "Cache-Control: max-age=600\r\nETag: \"a\"\r\n", "page"));
    let config = blog(&authority, &origin) + "[site.cache]\n[site.rate]\nrequests = \"3/d\"\n";
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    for (left, condition, status) in [(2, "", 200), (1, "", 200), (0, "If-None-Match: \"a\"\r\n", 304)] {
        let mut connection = client.connect(pintle.https(), BLOG);
        connection.send(format!("GET /page HTTP/1.1\r\nHost: {BLOG}\r\n{condition}\r\n"));
        let response = connection.response("GET");
        assert_eq!(response.status, status);
        assert!(response.one("ratelimit").starts_with(&format!("\"site\";r={left};")), "{response:?}");
    }
    assert_eq!(client.get(pintle.https(), BLOG, "/page").status, 429);
    assert_eq!(origin.received().len(), 1);
}

/// A site is named in any form of its name: with capitals, with a trailing dot, with letters beyond ASCII.
#[test]
fn a_site_by_another_form_of_its_name() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let leaf = authority.leaf("books", &["xn--bcher-kva.example"]);
    let books = format!(
        "[[site]]\nhosts = [\"xn--bcher-kva.example\"]\nupstream = {:?}\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        origin.url(),
        leaf.chain,
        leaf.key
    );
    let rate = "[[rate]]\nsites = [\"BLOG.Example.com.\", \"B\u{fc}cher.example\"]\nrequests = \"1/d\"\n";
    let config = format!("{rate}{}{books}{}", blog(&authority, &origin), other_site(&authority, &origin));
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    for (host, second) in [(BLOG, 429), ("xn--bcher-kva.example", 429), ("other.example", 200)] {
        let statuses = [(); 2].map(|()| client.get(pintle.https(), host, "/").status);
        assert_eq!(statuses, [200, second], "{host}");
    }
}

/// Two workers and both versions of HTTP share the counts, and every stream counts.
#[test]
fn all_connections_of_a_client_share_its_burst() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = blog(&authority, &origin) + "[site.rate]\nrequests = \"1/d\"\nburst = 20\n";
    let pintle = Pintle::start(&authority, &config);
    let http1 = (0..10).filter(|_| Client::new(&authority).get(pintle.https(), BLOG, "/").status == 200).count();
    assert_eq!(http1, 10);
    let statuses = block_on(async {
        let mut sender = connect_http2(&authority, &pintle).await;
        let mut statuses = Vec::new();
        for _ in 0..12 {
            let request = http2_request("GET", "/").body(()).unwrap();
            let (response, _) = sender.clone().ready().await.unwrap().send_request(request, true).unwrap();
            let response = response.await.unwrap();
            let quota = response.headers()["ratelimit"].to_str().unwrap().to_owned();
            statuses.push((response.status().as_u16(), quota.starts_with("\"site\";r=0;")));
            sender = sender.ready().await.unwrap();
        }
        statuses
    });
    let admitted: Vec<_> = statuses.iter().filter(|(status, _)| *status == 200).collect();
    assert_eq!((admitted.len(), statuses.len()), (10, 12));
    assert_eq!(&statuses[9..], [(200, true), (429, true), (429, true)]);
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 429);
    assert_eq!(origin.received().len(), 20);
}

/// After the wait, the next request is admitted.
#[test]
fn a_client_that_waits_is_admitted_again() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = blog(&authority, &origin) + "[site.rate]\nrequests = \"2/s\"\nburst = 1\n";
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    for _ in 0..3 {
        eventually("admitted", || (client.get(pintle.https(), BLOG, "/").status == 200).then_some(()));
    }
}

#[test]
fn the_client_that_trusted_proxies_name_counts() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = blog(&authority, &origin) + "[site.rate]\nrequests = \"2/d\"\n";
    let pintle = Pintle::start_listening(&authority, BEHIND_FIELDS, &config);
    let statuses = |clients: &[&str]| -> Vec<u16> {
        clients.iter().map(|client| ask_as(&authority, &pintle, client, "/").status).collect()
    };
    assert_eq!(statuses(&["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"]), [200, 200, 429, 200]);
    // A /56 is one client, another /56 is another one.
    let of_one = ["2001:db8:0:ff01::1", "2001:db8:0:ff02::2", "2001:db8:0:ffff::3", "2001:db8:0:fe00::1"];
    assert_eq!(statuses(&of_one), [200, 200, 429, 200]);
    assert_eq!(statuses(&["::ffff:192.0.2.1"]), [429]);
    // The proxy's own requests are those of many, or of nobody.
    let mut own = Client::new(&authority).connect(pintle.https(), BLOG);
    for _ in 0..5 {
        assert_eq!(ask(&mut own, "GET", "/", "X-Forwarded-Proto: https\r\n").status, 200);
    }
    // What the client itself writes in front of the proxy's address does not count.
    assert_eq!(statuses(&["203.0.113.9, 192.0.2.1"]), [429]);
}

fn proxied(authority: &Authority, to: SocketAddr, client: &str) -> std::io::Result<Connection> {
    let mut socket = TcpStream::connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(format!("PROXY TCP4 {client} 10.0.0.1 5000 443\r\n").as_bytes())?;
    Client::new(authority).handshake(socket, BLOG)
}

/// The table is as small as it can be. Whoever is refused stays refused while others come and go; all of those are served.
#[test]
fn a_scan_neither_frees_nor_locks_out_anybody() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = "[limits]\nrate_clients = 8\n".to_owned()
        + &blog(&authority, &origin)
        + "[site.rate]\nrequests = \"4/d\"\nconcurrent = 10\n";
    let pintle = Pintle::start_listening(&authority, BEHIND_PROXY, &config);
    let ask = |client: &str| proxied(&authority, pintle.https(), client).unwrap().get(BLOG, "/").status;
    let heavy = || ask("192.0.2.1");
    assert_eq!([heavy(), heavy(), heavy(), heavy(), heavy()], [200, 200, 200, 200, 429]);
    for n in 0..100 {
        assert_eq!(ask(&format!("198.51.100.{n}")), 200, "{n}");
        if n % 10 == 0 {
            assert_eq!(heavy(), 429, "after {n}");
        }
    }
}

#[test]
fn paths_and_methods() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let rules = "[[rate]]\nname = \"login\"\npaths = [\"/wp-login.php\", \"/xmlrpc.php\"]\nmethods = [\"POST\"]\nrequests = \"5/d\"\n\
                 [[rate]]\npaths = [\"/api/*\"]\nrequests = \"1/d\"\n[[rate]]\nsites = [\"other.example\"]\nrequests = \"1/d\"\n";
    let config = rules.to_owned() + &blog(&authority, &origin) + &other_site(&authority, &origin);
    let pintle = Pintle::start(&authority, &config);
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    let mut status = |method: &str, path: &str| ask(&mut connection, method, path, "").status;
    // Forms in which PHP would run the same program.
    let forms = ["/wp-login.php", "//wp-login.php?a=b", "/x/../wp-login.php", "/wp%2dlogin.php", "/xmlrpc.php"];
    assert_eq!(forms.map(|path| status("POST", path)), [200; 5]);
    assert_eq!(forms.map(|path| status("POST", path)), [429; 5]);
    assert_eq!(["/wp-login.php", "/xmlrpc.php"].map(|path| status("GET", path)), [200; 2]);
    assert_eq!(["/", "/wp-login.php5"].map(|path| status("POST", path)), [200; 2]);
    assert_eq!([status("GET", "/api/a"), status("GET", "/api/b"), status("GET", "/api")], [200, 429, 200]);
    let refused = ask(&mut connection, "POST", "/wp-login.php", "");
    assert_eq!(refused.one("ratelimit-policy"), "\"login\";q=5;w=86400");
}

/// A request that one rule refuses uses up nothing under the others; of several quotas, the answer shows the smallest.
#[test]
fn several_rules() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let rules = "[[rate]]\nname = \"a\"\npaths = [\"/a\"]\nrequests = \"9/d\"\n[[rate]]\nname = \"b\"\npaths = [\"/a\"]\nrequests = \"1/d\"\n";
    let config = rules.to_owned() + &blog(&authority, &origin) + "[site.rate]\nrequests = \"3/d\"\n";
    let pintle = Pintle::start(&authority, &config);
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    assert!(connection.get(BLOG, "/a").one("ratelimit").starts_with("\"b\";r=0;"));
    for _ in 0..5 {
        let refused = connection.get(BLOG, "/a");
        assert_eq!((refused.status, refused.one("ratelimit-policy")), (429, "\"b\";q=1;w=86400"));
    }
    let statuses = [(); 3].map(|()| connection.get(BLOG, "/").status);
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn requests_under_way() {
    let authority = Authority::new();
    let (origin, word) = holding_origin();
    let pintle = Pintle::start(&authority, &(blog(&authority, &origin) + "[site.rate]\nconcurrent = 2\n"));
    let client = Client::new(&authority);
    let refused = || client.get(pintle.https(), BLOG, "/third");
    // One is with the upstream, the body of another one is still to come.
    let mut waiting = client.connect(pintle.https(), BLOG);
    waiting.send(format!("GET /hold HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    origin.request("/hold");
    let mut uploading = client.connect(pintle.https(), BLOG);
    uploading.send(format!("POST /upload HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 2\r\n\r\n1"));
    eventually("the upload counts", || (refused().status == 429).then_some(()));
    let third = client.get(pintle.https(), BLOG, "/beyond");
    assert_eq!((third.status, third.one("retry-after"), third.field("ratelimit")), (429, "1", None));
    assert_eq!(pintle.access_line("/beyond")["limit"], "rate_concurrent");
    uploading.send("2");
    assert_eq!(uploading.response("POST").status, 200);
    eventually("one is over", || (refused().status == 200).then_some(()));
    word.send(()).unwrap();
    assert_eq!(waiting.response("GET").status, 200);
    // A client that leaves, and streams that are cancelled, count no more.
    let mut leaving = client.connect(pintle.https(), BLOG);
    leaving.send(format!("GET /hold HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    block_on(async {
        let mut sender = connect_http2(&authority, &pintle).await.ready().await.unwrap();
        let request = http2_request("GET", "/hold").body(()).unwrap();
        let (response, mut stream) = sender.send_request(request, true).unwrap();
        tokio::task::block_in_place(|| eventually("both count", || (refused().status == 429).then_some(())));
        stream.send_reset(h2::Reason::CANCEL);
        drop((response, leaving));
        tokio::task::block_in_place(|| {
            eventually("two have room again", || {
                let mut pair = [(); 2].map(|()| client.connect(pintle.https(), BLOG));
                for connection in &mut pair {
                    connection.send(format!("POST /upload HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 1\r\n\r\n"));
                }
                pair.iter_mut().for_each(|connection| connection.send("x"));
                pair.iter_mut().all(|connection| connection.response("POST").status == 200).then_some(())
            });
        });
    });
    drop(word);
}

#[test]
fn a_tunnel_is_a_request_under_way() {
    let authority = Authority::new();
    let config = blog_at(&authority, &echo_server()) + "[site.rate]\nconcurrent = 1\n";
    let pintle = Pintle::start(&authority, &config);
    let open = || {
        let connection = Client::new(&authority).connect(pintle.https(), BLOG);
        tungstenite::client(format!("wss://{BLOG}/echo"), connection.stream).map_err(|_| ())
    };
    let (mut socket, _) = open().unwrap();
    assert!(open().is_err());
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    drop(socket);
    eventually("the tunnel is over", || open().ok());
}

#[test]
fn addresses_that_are_allowed_or_denied() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let rules = "[[rate]]\npaths = [\"/admin/*\"]\nallow = [\"192.0.2.0/24\"]\ndeny = [\"0.0.0.0/0\", \"::/0\"]\n";
    let config = rules.to_owned()
        + &blog(&authority, &origin)
        + "[site.rate]\nrequests = \"1/d\"\nallow = [\"192.0.2.0/25\"]\ndeny = [\"192.0.2.7\", \"2001:db8:bad::/48\"]\n";
    let pintle = Pintle::start_listening(&authority, BEHIND_FIELDS, &config);
    let status = |client: &str, path: &str| ask_as(&authority, &pintle, client, path).status;
    assert_eq!([status("192.0.2.1", "/"), status("192.0.2.1", "/"), status("192.0.2.1", "/")], [200; 3]);
    assert_eq!([status("192.0.2.200", "/"), status("192.0.2.200", "/")], [200, 429]);
    assert_eq!(status("192.0.2.1", "/admin/x"), 200);
    assert_eq!(["198.51.100.1", "2001:db8::1"].map(|client| status(client, "/admin/x")), [403; 2]);
    assert_eq!(["192.0.2.7", "::ffff:192.0.2.7", "2001:db8:bad::1"].map(|client| status(client, "/denied")), [403; 3]);
    let denied = ask_as(&authority, &pintle, "192.0.2.7", "/denied");
    assert_eq!(
        (denied.one("cache-control"), denied.field("retry-after"), denied.field("ratelimit")),
        ("no-store", None, None)
    );
    let line = pintle.access_line("/denied");
    assert_eq!(
        (line["ended"].as_str(), line["error"].as_str()),
        (Some("refused"), Some("the client's address is in site.rate.deny"))
    );
}

/// All addresses of a crawler share one budget. Its name lifts no limit, and those that only claim it leave the budget of its
/// known addresses alone.
#[test]
fn crawlers_have_a_share() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = blog(&authority, &origin)
        + "[site.rate]\nrequests = \"3/d\"\ncrawlers = \"2/d\"\nallow = [\"198.51.100.0/24\"]\n";
    let pintle = Pintle::start_listening(&authority, BEHIND_FIELDS, &config);
    let crawl = |client: &str, agent: &str| {
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        let fields = format!("X-Forwarded-For: {client}\r\nX-Forwarded-Proto: https\r\nUser-Agent: {agent}\r\n");
        ask(&mut connection, "GET", "/crawl", &fields).status
    };
    let google = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    assert_eq!(["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|client| crawl(client, google)), [200, 200, 429]);
    assert_eq!(["198.51.100.1", "198.51.100.2", "198.51.100.3"].map(|client| crawl(client, google)), [200, 200, 429]);
    assert_eq!(crawl("192.0.2.9", "GPTBot/1.2"), 200);
    // A refused request of the crawler used up nothing of its client's.
    assert_eq!([(); 4].map(|()| crawl("192.0.2.3", "curl/8")), [200, 200, 200, 429]);
    assert_eq!(crawl("192.0.2.3", "GPTBot/1.2"), 429, "the name lifts no limit");
}

#[test]
fn all_clients_together() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = blog(&authority, &origin) + "[site.rate]\nrequests = \"2/d\"\nper = \"site\"\n";
    let pintle = Pintle::start_listening(&authority, BEHIND_FIELDS, &config);
    let clients = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    let responses = clients.map(|client| ask_as(&authority, &pintle, client, "/"));
    assert_eq!([0, 1, 2].map(|n: usize| responses[n].status), [200, 200, 429]);
    assert!(
        responses.iter().all(|response| response.field("ratelimit").is_none()),
        "others' requests are nobody's business"
    );
}

#[test]
fn a_reload_keeps_the_counts_of_unchanged_rules() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let state = format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"));
    let config = state + &blog(&authority, &origin) + "[site.rate]\nrequests = \"2/d\"\n";
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    let status = || client.get(pintle.https(), BLOG, "/").status;
    assert_eq!([status(), status(), status()], [200, 200, 429]);
    pintle.rewrite(|text| {
        "[[rate]]\npaths = [\"/x\"]\nrequests = \"1/d\"\n".to_owned()
            + &text.replace("[site.rate]", "[site.rate]\nconcurrent = 9")
    });
    pintle.reload();
    assert_eq!(status(), 429);
    pintle.rewrite(|text| text.replace("\"2/d\"", "\"3/d\""));
    pintle.reload();
    assert_eq!([status(), status(), status(), status()], [200, 200, 200, 429]);
    pintle.rewrite(|text| text.replace("[site.rate]\nconcurrent = 9\nrequests = \"3/d\"", ""));
    pintle.reload();
    assert_eq!([status(), status()], [200, 200]);
}

/// A new program gives nobody a fresh burst.
#[test]
fn an_upgrade_keeps_the_counts() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let other = other_site(&authority, &origin) + "[site.rate]\nrequests = \"9/d\"\n";
    let config = blog(&authority, &origin) + "[site.rate]\nrequests = \"3/d\"\n" + &other;
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 2\n";
    let mut line = Line::start(&authority, listen, &config);
    let client = Client::new(&authority);
    let address = line.pintle.https();
    let status = |host: &str| client.get(address, host, "/").status;
    assert_eq!([status(BLOG), status(BLOG), status("other.example")], [200; 3]);
    line.upgrade();
    // Until it ends, the old process may accept another connection.
    line.pintle.wait();
    assert_eq!([status(BLOG), status(BLOG), status("other.example")], [200, 429, 200]);
    let second = line.pid();
    line.upgrade();
    line.wait(second);
    assert_eq!([status(BLOG), status("other.example")], [429, 200]);
    let (out, field) = (client.get(address, "other.example", "/"), "RateLimit");
    assert!(out.field(field).is_some_and(|value| value.contains("r=5;")), "{:?}", out.field(field));
}

/// Redirects, other sites and answers of pintle's own do not count, and have no fields.
#[test]
fn only_requests_for_the_upstream_count() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = blog(&authority, &origin)
        + "[site.rate]\nrequests = \"2/d\"\nheaders = false\n"
        + &other_site(&authority, &origin);
    let pintle = Pintle::start(&authority, &config);
    for _ in 0..5 {
        let mut plain = Connection::plain(pintle.http());
        assert_eq!(plain.get(BLOG, "/").status, 301);
        let mut options = Client::new(&authority).connect(pintle.https(), BLOG);
        assert_eq!(ask(&mut options, "OPTIONS", "/", "Max-Forwards: 0\r\n").status, 204);
        assert_eq!(Client::new(&authority).get(pintle.https(), "other.example", "/").status, 200);
    }
    let responses = [(); 3].map(|()| Client::new(&authority).get(pintle.https(), BLOG, "/"));
    assert_eq!([0, 1, 2].map(|n: usize| responses[n].status), [200, 200, 429]);
    assert!(responses.iter().all(|r| r.field("ratelimit").is_none() && r.field("ratelimit-policy").is_none()));
}

/// The upstream's own limits pass, and pintle's come behind them. A redirect gets none.
#[test]
fn fields_of_the_upstream() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/429" => Reply::new("429 Too Many Requests", "Retry-After: 7\r\nRateLimit: \"app\";r=0;t=7\r\n", ""),
        "/503" => Reply::new("503 Service Unavailable", "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT\r\n", ""),
        "/302" => Reply::new("302 Found", "Location: /x\r\nRetry-After: 2\r\n", ""),
        _ => Reply::ok("ok"),
    });
    let config = blog(&authority, &origin) + "[site.rate]\nrequests = \"100/d\"\n";
    let pintle = Pintle::start(&authority, &config);
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    let limited = connection.get(BLOG, "/429");
    assert_eq!((limited.status, limited.one("retry-after")), (429, "7"));
    let quotas = limited.all("ratelimit");
    assert_eq!((quotas.len(), quotas[0]), (2, "\"app\";r=0;t=7"));
    assert!(quotas[1].starts_with("\"site\";r=99;t="), "{quotas:?}");
    assert_eq!(connection.get(BLOG, "/503").one("retry-after"), "Fri, 31 Dec 2100 23:59:59 GMT");
    let redirect = connection.get(BLOG, "/302");
    assert_eq!((redirect.one("retry-after"), redirect.field("ratelimit")), ("2", None));
    let http2 = block_on(async {
        let mut sender = connect_http2(&authority, &pintle).await.ready().await.unwrap();
        let (response, _) = sender.send_request(http2_request("GET", "/429").body(()).unwrap(), true).unwrap();
        response.await.unwrap().headers().clone()
    });
    assert_eq!((http2["retry-after"].to_str().unwrap(), http2.get_all("ratelimit").iter().count()), ("7", 2));
}

#[test]
fn limits_are_counted_and_explained() {
    let bed = Bed::new();
    let site = "[site.rate]\nrequests = \"1/d\"\nburst = 2\nconcurrent = 5\n";
    let rules = "[[rate]]\nname = \"login\"\npaths = [\"/wp-login.php\"]\nrequests = \"5/h\"\n";
    let pintle = Pintle::start(&bed.authority, &(rules.to_owned() + &bed.config("") + site));
    let client = Client::new(&bed.authority);
    let statuses = [(); 4].map(|()| client.get(pintle.https(), BLOG, "/").status);
    assert_eq!(statuses, [200, 200, 429, 429]);
    eventually("the counter", || {
        (bed.value("pintle_limits_reached_total{limit=\"rate_requests\"}") == Some(2.0)).then_some(())
    });
    assert_eq!(pintle.status()["limits_reached"]["rate_requests"], 2);
    let shown = output(&mut pintle.command("status"));
    assert!(shown.contains("  limits reached rate_requests 2\n"), "{shown}");
    let mut explain = pintle.command("explain");
    let report = output(explain.arg(format!("https://{BLOG}/wp-login.php")).arg("--json"));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let limits = report["limits"].as_array().unwrap();
    let of = |name: &str| limits.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {limits:?}"));
    assert_eq!(of("site.rate.requests")["value"], "1/d, 2 at once, for each client");
    assert_eq!(of("site.rate.concurrent")["value"], "5 for each client");
    assert_eq!(of("rate[0].requests")["value"], "5/h, 5 at once, for each client");
    assert!(of("rate[0].requests")["at"].as_str().unwrap().contains("pintle.toml:"));
    // Explaining uses nothing up.
    let (code, text, _) = outcome(pintle.command("explain").arg(format!("https://{BLOG}/wp-login.php")));
    assert!(code == 0 && text.contains("site.rate.requests"), "{text}");
}

//! A name with several addresses, of which some fail: others are used, those are left out, and never all of them.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Authority, BLOG, Client, Origin, Pintle, Reply, blog_at, eventually, free_port, output, page};

/// The reaction of a name server to a question.
enum Says {
    /// It answers: the addresses for A, and `::1` for AAAA if it has that.
    Addresses,
    /// The same, later.
    Late(Duration),
    /// It has none of this kind.
    None,
    /// Nothing.
    Silence,
    /// It does not understand the question (FORMERR), and repeats nothing of it.
    Refusal,
}

/// A name server that gives these addresses for any name.
pub fn name_server(addresses: &'static [Ipv4Addr]) -> SocketAddr {
    name_server_that(addresses, |is_a, _| if is_a { Says::Addresses } else { Says::None })
}

/// The same, of its own ways: it is told whether A is asked for, and whether with EDNS.
fn name_server_that(addresses: &'static [Ipv4Addr], says: impl Fn(bool, bool) -> Says + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let own = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let query = &buffer[..len];
            let name_end = 12 + query[12..].iter().position(|b| *b == 0).unwrap() + 1;
            let is_a = query[name_end..name_end + 2] == [0, 1];
            let said = says(is_a, query[11] > 0);
            let count = match said {
                Says::Silence => continue,
                Says::Refusal => {
                    let _ = socket.send_to(&[&query[..2], &[0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0]].concat(), from);
                    continue;
                }
                Says::None => 0,
                _ if is_a => addresses.len() as u8,
                _ => 1,
            };
            let mut answer = query[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
            answer.extend(&query[12..name_end + 4]);
            for address in addresses.iter().take(usize::from(count)) {
                // The name at offset 12, its kind, IN, for an hour.
                answer.extend([
                    0xc0,
                    12,
                    0,
                    if is_a { 1 } else { 28 },
                    0,
                    1,
                    0,
                    0,
                    14,
                    16,
                    0,
                    if is_a { 4 } else { 16 },
                ]);
                match is_a {
                    true => answer.extend(address.octets()),
                    false => answer.extend(std::net::Ipv6Addr::LOCALHOST.octets()),
                }
            }
            if let Says::Late(after) = said {
                let socket = socket.try_clone().unwrap();
                thread::spawn(move || {
                    thread::sleep(after);
                    socket.send_to(&answer, from)
                });
            } else {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    own
}

pub const TWO: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];

/// Two origins on the same port of both addresses, the second of them live.
fn second(port: u16) -> Origin {
    Origin::start_at(&format!("{}:{port}", TWO[1]), |_| Reply::ok("second"))
}

/// Connections are not kept, so that each request chooses.
fn config(authority: &Authority, url: &str, more: &str) -> String {
    config_with(name_server(&TWO), authority, url, more)
}

fn config_with(name_server: SocketAddr, authority: &Authority, url: &str, more: &str) -> String {
    format!(
        "[resolver]\nname_servers = [\"{name_server}\"]\n[limits]\nupstream_idle = \"0s\"\n[state]\ndirectory = {:?}\n{}{more}",
        authority.folder().join("state"),
        blog_at(authority, url)
    )
}

fn left_out(pintle: &Pintle, address: IpAddr) -> Value {
    let health = pintle.status()["sites"][0]["upstream_health"].clone();
    let mut all = health["addresses"].as_array().unwrap().iter();
    all.find(|a| a["address"].as_str().unwrap().starts_with(&address.to_string())).unwrap().clone()
}

fn closing(body: &str) -> Reply {
    Reply::new("200 OK", "Connection: close\r\n", body)
}

/// RFC 8305 section 3: addresses of one family are used though the other one's are never told, or late.
#[test]
fn a_family_that_is_not_answered_for_holds_up_nothing() {
    let authority = Authority::new();
    let origin = Origin::start_at("127.0.0.2:0", |_| closing("first"));
    let port = origin.address.port();
    let url = format!("http://origin.example.net:{port}");
    let addresses = |pintle: &Pintle| {
        let health = pintle.status()["sites"][0]["upstream_health"].clone();
        let all = health["addresses"].as_array().unwrap().iter().map(|a| a["address"].as_str().unwrap().to_owned());
        all.collect::<Vec<_>>()
    };
    let never = name_server_that(&TWO[..1], |is_a, _| if is_a { Says::Addresses } else { Says::Silence });
    let late = Duration::from_millis(1500);
    let late = name_server_that(&TWO[..1], move |is_a, _| if is_a { Says::Addresses } else { Says::Late(late) });
    for (server, comes) in [(never, false), (late, true)] {
        let pintle = Pintle::start(&authority, &config_with(server, &authority, &url, ""));
        let begin = tokio::time::Instant::now();
        assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").text(), "first");
        assert!(begin.elapsed() < Duration::from_millis(1200), "{:?}", begin.elapsed());
        assert_eq!(addresses(&pintle), [format!("127.0.0.2:{port}")]);
        if comes {
            let both = eventually("both are known", || Some(addresses(&pintle)).filter(|known| known.len() == 2));
            assert_eq!(both[1], format!("[::1]:{port}"));
            assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").text(), "first");
        }
    }
}

/// The other way round: nothing is said about A.
#[test]
fn an_upstream_of_the_sixth_version_alone() {
    let authority = Authority::new();
    let origin = Origin::start_at("[::1]:0", |_| closing("sixth"));
    let url = format!("http://origin.example.net:{}", origin.address.port());
    for says in [
        |is_a: bool, _: bool| if is_a { Says::Silence } else { Says::Addresses },
        |is_a, _| {
            if is_a { Says::None } else { Says::Addresses }
        },
    ] {
        let pintle = Pintle::start(&authority, &config_with(name_server_that(&TWO, says), &authority, &url, ""));
        let begin = tokio::time::Instant::now();
        assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").text(), "sixth");
        assert!(begin.elapsed() < Duration::from_millis(1200), "{:?}", begin.elapsed());
    }
}

/// Servers that refuse EDNS, and servers that drop such a question.
#[test]
fn a_name_server_without_edns() {
    let authority = Authority::new();
    let origin = Origin::start_at("127.0.0.2:0", |_| closing("first"));
    let url = format!("http://origin.example.net:{}", origin.address.port());
    for refuses in [|| Says::Refusal, || Says::Silence] {
        let server = name_server_that(&TWO[..1], move |is_a, edns| match (edns, is_a) {
            (true, _) => refuses(),
            (false, true) => Says::Addresses,
            (false, false) => Says::None,
        });
        let pintle = Pintle::start(&authority, &config_with(server, &authority, &url, ""));
        let begin = tokio::time::Instant::now();
        assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").text(), "first");
        assert!(begin.elapsed() < Duration::from_millis(1200), "{:?}", begin.elapsed());
    }
}

#[test]
fn an_address_that_ends_connections_is_left_out_and_readers_do_not_notice() {
    let authority = Authority::new();
    let fails = Arc::new(AtomicBool::new(true));
    let failing = fails.clone();
    let first = Origin::start_at("127.0.0.2:0", move |_| {
        if failing.load(Ordering::SeqCst) { Reply::Close(Vec::new()) } else { closing("first") }
    });
    let port = first.address.port();
    let other = Origin::start_at(&format!("127.0.0.3:{port}"), |_| closing("second"));
    let pintle = Pintle::start(&authority, &config(&authority, &format!("http://origin.example.net:{port}"), ""));
    let client = Client::new(&authority);
    for _ in 0..20 {
        let response = client.get(pintle.https(), BLOG, "/");
        assert_eq!((response.status, response.text()), (200, "second".to_owned()));
    }
    // Three failures, and it is asked no more for a while.
    let asked = first.received().len();
    assert!((3..=6).contains(&asked), "{asked}");
    assert_eq!(other.received().len(), 20);
    pintle.logs("address left out");
    assert!(left_out(&pintle, TWO[0].into())["left_out_for"].as_u64().unwrap() > 0);
    let status = output(&mut pintle.command("status"));
    assert!(status.contains(&format!("LEFT OUT   127.0.0.2:{port}")), "{status}");
    assert!(pintle.status()["counters"]["upstream_retries"].as_u64().unwrap() >= 3);
    // When its time is over, it is tried again, and kept.
    fails.store(false, Ordering::SeqCst);
    eventually("it is in use again", || (client.get(pintle.https(), BLOG, "/").text() == "first").then_some(()));
    pintle.logs("address answers again");
    assert_eq!(left_out(&pintle, TWO[0].into())["left_out_for"], 0);
}

/// A request that may have been processed is not sent twice.
#[test]
fn a_post_is_not_sent_twice() {
    let authority = Authority::new();
    let first = Origin::start_at("127.0.0.2:0", |_| Reply::Close(Vec::new()));
    let port = first.address.port();
    let other = second(port);
    let pintle = Pintle::start(&authority, &config(&authority, &format!("http://origin.example.net:{port}"), ""));
    let client = Client::new(&authority);
    // With a body, and without one: it is the method that counts, too.
    for (count, body) in ["once", ""].into_iter().enumerate() {
        let mut connection = client.connect(pintle.https(), BLOG);
        connection.send(format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        assert_eq!(connection.response("POST").status, 502);
        assert_eq!((first.received().len(), other.received().len()), (count + 1, 0));
    }
}

#[test]
fn an_address_that_refuses_or_drops_is_passed_over() {
    let authority = Authority::new();
    // Nobody listens at the first address.
    let port = free_port();
    let other = second(port);
    let pintle = Pintle::start(&authority, &config(&authority, &format!("http://origin.example.net:{port}"), ""));
    let client = Client::new(&authority);
    let mut connection = client.connect(pintle.https(), BLOG);
    connection.send(format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 4\r\n\r\nonce"));
    // It was not sent to the first one, so that even this may go to the second.
    assert_eq!(connection.response("POST").text(), "second");
    // Both gone: it is still tried, and the cause is named.
    drop(other);
}

#[test]
fn a_strangers_certificate_at_one_address() {
    let authority = Authority::new();
    let wrong = authority.leaf("wrong", &["stranger.example.org"]);
    let right = authority.leaf("right", &["up.example.net"]);
    let first = crate::harness::SecureServer::start_at("127.0.0.2:0", &[&wrong], |_, _| page("", "stranger"));
    let port = first.address.port();
    let _second =
        crate::harness::SecureServer::start_at(&format!("127.0.0.3:{port}"), &[&right], |_, _| page("", "right"));
    let more = format!("[site.upstream_options]\nca = {:?}\n", authority.ca_path());
    let pintle = Pintle::start(&authority, &config(&authority, &format!("https://up.example.net:{port}"), &more));
    let client = Client::new(&authority);
    for _ in 0..8 {
        assert_eq!(client.get(pintle.https(), BLOG, "/").text(), "right");
    }
    pintle.logs("address left out");
}

/// All addresses fail: they are tried all the same, and found when they are back.
#[test]
fn never_all_are_left_out() {
    let authority = Authority::new();
    let fails = Arc::new(AtomicBool::new(true));
    let answer = |body: &'static str| {
        let fails = fails.clone();
        move |_: &_| if fails.load(Ordering::SeqCst) { Reply::Close(Vec::new()) } else { closing(body) }
    };
    let first = Origin::start_at("127.0.0.2:0", answer("one of them"));
    let port = first.address.port();
    let _second = Origin::start_at(&format!("127.0.0.3:{port}"), answer("one of them"));
    let more = "[site.circuit_breaker]\nfailures = 0\n";
    let pintle = Pintle::start(&authority, &config(&authority, &format!("http://origin.example.net:{port}"), more));
    let client = Client::new(&authority);
    for _ in 0..10 {
        assert_eq!(client.get(pintle.https(), BLOG, "/").status, 502);
    }
    eventually("both are left out", || {
        let out = |n: usize| left_out(&pintle, TWO[n].into())["left_out_for"].as_u64().unwrap() > 0;
        (out(0) && out(1)).then_some(())
    });
    fails.store(false, Ordering::SeqCst);
    assert_eq!(client.get(pintle.https(), BLOG, "/").text(), "one of them");
}

#[test]
fn a_health_check_leaves_an_address_out_and_takes_it_back() {
    let authority = Authority::new();
    let sick = Arc::new(AtomicBool::new(false));
    let says = sick.clone();
    let first = Origin::start_at("127.0.0.2:0", move |request| match request.path() {
        "/health?deep" if says.load(Ordering::SeqCst) => Reply::new("503 Service Unavailable", "", "sick"),
        _ => closing("first"),
    });
    let port = first.address.port();
    let other = Origin::start_at(&format!("127.0.0.3:{port}"), |_| closing("second"));
    let more = "[site.health_check]\npath = \"/health?deep\"\ninterval = \"500ms\"\nunhealthy = 2\nhealthy = 2\n";
    let url = format!("http://origin.example.net:{port}");
    let pintle = Pintle::start(&authority, &config(&authority, &url, more));
    let client = Client::new(&authority);
    let get = || client.get(pintle.https(), BLOG, "/").text();
    let check = first.request("/health?deep");
    assert_eq!(check.field("host"), Some(&*format!("origin.example.net:{port}")));
    assert_eq!(check.field("user-agent"), Some("pintle (health check)"));
    other.request("/health?deep");
    assert_eq!(get(), "first");
    sick.store(true, Ordering::SeqCst);
    eventually("it is left out", || (get() == "second").then_some(()));
    assert_eq!(left_out(&pintle, TWO[0].into())["check_fails"], true);
    let failed = pintle.log_json("health check fails");
    assert!(failed.len() == 1 && failed[0]["error"] == "status 503", "{failed:?}");
    sick.store(false, Ordering::SeqCst);
    eventually("it is back", || (get() == "first").then_some(()));
    pintle.logs("health check succeeds again");
    // A reload that changes nothing here begins no second check; one that takes the site's check away ends it.
    pintle.rewrite(|text| text.split("[site.health_check]").next().unwrap().to_owned());
    pintle.reload();
    let count = || first.received().iter().filter(|r| r.path().starts_with("/health")).count();
    eventually("the checks end", || {
        let before = count();
        thread::sleep(Duration::from_millis(1500));
        (count() == before).then_some(())
    });
}

/// A check that succeeds closes the circuit before any reader has to try.
#[test]
fn a_health_check_closes_the_circuit() {
    let authority = Authority::new();
    let port = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = blog_at(&authority, &format!("http://{port}"))
        + "[site.circuit_breaker]\nfailures = 2\nopen = \"1h\"\nopen_max = \"1h\"\n\
           [site.health_check]\npath = \"/\"\ninterval = \"500ms\"\nhealthy = 1\n";
    let pintle = Pintle::start(&authority, &config);
    let client = Client::new(&authority);
    let get = || client.get(pintle.https(), BLOG, "/");
    let refused = eventually("the circuit opens", || Some(get()).filter(|response| response.status == 503));
    assert!(refused.one("retry-after").parse::<u64>().unwrap() > 3000);
    let _origin = Origin::start_at(&port.to_string(), |_| Reply::ok("back"));
    eventually("the circuit closes", || (get().status == 200).then_some(()));
}

/// An address where nothing answers costs a quarter of a second each time, until it is left out.
#[test]
fn an_address_that_hangs_is_left_out() {
    let authority = Authority::new();
    // The kernel takes the connection; nobody answers.
    let silent = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    thread::spawn(move || {
        let held: Vec<_> = silent.incoming().flatten().collect();
        held.iter().for_each(|mut socket| drop(socket.read(&mut [0; 1])));
    });
    let _other = Origin::start_at(&format!("127.0.0.3:{port}"), |_| closing("second"));
    let more = "[site.upstream_options]\nresponse_timeout = \"1s\"\n[site.circuit_breaker]\nfailures = 0\n";
    let pintle = Pintle::start(&authority, &config(&authority, &format!("http://origin.example.net:{port}"), more));
    let client = Client::new(&authority);
    let statuses: Vec<u16> = (0..6).map(|_| client.get(pintle.https(), BLOG, "/").status).collect();
    assert_eq!(statuses, [504, 504, 504, 200, 200, 200]);
}

//! The preflight against a DNS server whose records the test sets: what it finds before an order, and what it asks.

use pintle::acme::preflight::{CaaIssuer, Ports, PreflightFinding, PreflightOrder, Probe, Subject, check};
use pintle::config::acme::Method;
use pintle::keys::pin::Pin;
use pintle::reason::Severity;
use pintle::upstream::dns::NameServers;
use tempfile::TempDir;

use crate::harness::pebble::TestDns;
use crate::harness::{Authority, Origin, Reply, SecureServer, page};

const ACCOUNT: &str = "https://ca.example/acct/7";
const NAME: &str = "blog.example.com";

/// A DNS server, and an HTTP server at 127.0.0.1 that knows the probe, as pintle does.
struct Rig {
    dns: TestDns,
    ours: Origin,
    ask: PreflightOrder,
    _folder: TempDir,
}

/// Returns `true` if nothing forbids the order.
fn may_order(findings: &[PreflightFinding]) -> bool {
    findings.iter().all(|finding| finding.severity < Severity::Error)
}

fn rig() -> Rig {
    let folder = TempDir::new().unwrap();
    let dns = TestDns::start(folder.path(), "127.0.0.1", "");
    let ours = Origin::start(|request| match request.path() {
        "/.well-known/acme-challenge/probe" => Reply::ok("probe.thumb\n"),
        _ => Reply::new("404 Not Found", "", ""),
    });
    let issuer = |identity: &str| CaaIssuer {
        title: format!("the CA {identity}"),
        identities: vec![identity.to_owned()],
        account: Some(ACCOUNT.to_owned()),
    };
    let ask = PreflightOrder {
        names: vec![NAME.to_owned()],
        method: Method::Http01,
        issuer: issuer("ca.example"),
        fallback: Some(issuer("second.example")),
        probe: Probe { token: "probe".into(), content: "probe.thumb".into() },
        own: Vec::new(),
        ports: Ports { http: ours.address.port(), tls: crate::harness::free_port() },
        behind_proxy: false,
        other_view: false,
        now: 1_000,
    };
    Rig { dns, ours, ask, _folder: folder }
}

impl Rig {
    fn check(&self) -> Vec<PreflightFinding> {
        let servers = NameServers(vec![self.dns.address()]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(&self.ask, &servers))
    }

    /// The only finding, an error of this kind, whose texts have all of these.
    #[track_caller]
    fn refused(&self, subject: Subject, parts: &[&str]) {
        let findings = self.check();
        assert!(!may_order(&findings), "{findings:#?}");
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert_eq!((findings[0].subject, findings[0].severity), (subject, Severity::Error), "{findings:#?}");
        let text = findings[0].reason.render(Severity::Error, false);
        assert!(!findings[0].reason.hints.is_empty(), "no remedy: {text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }
}

#[test]
fn names_that_lead_here() {
    let mut rig = rig();
    rig.ask.names = (0..100).map(|n| format!("name-{n}.example.com")).collect();
    assert_eq!(rig.check(), []);
    assert_eq!(rig.ours.received().len(), 100);
    let first = &rig.ours.received()[0];
    assert!(first.field("host").unwrap().starts_with("name-"), "{}", first.head);
    // An alias leads here as well.
    rig.ask.names = vec!["alias.example.com".into()];
    rig.dns.set_cname("alias.example.com", NAME);
    assert_eq!(rig.check(), []);
}

#[test]
fn addresses_that_do_not() {
    let mut rig = rig();
    let port = rig.ask.ports.http;
    rig.dns.add_a(NAME, &["127.0.0.9"]);
    rig.refused(Subject::Address, &[NAME, "A 127.0.0.9", &format!("port {port}"), "refused", "IN A 127.0.0.9"]);
    rig.dns.clear_a(NAME);
    // One silent address of two: a CA may take the other one.
    rig.dns.add_a(NAME, &["127.0.0.1", "127.0.0.9"]);
    let findings = rig.check();
    assert!(may_order(&findings) && findings.len() == 1, "{findings:#?}");
    let text = findings[0].reason.full_line();
    assert!(text.contains("A 127.0.0.9") && findings[0].severity == Severity::Warning, "{text}");
    assert!(findings[0].reason.notes.iter().any(|note| note.contains("another address leads here")), "{findings:#?}");
    // But it takes an AAAA record first.
    rig.dns.add_aaaa(NAME, &["2001:db8::1"]);
    assert!(!may_order(&rig.check()));
    rig.dns.clear_aaaa(NAME);
    rig.dns.clear_a(NAME);
    rig.dns.add_aaaa(NAME, &["2001:db8::1"]);
    rig.refused(Subject::Address, &[NAME, "AAAA 2001:db8::1", "does not point here", "IN AAAA 2001:db8::1"]);
    rig.dns.clear_aaaa(NAME);
    // An alias has no address of its own.
    rig.dns.set_cname(NAME, "host.example.net");
    rig.dns.add_a("host.example.net", &["127.0.0.9"]);
    let remove = "correct or remove the record: host.example.net. IN A 127.0.0.9";
    rig.refused(Subject::Address, &["blog.example.com: A 127.0.0.9", remove, "replace the CNAME of blog.example.com"]);
    rig.dns.clear_cname(NAME);
    // Another server, without and with a sign of its network.
    let _other = Origin::start_at(&format!("127.0.0.2:{port}"), |_| {
        Reply::new("404 Not Found", "Server: nginx\r\nSet-Cookie: a=b\r\n", "no")
    });
    let _cdn =
        Origin::start_at(&format!("127.0.0.3:{port}"), |_| Reply::new("403 Forbidden", "CF-RAY: 8a-FRA\r\n", "no"));
    let _through =
        Origin::start_at(&format!("127.0.0.4:{port}"), |_| Reply::new("200 OK", "CF-RAY: 8a-FRA\r\n", "probe.thumb"));
    rig.dns.add_a(NAME, &["127.0.0.2"]);
    rig.refused(Subject::Address, &["A 127.0.0.2", "another server", "404", "nginx"]);
    for through in ["127.0.0.3", "127.0.0.4"] {
        rig.dns.clear_a(NAME);
        rig.dns.add_a(NAME, &[through]);
        rig.refused(Subject::Address, &["Cloudflare", NAME, "DNS only", "dns_hook"]);
    }
    // By DNS, addresses do not matter.
    rig.ask.method = Method::Dns01;
    assert_eq!(rig.check(), []);
    rig.ask.method = Method::Http01;
    rig.dns.clear_a(NAME);
    // Half of the names is no order.
    rig.ask.names = vec!["good.example.com".into(), NAME.into()];
    rig.dns.add_a(NAME, &["127.0.0.2"]);
    rig.refused(Subject::Address, &["A 127.0.0.2"]);
}

#[test]
fn redirects_to_the_same_name_are_followed() {
    let mut rig = rig();
    let port = rig.ask.ports.http;
    let _moved = Origin::start_at(&format!("127.0.0.2:{port}"), |request| match request.path() {
        "/there" => Reply::ok("probe.thumb"),
        _ => Reply::new("301 Moved", &format!("Location: http://{NAME}/there\r\n"), ""),
    });
    let _away = Origin::start_at(&format!("127.0.0.3:{port}"), |_| {
        Reply::new("302 Found", "Location: https://www.example.net/there\r\n", "")
    });
    let _round = Origin::start_at(&format!("127.0.0.4:{port}"), |_| Reply::new("302 Found", "Location: /x\r\n", ""));
    rig.dns.add_a(NAME, &["127.0.0.2"]);
    assert_eq!(rig.check(), []);
    rig.dns.add_a("away.example.com", &["127.0.0.3"]);
    rig.ask.names = vec!["away.example.com".into()];
    rig.refused(Subject::Address, &["www.example.net"]);
    rig.dns.add_a("round.example.com", &["127.0.0.4"]);
    rig.ask.names = vec!["round.example.com".into()];
    rig.refused(Subject::Address, &["redirects"]);
}

#[test]
fn tls_that_ends_elsewhere() {
    let mut rig = rig();
    let authority = Authority::named("another network");
    let leaf = authority.leaf("other", &[NAME]);
    let other = SecureServer::start(&[&leaf], |_, _| page("", "x"));
    rig.ask.ports.tls = other.address.port();
    rig.refused(Subject::Address, &["TLS ends at another server", "another network"]);
    // Its own certificate is not foreign.
    rig.ask.own = vec![leaf.pin.parse::<Pin>().unwrap()];
    assert_eq!(rig.check(), []);
    // tls-alpn-01 there meets a server that has never heard of it.
    rig.ask.method = Method::TlsAlpn01;
    rig.refused(Subject::Address, &["another network", &format!("port {}", other.address.port())]);
}

#[test]
fn caa_records() {
    let mut rig = rig();
    let domain = "example.com";
    let set = |records: &[(&str, &str)]| {
        rig.dns.clear_caa(domain);
        rig.dns.add_caa(domain, records);
    };
    set(&[("issue", "other.example")]);
    rig.refused(Subject::Caa, &["other.example", "example.com. IN CAA 0 issue \"ca.example\""]);
    // Every name up to the first set was asked, and none above it.
    for (name, want) in [(NAME, true), (domain, true), ("com", false)] {
        assert_eq!(rig.dns.asked(name).contains(&257), want, "{name}");
    }
    set(&[("issue", "ca.example; accounturi=https://ca.example/acct/8"), ("issue", "second.example")]);
    rig.refused(Subject::Caa, &["acct/8", &format!("issue \"ca.example; accounturi={ACCOUNT}\"")]);
    set(&[("issue", "ca.example; validationmethods=dns-01"), ("issue", "second.example")]);
    rig.refused(Subject::Caa, &["dns-01", "validationmethods=http-01"]);
    set(&[("issue", "ca.example"), ("issue", "second.example")]);
    assert_eq!(rig.check(), []);
    // A record that admits only the first CA disables the second one.
    set(&[("issue", "ca.example")]);
    let findings = rig.check();
    assert!(may_order(&findings), "{findings:?}");
    assert_eq!((findings.len(), findings[0].severity), (1, Severity::Warning));
    assert!(findings[0].reason.what.contains("second"), "{findings:?}");
    // A set of the name itself hides that above it.
    rig.dns.add_caa(NAME, &[("issue", ";")]);
    rig.refused(Subject::Caa, &["forbid", "blog.example.com. IN CAA"]);
    rig.dns.clear_caa(NAME);
    // An alias has no record of its own.
    rig.dns.set_cname(NAME, "host.example.net");
    rig.dns.add_caa("host.example.net", &[("issue", "other.example")]);
    let whose = "the CAA records of host.example.net (the target of the CNAME of blog.example.com)";
    let add = "add: host.example.net. IN CAA 0 issue \"ca.example\"";
    rig.refused(Subject::Caa, &[whose, add, "replace the CNAME of blog.example.com"]);
    rig.dns.clear_cname(NAME);
    // Wildcards have a tag of their own.
    rig.ask.method = Method::Dns01;
    rig.ask.names = vec!["*.example.com".into()];
    rig.dns.clear_caa(domain);
    rig.dns.add_caa(domain, &[("issue", "ca.example"), ("issuewild", ";"), ("issue", "second.example")]);
    rig.refused(Subject::Caa, &["example.com. IN CAA 0 issuewild \"ca.example\""]);
    rig.ask.method = Method::Http01;
    rig.refused(Subject::Method, &["*.example.com", "dns_hook"]);
}

#[test]
fn a_name_server_that_fails_forbids_the_order() {
    let mut rig = rig();
    rig.dns.set_servfail("example.com");
    rig.refused(Subject::Dns, &["example.com", "CAA", "SERVFAIL"]);
    rig.dns.clear_servfail("example.com");
    assert_eq!(rig.check(), []);
    rig.dns.set_servfail(NAME);
    assert!(rig.check().iter().all(|f| f.subject == Subject::Dns));
    assert!(!may_order(&rig.check()));
    // Nobody answers at all.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let servers = NameServers(vec![silent.local_addr().unwrap()]);
    rig.ask.method = Method::Dns01;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let findings = runtime.block_on(check(&rig.ask, &servers));
    assert!(may_order(&findings), "{findings:?}");
    assert_eq!((findings[0].subject, findings[0].severity), (Subject::Dns, Severity::Warning));
    assert!(findings[0].reason.line().contains("unknown from here"), "{findings:?}");
}

#[test]
fn a_name_without_addresses() {
    let folder = TempDir::new().unwrap();
    let mut rig = rig();
    rig.dns = TestDns::start(folder.path(), "", "");
    rig.refused(Subject::Address, &["no A or AAAA record", "blog.example.com. IN A"]);
    // A private authority may ask other name servers.
    rig.ask.other_view = true;
    let findings = rig.check();
    assert!(may_order(&findings) && findings.len() == 1, "{findings:?}");
    assert!(findings[0].reason.line().contains("other name servers"), "{findings:?}");
}

#[test]
fn standing_records() {
    let mut rig = rig();
    rig.ask.method = Method::DnsPersist01;
    rig.ask.names = vec![NAME.into(), format!("*.{NAME}")];
    let line = format!("_validation-persist.{NAME}. IN TXT \"ca.example; accounturi={ACCOUNT}; policy=wildcard\"");
    let findings = rig.check();
    assert_eq!(findings.len(), 2, "{findings:#?}");
    for finding in &findings {
        assert_eq!((finding.subject, finding.severity), (Subject::Record, Severity::Error), "{finding:?}");
        assert!(finding.reason.what.contains("no record of this authority"), "{finding:?}");
        assert_eq!(finding.reason.hints, [format!("add: {line}")]);
    }
    let set = |value: &str| {
        rig.dns.clear_txt(&format!("_validation-persist.{NAME}"));
        rig.dns.add_txt(&format!("_validation-persist.{NAME}"), &format!("ca.example; accounturi={ACCOUNT}{value}"));
    };
    set("");
    let findings = rig.check();
    assert_eq!((findings.len(), findings[0].name.starts_with("*.")), (1, true), "{findings:#?}");
    assert!(findings[0].reason.what.contains("policy=wildcard"), "{findings:#?}");
    set("; policy=wildcard");
    assert_eq!(rig.check(), []);
    set("; policy=wildcard; persistUntil=90000");
    let findings = rig.check();
    assert!(may_order(&findings) && findings.len() == 2, "{findings:#?}");
    assert!(findings[0].reason.what.contains("1970-01-02 01:00 UTC"), "{findings:#?}");
    // Without an account, nobody can say.
    rig.ask.issuer.account = None;
    assert!(may_order(&rig.check()));
}

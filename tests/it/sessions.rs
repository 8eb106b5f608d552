//! Sessions and pins: a client judges a resumed session by the chain under which it began (RFC 7469 section 2.6), and it
//! notes pins only where the guard knows the chain.

use std::sync::Arc;

use rustls::{ClientConfig, HandshakeKind};

use crate::harness::{Authority, BLOG, Client, KeyKind, Leaf, Origin, Pintle, eventually, output};
use crate::rotation::Bed;
use crate::upgrade::Line;

const LISTEN: &str = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\n";
const OTHER: &str = "other.example.com";

/// Clients of TLS 1.3 and of TLS 1.2 that keep their sessions.
fn clients(authority: &Authority) -> [Client; 2] {
    [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]].map(|versions| {
        let any = Client::config(authority);
        let mut roots = rustls::RootCertStore::empty();
        let ca = rustls::pki_types::pem::PemObject::from_pem_slice(authority.ca_pem().as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let mut config = ClientConfig::builder_with_provider(any.crypto_provider().clone())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Client::with(config)
    })
}

/// `true` if the visit resumed a session, with the pins that it got.
fn visit(client: &Client, pintle: &Pintle, name: &str) -> (bool, Option<String>) {
    let mut connection = client.connect(pintle.https(), name);
    let response = connection.get(name, "/");
    let kind = connection.stream.tls().unwrap().handshake_kind().unwrap();
    (kind == HandshakeKind::Resumed, response.field("public-key-pins").map(str::to_owned))
}

fn other_site(bed: &Bed, leaf: &Leaf) -> String {
    format!(
        "[[site]]\nhosts = [{OTHER:?}]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        bed.origin.url(),
        leaf.chain,
        leaf.key
    )
}

/// Another client has the same pins and other sessions: it notes the new set, so the old sessions must be over.
#[test]
fn sessions_end_with_their_key() {
    let bed = Bed::new();
    let other = bed.authority.leaf("other", &[OTHER]);
    let line = Line::start(&bed.authority, LISTEN, &(bed.config(&bed.pins("30d"), "") + &other_site(&bed, &other)));
    let pintle = &line.pintle;
    let all = clients(&bed.authority);
    for client in &all {
        assert!(!visit(client, pintle, BLOG).0 && !visit(client, pintle, OTHER).0);
        assert!(visit(client, pintle, BLOG).0 && visit(client, pintle, OTHER).0);
    }
    // The same key under a new certificate: sessions go on, over an upgrade, too.
    let renewed = bed.authority.renew("renewed", &bed.live.key, &[BLOG, "www.example.com"], 91);
    bed.put(&renewed);
    output(&mut pintle.command("reload"));
    line.upgrade();
    for client in &all {
        assert!(visit(client, pintle, BLOG).0 && visit(client, pintle, OTHER).0);
    }
    // The promised next key.
    bed.put(&bed.next);
    eventually("the next key is served", || (bed.served(pintle) == bed.next.pin).then_some(()));
    for client in &all {
        let (resumed, pins) = visit(client, pintle, BLOG);
        assert!(!resumed && pins.is_some_and(|pins| pins.contains(&bed.next.pin)));
        assert!(visit(client, pintle, BLOG).0, "the new session is resumed");
        assert!(visit(client, pintle, OTHER).0, "another site's session is resumed");
    }
    // A change that comes with an upgrade.
    let spare = bed.authority.renew("spare-chain", &bed.spare.key, &[BLOG, "www.example.com"], 90);
    bed.put(&spare);
    line.upgrade();
    assert_eq!(bed.served(pintle), bed.spare.pin);
    for client in &all {
        assert!(!visit(client, pintle, BLOG).0 && visit(client, pintle, OTHER).0);
        assert!(visit(client, pintle, BLOG).0);
    }
}

/// Of two pairs, one changes: the sessions of the other one stay.
#[test]
fn sessions_of_the_pair_that_stays_are_resumed() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let [rsa, ecdsa, next] = [("rsa", KeyKind::Rsa), ("ecdsa", KeyKind::Ecdsa), ("next", KeyKind::Ecdsa)]
        .map(|(name, kind)| authority.leaf_of(name, &[BLOG], kind, -1, 90));
    let pair = |leaf: &Leaf| format!("[[site.certificate]]\nchain = {:?}\nkey = {:?}\n", leaf.chain, leaf.key);
    let site = |ecdsa: &Leaf| {
        format!("[[site]]\nhosts = [{BLOG:?}]\nupstream = \"{}\"\n{}{}", origin.url(), pair(ecdsa), pair(&rsa))
    };
    let state = format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"));
    let pintle = Pintle::start(&authority, &(state + &site(&ecdsa)));
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut of_rsa = clients(&authority);
    let suites = provider.cipher_suites.iter().filter(|suite| format!("{:?}", suite.suite()).contains("_RSA_"));
    let provider = rustls::crypto::CryptoProvider { cipher_suites: suites.copied().collect(), ..provider.clone() };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(authority.ca_pem().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    of_rsa[0] = Client::with(config);
    let [of_rsa, of_ecdsa] = of_rsa;
    for client in [&of_rsa, &of_ecdsa] {
        assert!(!visit(client, &pintle, BLOG).0 && visit(client, &pintle, BLOG).0);
    }
    pintle.rewrite(|text| text.replace(&pair(&ecdsa), &pair(&next)));
    output(&mut pintle.command("reload"));
    assert!(visit(&of_rsa, &pintle, BLOG).0 && !visit(&of_ecdsa, &pintle, BLOG).0);
}

/// A client without SNI gets the default site's chain for every name, and the default site may become another one: nobody
/// judges that chain by any site's pins.
#[test]
fn without_its_name_in_sni_a_site_sends_no_pins() {
    let bed = Bed::new();
    let wide = bed.authority.leaf("wide", &[BLOG, "www.example.com", OTHER, "unknown.example.com"]);
    let csr = |leaf: &Leaf| leaf.key.with_extension("csr");
    bed.authority.csr(&bed.live);
    // The default site's key is among the pins of both sites.
    let backups = [csr(&bed.next), bed.authority.csr(&wide)];
    let hpkp = format!("[site.hpkp]\nmax_age = \"30d\"\nbackups = {backups:?}\n");
    let default = other_site(&bed, &wide) + &bed.pins("30d");
    let tls = format!("[tls]\nunknown_name = \"default\"\ndefault_site = {OTHER:?}\n");
    let pintle = Pintle::start(&bed.authority, &(bed.config(&hpkp, "") + &default + &tls));
    let nameless = || {
        let mut config = Client::config(&bed.authority);
        config.enable_sni = false;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Client::with(config)
    };
    assert!(visit(&Client::new(&bed.authority), &pintle, BLOG).1.is_some());
    assert_eq!(visit(&nameless(), &pintle, BLOG).1, None);
    // Not even those of the site whose chain it is.
    assert_eq!(visit(&nameless(), &pintle, OTHER).1, None);
    assert!(visit(&Client::new(&bed.authority), &pintle, OTHER).1.is_some());
    // The same with an unknown name.
    let mut connection = Client::new(&bed.authority).connect(pintle.https(), "unknown.example.com");
    let response = connection.get(OTHER, "/");
    assert_eq!((response.status, response.field("public-key-pins")), (200, None));
    // The same over a connection for another name: its certificate covers this one.
    let mut connection = Client::new(&bed.authority).connect(pintle.https(), OTHER);
    let response = connection.get(BLOG, "/");
    assert_eq!((response.status, response.field("public-key-pins")), (200, None));
}

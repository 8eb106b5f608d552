//! Rotation under load: certificates come and go in every way that renewal programs have, and nobody notices.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::harness::{BLOG, Client, Connection, Leaf, Pintle, eventually, read_response, whole};
use crate::rotation::Bed;

const HOSTS: [&str; 2] = [BLOG, "www.example.com"];
const ROTATIONS: usize = 50;
/// Longer than the files must be at rest to be looked at.
const NOTICED: Duration = Duration::from_millis(400);

/// The answers to all clients.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    requests: AtomicUsize,
    handshakes: AtomicUsize,
    failures: Mutex<Vec<String>>,
    /// Answers on new connections without pins: those whose certificate was replaced before they had asked.
    unpinned: AtomicUsize,
    /// The leaf of the last new handshake.
    leaf: Mutex<Vec<u8>>,
}

impl Seen {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn fails(&self, who: &str, what: impl std::fmt::Display) {
        self.failures.lock().unwrap().push(format!("{who}: {what}"));
    }

    /// An answer on a connection with this chain: it must be right, and its pins must be of this very chain.
    fn answered(&self, who: &str, status: u16, pins: Option<&str>, chain: &[String], must_pin: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if status != 200 {
            self.fails(who, format!("status {status}"));
        }
        match pins {
            Some(pins) if !chain.iter().any(|pin| pins.contains(pin)) => {
                self.fails(who, format!("{pins} has none of {chain:?}"));
            }
            None if must_pin => _ = self.unpinned.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
    }
}

fn pins_of(chain: Option<&[CertificateDer<'_>]>) -> Vec<String> {
    let pin = |der: &CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(der).unwrap();
        pintle::keys::pin::Pin::of_spki(certificate.tbs_certificate.subject_pki.raw).to_string()
    };
    chain.unwrap_or_default().iter().map(pin).collect()
}

fn chain_of(connection: &Connection) -> Vec<String> {
    pins_of(connection.stream.tls().and_then(|tls| tls.peer_certificates()))
}

fn get(connection: &mut Connection) -> std::io::Result<(u16, Option<String>)> {
    use std::io::Write;
    connection.stream.write_all(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n").as_bytes())?;
    let response = read_response(connection, "GET")?;
    Ok((response.status, response.field("public-key-pins").map(str::to_owned)))
}

/// One connection from beginning to end.
fn keep_alive(client: &Client, pintle: &Pintle, seen: &Seen) {
    let mut connection = client.connect(pintle.https(), BLOG);
    let chain = chain_of(&connection);
    while seen.goes_on() {
        match get(&mut connection) {
            Ok((status, pins)) => seen.answered("keep-alive", status, pins.as_deref(), &chain, false),
            Err(error) => return seen.fails("keep-alive", error),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A new handshake for each request: one whose chain and key do not fit each other fails by its signature.
fn handshakes(who: &str, client: &Client, pintle: &Pintle, seen: &Seen, must_pin: bool) {
    while seen.goes_on() {
        let exchange = client.try_connect(pintle.https(), BLOG).and_then(|mut connection| {
            let answer = get(&mut connection)?;
            Ok((connection, answer))
        });
        match exchange {
            Ok((connection, (status, pins))) => {
                let tls = connection.stream.tls().unwrap();
                seen.handshakes.fetch_add(1, Ordering::Relaxed);
                seen.answered(who, status, pins.as_deref(), &chain_of(&connection), must_pin);
                if tls.handshake_kind() == Some(rustls::HandshakeKind::Full) {
                    *seen.leaf.lock().unwrap() = tls.peer_certificates().unwrap()[0].to_vec();
                }
            }
            Err(error) => seen.fails(who, error),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// HTTP/2, several streams at a time on one connection.
fn http2(bed: &Bed, pintle: &Pintle, seen: &Seen) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = Client::config(&bed.authority);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let socket = tokio::net::TcpStream::connect(pintle.https()).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tls = connector.connect(BLOG.try_into().unwrap(), socket).await.unwrap();
        let chain = pins_of(tls.get_ref().1.peer_certificates());
        let (sender, connection) = h2::client::handshake(tls).await.unwrap();
        tokio::spawn(connection);
        while seen.goes_on() {
            let requests = (0..4).map(|_| async {
                let mut sender = sender.clone().ready().await?;
                let request = http::Request::get(format!("https://{BLOG}/")).body(()).unwrap();
                let (parts, mut body) = sender.send_request(request, true)?.0.await?.into_parts();
                whole(&mut body).await?;
                let pins = parts.headers.get("public-key-pins").map(|pins| pins.to_str().unwrap().to_owned());
                Ok::<_, h2::Error>((parts.status.as_u16(), pins))
            });
            for answer in futures_util::future::join_all(requests).await {
                match answer {
                    Ok((status, pins)) => seen.answered("HTTP/2", status, pins.as_deref(), &chain, false),
                    Err(error) => return seen.fails("HTTP/2", error),
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// The site's files, behind a symbolic link as Kubernetes and certbot have them.
struct Files {
    root: PathBuf,
    version: usize,
}

impl Files {
    fn new(bed: &Bed) -> Self {
        let mut files = Self { root: bed.folder.path().join("mount"), version: 0 };
        files.flip(&bed.live);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join("now").join(name)
    }

    /// Another folder at once.
    fn flip(&mut self, leaf: &Leaf) {
        self.version += 1;
        let name = format!("version-{}", self.version);
        fs::create_dir_all(self.root.join(&name)).unwrap();
        fs::copy(&leaf.chain, self.root.join(&name).join("tls.crt")).unwrap();
        fs::copy(&leaf.key, self.root.join(&name).join("tls.key")).unwrap();
        symlink(name, self.root.join("next")).unwrap();
        fs::rename(self.root.join("next"), self.root.join("now")).unwrap();
    }

    /// Each file whole, instead of the old one.
    fn rename(&self, from: &Path, name: &str) {
        let new = self.path("new");
        fs::copy(from, &new).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    /// File by file: for a moment, the pair does not fit.
    fn one_by_one(&self, leaf: &Leaf, pause: Duration) {
        self.rename(&leaf.key, "tls.key");
        thread::sleep(pause);
        self.rename(&leaf.chain, "tls.crt");
    }

    /// Without any care: over the old contents, and in parts.
    fn in_parts(&self, leaf: &Leaf) {
        let chain = fs::read(&leaf.chain).unwrap();
        fs::copy(&leaf.key, self.path("tls.key")).unwrap();
        for end in [chain.len() / 3, chain.len() / 2 + 40] {
            fs::write(self.path("tls.crt"), &chain[..end]).unwrap();
            thread::sleep(NOTICED / 2);
        }
        fs::write(self.path("tls.crt"), &chain).unwrap();
    }
}

fn leaf_der(leaf: &Leaf) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(&fs::read(&leaf.chain).unwrap()).unwrap().to_vec()
}

/// Rotates so many times, in all ways there are; each time waits until clients have seen it.
fn rotate(bed: &Bed, files: &mut Files, pintle: &Pintle, seen: &Seen) -> usize {
    let mut strangers = 0;
    for n in 0..ROTATIONS {
        // Both keys are among all pins that are ever sent.
        let key = if n % 3 == 0 { &bed.spare.key } else { &bed.next.key };
        let leaf = bed.authority.renew(&format!("leaf-{n}"), key, &HOSTS, 60 + n as i64);
        match n % 10 {
            0 | 3 | 5 | 8 => files.flip(&leaf),
            1 | 6 => files.one_by_one(&leaf, Duration::ZERO),
            2 => files.one_by_one(&leaf, NOTICED),
            4 => files.in_parts(&leaf),
            7 => {
                strangers += 1;
                let stranger = bed.authority.leaf(&format!("stranger-{n}"), &HOSTS);
                files.flip(&stranger);
                let message = "certificate refused; the old one keeps serving";
                eventually("the stranger is refused", || (pintle.log_json(message).len() == strangers).then_some(()));
                files.flip(&leaf);
            }
            _ => {
                // A key that is nobody's, and the right one behind it.
                files.rename(&bed.stranger.key, "tls.key");
                thread::sleep(NOTICED);
                files.one_by_one(&leaf, Duration::ZERO);
            }
        }
        let der = leaf_der(&leaf);
        eventually(&format!("clients see certificate {n}"), || (*seen.leaf.lock().unwrap() == der).then_some(()));
    }
    strangers
}

#[test]
fn nobody_notices() {
    let bed = Bed::new();
    let mut files = Files::new(&bed);
    let config = bed.config_of(&files.path("tls.crt"), &files.path("tls.key"), &bed.pins("30d"), "");
    let pintle = Pintle::start(&bed.authority, &format!("[log]\naccess = \"off\"\n{config}"));
    let seen = Seen::default();
    let client = |resumption: Resumption| {
        let mut config = Client::config(&bed.authority);
        (config.alpn_protocols, config.resumption) = (vec![b"http/1.1".to_vec()], resumption);
        Client::with(config)
    };
    let (fresh, resuming) = (client(Resumption::disabled()), client(Resumption::in_memory_sessions(8)));
    let strangers = thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| keep_alive(&fresh, &pintle, &seen));
        }
        for _ in 0..2 {
            scope.spawn(|| http2(&bed, &pintle, &seen));
        }
        scope.spawn(|| handshakes("new handshake", &fresh, &pintle, &seen, true));
        scope.spawn(|| handshakes("resumed", &resuming, &pintle, &seen, false));
        let rotated =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rotate(&bed, &mut files, &pintle, &seen)));
        seen.stop.store(true, Ordering::Relaxed);
        rotated.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let failures = seen.failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} failures, such as {:#?}", failures.len(), &failures[..failures.len().min(10)]);
    let (requests, handshakes) = (seen.requests.into_inner(), seen.handshakes.into_inner());
    assert!(requests > 1000 && handshakes > 200, "{requests} requests, {handshakes} handshakes");
    let unpinned = seen.unpinned.into_inner();
    assert!(unpinned <= ROTATIONS / 5, "{unpinned} of {handshakes} new connections got no pins");
    let status = pintle.status();
    assert_eq!(status["rotations"].as_u64(), Some(ROTATIONS as u64));
    assert_eq!(status["rotations_refused"].as_u64(), Some(strangers as u64), "nothing half written was refused");
    assert_eq!((&status["counters"]["panics"], &status["counters"]["upstream_errors"]), (&0.into(), &0.into()));
}

//! TLS records: a real peer's, damaged, and arbitrary bytes, in arbitrary pieces.

use std::sync::{Arc, OnceLock};

use pintle::host::HostPattern;
use pintle::tls::certificate::{Certificate, Chain};
use pintle::tls::config::server;
use pintle::tls::offer::{TlsOffer, Versions};
use pintle::tls::resolver::Certificates;
use pintle::tls::stream::{Records, ServerSession, Session};
use pintle::tls::tickets::Tickets;
use pintle::upstream::tls::{Verification, client};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn configs() -> &'static Configs {
    static CONFIGS: OnceLock<Configs> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).expect("a certificate");
        let chain = Chain::from_pem(made.cert.pem().as_bytes()).expect("a chain");
        let certificate = Certificate::new(chain, made.signing_key.serialize_pem().as_bytes()).expect("its key");
        let mut certificates = Certificates::default();
        certificates.insert(
            &[HostPattern::parse("a.example").expect("a name")],
            &Certificates::set(vec![Arc::new(certificate)]),
        );
        let versions = Versions { tls12: true, tls13: true };
        let name = ServerName::try_from("a.example").expect("a name");
        Configs {
            server: server(
                Arc::new(certificates),
                &TlsOffer::usual(versions),
                Arc::new(Tickets::new().expect("randomness")),
            )
            .expect("a configuration"),
            client: client(name, &Verification::Skip, true).expect("a configuration").any,
        }
    })
}

/// Actions of the other side, read from the input: two bytes select one, and it sends the rest.
struct Script<'a>(&'a [u8]);

enum Step<'a> {
    /// Sends what it has to, in pieces of this size.
    Talk(usize),
    /// The same, with the byte at this place changed.
    Damage(usize),
    /// Sends these bytes, whatever they mean.
    Bytes(&'a [u8]),
    /// Says something, as much as this.
    Say(usize),
    /// We say something, as much as this.
    Answer(usize),
    /// Changes its keys.
    UpdateKeys,
    /// Says goodbye.
    Close,
}

impl<'a> Iterator for Script<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let (&[kind, n], rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        let n = usize::from(n);
        Some(match kind % 8 {
            0 | 1 => Step::Talk(n * n / 4 + 1),
            2 => Step::Damage(n),
            3 => {
                let (bytes, rest) = rest.split_at(n.min(rest.len()));
                self.0 = rest;
                Step::Bytes(bytes)
            }
            4 => Step::Say(n * n),
            5 => Step::Answer(n * n),
            6 => Step::UpdateKeys,
            _ => Step::Close,
        })
    }
}

/// A client that may say anything.
pub fn tls_from_client(data: &[u8]) {
    let ours = ServerSession::new(configs().server.clone()).expect("a session");
    let name = ServerName::try_from("a.example").expect("a name");
    let peer = ClientConnection::new(configs().client.clone(), name).expect("a client");
    play(ours, rustls::Connection::Client(peer), data);
}

/// An upstream that may say anything.
pub fn tls_from_upstream(data: &[u8]) {
    let name = ServerName::try_from("a.example").expect("a name");
    let ours = UnbufferedClientConnection::new(configs().client.clone(), name).expect("a session");
    let peer = ServerConnection::new(configs().server.clone()).expect("a server");
    play(ours, rustls::Connection::Server(peer), data);
}

/// The number of times that an honest peer changes its keys.
const KEY_UPDATES: usize = 16;

fn play<S: Session>(ours: S, mut peer: rustls::Connection, data: &[u8]) {
    let mut ours = Records::new(ours, Vec::new());
    let (mut damaged, mut closed, mut said, mut heard, mut updates) = (false, false, 0, 0, 0);
    for step in Script(data) {
        let mut bytes = Vec::new();
        let mut piece = usize::MAX;
        match step {
            Step::Talk(size) => piece = size,
            Step::Damage(_) => {}
            Step::Bytes(raw) => {
                bytes.extend_from_slice(raw);
                damaged |= !raw.is_empty();
            }
            Step::Say(len) if !peer.is_handshaking() && !closed => {
                said += std::io::Write::write(&mut peer.writer(), &vec![7; len]).unwrap_or_default();
            }
            Step::Answer(len) => {
                if let Ok(sealed) = ours.drain(&vec![9; len])
                    && !damaged
                    && !closed
                {
                    hear(&mut peer, &sealed);
                }
            }
            // One who changes keys over and over, and says nothing in between, is refused, and not honest (rustls: 32).
            Step::UpdateKeys if updates < KEY_UPDATES => {
                updates += 1;
                let _ = peer.refresh_traffic_keys();
            }
            Step::UpdateKeys => {}
            Step::Close => {
                // A goodbye before the handshake has ended is an error.
                damaged |= peer.is_handshaking();
                peer.send_close_notify();
                closed = true;
            }
            Step::Say(_) => {}
        }
        while peer.wants_write() {
            peer.write_tls(&mut bytes).expect("a Vec takes everything");
        }
        if let Step::Damage(at) = step
            && !bytes.is_empty()
        {
            let at = at % bytes.len();
            bytes[at] ^= 1 << (at % 8);
            damaged = true;
        }
        for part in bytes.chunks(piece) {
            let opened = ours.feed(part);
            if let Ok(plain) = &opened {
                assert!(plain.iter().all(|b| *b == 7), "plaintext that nobody sent");
                heard += plain.len();
            }
            if let Ok(answer) = ours.drain(&[])
                && !damaged
                && !closed
            {
                hear(&mut peer, &answer);
            }
            if let Err(error) = opened {
                assert!(damaged, "refused an honest peer: {error}");
                return;
            }
        }
    }
    if !damaged {
        assert_eq!(heard, said, "not all was heard");
    }
}

/// Gives an honest peer what we say.
fn hear(peer: &mut rustls::Connection, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        peer.read_tls(&mut rest).expect("a slice can be read");
        peer.process_new_packets().expect("an honest peer understands us");
        let mut plain = Vec::new();
        let _ = std::io::Read::read_to_end(&mut peer.reader(), &mut plain);
    }
}

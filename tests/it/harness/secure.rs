//! A server with TLS that says what the test wants, faults and all, and may show another certificate at each
//! connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::Leaf;

/// A running server. Its threads end with the test's process.
pub struct SecureServer {
    pub address: SocketAddr,
}

impl SecureServer {
    /// Answers each request with the bytes that the function gives for the number of its connection (0 is the first)
    /// and its path, under the certificate of that number; the last one serves all further ones.
    pub fn start(leaves: &[&Leaf], answer: impl Fn(usize, &str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", leaves, answer)
    }

    pub fn start_at(
        address: &str,
        leaves: &[&Leaf],
        answer: impl Fn(usize, &str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let configs: Vec<Arc<ServerConfig>> = leaves.iter().map(|leaf| server_config(leaf, &[])).collect();
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for (nth, socket) in listener.incoming().flatten().enumerate() {
                let config = configs[nth.min(configs.len() - 1)].clone();
                let answer = answer.clone();
                thread::spawn(move || serve(socket, config, |path| answer(nth, path)));
            }
        });
        Self { address }
    }

    /// Answers everything with these header lines (each without its CRLF) and a small page.
    pub fn with_lines(leaf: &Leaf, lines: &[String]) -> Self {
        let head: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        Self::start(&[leaf], move |_, _| page(&head, "<!DOCTYPE html><title>x</title>"))
    }
}

/// A response with these header lines, each with its CRLF.
pub fn page(lines: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n{lines}\r\n{body}").into_bytes()
}

/// A server with this certificate, which offers these protocols by ALPN; without any, it knows no ALPN.
pub fn server_config(leaf: &Leaf, protocols: &[&[u8]]) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&leaf.chain).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&leaf.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// Reads the head of a request, with its empty line, and nothing beyond it.
pub fn read_head(stream: &mut (impl Read + ?Sized)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn serve(socket: TcpStream, config: Arc<ServerConfig>, answer: impl FnOnce(&str) -> Vec<u8>) -> io::Result<()> {
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, socket);
    let head = read_head(&mut stream)?;
    let path = head.split(' ').nth(1).unwrap_or_default();
    stream.write_all(&answer(path))?;
    stream.conn.send_close_notify();
    stream.flush()
}

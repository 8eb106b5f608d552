//! A client that speaks HTTP/1.1 byte by byte, with TLS or without, and looks at every header: headers are pintle's
//! product.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Authority, PATIENCE};

/// Response headers that pintle, or the tests' origins, may send; any other fails the test.
const ALLOWED: [&str; 37] = [
    "age",
    "allow",
    "cache-control",
    "connection",
    "content-language",
    "content-length",
    "content-location",
    "content-type",
    "date",
    "etag",
    "last-modified",
    "link",
    "location",
    "proxy-status",
    "cache-status",
    "public-key-pins",
    "public-key-pins-report-only",
    "ratelimit",
    "ratelimit-policy",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "x-powered-by",
    "x-test",
    "x-edge",
    "x-content-type-options",
    "sec-websocket-accept",
    "accept-ranges",
    "expires",
    "x-frame-options",
];

/// A client of one pintle.
pub struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    pub fn new(authority: &Authority) -> Self {
        let mut config = Self::config(authority);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { config: Arc::new(config) }
    }

    /// A configuration to be changed.
    pub fn config(authority: &Authority) -> ClientConfig {
        Self::config_with(&[authority])
    }

    /// The same, of a client that trusts several.
    pub fn config_with(authorities: &[&Authority]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    pub fn with(config: ClientConfig) -> Self {
        Self { config: Arc::new(config) }
    }

    /// A TLS connection with this SNI.
    #[track_caller]
    pub fn connect(&self, address: SocketAddr, name: &str) -> Connection {
        self.try_connect(address, name).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The same; the handshake may fail.
    pub fn try_connect(&self, address: SocketAddr, name: &str) -> io::Result<Connection> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        self.handshake(socket, name)
    }

    /// The same, on a socket that something was said on already.
    pub fn handshake(&self, mut socket: TcpStream, name: &str) -> io::Result<Connection> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut tls = ClientConnection::new(self.config.clone(), name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Connection { stream: Box::new(StreamOwned::new(tls, socket)), received: Vec::new() })
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn get(&self, address: SocketAddr, host: &str, path: &str) -> Response {
        let mut connection = self.connect(address, host);
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        connection.response("GET")
    }
}

pub trait Stream: Read + Write + Send {
    fn tls(&self) -> Option<&ClientConnection> {
        None
    }
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn tls(&self) -> Option<&ClientConnection> {
        Some(&self.conn)
    }
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

/// A connection, and what has come by it and was not looked at yet.
pub struct Connection {
    pub stream: Box<dyn Stream>,
    pub received: Vec<u8>,
}

impl Connection {
    /// Without TLS.
    #[track_caller]
    pub fn plain(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: Box::new(socket), received: Vec::new() }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.stream.flush().unwrap();
    }

    /// Reads the next response; `method` is that of the request.
    #[track_caller]
    pub fn response(&mut self, method: &str) -> Response {
        read_response(self, method)
            .unwrap_or_else(|e| panic!("no response: {e}; received: {:?}", String::from_utf8_lossy(&self.received)))
    }

    /// One request, and its response.
    #[track_caller]
    pub fn get(&mut self, host: &str, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        self.response("GET")
    }

    /// Everything until the end; and whether that was a proper one.
    pub fn read_to_end(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut all = std::mem::take(&mut self.received);
        let result = self.stream.read_to_end(&mut all).map(drop);
        (all, result)
    }

    /// Asserts that the other side has closed without another byte.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        let (rest, _) = self.read_to_end();
        assert!(rest.is_empty(), "more came: {:?}", String::from_utf8_lossy(&rest));
    }
}

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Response {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The field, of which there must be exactly one.
    #[track_caller]
    pub fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {:?}", self.fields);
        all[0]
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reads a response, and checks what holds for all of them.
pub fn read_response(connection: &mut Connection, method: &str) -> io::Result<Response> {
    let head = loop {
        if let Some(at) = connection.received.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = connection.received.split_off(at + 4);
            break String::from_utf8(std::mem::replace(&mut connection.received, rest)).map_err(io::Error::other)?;
        }
        fill(connection)?;
    };
    let mut lines = head.split("\r\n");
    let status: u16 =
        lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok()).ok_or_else(|| io::Error::other(head.clone()))?;
    let fields = parse_fields(lines);
    for (name, _) in &fields {
        assert!(ALLOWED.contains(&name.to_ascii_lowercase().as_str()), "unexpected header {name} in {head}");
    }
    let find = |name: &str| fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone());
    let mut response = Response { status, body: Vec::new(), trailers: Vec::new(), fields: fields.clone() };
    if method == "HEAD" || status < 200 || status == 204 || status == 304 {
        return Ok(response);
    }
    if let Some(length) = find("content-length") {
        assert!(find("transfer-encoding").is_none(), "two framings: {head}");
        let length: usize = length.parse().map_err(io::Error::other)?;
        while connection.received.len() < length {
            fill(connection)?;
        }
        let rest = connection.received.split_off(length);
        response.body = std::mem::replace(&mut connection.received, rest);
    } else if find("transfer-encoding").is_some() {
        read_chunks(connection, &mut response)?;
    } else {
        let (body, end) = connection.read_to_end();
        end?;
        response.body = body;
    }
    Ok(response)
}

fn read_chunks(connection: &mut Connection, response: &mut Response) -> io::Result<()> {
    loop {
        let line = take_line(connection)?;
        let size = usize::from_str_radix(&line, 16).map_err(io::Error::other)?;
        if size == 0 {
            let mut lines = Vec::new();
            loop {
                let line = take_line(connection)?;
                if line.is_empty() {
                    break;
                }
                lines.push(line);
            }
            response.trailers = parse_fields(lines.iter().map(String::as_str));
            return Ok(());
        }
        while connection.received.len() < size + 2 {
            fill(connection)?;
        }
        let rest = connection.received.split_off(size + 2);
        let chunk = std::mem::replace(&mut connection.received, rest);
        assert_eq!(&chunk[size..], b"\r\n");
        response.body.extend_from_slice(&chunk[..size]);
    }
}

fn take_line(connection: &mut Connection) -> io::Result<String> {
    loop {
        if let Some(at) = connection.received.windows(2).position(|w| w == b"\r\n") {
            let rest = connection.received.split_off(at + 2);
            let line = std::mem::replace(&mut connection.received, rest);
            return String::from_utf8(line[..at].to_vec()).map_err(io::Error::other);
        }
        fill(connection)?;
    }
}

fn parse_fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let pair = |l: &str| l.split_once(':').map(|(n, v)| (n.to_owned(), v.trim().to_owned()));
    lines.filter_map(pair).collect()
}

fn fill(connection: &mut Connection) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    match connection.stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => {
            connection.received.extend_from_slice(&buffer[..n]);
            Ok(())
        }
    }
}

/// The whole body of an HTTP/2 message, to its end or to where it is broken off.
pub async fn whole(body: &mut h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

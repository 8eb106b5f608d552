//! pebble, an ACME server for tests, and its challenge test server, which is the DNS of pebble and of pintle. A pebble
//! forgets everything when it ends.

#![allow(dead_code, reason = "a rig whole, for tests that come and go")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;

use bytes::Bytes;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, Error, HttpClient, Order, OrderStatus,
};
use pintle::acme::client::AcmeClient;
use pintle::upstream::dns::NameServers;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::LocalSet;

use super::double::{Double, OF_RIG, has_zero_serials};
use super::{Authority, Client, Connection, Program, free_port, output, program};

/// The settings of a pebble and of its DNS.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Percent of the valid nonces that it refuses.
    pub nonce_reject: u8,
    /// Percent of the valid authorizations that a new order gets again. With 0, pebble takes some all the same:
    /// [`Pebble::forget_authorizations`].
    pub authz_reuse: u8,
    /// Sleeps up to 5 s before each validation.
    pub sleep: bool,
    /// Validates nothing: every challenge is met.
    pub always_valid: bool,
    /// Name, description and lifetime in seconds of each profile.
    pub profiles: Vec<(&'static str, &'static str, u64)>,
    /// Key id and MAC key (base64url) of external accounts; if there are any, each account needs one.
    pub eab: Vec<(&'static str, &'static str)>,
    /// Retry-After of authorizations and of orders, in seconds.
    pub retry_after: (u32, u32),
    /// Names for which it refuses orders.
    pub blocklist: Vec<&'static str>,
    /// `meta.caaIdentities`.
    pub caa_identities: Vec<&'static str>,
    /// Chains besides the first.
    pub alternate_roots: u8,
    /// Intermediates in each chain.
    pub chain_length: u8,
    /// The port of http-01: where pintle listens without TLS.
    pub http_port: u16,
    /// The port of tls-alpn-01: where pintle listens with TLS.
    pub tls_port: u16,
    /// The address of names without an A record. Without one, they have none.
    pub ipv4: &'static str,
    /// The address of names without an AAAA record. Without one, they have none.
    pub ipv6: &'static str,
}

/// The profiles that pebble itself has.
pub const NINETY_DAYS: (&str, &str, u64) = ("default", "The profile of most", 90 * 86_400);
pub const SIX_DAYS: (&str, &str, u64) = ("shortlived", "Six days", 6 * 86_400);

impl Default for Settings {
    /// No sleep, no refused nonce, no second use of an authorization; every name leads to 127.0.0.1. One profile: pebble
    /// takes any of several for an order that names none.
    fn default() -> Self {
        Self {
            nonce_reject: 0,
            authz_reuse: 0,
            sleep: false,
            always_valid: false,
            profiles: vec![NINETY_DAYS],
            eab: Vec::new(),
            retry_after: (1, 1),
            blocklist: vec!["blocked.example"],
            caa_identities: vec!["pebble.letsencrypt.org"],
            alternate_roots: 0,
            chain_length: 1,
            http_port: free_port(),
            tls_port: free_port(),
            ipv4: "127.0.0.1",
            ipv6: "",
        }
    }
}

/// A running pebble with its DNS.
pub struct Pebble {
    pub settings: Settings,
    pub dns: TestDns,
    /// The CA of pebble's own server certificates: what `[acme] ca` names.
    pub authority: Authority,
    folder: TempDir,
    port: u16,
    management: u16,
    running: Option<Program>,
    /// The double whose pebble finds no predecessors.
    front: Option<Double>,
    /// The output of the stopped processes.
    before: String,
}

/// The folder of the two programs: those that tests/pebble fetched, or else the installed ones.
fn find(name: &str) -> PathBuf {
    let fetched = fetched().join(name);
    if fetched.exists() { fetched } else { program(name) }
}

fn fetched() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("pebble/root/usr/bin")
}

/// `true` if this pebble knows renewal information, profiles and dns-persist-01; says if not.
pub fn is_current() -> bool {
    let is_current = fetched().join("pebble").exists();
    if !is_current {
        eprintln!(
            "stepping aside: the installed pebble lacks renewal information and profiles; tests/pebble fetches the current one"
        );
    }
    is_current
}

impl Pebble {
    #[track_caller]
    pub fn start(settings: Settings) -> Self {
        let authority = Authority::named("pebble's servers");
        let folder = TempDir::new().unwrap();
        let dns = TestDns::start(folder.path(), settings.ipv4, settings.ipv6);
        let leaf = authority.leaf("pebble", &["localhost", "127.0.0.1"]);
        let (port, management) = (free_port(), free_port());
        let macs: serde_json::Map<_, _> = settings.eab.iter().map(|(id, key)| ((*id).into(), (*key).into())).collect();
        let profile = |(name, text, life): &(&str, &str, u64)| {
            ((*name).to_owned(), json!({ "description": text, "validityPeriod": life }))
        };
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": leaf.chain,
            "privateKey": leaf.key,
            "httpPort": settings.http_port,
            "tlsPort": settings.tls_port,
            "externalAccountBindingRequired": !settings.eab.is_empty(),
            "externalAccountMACKeys": macs,
            "domainBlocklist": settings.blocklist,
            "caaIdentities": settings.caa_identities,
            "retryAfter": { "authz": settings.retry_after.0, "order": settings.retry_after.1 },
            "keyAlgorithm": "ecdsa",
            "profiles": settings.profiles.iter().map(profile).collect::<serde_json::Map<_, _>>(),
        }});
        fs::write(folder.path().join("pebble.json"), config.to_string()).unwrap();
        let before = String::new();
        let mut started =
            Self { settings, dns, authority, folder, port, management, running: None, front: None, before };
        started.run();
        if has_zero_serials() {
            started.front = Some(Double::start(&started.authority, started.address(), true));
        }
        started
    }

    fn run(&mut self) {
        let settings = &self.settings;
        let mut command = Command::new(find("pebble"));
        command
            .arg("-config")
            .arg(self.folder.path().join("pebble.json"))
            .args(["-dnsserver", &self.dns.address().to_string(), "-strict"])
            .env("PEBBLE_WFE_NONCEREJECT", settings.nonce_reject.to_string())
            .env("PEBBLE_AUTHZREUSE", settings.authz_reuse.to_string())
            .env("PEBBLE_ALTERNATE_ROOTS", settings.alternate_roots.to_string())
            .env("PEBBLE_CHAIN_LENGTH", settings.chain_length.to_string())
            .env("PEBBLE_VA_NOSLEEP", if settings.sleep { "0" } else { "1" })
            .env("PEBBLE_VA_ALWAYS_VALID", if settings.always_valid { "1" } else { "0" });
        let program = Program::start(&mut command, self.folder.path(), "pebble");
        self.running = Some(program.listens(self.port).listens(self.management));
    }

    /// Ends it: its address answers no more, and it has forgotten accounts, orders and roots.
    pub fn stop(&mut self) {
        if let Some(program) = self.running.take() {
            self.before += &program.said();
        }
    }

    /// Starts it again at the same address, with nothing remembered.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.run();
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        self.front.as_ref().map_or_else(|| format!("https://localhost:{}/dir", self.port), Double::directory)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A `[listen]` table with which pintle gets pebble's validations, and a `[resolver]` table with the same DNS.
    pub fn listen(&self) -> String {
        let Settings { http_port, tls_port, .. } = self.settings;
        format!(
            "[resolver]\nname_servers = [\"{}\"]\n[listen]\nhttps = [\"127.0.0.1:{tls_port}\"]\nhttp = [\"127.0.0.1:{http_port}\"]\nworkers = 2\n",
            self.dns.address()
        )
    }

    /// All that it has said, in all its lives: a line for each request, among others.
    pub fn said(&self) -> String {
        let now = self.running.as_ref().map(Program::said).unwrap_or_default();
        format!("{}{now}", self.before)
    }

    /// The number of requests that began with this method and path, e.g. `POST /order-plz`.
    pub fn requests(&self, begin: &str) -> usize {
        self.said().lines().filter(|line| line.contains(&format!(" {begin}"))).count()
    }

    /// The number of orders that it has made. Requests are more: it does not find all predecessors, see
    /// [`super::double`].
    pub fn orders(&self) -> usize {
        self.said().lines().filter(|line| line.contains(" Added order ")).count()
    }

    /// Deactivates the valid authorizations of all orders that are done, with the accounts in this folder: the next order
    /// proves all its names. Otherwise, pebble uses an authorization again in one order of a hundred, although it should
    /// in none: its `rand.Intn(100) > 0` is false for 0.
    pub fn forget_authorizations(&self, accounts: &Path) {
        let said = self.running.as_ref().map(Program::said).unwrap_or_default();
        let orders: Vec<&str> =
            said.lines().filter_map(|line| line.split("Added order \"").nth(1)?.split('"').next()).collect();
        if orders.is_empty() {
            return;
        }
        let root = CertificateDer::from_pem_slice(self.authority.ca_pem().as_bytes()).unwrap();
        let authority = pintle::config::Authority {
            name: "pebble".to_owned(),
            directory: self.directory(),
            eab: None,
            roots: Some(vec![root.to_vec()]),
        };
        let servers = NameServers(vec![self.dns.address()]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let client = RigClient(AcmeClient::start(&authority, &servers).unwrap());
            for (origin, credentials) in credentials(accounts) {
                // A damaged account has no more orders, and an order of another account is refused.
                let account = Account::builder_with_http(Box::new(client.clone())).from_credentials(credentials).await;
                let Ok(account) = account else { continue };
                for id in &orders {
                    if let Ok(order) = account.order(format!("{origin}/my-order/{id}")).await {
                        deactivate(order).await;
                    }
                }
            }
        });
    }

    /// The PEM of the root of a chain; 0 is the first one. Each start makes new ones.
    pub fn root(&self, chain: usize) -> String {
        self.manage("GET", &format!("/roots/{chain}"), "")
    }

    /// The same in a file, for a client.
    pub fn root_file(&self) -> PathBuf {
        let path = self.folder.path().join("root.pem");
        fs::write(&path, self.root(0)).unwrap();
        path
    }

    /// Its status of the certificate with this serial number in hexadecimal: `Status`, `Reason`, `Certificate`.
    pub fn status(&self, serial: &str) -> Value {
        serde_json::from_str(&self.manage("GET", &format!("/cert-status-by-serial/{serial}"), "")).unwrap()
    }

    /// Lets the renewal information of the first certificate in this PEM be this text, whatever it is.
    pub fn set_renewal_info(&self, certificate: &str, text: &str) {
        self.manage(
            "POST",
            "/set-renewal-info/",
            &json!({ "Certificate": certificate, "ARIResponse": text }).to_string(),
        );
    }

    /// The same, with a window; both in seconds since 1970.
    pub fn set_window(&self, certificate: &str, start: i64, end: i64) {
        let at = |seconds| jiff::Timestamp::from_second(seconds).unwrap().to_string();
        let window = json!({ "suggestedWindow": { "start": at(start), "end": at(end) } });
        self.set_renewal_info(certificate, &window.to_string());
    }

    #[track_caller]
    fn manage(&self, method: &str, path: &str, body: &str) -> String {
        let address = SocketAddr::from(([127, 0, 0, 1], self.management));
        let mut connection = Client::new(&self.authority).connect(address, "localhost");
        let (status, text) = ask(&mut connection, method, path, body);
        assert_eq!(status, 200, "{method} {path}: {text}");
        text
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- pebble's log\n{}", self.said());
        }
    }
}

/// A client whose requests no double counts or answers.
#[derive(Clone)]
struct RigClient(AcmeClient);

impl HttpClient for RigClient {
    fn request(
        &self,
        mut request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        request.headers_mut().insert(OF_RIG, http::HeaderValue::from_static("1"));
        self.0.request(request)
    }
}

/// The accounts in a folder of pintle's state, each with the origin that it was made at: pebble takes no other one.
fn credentials(folder: &Path) -> Vec<(String, AccountCredentials)> {
    let paths = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let accounts = paths.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("account-") && name.ends_with(".json")
    });
    let read = |path: PathBuf| -> Option<(String, AccountCredentials)> {
        let stored: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let url = stored["url"].as_str()?;
        let origin = url.split("/my-account/").next()?.to_owned();
        let of_account = json!({ "id": url, "key_pkcs8": stored["key"], "directory": format!("{origin}/dir") });
        Some((origin, serde_json::from_value(of_account).ok()?))
    };
    accounts.filter_map(read).collect()
}

/// Deactivates the authorizations of an order, if it has its certificate.
async fn deactivate(mut order: Order) {
    if order.state().status != OrderStatus::Valid {
        return;
    }
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        // An order made at another origin: pebble refuses the account's URL there.
        let Ok(mut authorization) = authorization else { return };
        if authorization.status == AuthorizationStatus::Valid {
            authorization.deactivate().await.unwrap();
        }
    }
}

/// One request that ends the connection: status and body. HTTP/1.0, so that there are no chunks.
#[track_caller]
fn ask(connection: &mut Connection, method: &str, path: &str, body: &str) -> (u16, String) {
    let length = body.len();
    connection.send(format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nUser-Agent: tests\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    let answer = String::from_utf8(connection.read_to_end().0).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The challenge test server as a DNS server whose records the test sets.
pub struct TestDns {
    _program: Program,
    dns: u16,
    management: u16,
}

impl TestDns {
    /// Starts it. Names without records have these addresses; none, if they are empty.
    #[track_caller]
    pub fn start(folder: &Path, ipv4: &str, ipv6: &str) -> Self {
        let (dns, management) = (free_port(), free_port());
        let mut command = Command::new(find("pebble-challtestsrv"));
        command
            .args(["-dnsserver", &format!("127.0.0.1:{dns}"), "-management", &format!("127.0.0.1:{management}")])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""])
            .args(["-defaultIPv4", ipv4, "-defaultIPv6", ipv6]);
        let program = Program::start(&mut command, folder, "dns").listens(management).listens(dns);
        Self { _program: program, dns, management }
    }

    /// The address of its DNS server, for UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.dns))
    }

    /// The address that takes records, for the hook programs of tests.
    pub fn management(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.management))
    }

    pub fn add_a(&self, host: &str, addresses: &[&str]) {
        self.set("add-a", &json!({ "host": host, "addresses": addresses }));
    }

    pub fn clear_a(&self, host: &str) {
        self.set("clear-a", &json!({ "host": host }));
    }

    pub fn add_aaaa(&self, host: &str, addresses: &[&str]) {
        self.set("add-aaaa", &json!({ "host": host, "addresses": addresses }));
    }

    pub fn clear_aaaa(&self, host: &str) {
        self.set("clear-aaaa", &json!({ "host": host }));
    }

    /// Adds CAA records of tag and value. This server cannot set the critical flag.
    pub fn add_caa(&self, host: &str, records: &[(&str, &str)]) {
        let policies: Vec<_> = records.iter().map(|(tag, value)| json!({ "tag": tag, "value": value })).collect();
        self.set("add-caa", &json!({ "host": host, "policies": policies }));
    }

    pub fn clear_caa(&self, host: &str) {
        self.set("clear-caa", &json!({ "host": host }));
    }

    pub fn set_cname(&self, host: &str, target: &str) {
        self.set("set-cname", &json!({ "host": host, "target": target }));
    }

    pub fn clear_cname(&self, host: &str) {
        self.set("clear-cname", &json!({ "host": host }));
    }

    pub fn add_txt(&self, host: &str, value: &str) {
        self.set("set-txt", &json!({ "host": format!("{host}."), "value": value }));
    }

    pub fn clear_txt(&self, host: &str) {
        self.set("clear-txt", &json!({ "host": format!("{host}.") }));
    }

    /// Every question about the name fails from now on.
    pub fn set_servfail(&self, host: &str) {
        self.set("set-servfail", &json!({ "host": host }));
    }

    pub fn clear_servfail(&self, host: &str) {
        self.set("clear-servfail", &json!({ "host": host }));
    }

    /// The record types that were asked of this name, in order: 1 A, 16 TXT, 28 AAAA, 257 CAA.
    pub fn asked(&self, host: &str) -> Vec<u64> {
        let history: Value = serde_json::from_str(&self.set("dns-request-history", &json!({ "host": host }))).unwrap();
        history.as_array().unwrap().iter().map(|event| event["Question"]["Qtype"].as_u64().unwrap()).collect()
    }

    pub fn clear_asked(&self, host: &str) {
        self.set("clear-request-history", &json!({ "host": host, "type": "dns" }));
    }

    #[track_caller]
    fn set(&self, path: &str, body: &Value) -> String {
        let (status, text) =
            ask(&mut Connection::plain(self.management()), "POST", &format!("/{path}"), &body.to_string());
        assert_eq!(status, 200, "{path} {body}: {text}");
        text
    }
}

/// The serial number of a certificate file, in hexadecimal, as pebble has it.
pub fn serial(chain: &Path) -> String {
    let text = output(Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(chain));
    text.trim().trim_start_matches("serial=").trim_start_matches('0').to_ascii_lowercase()
}

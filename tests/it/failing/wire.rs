//! A bad network between pintle and its upstream: packets are lost, late, doubled, damaged, and connections reset by
//! somebody on the way. Then routes that lead nowhere, each with its cause in the log. Needs leave to make network
//! namespaces and tun devices; without, the tests say so and step aside.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::faults::{Fault, Faulty, Plan, Seen};
use super::{assert_no_leaks, open_at_first, state};
use crate::harness::{Authority, BLOG, Client, Namespaces, Pintle, blog_at, eventually, outcome, read_response};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/failing/wire.py");
/// Requests over the bad wire.
const REQUESTS: u64 = 150;
const CLIENTS: u64 = 5;

/// Two namespaces with a device each: `10.99.0.1` is pintle's side, `10.99.0.2` the upstream's.
struct Network {
    namespaces: Namespaces,
    wire: Option<Child>,
}

impl Network {
    /// Returns `None` if this is not permitted.
    fn make() -> Option<Self> {
        let namespaces = Namespaces::make(|names| {
            let sides = names.into_iter().zip(["10.99.0.1/24", "10.99.0.2/24"]);
            let commands = sides.flat_map(|(name, address)| {
                [
                    format!("-n {name} tuntap add dev wire mode tun"),
                    format!("-n {name} addr add {address} dev wire"),
                    format!("-n {name} link set wire up"),
                ]
            });
            commands.collect()
        })?;
        Some(Self { namespaces, wire: None })
    }

    fn connect(&mut self, seed: u64) {
        let mut python = Command::new("python3");
        python.arg(SCRIPT).arg(seed.to_string());
        let [near, far] = &self.namespaces.names;
        python.args([near, "wire", far, "wire"]);
        let mut child = python.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.wire = Some(child);
        assert_eq!(line, "ready\n");
    }

    /// pintle on the near side.
    fn pintle(&self, authority: &Authority, config: &str) -> Pintle {
        let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 2\nerror_details = \"everybody\"\n";
        Pintle::start_command(authority, listen, config, |command| {
            let mut outer = Command::new("ip");
            outer
                .args(["netns", "exec", &self.namespaces.names[0]])
                .arg(command.get_program())
                .args(command.get_args());
            outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            outer.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            *command = outer;
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(wire) = &mut self.wire {
            let _ = wire.kill();
            let _ = wire.wait();
        }
    }
}

#[test]
fn packets_lost_late_doubled_damaged_and_resets() {
    let Some(mut network) = Network::make() else { return };
    network.connect(1);
    let authority = Authority::new();
    let leaf = authority.leaf("upstream", &["up.example.net"]);
    let upstream =
        network.namespaces.within(1, || Faulty::start_on(TcpListener::bind("10.99.0.2:0").unwrap(), Some(&leaf)));
    let config = "[limits]\nupstream_idle = \"2s\"\nidle = \"2s\"\n".to_owned()
        + &state(&authority)
        + &blog_at(&authority, "https://up.example.net")
        + &format!("[site.upstream_options]\nconnect = \"{}\"\nca = {:?}\n", upstream.address, authority.ca_path())
        + "[site.circuit_breaker]\nfailures = 0\n";
    let pintle = network.pintle(&authority, &config);
    let at_first = open_at_first(&pintle);
    let whole = AtomicU64::new(0);
    thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (network, pintle, authority, whole) = (&network, &pintle, &authority, &whole);
            scope.spawn(move || {
                for seed in (1..)
                    .filter(|seed| is_usable(*seed))
                    .skip((n * REQUESTS / CLIENTS) as usize)
                    .take((REQUESTS / CLIENTS) as usize)
                {
                    let plan = Plan::of(seed);
                    let seen = network.namespaces.within(0, || ask(pintle.https(), authority, &plan));
                    // What somebody else has reset is no fault of the plan's.
                    match &seen {
                        Seen::Whole(200, body) => {
                            assert!(*body == plan.body, "{plan:.0?}");
                            whole.fetch_add(1, Ordering::Relaxed);
                        }
                        Seen::Whole(status, _) => assert!(matches!(status, 502..=504), "{status}"),
                        Seen::Broken(_) => {}
                    }
                }
            });
        }
    });
    let whole = whole.into_inner();
    assert!(whole > REQUESTS / 2, "{whole} of {REQUESTS}");
    assert_eq!(*upstream.wrong.lock().unwrap(), Vec::<String>::new());
    assert_no_leaks(&pintle, &at_first);
}

/// Responses that are as they should be, and not too large for a wire of Python.
fn is_usable(seed: u64) -> bool {
    let plan = Plan::of(seed);
    matches!(plan.fault, Fault::None | Fault::Slow) && plan.body.len() < 60_000
}

fn ask(https: SocketAddr, authority: &Authority, plan: &Plan) -> Seen {
    let mut connection = Client::new(authority).connect(https, BLOG);
    let upload = plan.upload.as_deref().unwrap_or_default();
    let (method, path) = (plan.method(), plan.path());
    connection.send(format!("{method} {path} HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {}\r\n\r\n", upload.len()));
    let _ = connection.stream.write_all(upload);
    match read_response(&mut connection, method) {
        Ok(response) => Seen::Whole(response.status, response.body),
        Err(error) => {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "{plan:.0?}: hangs");
            Seen::Broken(Vec::new())
        }
    }
}

/// The cause is in the log, by errno.
#[test]
fn routes_that_lead_nowhere() {
    let Some(network) = Network::make() else { return };
    for (route, _) in [("unreachable 10.98.0.0/24", ""), ("prohibit 10.97.0.0/24", ""), ("blackhole 10.96.0.0/24", "")]
    {
        let command = format!("-n {} route add {route}", network.namespaces.names[0]);
        assert_eq!(outcome(Command::new("ip").args(command.split(' '))).0, 0, "{command}");
    }
    let authority = Authority::new();
    let check = |address: &str, status: u16, cause: &str, error: &str| {
        let config = blog_at(&authority, &format!("http://{address}:80"))
            + "[site.upstream_options]\nconnect_timeout = \"1s\"\n";
        let pintle = network.pintle(&authority, &config);
        let response = network.namespaces.within(0, || Client::new(&authority).get(pintle.https(), BLOG, "/"));
        assert_eq!(
            (response.status, response.one("proxy-status")),
            (status, &*format!("pintle; error={error}")),
            "{address}"
        );
        let line = pintle.access_line("/");
        assert!(line["error"].as_str().unwrap().contains(cause), "{address}: {line}");
        let warned = eventually("the failure is logged", || pintle.log_json("upstream failed").pop());
        assert!(warned["error"].as_str().unwrap().contains(cause), "{warned}");
    };
    check("10.98.0.1", 502, "no route to host", "destination_ip_unroutable");
    check("10.97.0.1", 502, "not permitted", "destination_unavailable");
    check("192.0.2.1", 502, "network unreachable", "destination_ip_unroutable");
    check("127.0.0.1", 502, "connection refused", "connection_refused");
    // The wire is not connected: packets go nowhere.
    check("10.99.0.2", 504, "connect timed out", "connection_timeout");
}

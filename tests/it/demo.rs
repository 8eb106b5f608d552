//! `pintle demo`: what a newcomer sees, and that the commands it prints work as printed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use tempfile::TempDir;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::harness::{PATIENCE, free_port, outcome, pintle};

struct Demo {
    child: Child,
    text: String,
    https: u16,
}

impl Demo {
    fn start(home: &Path) -> Self {
        let (https, http) = (free_port(), free_port());
        let mut child = pintle()
            .args(["demo", "--https-port", &https.to_string(), "--http-port", &http.to_string()])
            .env("HOME", home)
            .env_remove("XDG_DATA_HOME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(home.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let (lines, gathered) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        let mut text = String::new();
        while !text.contains("Ctrl-C") {
            text.push_str(
                &gathered.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the demo printed only:\n{text}")),
            );
            text.push('\n');
        }
        Self { child, text, https }
    }

    /// The commands, as printed.
    fn commands(&self) -> Vec<String> {
        let commands: Vec<String> =
            self.text.lines().map(str::trim).filter(|l| l.starts_with("curl ")).map(str::to_owned).collect();
        assert_eq!(commands.len(), 5, "{}", self.text);
        commands
    }

    fn ca(&self) -> String {
        self.commands()[0].split(' ').nth(2).unwrap().to_owned()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It would serve nothing, and the first demo would take its configuration at the next reload.
#[test]
fn a_second_demo_of_the_same_folder_writes_nothing() {
    let home = TempDir::new().unwrap();
    let _demo = Demo::start(home.path());
    let folder = home.path().join(".local/share/pintle/demo");
    let files = || {
        let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| (entry.path(), fs::read(entry.path()).unwrap(), entry.metadata().unwrap().modified().unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    assert!(before.iter().any(|(path, ..)| path.ends_with("pintle.toml")), "{before:?}");
    let (https, http) = (free_port().to_string(), free_port().to_string());
    let mut command = pintle();
    command.args(["demo", "--https-port", &https, "--http-port", &http, "--dir"]).arg(&folder);
    let (code, out, err) = outcome(&mut command);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("another demo has this folder") && err.contains("hint: use another folder"), "{err}");
    assert_eq!(files(), before);
}

#[test]
fn the_printed_commands_work_as_printed() {
    let home = TempDir::new().unwrap();
    let demo = Demo::start(home.path());
    assert_eq!(fs::read_to_string(home.path().join("stderr")).unwrap(), "", "no log around the text");
    let run = |command: &str| {
        outcome(Command::new("sh").args(["-c", &format!("{command} --silent --show-error --noproxy '*'")]))
    };
    let commands = demo.commands();
    let (code, page, err) = run(&commands[0]);
    assert!(code == 0 && page.contains("<title>A quiet blog</title>"), "{err}");
    let (_, head, _) = run(&commands[1]);
    assert!(head.contains("strict-transport-security: max-age=") && head.matches("pin-sha256=").count() == 3, "{head}");
    let (_, redirect, _) = run(&commands[2]);
    assert!(
        redirect.contains(&format!("Location: https://localhost:{}/about?from=http\r\n", demo.https)),
        "{redirect}"
    );
    assert_eq!(run(&commands[3]).0, 0);
    // curl's code for a pin that does not match.
    assert_eq!(run(&commands[4]).0, 90);
    let ca = demo.ca();
    let curl = |arguments: &str| run(&format!("curl --cacert {ca} {arguments}")).1;
    let base = format!("https://localhost:{}", demo.https);
    let posted = curl(&format!("--include --data 'text=a+%3Cb%3E' {base}/comment"));
    assert!(posted.to_ascii_lowercase().contains(&format!("location: {base}/\r\n")), "{posted}");
    assert!(curl(&format!("{base}/")).contains("<li>a &lt;b&gt;</li>"));
    assert!(curl(&format!("{base}/about")).contains("x-forwarded-proto"));
    assert!(curl(&format!("--include {base}/gate.svg")).contains("image/svg+xml"));
    assert!(curl(&format!("--head {base}/old-page")).contains(&format!("location: {base}/about\r\n")));
    assert!(curl(&format!("--write-out '%{{http_code}}' {base}/nothing")).ends_with("404"));
}

#[test]
fn its_folder_is_used_again_and_its_keys_are_private() {
    let home = TempDir::new().unwrap();
    let folder = home.path().join(".local/share/pintle/demo");
    let first = Demo::start(home.path()).text.clone();
    let files = || {
        let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
            .unwrap()
            .map(Result::unwrap)
            .filter(|e| e.file_type().unwrap().is_file())
            .map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).unwrap()))
            .filter(|(name, _)| name != "pintle.toml" && name != "next.csr")
            .collect();
        all.sort();
        all
    };
    let before = files();
    for (name, _) in before.iter().filter(|(name, _)| name.ends_with(".key")) {
        let mode = fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    let second = Demo::start(home.path()).text.clone();
    assert_eq!(files(), before);
    let pins = |text: &str| {
        text.lines().find(|l| l.contains("--pinnedpubkey")).unwrap().split('\'').nth(1).unwrap().to_owned()
    };
    assert_eq!(pins(&first), pins(&second));
    // A certificate that has expired, or is damaged, is made anew with the same key.
    fs::write(folder.join("live.pem"), "damaged").unwrap();
    let third = Demo::start(home.path()).text.clone();
    assert_eq!(pins(&first), pins(&third));
    let checked = outcome(pintle().arg("check").arg("-c").arg(folder.join("pintle.toml")));
    assert_eq!(checked.0, 0, "{checked:?}");
}

#[test]
fn the_websocket_echoes() {
    let home = TempDir::new().unwrap();
    let demo = Demo::start(home.path());
    let ca = fs::read_to_string(demo.ca()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject;
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = crate::harness::Client::with(config);
    let connection = client.connect(([127, 0, 0, 1], demo.https).into(), "localhost");
    let (mut socket, _) =
        tungstenite::client(format!("wss://localhost:{}/echo", demo.https), connection.stream).unwrap();
    socket.send(Message::text("hello")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("hello"));
}

#[test]
fn a_port_in_use_is_told() {
    let home = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut demo = pintle();
    demo.args(["demo", "--https-port", &port, "--http-port", &free_port().to_string()]).env("HOME", home.path());
    let (code, _, err) = outcome(&mut demo);
    assert!(code == 1 && err.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{err}");
}

/// A demo has no launcher by design: its status does not ask for a restart.
#[test]
fn it_says_that_it_is_not_upgraded() {
    let home = TempDir::new().unwrap();
    let _demo = Demo::start(home.path());
    let config = home.path().join(".local/share/pintle/demo/pintle.toml");
    let run = |name: &str| outcome(pintle().arg(name).arg("-c").arg(&config));
    let (code, status, err) = run("status");
    assert_eq!(code, 0, "{err}");
    assert!(status.contains("  upgrades       not in a demo: stop it with Ctrl-C, and start it again\n"), "{status}");
    assert!(!status.contains("NO UPGRADES"), "{status}");
    let (code, _, err) = run("upgrade");
    assert!(code == 1 && err.contains("no launcher (a demo has none"), "{err}");
}

//! The first day of a newcomer: a busy port, an upstream that does not work, a URL without its scheme, a terminal.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Authority, BLOG, Origin, Pintle, Reply, SecureServer, blog, blog_at, eventually, free_port, outcome, output, page,
    pintle, read_head, send_signal,
};

const LISTEN: &str = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\n";

/// A terminal for a command: `script` gives it one.
fn on_terminal(line: &str) -> Command {
    let mut command = Command::new("script");
    command.args(["-qec", line, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
    command
}

#[test]
fn a_busy_port_of_the_demo() {
    let home = TempDir::new().unwrap();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port();
    for (option, other) in [("--http-port", "--https-port"), ("--https-port", "--http-port")] {
        let mut command = pintle();
        let free = free_port().to_string();
        command.args(["demo", option, &port.to_string(), other, &free]);
        let (code, out, err) = outcome(command.env("HOME", home.path()).env_remove("XDG_DATA_HOME"));
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{err}");
        // With all other arguments.
        let again = format!("pintle demo {option} {} {other} {free}\n", port.checked_add(1).unwrap_or(8000));
        assert!(err.contains(&again), "{err}");
    }
}

/// A server without TLS that answers whatever it reads, as nginx does.
fn plain_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    address
}

#[test]
fn check_connects_to_upstreams() {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pintle.toml");
    let check = |site: &str, code: i32, wanted: &[&str]| {
        fs::write(&path, format!("{LISTEN}[state]\ndirectory = \"state\"\n{site}")).unwrap();
        let run = |more: &[&str]| outcome(pintle().args(["check", "--allow-root", "-c"]).arg(&path).args(more));
        // Nothing connects without the option.
        let (without, out, err) = run(&[]);
        assert_eq!(without, 0, "{out}{err}");
        let (found, out, err) = run(&["--connect"]);
        assert_eq!(found, code, "{out}{err}");
        assert!(wanted.iter().all(|words| format!("{out}{err}").contains(words)), "{wanted:?}: {out}{err}");
        let (found, out, _) = run(&["--connect", "--json"]);
        let report: Value = serde_json::from_str(&out).unwrap();
        let upstream = &report["upstreams"][0];
        assert_eq!((found, report["ok"] == true, upstream["reachable"] == true), (code, code == 0, code == 0), "{out}");
    };
    let origin = Origin::hello();
    let answers = format!("upstream {}: {} answers 200", origin.url(), origin.address);
    check(&blog(&authority, &origin), 0, &[&answers]);
    let closes = blog_at(&authority, &format!("https://{}", origin.address));
    check(&closes, 1, &["the server closed the connection during the handshake", "check the port"]);
    let not_tls = ["does not speak TLS on this port", "write http:// in upstream"];
    check(&blog_at(&authority, &format!("https://{}", plain_server())), 1, &not_tls);
    check(&blog_at(&authority, "http://127.0.0.1:1"), 1, &["connection refused", "check the port"]);
    check(&blog_at(&authority, "http://nobody.invalid"), 1, &["dns", "check the host in upstream"]);
    // A name server that never answers is no slow upstream.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let lost = format!(
        "{}[site.upstream_options]\nconnect_timeout = \"1s\"\n[resolver]\nname_servers = [\"{}\"]\n",
        blog_at(&authority, "http://nobody.example"),
        silent.local_addr().unwrap()
    );
    check(&lost, 1, &["dns: no name server answered in time", "the name servers of this host"]);
    // A server that takes connections and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    for (scheme, key) in [("http", "response_timeout"), ("https", "connect_timeout")] {
        let site = blog_at(&authority, &format!("{scheme}://{}", mute.local_addr().unwrap()));
        let site = format!("{site}[site.upstream_options]\n{key} = \"1s\"\n");
        check(&site, 1, &["timed out", &format!("raise upstream_options.{key}")]);
    }
    // The certificate of a CA that pintle does not trust, of another name, and of both right.
    let leaf = authority.leaf("origin", &["origin.example"]);
    let secure = SecureServer::start(&[&leaf], |_, _| page("", ""));
    let site = blog_at(&authority, "https://origin.example");
    let options = |more: &str| format!("{site}[site.upstream_options]\nconnect = \"{}\"\n{more}", secure.address);
    check(&options(""), 1, &["no trusted CA has issued it", "upstream_options.ca"]);
    let ca = format!("ca = {:?}\n", authority.ca_path());
    let other = format!("{ca}verify_name = \"other.example\"\n");
    check(&options(&other), 1, &["it is for origin.example, not for other.example", "upstream_options.verify_name"]);
    let answers = format!("upstream https://origin.example: {} answers 200", secure.address);
    check(&options(&ca), 0, &[&answers]);
    // A plain request to a port with TLS.
    let plain = blog_at(&authority, &format!("http://{}", secure.address));
    check(&plain, 1, &["write https:// in upstream"]);
}

/// The upstream answers, and visitors would get no page all the same.
#[test]
fn check_names_answers_without_a_page() {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pintle.toml");
    let look = |origin: &Origin| {
        let site = blog(&authority, origin);
        fs::write(&path, format!("{LISTEN}[state]\ndirectory = \"state\"\n{site}")).unwrap();
        let run =
            |more: &[&str]| outcome(pintle().args(["check", "--connect", "--allow-root", "-c"]).arg(&path).args(more));
        let ((code, out, err), (_, report, _)) = (run(&[]), run(&["--json"]));
        assert_eq!(code, 0, "{out}{err}");
        let report: Value = serde_json::from_str(&report).unwrap();
        (out + &err, report["upstreams"][0]["addresses"][0]["warning"].clone())
    };
    let down = Origin::start(|_| Reply::new("503 Service Unavailable", "", ""));
    let (text, warning) = look(&down);
    assert!(text.contains("answers 503") && text.contains("the log of the upstream"), "{text}");
    assert_eq!(warning, "answers 503");
    // One that redirects whoever came over https, and one that redirects all others.
    let redirects = |if_https: bool| {
        let itself = format!("Location: https://{BLOG}/\r\n");
        Origin::start(move |asked| match (asked.field("x-forwarded-proto") == Some("https")) == if_https {
            true => Reply::new("301 Moved Permanently", &itself, ""),
            false => Reply::ok("page"),
        })
    };
    let (text, warning) = look(&redirects(true));
    assert!(text.contains("redirect loop: answers 301") && text.contains("believe X-Forwarded-Proto"), "{text}");
    assert!(warning.is_string(), "{warning}");
    let (text, warning) = look(&redirects(false));
    assert!(text.contains("answers 200") && warning.is_null(), "{text}{warning}");
}

#[test]
fn verify_completes_a_url() {
    let authority = Authority::new();
    let server = Pintle::start(&authority, &blog(&authority, &Origin::hello()));
    for url in [BLOG.to_owned(), format!("{BLOG}/"), format!("https://{BLOG}")] {
        let mut command = pintle();
        command.args(["verify", &url, "--json", "--connect", &server.https().to_string()]);
        command.args(["--connect-http", &server.http().to_string(), "--ca"]).arg(authority.ca_path());
        let (_, out, err) = outcome(&mut command);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        assert_eq!(report["url"], format!("https://{BLOG}/"), "{report:#}");
        assert_eq!(report["chain_trusted"], true, "{report:#}");
    }
    let (code, _, err) = outcome(pintle().args(["verify", &format!("http://{BLOG}/")]));
    assert!(code == 2 && err.contains("write the https URL"), "{err}");
}

/// Every line that a start writes to standard error, whatever goes wrong and however many lines its text has.
#[test]
fn the_log_in_json_begins_with_the_first_line() {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pintle.toml");
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let site = blog_at(&authority, "http://origin.example");
    let taken = format!("[listen]\nhttps = [\"{}\"]\nhttp = []\n{site}", busy.local_addr().unwrap());
    let broken = format!("{LISTEN}{site}[site.upstream_optoins]\n[site.hsts]\nmax_age = 1\n");
    for (text, wanted) in [(taken, "cannot listen on"), (broken, "unknown key"), ("[[site]".to_owned(), "")] {
        fs::write(&path, text).unwrap();
        let (code, _, err) = outcome(pintle().args(["run", "--allow-root", "--log-format", "json", "-c"]).arg(&path));
        assert_eq!(code, 1, "{err}");
        let lines: Vec<Value> = err
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}\n---\n{err}")))
            .collect();
        let errors: Vec<_> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
        assert!(errors.iter().any(|line| line["message"].as_str().unwrap().contains(wanted)), "{err}");
        assert!(lines.iter().all(|line| line["timestamp"].is_string()), "{err}");
    }
}

/// On a terminal, a request is a short line. A pipe gets JSON.
#[test]
fn a_terminal_gets_short_access_lines() {
    let home = TempDir::new().unwrap();
    let (https, http) = (free_port(), free_port());
    let program = env!("CARGO_BIN_EXE_pintle");
    let seen = home.path().join("seen");
    let pid = home.path().join("pid");
    let folder = home.path().join("demo");
    let line =
        format!("echo $$ >{pid:?}; exec {program} demo --https-port {https} --http-port {http} --dir {folder:?}");
    let out = fs::File::create(&seen).unwrap();
    let mut child = on_terminal(&line).stdout(out).spawn().unwrap();
    let text = || fs::read_to_string(&seen).unwrap();
    eventually("the demo is up", || text().contains("Ctrl-C").then_some(()));
    let ca = folder.join("ca.pem");
    output(
        Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--cacert"])
            .arg(&ca)
            .arg(format!("https://localhost:{https}/")),
    );
    let short = " 200 GET https://localhost/ ";
    let text = eventually("a short line", || Some(text()).filter(|text| text.contains(short)));
    // No log lines around the text, and no JSON.
    assert!(!text.contains("INFO") && !text.contains("{\""), "{text}");
    assert!(send_signal("TERM", fs::read_to_string(&pid).unwrap().trim()));
    let _ = child.wait();
}

/// The two paths of a pair are easily exchanged.
#[test]
fn a_swapped_pair_is_named_as_that() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let site = blog(&authority, &origin);
    let swapped = site.replace("chain = ", "now = ").replace("key = ", "chain = ").replace("now = ", "key = ");
    let file = authority.write("pintle.toml", swapped);
    let (code, _, error) = outcome(pintle().args(["check", "-c"]).arg(&file));
    assert!(code == 1 && error.contains("chain and key are swapped: "), "{error}");
    assert!(error.contains("blog.key holds a private key") && error.contains("blog.pem holds certificates"), "{error}");
    assert!(!error.contains("everybody on this host can read"), "{error}");
}

/// As in the README: the certificates beside the folder of the configuration.
#[test]
fn paths_are_shown_without_detours() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let folder = fs::canonicalize(authority.folder()).unwrap();
    fs::create_dir_all(folder.join("config/sub")).unwrap();
    std::os::unix::fs::symlink(&folder, folder.join("config/link")).unwrap();
    let site = blog(&authority, &origin);
    let (chain, key) = (authority.folder().join("blog.pem"), authority.folder().join("blog.key"));
    let with = |chain_at: &str, key_at: &str| {
        let site = site.replace(&format!("{chain:?}"), &format!("{chain_at:?}"));
        fs::write(folder.join("config/pintle.toml"), site.replace(&format!("{key:?}"), &format!("{key_at:?}")))
            .unwrap();
        outcome(pintle().args(["check", "-c", "config/pintle.toml"]).current_dir(&folder))
    };
    let (code, out, error) = with("./sub/../../blog.pem", "../blog.key");
    assert!(code == 0 && out.contains("  certificate  blog.pem\n"), "{out}{error}");
    let (_, _, error) = with("../blog.pem", "sub/../../none/./lost.key");
    assert!(error.contains(": none/lost.key: no such file") && error.contains("the folder none does not"), "{error}");
    // Above a link is another folder.
    let (_, _, error) = with("../blog.pem", "link/../lost.key");
    assert!(error.contains(": config/link/../lost.key: no such file"), "{error}");
}

/// Whatever fails before a command has an answer: programs read JSON on standard output.
#[test]
fn failures_are_json_where_it_was_asked_for() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let (path, other) = (folder.path().join("pintle.toml"), folder.path().join("none.toml"));
    fs::write(&path, format!("{LISTEN}{}", blog_at(&authority, "http://127.0.0.1:1"))).unwrap();
    let (path, other) = (path.to_str().unwrap(), other.to_str().unwrap());
    let check = |arguments: &str, part: &str| {
        let (code, out, err) = outcome(pintle().current_dir(folder.path()).args(arguments.split(' ')));
        let answer: Value =
            serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments}: {error}: {out}{err}"));
        assert!(code != 0 && answer["ok"] == false, "{arguments}: {code} {out}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{arguments}: {out}");
        assert!(answer["hints"].as_array().is_some_and(|hints| !hints.is_empty()), "{arguments}: {out}");
    };
    for command in [
        "acme account",
        "acme plan",
        "ledger show",
        "ledger merge FILE",
        "ledger repair",
        "key list",
        "key new --role next --site blog.example.com",
        "export --site blog.example.com",
        "explain https://blog.example.com/",
        "doctor",
        "install --site blog.example.com FILE",
        "config history",
        "status",
        "health",
    ] {
        check(&format!("{command} --json -c {other}"), "no such file");
    }
    check(&format!("export --json --site blg.example.com -c {path}"), "no site has the host");
    check(&format!("export --as json --site blg.example.com -c {path}"), "no site has the host");
    check("pin --json none.pem", "no such file");
    check(&format!("ledger merge --json -c {path} none"), "no ledger");
    check("verify --json --ca none https://blog.example.com/", "no such file");
    check("init --json --dry-run https://nobody.invalid/ --host blog.example.com", "cannot be reached");
    // With the problems that lead to it.
    let broken = folder.path().join("broken.toml");
    fs::write(&broken, "[[site]]\nhost = 1\n").unwrap();
    let (code, out, _) = outcome(pintle().args(["export", "--json", "--site", BLOG, "-c"]).arg(&broken));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 1 && answer["error"].as_str().unwrap().contains("errors"), "{out}");
    let problems = answer["problems"].as_array().unwrap();
    assert!(problems.iter().any(|problem| problem["line"] == 2 && problem["severity"] == "error"), "{out}");
}

/// Files that are no files: a FIFO would block the reader, a device has no end.
#[test]
fn strange_files_are_named() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let path = folder.path().join("pintle.toml");
    let site = format!("{LISTEN}{}", blog_at(&authority, "http://127.0.0.1:1"));
    let check = |file: &str, words: &[&str]| {
        let chain = authority.folder().join("blog.pem");
        fs::write(&path, site.replace(&format!("{chain:?}"), &format!("{file:?}"))).unwrap();
        let mut command = Command::new("timeout");
        command.arg("60").arg(env!("CARGO_BIN_EXE_pintle")).args(["check", "--allow-root", "-c"]).arg(&path);
        let (code, out, err) = outcome(&mut command);
        assert!(code == 1 && words.iter().all(|words| err.contains(words)), "{words:?}: {code} {out}{err}");
    };
    output(Command::new("mkfifo").arg(folder.path().join("fifo.pem")));
    check("fifo.pem", &["fifo.pem: not a regular file"]);
    check("/dev/zero", &["/dev/zero: not a regular file"]);
    std::os::unix::fs::symlink("gone.pem", folder.path().join("live.pem")).unwrap();
    check("live.pem", &["live.pem: no such file", "live.pem is a symbolic link to gone.pem, which does not exist"]);
    std::os::unix::fs::symlink("loop.pem", folder.path().join("loop.pem")).unwrap();
    check("loop.pem", &["a symbolic link that leads back to itself", "hint: "]);
    // The configuration in another encoding, as an editor of another system saves it.
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(site.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    fs::write(&path, utf16).unwrap();
    let (code, _, err) = outcome(pintle().args(["check", "--allow-root", "-c"]).arg(&path));
    assert!(code == 1 && err.contains("the file is not UTF-8 text"), "{err}");
    let command = err.split("convert the file: ").nth(1).unwrap().trim().to_owned();
    output(Command::new("sh").current_dir(folder.path()).args(["-c", &command]));
    let (code, out, err) = outcome(pintle().args(["check", "--allow-root", "-c"]).arg(folder.path().join("NEW")));
    assert_eq!(code, 0, "the converted file begins with a byte order mark: {out}{err}");
}

#[test]
fn a_demo_that_cannot_begin_says_how_it_can() {
    let home = TempDir::new().unwrap();
    let (port, file) = (free_port().to_string(), home.path().join("file"));
    fs::write(&file, "").unwrap();
    let demo = |arguments: &[&str]| {
        let mut command = pintle();
        outcome(command.arg("demo").args(arguments).env("HOME", home.path()).env_remove("XDG_DATA_HOME"))
    };
    let (code, out, err) = demo(&["--https-port", &port, "--http-port", &port]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(
        err.contains("are both") && err.contains(&format!("pintle demo --https-port {port} --http-port ")),
        "{err}"
    );
    let (code, _, err) = demo(&["--dir", file.to_str().unwrap()]);
    assert!(code == 1 && err.contains("hint: use another folder: pintle demo --dir FOLDER"), "{err}");
}

/// Before the first certificate, the site refuses the name: that says nothing about TLS versions.
#[test]
fn verify_of_a_site_without_a_certificate() {
    let authority = Authority::new();
    let site = blog(&authority, &Origin::hello()).replace("blog.pem", "not-yet.pem");
    let server = Pintle::start(&authority, &site);
    let mut command = pintle();
    command.args(["verify", BLOG, "--connect", &server.https().to_string()]);
    command.args(["--connect-http", &server.http().to_string(), "--ca"]).arg(authority.ca_path());
    let (code, out, err) = outcome(&mut command);
    assert!(code == 1 && out.contains("it does not serve this server name"), "{out}{err}");
    assert!(out.contains("TLS 1.3: unknown: the server does not serve this name"), "{out}");
    assert!(!out.contains("neither TLS 1.2"), "{out}");
}

/// The remedy for an address of another host is not that of a host without IPv6.
#[test]
fn an_address_that_this_host_lacks() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let path = folder.path().join("pintle.toml");
    for address in ["203.0.113.9", "[2001:db8::9]"] {
        let listen = format!("[listen]\nhttps = [\"{address}:0\"]\nhttp = []\n");
        fs::write(&path, format!("{listen}{}", blog_at(&authority, "http://127.0.0.1:1"))).unwrap();
        let (code, _, err) = outcome(pintle().args(["run", "--allow-root", "-c"]).arg(&path));
        assert!(code == 1 && err.contains(&format!("cannot listen on {address}:0")), "{err}");
        // Without IPv6, the system has another error.
        let hint = if err.contains("cannot assign") { "no interface of this host" } else { "in [listen]" };
        assert!(err.contains(hint), "{err}");
    }
}

/// An answer that no version of pintle gives is an error with words, also where JSON was asked for.
#[test]
fn an_answer_that_cannot_be_understood() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let (path, state) = (folder.path().join("pintle.toml"), folder.path().join("state"));
    let blog = blog_at(&authority, "http://127.0.0.1:1");
    fs::write(&path, format!("{LISTEN}[state]\ndirectory = {state:?}\n{blog}")).unwrap();
    fs::create_dir(&state).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(state.join("admin.sock")).unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let _ = read_head(&mut socket);
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops");
        }
    });
    for command in
        ["cache", "purge --tag x", "status", "reload", "upgrade", "acme plan", "hook test", "explain --request a-1"]
    {
        let words = || command.split(' ');
        let (code, out, err) = outcome(pintle().args(words()).arg("-c").arg(&path));
        assert!(code == 1 && out.is_empty() && err.contains("cannot be understood"), "{command}: {out}{err}");
        let (code, out, err) = outcome(pintle().args(words()).arg("--json").arg("-c").arg(&path));
        let answer: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{command}: {error}: {out}{err}"));
        assert!(code == 1 && answer["ok"] == false, "{command}: {out}");
        assert!(answer["error"].as_str().unwrap().contains("cannot be understood"), "{command}: {out}");
    }
}

//! Private keys in a process of their own: they sign there, and are nowhere else.

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rcgen::KeyPair;
use tempfile::TempDir;

use crate::harness::{
    Authority, BLOG, Client, KeyKind, Leaf, Origin, Pintle, blog, eventually, outcome, output, pintle, send_signal,
};

const KEPT: &str = "[tls]\nkey_process = true\n";

fn state(folder: &TempDir) -> String {
    format!("[state]\ndirectory = {:?}\n", folder.path().join("state"))
}

fn key_process(pintle: &Pintle) -> u32 {
    u32::try_from(pintle.status()["sandbox"]["key_process"].as_u64().unwrap()).unwrap()
}

/// The secrets of a P-256 key, in the forms in which memory may hold them: as in its file, as in DER, and as
/// processors store large numbers.
fn secrets(key: &Path) -> Vec<Vec<u8>> {
    let pem = fs::read_to_string(key).unwrap();
    let der = KeyPair::from_pem(&pem).unwrap().serialize_der();
    let before = [2, 1, 1, 4, 32];
    let at = der.windows(before.len()).position(|w| w == before).unwrap() + before.len();
    let number = der[at..at + 32].to_vec();
    let turned = number.iter().rev().copied().collect();
    let text = pem.lines().nth(2).unwrap().as_bytes().to_vec();
    vec![number, turned, text]
}

/// `true` if any of these is in the memory of a process.
fn has_in_memory(process: u32, secrets: &[Vec<u8>]) -> bool {
    let mut memory = fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut looked_at = 0;
    let mut found = false;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [begin, end] = [begin, end].map(|n| u64::from_str_radix(n, 16).unwrap());
        let mut piece = Vec::new();
        memory.seek(SeekFrom::Start(begin)).unwrap();
        // What cannot be read (the kernel's own pages) has no keys.
        let _ = (&mut memory).take(end - begin).read_to_end(&mut piece);
        looked_at += piece.len();
        found |= (0..piece.len())
            .any(|at| secrets.iter().any(|secret| piece[at] == secret[0] && piece[at..].starts_with(secret)));
    }
    assert!(looked_at > 1 << 20, "only {looked_at} bytes could be read");
    found
}

fn is_root() -> bool {
    crate::harness::is_root("look into other processes")
}

#[test]
fn the_serving_process_does_not_have_them() {
    if !is_root() {
        return;
    }
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = blog(&authority, &origin);
    let secrets = secrets(&authority.folder().join("blog.key"));
    let serve = |more: &str| {
        let folder = TempDir::new().unwrap();
        let pintle = Pintle::start(&authority, &format!("{more}{}{config}", state(&folder)));
        for _ in 0..3 {
            assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
        }
        (pintle, folder)
    };
    let (kept, _folder) = serve(KEPT);
    assert!(!has_in_memory(kept.pid(), &secrets), "the serving process has the key");
    assert!(has_in_memory(key_process(&kept), &secrets), "nobody has the key: this test sees nothing");
    assert_eq!(kept.stop(), 0);
    let (plain, _folder) = serve("");
    assert!(has_in_memory(plain.pid(), &secrets), "this test would not see a key");
}

#[test]
fn every_kind_of_key_signs_for_every_version() {
    let (authority, origin, folder) = (Authority::new(), Origin::hello(), TempDir::new().unwrap());
    for kind in [KeyKind::Ecdsa, KeyKind::Rsa, KeyKind::Ed25519] {
        let leaf = authority.leaf_of("some", &[BLOG], kind, -1, 90);
        let site = format!(
            "[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
            origin.url(),
            leaf.chain,
            leaf.key
        );
        let pintle = Pintle::start(&authority, &format!("{KEPT}{}{site}", state(&folder)));
        for version in ["1.2", "1.3"] {
            for protocol in ["--http1.1", "--http2"] {
                let mut curl = pintle.curl();
                curl.args(["--tlsv1.2", "--tls-max", version, protocol]).arg(format!("https://{BLOG}/"));
                assert_eq!(output(&mut curl), "hello from the origin", "{kind:?} {version}");
            }
        }
        assert_eq!(pintle.stop(), 0);
    }
}

#[test]
fn a_renewed_key_is_read_by_the_process_that_has_them() {
    let (authority, origin, folder) = (Authority::new(), Origin::hello(), TempDir::new().unwrap());
    let pintle = Pintle::start(&authority, &format!("{KEPT}{}{}", state(&folder), blog(&authority, &origin)));
    let pin = || pintle.status()["sites"][0]["certificates"][0]["pin"].as_str().unwrap().to_owned();
    let put = |leaf: &Leaf| {
        for (file, name) in [(&leaf.key, "blog.key"), (&leaf.chain, "blog.pem")] {
            let new = authority.folder().join("new");
            fs::copy(file, &new).unwrap();
            fs::rename(new, authority.folder().join(name)).unwrap();
        }
    };
    let other = authority.leaf("other", &[BLOG]);
    put(&other);
    eventually("the new pair is served", || (pin() == other.pin).then_some(()));
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
    // By a reload; and a key that does not fit is refused as ever.
    let third = authority.leaf("third", &[BLOG]);
    put(&third);
    assert!(pintle.reload().contains("reloaded"));
    assert_eq!(pin(), third.pin);
    fs::copy(&other.key, authority.folder().join("blog.key")).unwrap();
    assert!(pintle.reload_fails().contains("the private key does not match the certificate"));
    fs::write(authority.folder().join("blog.key"), "hello\n").unwrap();
    assert!(pintle.reload_fails().contains("no usable private key: none found"));
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
}

/// It reads what root alone may read, and the user that serves may not.
#[test]
fn keys_may_be_for_root_alone() {
    if !is_root() {
        return;
    }
    let (authority, origin, folder) = (Authority::new(), Origin::hello(), TempDir::new().unwrap());
    let site = blog(&authority, &origin);
    let key = authority.folder().join("blog.key");
    for folder in [authority.folder(), folder.path()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600, "as it should be");
    let config = format!("[process]\nuser = \"nobody\"\n{KEPT}{}{site}", state(&folder));
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 2\n";
    let pintle = Pintle::start_command(&authority, listen, &config, |command| {
        let path = Path::new(command.get_args().last().unwrap()).to_owned();
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    });
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
    if cfg!(debug_assertions) {
        let url = format!("http://localhost/attempt?what=read&with={}", key.display());
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-X", "POST", "--unix-socket"]).arg(folder.path().join("state/admin.sock")).arg(url);
        assert!(output(&mut curl).contains("Permission denied"));
    }
    // All that is left to the other one is to read: CAP_DAC_READ_SEARCH is number 2.
    for task in fs::read_dir(format!("/proc/{}/task", key_process(&pintle))).unwrap().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        for line in ["NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapEff:\t0000000000000004\n", "Groups:\t \n"] {
            assert!(status.contains(line), "{line} in {status}");
        }
    }
    let check = || outcome(pintle.command("check").env_remove("PINTLE_ALLOW_ROOT"));
    let (code, out, err) = check();
    assert_eq!(code, 0, "{out}{err}");
    let warned = "blog.key: the user nobody can read it, too, so tls.key_process protects nothing";
    assert!(!err.contains("can read it, too"), "{err}");
    // A key that the user can read is in no safe place, whoever else has it.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, out, err) = check();
    assert!(code == 0 && err.contains(warned) && err.contains("hint: chown root:root "), "{out}{err}");
    let (_, json, _) = outcome(pintle.command("check").arg("--json").env_remove("PINTLE_ALLOW_ROOT"));
    assert!(json.contains(warned), "{json}");
    let remedy =
        err.lines().filter_map(|line| line.split_once("hint: ")).find(|(_, hint)| hint.starts_with("chown root"));
    output(Command::new("sh").args(["-c", remedy.unwrap().1]));
    assert!(!check().2.contains("can read it, too"));
}

/// The same user has both processes: only the sandbox keeps a key from the serving one, if it lies apart.
#[test]
fn a_key_that_the_same_user_can_reach_is_warned_of() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = format!("[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{KEPT}{}", blog(&authority, &origin));
    let path = authority.write("pintle.toml", &config);
    let check = || outcome(pintle().args(["check", "-c"]).arg(&path));
    let (code, out, err) = check();
    assert!(code == 0 && err.contains("blog.key: the serving process can read it, too"), "{out}{err}");
    let apart = TempDir::new().unwrap();
    let key = apart.path().join("blog.key");
    fs::copy(authority.folder().join("blog.key"), &key).unwrap();
    let apart = config.replace(authority.folder().join("blog.key").to_str().unwrap(), key.to_str().unwrap());
    fs::write(&path, &apart).unwrap();
    let (code, out, err) = check();
    assert!(code == 0 && !err.contains("can read it, too"), "{out}{err}");
    fs::write(&path, apart + "[sandbox]\nlandlock = \"off\"\n").unwrap();
    assert!(check().2.contains("can read it, too"));
}

/// Whoever has taken the serving process over has no way to other files through the one that may read them, whether or
/// not the kernel has Landlock.
#[test]
fn the_key_process_reads_the_folders_of_its_keys_only() {
    use std::os::unix::fs::symlink;

    let (authority, elsewhere) = (Authority::new(), TempDir::new().unwrap());
    let named = authority.key("named", KeyKind::Ecdsa);
    let beside = authority.key("beside", KeyKind::Ecdsa);
    let outside = elsewhere.path().join("outside.key");
    fs::copy(&named, &outside).unwrap();
    let link = authority.folder().join("link.key");
    symlink(&outside, &link).unwrap();
    let fifo = authority.folder().join("fifo.key");
    output(Command::new("mkfifo").arg(&fifo));
    let up = authority.folder().join("..").join(elsewhere.path().file_name().unwrap()).join("outside.key");
    crate::sandbox::without_landlock(38, || {
        let mut command = pintle();
        command.arg("keys");
        let plan = serde_json::json!({ "keys": [&named] }).to_string();
        let key_process = pintle::tls::key_process::KeyProcess::start(command, plan.as_bytes()).unwrap();
        for path in [&named, &beside] {
            assert!(key_process.load(path).is_ok(), "{path:?}");
        }
        let missing = elsewhere.path().join("missing.key");
        for path in
            [&outside, &link, &up, &missing, Path::new("/etc/shadow"), Path::new("/dev/zero"), Path::new("/no/such")]
        {
            let error = key_process.load(path).unwrap_err().line();
            assert!(error.contains("the key process cannot read it: permission denied"), "{path:?}: {error}");
        }
        let error = key_process.load(&fifo).unwrap_err().line();
        assert!(error.contains("not a regular file"), "{error}");
        let error = key_process.load(&authority.folder().join("missing.key")).unwrap_err().line();
        assert!(error.contains("No such file"), "{error}");
    });
}

/// A path with `..`, as in the documents, and links with it, as certbot makes them.
#[test]
fn keys_are_found_above_and_behind_links() {
    use std::os::unix::fs::symlink;

    let (authority, origin) = (Authority::new(), Origin::hello());
    let leaf = authority.leaf("blog-key", &[BLOG]);
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["config", "certs", "archive/blog", "live/blog"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    for (from, to) in [(&leaf.chain, "fullchain.pem"), (&leaf.key, "privkey.pem")] {
        fs::copy(from, path("certs").join(to)).unwrap();
        fs::copy(from, path("archive/blog").join(to)).unwrap();
        symlink(Path::new("../../archive/blog").join(to), path("live/blog").join(to)).unwrap();
    }
    for place in ["../certs", "../live/blog"] {
        let config = path("config/pintle.toml");
        let text = format!(
            "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{KEPT}[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n\
             [site.certificate]\nchain = \"{place}/fullchain.pem\"\nkey = \"{place}/privkey.pem\"\n",
            origin.url()
        );
        fs::write(&config, text).unwrap();
        let mut run = pintle();
        run.env("PINTLE_ALLOW_ROOT", "1").args(["run", "-c", "config/pintle.toml"]).current_dir(folder.path());
        let mut running = run.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(running.stderr.take().unwrap()).lines();
        let line = log.find(|line| line.as_ref().is_ok_and(|line| line.contains("serving") || line.contains("error")));
        let _ = running.kill();
        let _ = running.wait();
        let line = line.unwrap().unwrap();
        assert!(!line.contains("error"), "{place}: {line}");
    }
}

#[test]
fn one_does_not_outlive_the_other() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let start = || {
        let folder = TempDir::new().unwrap();
        let config = format!("{KEPT}{}{}", state(&folder), blog(&authority, &origin));
        (Pintle::start(&authority, &config), folder)
    };
    let is_gone = |process: u32| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        (status.is_empty() || status.contains("State:\tZ")).then_some(())
    };
    let (pintle, _folder) = start();
    let process = key_process(&pintle);
    assert_eq!(pintle.stop(), 0);
    eventually("the key process has ended", || is_gone(process));
    // Nothing can be signed without it: what is under way may finish, and both are started anew by whoever sees to that.
    let (mut pintle, _folder) = start();
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    assert_eq!(connection.get(BLOG, "/").status, 200);
    assert!(send_signal("KILL", key_process(&pintle)));
    assert_eq!(pintle.wait().code(), Some(1));
    pintle.logs("the key process has ended");
}

/// Nobody starts it by hand.
#[test]
fn it_is_no_command() {
    let (code, _, err) = outcome(pintle().arg("keys").stdin(Stdio::null()));
    assert!(code == 1 && err.contains("no serving process is connected"), "{err}");
    assert!(!output(pintle().arg("--help")).contains("\n  keys"));
}

/// The cost of a signature: `cargo test --test it keys::what_a_signature_costs -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn what_a_signature_costs() {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::sign::SigningKey;
    use tokio::time::Instant;

    let authority = Authority::new();
    let mut command = pintle();
    command.arg("keys");
    let keys: Vec<_> = [("ecdsa", KeyKind::Ecdsa), ("rsa", KeyKind::Rsa)].map(|(n, k)| (n, authority.key(n, k))).into();
    let plan = serde_json::json!({ "keys": keys.iter().map(|(_, path)| path).collect::<Vec<_>>() }).to_string();
    let key_process = pintle::tls::key_process::KeyProcess::start(command, plan.as_bytes()).unwrap();
    let message = [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 32]].concat();
    let cpu = |process: &str| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
    };
    for (name, path) in keys {
        let der = PrivateKeyDer::from_pem_file(&path).unwrap();
        let here = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).unwrap();
        let there = key_process.load(&path).unwrap();
        let ours: [(&str, &dyn SigningKey); 2] = [("here", &*here), ("there", &there)];
        for (place, key) in ours {
            let scheme = [rustls::SignatureScheme::ECDSA_NISTP256_SHA256, rustls::SignatureScheme::RSA_PSS_SHA256];
            let signer = key.choose_scheme(&scheme).unwrap();
            let count = 5000;
            let (begin, before) = (Instant::now(), (cpu("self"), cpu(&key_process.process().to_string())));
            for _ in 0..count {
                signer.sign(&message).unwrap();
            }
            let each = |ticks: f64| ticks * 10_000.0 / f64::from(count);
            println!(
                "{name} {place}: {:.1} µs; CPU {:.1} µs in this process, {:.1} µs in the other",
                begin.elapsed().as_secs_f64() * 1e6 / f64::from(count),
                each(cpu("self") - before.0),
                each(cpu(&key_process.process().to_string()) - before.1),
            );
        }
    }
}

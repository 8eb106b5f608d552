//! The sandbox: what a process that was taken over cannot do, and that everything it is there for goes on.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Authority, BLOG, Client, KeyKind, Origin, Pintle, Reply, SecureServer, blog, blog_at, eventually, outcome, output,
    send_signal,
};

struct Bed {
    authority: Authority,
    origin: Origin,
    folder: TempDir,
}

impl Bed {
    fn new() -> Self {
        let origin = Origin::start(|request| Reply::ok(&format!("{} bytes", request.body.len())));
        Self { authority: Authority::new(), origin, folder: TempDir::new().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, sandbox: &str) -> String {
        format!(
            "[sandbox]\n{sandbox}\n[state]\ndirectory = {:?}\n{}",
            self.at("state"),
            blog(&self.authority, &self.origin)
        )
    }

    /// The result if the running process tries this.
    fn attempt(&self, what: &str, with: &str) -> String {
        let url = format!("http://localhost/attempt?what={what}&with={with}");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-X", "POST", "--unix-socket"]).arg(self.at("state/admin.sock")).arg(url);
        let answer: Value = serde_json::from_str(&output(&mut curl)).unwrap();
        answer["outcome"].as_str().unwrap().to_owned()
    }
}

/// `Ok` if this kernel supports it; otherwise the reason.
fn is_held(pintle: &Pintle) -> bool {
    let status = pintle.status();
    let sandbox = &status["sandbox"];
    let lacks = sandbox["lacks"].to_string();
    let landlock = sandbox["landlock"].as_u64().unwrap_or(0);
    if landlock >= 6 && sandbox["system_calls"].is_u64() {
        assert_eq!(lacks, "[]");
        return true;
    }
    // No other reason is good enough.
    let known = ["this kernel", "landlock 1", "landlock 2", "landlock 3", "landlock 4", "landlock 5", "seccomp: "];
    assert!(known.iter().any(|why| lacks.contains(why)), "{sandbox}");
    eprintln!("stepping aside: this kernel cannot hold the whole sandbox: {lacks}");
    false
}

/// The debug build alone has what tries.
const CAN_TRY: bool = cfg!(debug_assertions);

#[test]
fn what_must_not_be_done_cannot_be_done() {
    if !CAN_TRY {
        eprintln!("stepping aside: only debug builds can be asked to try");
        return;
    }
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    if !is_held(&pintle) {
        return;
    }
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = elsewhere.local_addr().unwrap().to_string();
    let (outside, certificate) = (bed.at("outside"), bed.authority.folder().join("blog.pem"));
    let (outside, certificate) = (outside.to_str().unwrap(), certificate.to_str().unwrap());
    let test = std::process::id().to_string();
    let forbidden = [
        ("read", "/etc/shadow"),
        ("read", "/etc/passwd"),
        ("read", "/proc/1/environ"),
        ("list", "/"),
        ("list", "/etc"),
        ("write", outside),
        ("write", certificate),
        ("write", "/etc/pintle-was-here"),
        ("exec", "/bin/true"),
        ("exec", "/bin/sh"),
        ("connect", &elsewhere),
        ("packet", ""),
        ("netlink", ""),
        ("raw", ""),
        ("ptrace", &test),
        ("signal", &test),
        ("namespace", ""),
        ("root", ""),
    ];
    for (what, with) in forbidden {
        let outcome = bed.attempt(what, with);
        let is_refused = ["Permission denied", "Function not implemented", "Operation not permitted"];
        assert!(is_refused.iter().any(|words| outcome.contains(words)), "{what} {with}: {outcome}");
    }
    assert!(!Path::new(outside).exists() && !Path::new("/etc/pintle-was-here").exists());
    // The ways around the list of ports do not exist, whatever protocols this kernel has.
    for (what, with) in
        [("mptcp", ""), ("sctp", ""), ("udplite", ""), ("fastopen", &*elsewhere), ("fastopen-message", &elsewhere)]
    {
        let outcome = bed.attempt(what, with);
        assert!(outcome.contains("Function not implemented"), "{what} {with}: {outcome}");
    }
    // What it needs, it may do; and it still serves.
    let allowed = [
        ("read", certificate.to_owned()),
        ("read", "/etc/hosts".to_owned()),
        ("write", bed.at("state/note").to_str().unwrap().to_owned()),
        ("connect", bed.origin.address.to_string()),
        ("bind", "127.0.0.1:0".to_owned()),
    ];
    for (what, with) in allowed {
        assert_eq!(bed.attempt(what, &with), "done", "{what} {with}");
    }
    assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").text(), "0 bytes");
    assert_eq!(pintle.stop(), 0);
}

/// So that the test above can fail.
#[test]
fn without_a_sandbox_it_can_be_done() {
    if !CAN_TRY {
        eprintln!("stepping aside: only debug builds can be asked to try");
        return;
    }
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config("landlock = \"off\"\nseccomp = \"off\""));
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let outside = bed.at("outside");
    for (what, with) in [
        ("read", "/etc/passwd"),
        ("list", "/"),
        ("write", outside.to_str().unwrap()),
        ("exec", "/bin/true"),
        ("connect", &elsewhere.local_addr().unwrap().to_string()),
        ("netlink", ""),
        ("fastopen", &elsewhere.local_addr().unwrap().to_string()),
        ("fastopen-message", &elsewhere.local_addr().unwrap().to_string()),
        ("signal", &std::process::id().to_string()),
    ] {
        assert_eq!(bed.attempt(what, with), "done", "{what} {with}");
    }
    let lacks = pintle.status()["sandbox"]["lacks"].to_string();
    assert!(lacks.contains("landlock is off") && lacks.contains("seccomp is off"), "{lacks}");
}

#[test]
fn everything_goes_on_inside() {
    let bed = Bed::new();
    let log = bed.at("access.log");
    let folder = bed.authority.folder();
    // As certbot has it: what is named leads elsewhere, and leads to another place after each renewal.
    fs::create_dir_all(folder.join("live")).unwrap();
    fs::create_dir_all(folder.join("archive")).unwrap();
    let leaf = bed.authority.leaf("first", &[BLOG]);
    let point_to = |leaf: &crate::harness::Leaf, number: u32| {
        for (file, name) in [(&leaf.chain, "fullchain"), (&leaf.key, "privkey")] {
            let (numbered, link) = (format!("{name}{number}.pem"), folder.join("live").join(format!("{name}.pem")));
            fs::copy(file, folder.join("archive").join(&numbered)).unwrap();
            let _ = fs::remove_file(folder.join("live/new"));
            symlink(format!("../archive/{numbered}"), folder.join("live/new")).unwrap();
            fs::rename(folder.join("live/new"), link).unwrap();
        }
    };
    point_to(&leaf, 1);
    let config = format!(
        "[sandbox]\nlandlock = \"auto\"\n[state]\ndirectory = {:?}\n[log]\naccess = {log:?}\n\
         [[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        bed.at("state"),
        bed.origin.url(),
        folder.join("live/fullchain.pem"),
        folder.join("live/privkey.pem"),
    );
    let pintle = Pintle::start(&bed.authority, &config);
    let status = output(&mut pintle.command("status"));
    assert!(status.contains("  sandbox        user "), "{status}");
    assert!(!pintle.log_json("sandbox").is_empty());
    let page = |version: &str| {
        let body = bed.at("body");
        fs::write(&body, vec![b'x'; 3 << 20]).unwrap();
        let mut curl = pintle.curl();
        curl.args([version, "--data-binary"]).arg(format!("@{}", body.display()));
        output(curl.arg(format!("https://{BLOG}/upload")))
    };
    for version in ["--http1.1", "--http2"] {
        assert_eq!(page(version), format!("{} bytes", 3 << 20));
    }
    // A renewal, found by the watch; then one more, found by SIGHUP.
    let renewed = bed.authority.renew("second", &leaf.key, &[BLOG], 60);
    let end = || pintle.status()["sites"][0]["certificates"][0]["not_after"].to_string();
    let first = end();
    point_to(&renewed, 2);
    eventually("the renewed certificate is served", || (end() != first).then_some(()));
    // Logs are moved away, and made anew.
    eventually("the log is written", || fs::read_to_string(&log).is_ok_and(|l| l.contains("/upload")).then_some(()));
    fs::rename(&log, bed.at("access.log.1")).unwrap();
    assert!(pintle.reload().contains("reloaded"));
    eventually("the log is there again", || {
        output(pintle.curl().arg(format!("https://{BLOG}/after")));
        fs::read_to_string(&log).is_ok_and(|l| l.contains("/after")).then_some(())
    });
    // The socket is swept away, and comes back.
    fs::remove_file(bed.at("state/admin.sock")).unwrap();
    eventually("the socket is there again", || bed.at("state/admin.sock").exists().then_some(()));
    assert_eq!(pintle.stop(), 0);
}

/// By TLS, and by a name.
#[test]
fn upstreams_are_reached_from_inside() {
    let bed = Bed::new();
    let leaf = bed.authority.leaf("origin", &["localhost"]);
    let secure = SecureServer::with_lines(&leaf, &[]);
    let blog = blog_at(&bed.authority, &format!("https://localhost:{}", secure.address.port()));
    let options = format!("[site.upstream_options]\nca = {:?}\n", bed.authority.ca_path());
    let config = format!("[sandbox]\nlandlock = \"auto\"\n{blog}{options}");
    let pintle = Pintle::start(&bed.authority, &config);
    assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").status, 200);
}

#[test]
fn what_the_sandbox_was_not_made_for_is_refused_at_reload() {
    let bed = Bed::new();
    let second = Origin::start(|_| Reply::ok("second"));
    let (other, foreseen) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let third = Origin::start(|_| Reply::ok("third"));
    let sandbox = format!("connect_ports = [{}]\nread = [{:?}]", third.address.port(), foreseen.path());
    let pintle = Pintle::start(&bed.authority, &bed.config(&sandbox));
    if !is_held(&pintle) {
        return;
    }
    let good = fs::read_to_string(pintle.config_path()).unwrap();
    let leaf = bed.authority.leaf_of("moved", &[BLOG], KeyKind::Ecdsa, -1, 80);
    let in_folder = |folder: &Path| {
        for file in [&leaf.chain, &leaf.key] {
            fs::copy(file, folder.join(file.file_name().unwrap())).unwrap();
        }
        let blog = bed.authority.folder().join("blog");
        good.replace(blog.to_str().unwrap(), folder.join("moved").to_str().unwrap())
    };
    let port = |origin: &Origin| good.replace(&bed.origin.url(), &origin.url());
    let webroot = format!("[acme]\nwebroot = {:?}\n{good}", other.path());
    let socket = format!("[admin]\nlisten = \"unix:{}\"\n{good}", other.path().join("sub/admin.sock").display());
    for (text, reason, remedy) in [
        (in_folder(other.path()), "moved.pem: not readable by", "sandbox.read"),
        (port(&second), "without permission to connect", "sandbox.connect_ports"),
        (webroot, "without permission to read", "sandbox.read"),
        (socket, "without permission to write", "kill -USR2"),
    ] {
        fs::write(pintle.config_path(), text).unwrap();
        // The socket's place is taken from the file: a signal asks without it.
        pintle.signal("HUP");
        eventually(reason, || pintle.log().contains(reason).then_some(()));
        pintle.logs(remedy);
        pintle.logs("`pintle upgrade`");
        assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").text(), "0 bytes");
    }
    // A reload that is refused creates nothing, even where it may.
    let early = bed.at("state/early");
    let listen = format!("[admin]\nlisten = \"unix:{}\"", early.join("admin.sock").display());
    let refusals = || pintle.log().matches("without permission to connect").count();
    let before = refusals();
    fs::write(pintle.config_path(), format!("{listen}\n{}", port(&second))).unwrap();
    pintle.signal("HUP");
    eventually("another refusal", || (refusals() > before).then_some(()));
    assert!(!early.exists(), "{}", early.display());
    // What was foreseen is taken.
    fs::write(pintle.config_path(), in_folder(foreseen.path())).unwrap();
    assert!(pintle.reload().contains("reloaded"));
    fs::write(pintle.config_path(), port(&third)).unwrap();
    assert!(pintle.reload().contains("reloaded"));
    assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").text(), "third");
}

/// Every thread is inside.
#[test]
fn no_thread_is_left_outside() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config("seccomp = \"require\""));
    assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").status, 200);
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", pintle.pid())).unwrap().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"), "{status}");
        threads += 1;
    }
    assert!(threads >= 4, "control, log, files, workers: {threads}");
}

/// With a kernel that has every part, pintle serves, and every part works.
#[test]
fn what_is_required_is_held() {
    let bed = Bed::new();
    let config = bed.config("landlock = \"require\"\nseccomp = \"require\"");
    if let Some(lacks) = lacks_of_this_kernel(&bed) {
        let (code, out, err) = run(&bed, &config);
        assert!(code == 1 && err.contains("sandbox.landlock: required, but cannot be enforced: "), "{out}{err}");
        eprintln!("stepping aside: this kernel cannot hold the whole sandbox: {lacks}");
        return;
    }
    let pintle = Pintle::start(&bed.authority, &config);
    assert_eq!(pintle.status()["sandbox"]["lacks"].to_string(), "[]");
    assert!(pintle.status()["sandbox"]["landlock"].as_u64().unwrap() >= 6);
    assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").status, 200);
    assert_eq!(pintle.stop(), 0);
}

fn lacks_of_this_kernel(bed: &Bed) -> Option<String> {
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    (!is_held(&pintle)).then(|| pintle.status()["sandbox"]["lacks"].to_string())
}

/// `pintle run`, which must end by itself: with 124, if it does not.
fn run(bed: &Bed, config: &str) -> (i32, String, String) {
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n";
    let path = bed.authority.write("required.toml", format!("{listen}{config}"));
    let mut command = Command::new("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_pintle"), "run", "-c"]).arg(path).env("PINTLE_ALLOW_ROOT", "1");
    outcome(&mut command)
}

/// Kernels without Landlock, as far as a process can see: one that does not have it, and one where it is not enabled
/// (landlock(7): ENOSYS, EOPNOTSUPP).
#[test]
fn without_landlock_it_serves_unless_that_is_required() {
    for (errno, why) in [(38, "the kernel has no Landlock (Linux 5.13)"), (95, "it is not enabled (lsm=landlock)")] {
        let bed = Bed::new();
        without_landlock(errno, || {
            let (code, out, err) = run(&bed, &bed.config("landlock = \"require\""));
            assert_eq!((code, out.as_str()), (1, ""), "{err}");
            let message = "error: sandbox.landlock: required, but cannot be enforced: ";
            assert!(err.contains(message) && err.contains(why), "{err}");
            assert!(err.contains("hint: sandbox.landlock = \"auto\" enforces the supported parts"), "{err}");
            // A missing part that is not required is logged.
            let pintle = Pintle::start(&bed.authority, &bed.config("landlock = \"auto\""));
            assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").status, 200);
            let sandbox = &pintle.status()["sandbox"];
            assert!(sandbox["landlock"].is_null() && sandbox["lacks"].to_string().contains(why), "{sandbox}");
            assert_eq!(pintle.stop(), 0);
        });
    }
}

/// Does this in a thread, whose programs find no Landlock: its three system calls fail so.
pub fn without_landlock(errno: u32, then: impl FnOnce() + Send) {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

    // asm-generic/unistd.h: landlock_create_ruleset, landlock_add_rule, landlock_restrict_self, on all architectures.
    let calls = [444, 445, 446].map(|call| (call, Vec::new())).into();
    let here = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, SeccompAction::Errno(errno), here).unwrap();
    let filter = BpfProgram::try_from(filter).unwrap();
    std::thread::scope(|scope| {
        let done = scope.spawn(move || {
            seccompiler::apply_filter(&filter).unwrap();
            then();
        });
        if let Err(panic) = done.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Paths as they are typed in the folder itself: `pintle run -c pintle.toml`.
#[test]
fn relative_paths_are_the_same_places_from_everywhere() {
    let bed = Bed::new();
    let folder = TempDir::new().unwrap();
    blog(&bed.authority, &bed.origin);
    for file in ["blog.pem", "blog.key"] {
        fs::copy(bed.authority.folder().join(file), folder.path().join(file)).unwrap();
    }
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let config = format!(
        "[sandbox]\nlandlock = \"auto\"\n[state]\ndirectory = \"state\"\n[admin]\nlisten = \"unix:run/admin.sock\"\n[log]\naccess = \"access.log\"\n\
         [[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n\
         [site.certificate]\nchain = \"blog.pem\"\nkey = \"blog.key\"\n",
        bed.origin.url()
    );
    let home = folder.path().to_owned();
    let pintle = Pintle::start_in(
        folder,
        Path::new("pintle.toml"),
        crate::harness::pintle(),
        &bed.authority,
        listen,
        &config,
        |c| {
            c.current_dir(&home);
        },
    );
    let visit = |path: &str| assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, path).status, 200);
    let is_logged = |path: &str| {
        eventually("a line in the log", || {
            fs::read_to_string(home.join("access.log")).is_ok_and(|log| log.contains(path)).then_some(())
        });
    };
    visit("/first");
    is_logged("/first");
    // Commands find it, by a relative path and by an absolute one.
    let here = |command: &str| output(crate::harness::pintle().current_dir(&home).args([command, "-c", "pintle.toml"]));
    assert!(here("status").contains("pintle "));
    assert!(here("reload").contains("reloaded"));
    assert_eq!(pintle.status()["pid"], pintle.pid());
    // A log that was moved away is made anew, inside the sandbox.
    fs::rename(home.join("access.log"), home.join("access.log.1")).unwrap();
    assert!(here("reload").contains("reloaded"));
    visit("/second");
    is_logged("/second");
    // What is written to the log, and made for the socket, takes nothing away.
    if CAN_TRY && is_held(&pintle) {
        let attempt = |what: &str, with: &str| {
            let url = format!("http://localhost/attempt?what={what}&with={with}");
            let mut curl = Command::new("curl");
            output(curl.args(["-sS", "-X", "POST", "--unix-socket"]).arg(home.join("run/admin.sock")).arg(url))
        };
        for (what, name) in [("remove", "blog.key"), ("remove", "pintle.toml")] {
            let answer = attempt(what, home.join(name).to_str().unwrap());
            assert!(answer.contains("Permission denied"), "{what} {name}: {answer}");
        }
        assert!(attempt("write", home.join("state/note").to_str().unwrap()).contains("done"));
    }
    // And another process takes over.
    assert!(here("upgrade").contains("serves now"));
    visit("/third");
    is_logged("/third");
    let (code, out, err) = outcome(crate::harness::pintle().current_dir(&home).args(["check", "-c", "pintle.toml"]));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let status: Value = serde_json::from_str(&output(pintle.command("status").arg("--json"))).unwrap();
    assert!(send_signal("TERM", &status["pid"]));
}

#[test]
fn the_folder_of_the_log_must_be_there() {
    let bed = Bed::new();
    let path = bed.at("pintle.toml");
    let text = format!("[log]\naccess = \"logs/access.log\"\n{}", blog(&bed.authority, &bed.origin));
    fs::write(&path, format!("[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{text}")).unwrap();
    let check = || outcome(crate::harness::pintle().args(["check", "-c"]).arg(&path));
    let (code, _, err) = check();
    assert!(code == 1 && err.contains(": no such folder") && err.contains("pintle.toml:"), "{err}");
    let remedy = err.lines().find_map(|line| line.split_once("hint: ")).unwrap().1;
    output(Command::new("sh").args(["-c", remedy]));
    let (code, out, err) = check();
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
}

#[test]
fn what_the_process_may_write_lies_apart_from_what_it_reads() {
    let bed = Bed::new();
    let site = blog(&bed.authority, &bed.origin);
    let check = |more: &str| {
        let text = format!("[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{more}{site}");
        outcome(crate::harness::pintle().args(["check", "-c"]).arg(bed.authority.write("pintle.toml", text)))
    };
    let (code, _, err) = check("[state]\ndirectory = \".\"\n");
    assert!(
        code == 0 && err.contains("warning: state.directory: an attacker who takes over the process can change "),
        "{err}"
    );
    let (code, _, err) = check("[admin]\nlisten = \"unix:admin.sock\"\n");
    assert!(
        code == 0 && err.contains("warning: admin.listen: an attacker who takes over the process can remove "),
        "{err}"
    );
    let (code, out, err) = check("[state]\ndirectory = \"state\"\n[admin]\nlisten = \"unix:run/admin.sock\"\n");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
}

/// A second site in another folder, on another port: a reload names the command that takes it in, and that works.
#[test]
fn a_site_beyond_the_sandbox_comes_with_an_upgrade() {
    let bed = Bed::new();
    let second = Origin::start(|_| Reply::ok("second"));
    let line = crate::upgrade::Line::start(
        &bed.authority,
        "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n",
        &bed.config(""),
    );
    if !is_held(&line.pintle) {
        return;
    }
    let other = TempDir::new().unwrap();
    let leaf = bed.authority.leaf("shop", &["shop.example.com"]);
    let [chain, key] = [&leaf.chain, &leaf.key].map(|file| other.path().join(file.file_name().unwrap()));
    fs::copy(&leaf.chain, &chain).unwrap();
    fs::copy(&leaf.key, &key).unwrap();
    let url = second.url();
    let site = format!(
        "[[site]]\nhosts = [\"shop.example.com\"]\nupstream = \"{url}\"\n[site.certificate]\nchain = {chain:?}\nkey = {key:?}\n"
    );
    line.pintle.rewrite(|text| format!("{text}{site}"));
    let refused = line.pintle.reload_fails();
    assert!(refused.contains("after you have changed the file, `pintle upgrade`"), "{refused}");
    line.upgrade();
    assert_eq!(Client::new(&bed.authority).get(line.pintle.https(), "shop.example.com", "/").text(), "second");
}

/// A change that the sandbox does not permit leaves the file as it is: the remedy puts it there, too.
#[test]
fn a_change_beyond_the_sandbox_is_applied_with_an_upgrade() {
    let bed = Bed::new();
    let second = Origin::start(|_| Reply::ok("second"));
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n";
    let line = crate::upgrade::Line::start(&bed.authority, listen, &bed.config(""));
    if !is_held(&line.pintle) {
        return;
    }
    let path = line.pintle.config_path();
    let before = fs::read_to_string(&path).unwrap();
    let wanted = bed.folder.path().join("wanted.toml");
    let apply = |text: &str, more: &[&str]| {
        fs::write(&wanted, text).unwrap();
        outcome(line.pintle.command("config apply").arg(&wanted).args(more))
    };
    let changed = before.replace(&bed.origin.url(), &second.url());
    let (code, _, err) = apply(&changed, &[]);
    assert!(code == 1 && err.contains("config apply FILE --upgrade"), "{err}");
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    // One that no process can serve is taken back.
    let (code, _, err) =
        apply(&changed.replace("https = [\"127.0.0.1:0\"]", "https = [\"192.0.2.1:0\"]"), &["--upgrade"]);
    assert!(code == 1 && err.contains("nothing has changed"), "{err}");
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    let (code, out, err) = apply(&changed, &["--upgrade", "--json"]);
    assert_eq!(code, 0, "{out}{err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    line.is_now(u32::try_from(answer["pid"].as_u64().unwrap()).unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap(), changed);
    assert_eq!(Client::new(&bed.authority).get(line.pintle.https(), BLOG, "/").text(), "second");
}

/// The roots of a private authority and the key of an external account may lie anywhere.
#[test]
fn the_files_of_acme_are_read_again_inside() {
    let bed = Bed::new();
    let other = TempDir::new().unwrap();
    let [ca, eab] = ["ca.pem", "eab.key"].map(|name| other.path().join(name));
    fs::copy(bed.authority.ca_path(), &ca).unwrap();
    fs::write(&eab, "c2VjcmV0LXNlY3JldC1zZWNyZXQ\n").unwrap();
    fs::set_permissions(&eab, fs::Permissions::from_mode(0o600)).unwrap();
    let acme = format!(
        "[acme]\ndirectory = \"https://localhost:1/directory\"\nterms = true\nca = {ca:?}\neab = {{ key_id = \"1\", hmac_key_file = {eab:?} }}\n"
    );
    let site = "[[site]]\nhosts = [\"shop.example.com\"]\nupstream = \"http://127.0.0.1:1\"\n[site.certificate]\nacme = true\n";
    let pintle = Pintle::start(&bed.authority, &format!("{acme}{}{site}", bed.config("")));
    pintle.reload();
}

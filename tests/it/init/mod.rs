//! `pintle init`: blogs of every platform from data files, sites that are none of them, hostile servers, and the file.

mod hostile;
mod server;
mod terminal;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Authority, BLOG, Pintle, outcome, pintle};
use server::{Blog, Fixture};

/// All data files of a folder.
fn fixtures(folder: &str) -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/init").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| Fixture::read(&name(path), &fs::read_to_string(path).unwrap())).collect()
}

fn fixture(name: &str) -> Fixture {
    fixtures("fixtures").into_iter().find(|fixture| fixture.name == name).unwrap()
}

/// `pintle init` of a blog at its addresses, for [`BLOG`].
fn init(authority: &Authority, blog: &Blog, url: &str) -> Command {
    let mut command = pintle();
    command.args(["init", url, "--host", BLOG, "--connect", &blog.https.to_string()]);
    command.args(["--connect-http", &blog.http.to_string(), "--ca"]).arg(authority.ca_path());
    command
}

/// The same of a data file: one without https is asked over http only.
fn init_fixture(authority: &Authority, blog: &Blog, fixture: &Fixture) -> Command {
    let url = fixture.value("url").unwrap();
    if fixture.value("no-https").is_none() {
        return init(authority, blog, url);
    }
    let mut command = pintle();
    command.args(["init", url, "--host", BLOG, "--connect", &blog.http.to_string()]);
    command
}

/// The conclusions, after the file was written; `check` accepts it.
#[track_caller]
fn conclusions(command: &mut Command) -> (Value, String) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pintle.toml");
    let (code, out, err) = outcome(command.args(["--json", "-o"]).arg(&path));
    assert_eq!(code, 0, "{command:?}\n{out}\n{err}");
    let text = fs::read_to_string(&path).unwrap();
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}\n{out}"));
    assert_eq!(report["config"], text);
    assert_eq!(report["file"], path.display().to_string());
    assert!(report["requests"].as_u64().unwrap() <= 8, "{report:#}");
    check_accepts(&path, &text);
    (report, text)
}

/// `pintle check` accepts the file as it is, and every line is plain.
#[track_caller]
fn check_accepts(path: &Path, text: &str) {
    let (code, out, err) = outcome(pintle().args(["check", "-c"]).arg(path));
    assert_eq!(code, 0, "{text}\n{out}\n{err}");
    assert!(text.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)), "{text}");
}

/// The lines that are no comments.
fn active(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[test]
fn every_platform_is_named_by_its_answers() {
    let authority = Authority::new();
    let all = fixtures("fixtures");
    for platform in pintle::init::platform::Platform::all() {
        assert!(all.iter().any(|f| f.value("platform") == Some(platform.id())), "no data file of {platform:?}");
    }
    for fixture in &all {
        let blog = Blog::serve(&authority, fixture);
        let (report, text) = conclusions(&mut init_fixture(&authority, &blog, fixture));
        let name = &fixture.name;
        assert_eq!(report["platform"], fixture.value("platform").unwrap(), "{name}: {report:#}");
        assert!(!report["signs"].as_array().unwrap().is_empty(), "{name}: {report:#}");
        for key in ["upstream", "host_header"] {
            if let Some(want) = fixture.value(key) {
                assert_eq!(report[key], want, "{name}: {report:#}");
            }
        }
        assert_eq!(report["host_header_proven"], true, "{name}: {report:#}");
        let wanted = format!("host_header = {}", report["host_header"]);
        assert!(active(&text).contains(&wanted.as_str()), "{name}: {text}");
        if let Some(believed) = fixture.value("forwarded_proto") {
            assert_eq!(report["forwarded_proto"].to_string(), believed, "{name}: {report:#}");
        }
        for part in fixture.values("note") {
            assert!(report["notes"].to_string().contains(part), "{name}: {part}: {report:#}");
        }
        for cookie in fixture.values("cookie") {
            let found = report["cookies"].as_array().unwrap().iter().find(|c| c["name"] == cookie);
            assert_eq!(found.unwrap()["rewritten"], true, "{name}: {report:#}");
        }
        for line in fixture.values("active") {
            assert!(active(&text).iter().any(|l| l.starts_with(line)), "{name}: {line}: {text}");
        }
        assert!(active(&text).len() <= 14, "{name}: {text}");
    }
}

/// A wrong name is worse than none. The file is still valid.
#[test]
fn other_sites_stay_unknown() {
    let authority = Authority::new();
    let all = fixtures("unknown");
    assert!(all.len() >= 30, "{}", all.len());
    for fixture in &all {
        let blog = Blog::serve(&authority, fixture);
        let (report, text) = conclusions(&mut init_fixture(&authority, &blog, fixture));
        assert_eq!(report["platform"], "unknown", "{}: {report:#}", fixture.name);
        assert!(text.contains("# Platform: unknown"), "{text}");
    }
}

/// At most eight GETs, without cookies, with a name of its own.
#[test]
fn requests_are_few_and_polite() {
    let authority = Authority::new();
    for name in ["wordpress-own", "wordpress-own-public", "ghost-pro", "squarespace"] {
        let fixture = fixture(name);
        let blog = Blog::serve(&authority, &fixture);
        let (report, _) = conclusions(&mut init_fixture(&authority, &blog, &fixture));
        let requests = blog.requests();
        assert_eq!(report["requests"], requests.len(), "{requests:?}");
        assert!((4..=8).contains(&requests.len()), "{requests:?}");
        for request in requests {
            assert!(request.starts_with("GET /"), "{request}");
            assert!(request.contains("\r\nUser-Agent: pintle-init/"), "{request}");
            assert!(!request.to_ascii_lowercase().contains("\r\ncookie:"), "{request}");
        }
    }
}

/// The written file serves the blog, once its certificate is there.
#[test]
fn the_file_serves_the_blog() {
    let authority = Authority::new();
    for (name, page) in
        [("wordpress-com", "About"), ("wordpress-com-mapped", "Example"), ("wordpress-own-public", "hello")]
    {
        let fixture = fixture(name);
        let blog = Blog::serve(&authority, &fixture);
        let (_, text) = conclusions(&mut init_fixture(&authority, &blog, &fixture));
        let leaf = authority.leaf("public", &[BLOG]);
        let chain = format!("chain = {:?}", leaf.chain);
        let text = text.replace("# [site.certificate]", "[site.certificate]");
        let text = text.replace("# chain = \"certs/blog.example.com.pem\"", &chain);
        let text = text.replace("# key = \"certs/blog.example.com.key\"", &format!("key = {:?}", leaf.key));
        let server = Pintle::start(&authority, &text);
        let mut command = server.curl();
        let (code, out, err) = outcome(command.args(["--include", &format!("https://{BLOG}/")]));
        assert!(code == 0 && out.contains(" 200") && out.contains(page), "{name}: {out} {err}");
        assert!(out.to_ascii_lowercase().contains("strict-transport-security: max-age="), "{name}: {out}");
    }
}

#[test]
fn nothing_is_overwritten() {
    let authority = Authority::new();
    let fixture = fixture("github-pages");
    let blog = Blog::serve(&authority, &fixture);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pintle.toml");
    fs::write(&path, "mine").unwrap();
    let dangling = folder.path().join("link.toml");
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &dangling).unwrap();
    for path in [&path, &dangling] {
        let (code, out, err) = outcome(init_fixture(&authority, &blog, &fixture).arg("-o").arg(path));
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        for part in [&*path.display().to_string(), "overwrites no file", "--dry-run", "-o FILE"] {
            assert!(err.contains(part), "{part}: {err}");
        }
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert!(!folder.path().join("elsewhere").exists() && blog.requests().is_empty());
    // --dry-run prints the file, and nothing else, on standard output.
    let (code, out, err) = outcome(init_fixture(&authority, &blog, &fixture).arg("--dry-run").current_dir(&folder));
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("# Written by `pintle init`") && err.contains("GitHub Pages"), "{out}{err}");
    let printed = folder.path().join("printed.toml");
    fs::write(&printed, &out).unwrap();
    check_accepts(&printed, &out);
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

/// The program under the name that hints have, for a shell.
fn paste(command: &str) -> (i32, String, String) {
    let program = pintle().get_program().to_owned();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("pintle() {{ \"$PINTLE\" \"$@\"; }}; {command}")]);
    outcome(shell.env("PINTLE", program).env("PINTLE_ALLOW_ROOT", "1"))
}

/// The hint that begins so.
#[track_caller]
fn hint<'a>(error: &'a str, begin: &str) -> &'a str {
    let mut hints = error.lines().filter_map(|line| line.trim().strip_prefix("hint: "));
    hints.find_map(|hint| hint.strip_prefix(begin)).unwrap_or_else(|| panic!("no hint {begin:?} in {error}"))
}

#[test]
fn a_folder_that_init_does_not_make() {
    let authority = Authority::new();
    let fixture = fixture("github-pages");
    let blog = Blog::serve(&authority, &fixture);
    let folder = TempDir::new().unwrap();
    let lost = folder.path().join("two words/no/pintle.toml");
    let ask = || outcome(init_fixture(&authority, &blog, &fixture).arg("-o").arg(&lost));
    let (code, out, err) = ask();
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("there is no folder") && !err.contains("os error"), "{err}");
    // It is said before the blog is asked, and the remedy works as pasted.
    assert!(blog.requests().is_empty());
    assert_eq!(paste(hint(&err, "make it first: ")).0, 0);
    let (code, _, err) = ask();
    assert!(code == 0 && lost.exists(), "{err}");
    // The command for a file that exists has all its arguments.
    let (_, _, err) = ask();
    let again = format!("pintle init{}", hint(&err, "pintle init").strip_suffix(" prints the file").unwrap());
    let (code, out, err) = paste(&again);
    assert!(code == 0 && out.starts_with("# Written by `pintle init`"), "{again}: {out}{err}");
    // A file in the folder's place.
    let file = lost.join("pintle.toml");
    let (code, _, err) = outcome(init_fixture(&authority, &blog, &fixture).arg("-o").arg(&file));
    assert!(code == 1 && err.contains("is not a folder") && !err.contains("os error"), "{err}");
}

#[test]
fn without_a_terminal_a_missing_host_is_an_error() {
    let (code, out, err) = outcome(pintle().args(["init", "https://example.wordpress.com"]));
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("no host") && err.contains("--host blog.example.com"), "{err}");
    for wrong in [
        &["init"][..],
        &["init", "ftp://example.com", "--host", BLOG],
        &["init", "https://example.com", "--host", "https://blog.example.com"],
        &["init", "https://example.com", "--host", "127.1"],
        &["init", "https://example.com", "--host", BLOG, "--email", "nobody"],
        &["init", "https://example.com", "--host", BLOG, "--accept-terms"],
    ] {
        let (code, out, err) = outcome(pintle().args(wrong));
        assert!(code == 2 && out.is_empty() && err.contains("error:"), "{wrong:?}: {err}");
    }
}

#[test]
fn a_server_that_cannot_be_reached() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pintle.toml");
    let nobody = "127.0.0.1:1";
    let mut command = pintle();
    command.args([
        "init",
        "https://example.wordpress.com",
        "--host",
        BLOG,
        "--connect",
        nobody,
        "--connect-http",
        nobody,
    ]);
    let (code, out, err) = outcome(command.arg("-o").arg(&path));
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("https://example.wordpress.com/: cannot be reached") && err.contains("--connect"), "{err}");
    assert!(!path.exists());
}

/// A port without TLS behind an https URL, or a URL without its scheme: no file, and the URL to write.
#[test]
fn a_port_that_speaks_plain_http() {
    // It answers whatever it reads, as nginx does.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let folder = TempDir::new().unwrap();
    for url in [format!("https://{http}"), http.to_string()] {
        let mut command = pintle();
        command.args(["init", &url, "--host", BLOG, "--connect-http", "127.0.0.1:1", "-o", "pintle.toml"]);
        let (code, out, err) = outcome(command.current_dir(&folder));
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains("does not speak TLS on this port"), "{err}");
        assert!(err.contains(&format!("hint: if the blog speaks plain HTTP at this port: http://{http}")), "{err}");
        assert!(!folder.path().join("pintle.toml").exists());
    }
    let (code, _, err) = outcome(pintle().args(["init", "https://me:secret@example.com/", "--host", BLOG]));
    assert!(code == 2 && err.contains("a URL with a user name"), "{err}");
}

/// Four names for an address: its certificate is for the public name.
#[test]
fn an_address_with_the_certificate_of_the_site() {
    let authority = Authority::new();
    let blog = Blog::start(&authority, &[BLOG], |scheme, request, stream| {
        let is_ours = request.contains("\r\nHost: blog.example.com\r\n");
        let (status, body) = if is_ours { ("200 OK", "<title>ours</title>") } else { ("404 Not Found", "") };
        let body = format!("{body}<!-- {scheme} -->");
        write!(stream, "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    });
    let (report, text) = conclusions(&mut init(&authority, &blog, "https://192.0.2.80"));
    assert_eq!(
        (&report["upstream"], &report["server_name"]),
        (&"https://192.0.2.80".into(), &BLOG.into()),
        "{report:#}"
    );
    assert_eq!((&report["host_header"], &report["host_header_proven"]), (&"client".into(), &true.into()), "{report:#}");
    assert!(active(&text).contains(&"server_name = \"blog.example.com\""), "{text}");
    let connect = format!("connect = \"{}\"", blog.https);
    assert!(active(&text).contains(&connect.as_str()), "{text}");
}

/// Visitors come to pintle's port: the blog sees their Host field without its own port.
#[test]
fn a_blog_at_a_port_of_its_own() {
    let authority = Authority::new();
    let blog = Blog::start(&authority, &["own.example"], |_, request, stream| {
        let is_ours = request.contains("\r\nHost: blog.example.com\r\n");
        let (status, kind) = if is_ours { ("200 OK", "text/plain") } else { ("404 Not Found", "text/html") };
        // Not a page: its text is not mixed content.
        let body = "<img src=http://other.example/a.png>";
        write!(stream, "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    });
    let url = format!("http://own.example:{}", blog.http.port());
    let mut command = pintle();
    command.args(["init", &url, "--host", BLOG, "--connect", &blog.http.to_string()]);
    let (report, _) = conclusions(&mut command);
    assert_eq!((&report["host_header"], &report["host_header_proven"]), (&"client".into(), &true.into()), "{report:#}");
    assert!(!report["notes"].to_string().contains("Mixed content"), "{report:#}");
    let requests = blog.requests();
    let own = format!("\r\nHost: own.example:{}\r\n", blog.http.port());
    let hosts = |host: &str| requests.iter().filter(|request| request.contains(host)).count();
    let public = hosts(&format!("\r\nHost: {BLOG}\r\n"));
    assert!(hosts(&own) > 0 && public > 1 && hosts(&own) + public == requests.len(), "{requests:#?}");
}

/// A certificate that pintle would refuse proves nothing: https is written, with a remedy.
#[test]
fn a_certificate_of_another_ca() {
    let (authority, other) = (Authority::new(), Authority::named("another CA"));
    let fixture = fixture("netlify");
    let blog = Blog::serve(&other, &fixture);
    let (report, text) = conclusions(&mut init_fixture(&authority, &blog, &fixture));
    assert_eq!(
        (&report["upstream_proven"], &report["upstream"]),
        (&false.into(), &"https://example.netlify.app".into())
    );
    let notes = report["notes"].to_string();
    assert!(notes.contains("another CA") && notes.contains("name that CA in ca"), "{report:#}");
    assert!(report["hsts"].is_null(), "{report:#}");
    assert!(text.contains("# Platform: Netlify"), "{text}");
}

#[test]
fn certificates_by_acme() {
    let authority = Authority::new();
    let fixture = fixture("github-pages");
    let blog = Blog::serve(&authority, &fixture);
    let run = |more: &[&str]| conclusions(init_fixture(&authority, &blog, &fixture).args(more)).1;
    let email = ["--email", "you@example.com"];
    let lines = ["[acme]", "email = \"you@example.com\"", "terms = true", "[site.certificate]", "acme = true"];
    let agreed = run(&[&email[..], &["--accept-terms"]].concat());
    assert!(lines.iter().all(|line| active(&agreed).contains(line)), "{agreed}");
    assert!(active(&agreed).len() <= 17, "{agreed}");
    // It also runs. Nobody answers as the authority here.
    let nobody = "[acme]\ndirectory = \"https://127.0.0.1:1/dir\"\n";
    let server = Pintle::start(&authority, &agreed.replace("[acme]\n", nobody));
    assert_eq!(server.logged("no certificate obtained", 1)[0]["site"], BLOG);
    // Pins need the keys that pintle makes.
    assert!(!agreed.contains("[site.hpkp]\n"), "{agreed}");
    let pinned = run(&[&email[..], &["--accept-terms", "--pins"]].concat());
    let pins = ["[site.hpkp]", "ramp = [\"5m\", \"1h\", \"1d\", \"7d\"]", "max_age = \"30d\""];
    assert!(pins.iter().all(|line| active(&pinned).contains(line)), "{pinned}");
    let pinned = run(&[&email[..], &["--pins"]].concat());
    assert!(!active(&pinned).contains(&"[site.hpkp]"), "{pinned}");
    // Nobody agrees for the operator.
    let open = run(&email);
    assert!(open.contains("# terms = true") && open.contains("letsencrypt.org/repository"), "{open}");
    assert_eq!(lines.map(|line| active(&open).contains(&line)), [true, true, false, false, false], "{open}");
    for (host, fits) in [
        ("*.example.org", false),
        ("192.0.2.7", false),
        ("[2001:db8::7]", false),
        ("b\u{fc}cher.example", true),
        ("www.example.org", true),
    ] {
        let text = run(&[&email[..], &["--accept-terms", "--host", host]].concat());
        assert!(text.contains("hosts = [\"blog.example.com\", "), "{text}");
        assert_eq!(active(&text).contains(&"acme = true"), fits, "{text}");
    }
    let without = run(&[]);
    assert!(!without.contains("email") && without.contains("# chain = \"certs/blog.example.com.pem\""), "{without}");
}

#[test]
fn next_steps_work_as_pasted() {
    let authority = Authority::new();
    let fixture = fixture("tumblr");
    let blog = Blog::serve(&authority, &fixture);
    let folder = TempDir::new().unwrap();
    let (code, out, err) =
        outcome(init_fixture(&authority, &blog, &fixture).args(["-o", "my blog.toml"]).current_dir(&folder));
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("platform     Tumblr (`x-tumblr-user: example`") && out.contains("wrote my blog.toml"),
        "{out}"
    );
    let step = out.lines().map(str::trim).find(|line| line.starts_with("pintle check")).unwrap();
    assert_eq!(step, "pintle check -c 'my blog.toml'");
    assert!(
        out.contains("  pintle run -c 'my blog.toml'") && out.contains("  pintle verify https://blog.example.com/")
    );
    // A wildcard needs more than the file has: nobody is told to wait for its certificate.
    let mut wildcard = init_fixture(&authority, &blog, &fixture);
    wildcard.args(["--host", "*.example.org", "--email", "you@example.com", "--accept-terms", "-o", "wildcard.toml"]);
    let (code, out, err) = outcome(wildcard.current_dir(&folder));
    assert!(code == 0 && out.contains("choose one of the two [site.certificate]"), "{out}{err}");
    assert!(!out.contains("pintle gets the certificate"), "{out}");
    // Where the commands look by themselves, they need no option.
    fs::create_dir(folder.path().join("config")).unwrap();
    let (code, out, err) =
        outcome(init_fixture(&authority, &blog, &fixture).args(["-o", "config/pintle.toml"]).current_dir(&folder));
    assert!(code == 0 && out.contains("  pintle check\n") && out.contains("  pintle run\n"), "{out}{err}");
}

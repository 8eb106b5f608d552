//! The ways in and out: one-time links, passwords, sessions and roles.

use std::fs;
use std::net::SocketAddr;

use super::client::{PageCommand, Response, fed, get, post, send};
use crate::admin::Bed;
use crate::harness::{BLOG, Pintle, eventually, free_port, outcome, pintle};

pub(super) const PASSWORD: &str = "correct horse battery staple";

/// The hash of a password, as the command prints it.
pub(super) fn hash(password: &str) -> String {
    let (code, out, err) = fed(pintle().args(["admin", "password"]), &format!("{password}\n"));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("password_hash = \"$argon2id$v=19$m=19456,t=2,p=1$"), "{out}");
    out.trim().to_owned()
}

/// A process with a port, and readers with passwords.
fn start(bed: &Bed, more: &str) -> (Pintle, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let admin = format!("[admin]\nlisten = \"{address}\"\n{more}");
    (Pintle::start(&bed.authority, &bed.config(&admin)), address)
}

fn log_in(address: SocketAddr, name: &str, password: &str) -> Response {
    post(address, "/login", &[], &format!("name={name}&password={}", password.replace(' ', "+")))
}

/// The path of a link that the command prints. It ends at once, since the process has a port.
fn link_of(pintle: &Pintle, address: SocketAddr) -> String {
    let (code, out, err) = outcome(pintle.command("page").arg("--json"));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    answer["url"].as_str().unwrap().strip_prefix(&format!("http://{address}")).unwrap().to_owned()
}

#[test]
fn a_link_opens_the_page_once_through_the_socket() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let command = PageCommand::start(&pintle, &[]);
    let at = command.address;
    // Without a session there is a way in, and nothing else.
    assert_eq!(get(at, "/", &[]).field("location"), Some("/login"));
    assert_eq!(get(at, "/v1/status", &[]).code, 401);
    assert_eq!(post(at, "/v1/reload", &["Pintle-Admin: 1"], "").code, 401);
    // A browser that follows a link of another site keeps the cookie back, until a page of ours asks.
    let followed = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"];
    let page = get(at, "/site/blog.example", &followed);
    assert!(page.code == 200 && page.body.contains("<meta http-equiv=\"refresh\" content=\"0\">"), "{page:?}");
    assert_eq!(get(at, "/", &["Sec-Fetch-Site: same-origin"]).field("location"), Some("/login"));
    // A text that was written while the session ended is not lost.
    let ended = post(at, "/config", &[], "csrf=old&do=apply&toml=%5Blimits%5D%0Aidle+%3D+%22%3Cb%3E%22");
    let shown =
        ended.body.contains("Your session has ended") && ended.body.contains("[limits]\nidle = &#34;&#60;b&#62;");
    assert!(ended.code == 401 && shown, "{ended:?}");
    let opened = get(at, &command.link, &[]);
    assert_eq!((opened.code, opened.field("location")), (303, Some("/")), "{}", opened.head);
    let set = opened.field("set-cookie").unwrap();
    assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{set}");
    let cookie = format!("Cookie: {}", opened.cookie());
    let page = get(at, "/", &[&cookie]);
    assert!(
        page.code == 200 && page.body.contains("<h1>Overview</h1>") && page.body.contains("may configure"),
        "{page:?}"
    );
    assert_eq!(get(at, "/v1/status", &[&cookie]).code, 200);
    let again = get(at, &command.link, &[]);
    assert!(
        again.code == 403 && again.field("set-cookie").is_none() && again.body.contains("used before"),
        "{again:?}"
    );
    assert_eq!(get(at, "/", &[&cookie]).code, 200, "somebody else's second try ends nothing");
    // The end of the session.
    assert_eq!(post(at, "/logout", &[&cookie], "csrf=wrong").code, 403);
    let left = post(at, "/logout", &[&cookie], &format!("csrf={}", page.token()));
    assert_eq!((left.code, left.field("location")), (303, Some("/login")));
    assert_eq!(get(at, "/", &[&cookie]).field("location"), Some("/login"));
    // The command is the only way, and it is for a browser alone.
    drop(command);
    assert!(std::net::TcpStream::connect(at).is_err());
    for event in ["one-time link made", "signed in by a one-time link", "one-time link refused", "signed out"] {
        pintle.logs(event);
    }
}

#[test]
fn the_links_of_a_port() {
    let bed = Bed::new();
    let (pintle, address) = start(&bed, "");
    let cookie = format!("Cookie: {}", get(address, &link_of(&pintle, address), &[]).cookie());
    assert_eq!(get(address, "/", &[&cookie]).code, 200);
    let without = get(address, "/login", &[]);
    assert!(
        without.code == 200 && !without.body.contains("<form") && without.body.contains("pintle page"),
        "{without:?}"
    );
    assert_eq!(log_in(address, "admin", PASSWORD).code, 403, "no password is configured");
}

#[test]
fn roles_bound_pages_and_api() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let commands = ["view", "operate", "configure"].map(|role| PageCommand::start(&pintle, &["--role", role]));
    let before = pintle.status()["reloads"].as_u64().unwrap();
    for (command, reload, merge) in [(&commands[0], 403, 403), (&commands[1], 200, 403), (&commands[2], 200, 200)] {
        let at = command.address;
        let cookie = format!("Cookie: {}", get(at, &command.link, &[]).cookie());
        let token = format!("Pintle-Csrf: {}", get(at, "/", &[&cookie]).token());
        assert_eq!(get(at, "/v1/status", &[&cookie]).code, 200);
        assert_eq!(post(at, "/v1/reload", &[&cookie, &token], "").code, reload, "{}", command.link);
        assert_eq!(post(at, "/v1/ledger", &[&cookie, &token], "").code, merge, "{}", command.link);
        assert_eq!(post(at, "/v1/reload", &[&cookie], "").code, 403, "without the token");
        // No session makes another one, or opens the socket.
        assert_eq!(post(at, "/v1/page/link", &[&cookie, &token], "").code, 403);
        assert_eq!(post(at, "/v1/page/browser", &[&cookie, &token, "Upgrade: pintle-browser"], "").code, 403);
    }
    assert_eq!(pintle.status()["reloads"], before + 2);
    let (code, _, err) = outcome(pintle.command("page").args(["--role", "root"]));
    assert!(code == 2 && err.contains("view") && err.contains("configure"), "{err}");
    pintle.logs("\"command of the operator\"");
    pintle.logs("\"path\":\"/reload\"");
}

/// Roles below `configure` see no secret of the configuration: not in a decision, and not in the reason of a refusal.
#[test]
fn secrets_are_for_those_who_may_configure() {
    let bed = Bed::new();
    let rule = "[site.request_headers.set]\nAuthorization = \"Bearer of-the-upstream\"\n";
    let pintle = Pintle::start(&bed.authority, &(bed.config("") + rule));
    let commands = ["view", "operate", "configure"].map(|role| PageCommand::start(&pintle, &["--role", role]));
    let readers = commands.each_ref().map(|command| {
        let cookie = format!("Cookie: {}", get(command.address, &command.link, &[]).cookie());
        let token = format!("Pintle-Csrf: {}", get(command.address, "/", &[&cookie]).token());
        (command.address, cookie, token)
    });
    let question = format!("{{\"url\": \"https://{BLOG}/\"}}");
    let page = format!("/explain?url=https%3A%2F%2F{BLOG}%2F");
    for ((at, cookie, token), may) in readers.iter().zip([false, false, true]) {
        let answer = send(*at, "POST", "/v1/explain", &[cookie, token], question.as_bytes());
        for answer in [answer, get(*at, &page, &[cookie])] {
            assert!(answer.code == 200 && answer.body.contains("Authorization"), "{answer:?}");
            assert_eq!(answer.body.contains("of-the-upstream"), may, "{answer:?}");
        }
    }
    // A reload that is refused names the line, which has the secret.
    pintle.rewrite(|text| text.replace("of-the-upstream\"", "of-the-upstream\\u0000\""));
    for ((at, cookie, token), may) in readers.iter().zip([false, false, true]).skip(1) {
        let answer = post(*at, "/v1/reload", &[cookie, token], "");
        assert!(answer.code == 409 && answer.body.contains("site.request_headers.set: "), "{answer:?}");
        assert_eq!(answer.body.contains("of-the-upstream"), may, "{answer:?}");
    }
}

#[test]
fn passwords_of_readers() {
    let bed = Bed::new();
    let anna = format!("[[admin.user]]\nname = \"anna\"\nrole = \"operate\"\n{}", hash("anna's own password"));
    let (pintle, address) = start(&bed, &format!("{}\n{anna}", hash(PASSWORD)));
    let page = get(address, "/login", &[]);
    assert!(page.code == 200 && page.body.contains("name=\"password\""), "{page:?}");
    for (name, password, role) in [("admin", PASSWORD, "configure"), ("anna", "anna's own password", "operate")] {
        let signed_in = log_in(address, name, password);
        assert_eq!((signed_in.code, signed_in.field("location")), (303, Some("/")), "{signed_in:?}");
        let page = get(address, "/", &[&format!("Cookie: {}", signed_in.cookie())]);
        assert!(page.body.contains(&format!("<b>{name}</b>, may {role}.")), "{}", page.body);
    }
    for (name, password) in [("admin", "anna's own password"), ("anna", PASSWORD), ("bert", PASSWORD), ("admin", "")] {
        let refused = log_in(address, name, password);
        assert!(refused.code == 401 && refused.field("set-cookie").is_none(), "{name}: {refused:?}");
    }
    pintle.logs("\"signed in by password\"");
    pintle.logs("\"who\":\"anna\"");
    let log = pintle.log();
    assert!(!log.contains("battery") && !log.contains("argon2id"), "{log}");
}

#[test]
fn a_session_ends_with_its_password() {
    let bed = Bed::new();
    let (pintle, address) = start(&bed, &hash(PASSWORD));
    let cookie = format!("Cookie: {}", log_in(address, "admin", PASSWORD).cookie());
    assert_eq!(get(address, "/", &[&cookie]).code, 200);
    let by_link = format!("Cookie: {}", get(address, &link_of(&pintle, address), &[]).cookie());
    let text = fs::read_to_string(pintle.config_path()).unwrap();
    let old = text.lines().find(|line| line.starts_with("password_hash")).unwrap();
    fs::write(pintle.config_path(), text.replace(old, &hash("another password of mine"))).unwrap();
    pintle.reload();
    assert_eq!(get(address, "/", &[&cookie]).field("location"), Some("/login"));
    assert_eq!(get(address, "/", &[&by_link]).code, 200, "a link's session has no password");
    assert_eq!(log_in(address, "admin", PASSWORD).code, 401);
    eventually("the new password", || (log_in(address, "admin", "another password of mine").code == 303).then_some(()));
}

#[test]
fn faulty_readers_are_refused_by_the_check() {
    let bed = Bed::new();
    let config = bed.folder.path().join("checked.toml");
    let good = hash(PASSWORD);
    let cases = [
        ("password_hash = \"hunter2hunter2\"".to_owned(), "admin.password_hash: not a whole hash by argon2id"),
        (good.replace("m=19456", "m=4194304"), "admin.password_hash: each log-in would take"),
        ("[[admin.user]]\nname = \"anna\"".to_owned(), "admin.user: password_hash is missing"),
        (format!("[[admin.user]]\n{good}"), "admin.user: name is missing"),
        (format!("[[admin.user]]\nname = \"a b\"\n{good}"), "admin.user.name: invalid name"),
        (format!("{good}\n[[admin.user]]\nname = \"admin\"\n{good}"), "\"admin\" is listed twice"),
        (format!("[[admin.user]]\nname = \"a\"\nrole = \"root\"\n{good}"), "admin.user.role: "),
        (good.replace("m=19456,t=2", "m=1024,t=1"), "warning"),
    ];
    for (admin, want) in cases {
        fs::write(&config, bed.config(&format!("[admin]\n{admin}"))).unwrap();
        let (code, _, err) = outcome(pintle().args(["check", "-c"]).arg(&config));
        assert!(err.contains(want) && (err.contains("hint") || err.contains("expected one of")), "{admin}: {err}");
        assert_eq!(code == 0, want == "warning", "{admin}: {err}");
        assert!(!err.contains("hunter2") || err.contains("checked.toml:"), "{err}");
    }
    let (code, out, err) = fed(pintle().args(["admin", "password"]), "short\n");
    assert!(code == 1 && out.is_empty() && err.contains("fewer than 12 characters"), "{err}");
    let (code, out, _) = fed(pintle().args(["admin", "password", "--json"]), "a password without its end");
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && answer["password_hash"].as_str().unwrap().starts_with("$argon2id$"), "{out}");
}

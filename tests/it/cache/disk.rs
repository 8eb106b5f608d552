//! Pages that outlive the process: the origin is down, and pintle is stopped, killed, upgraded, or has a bad disk.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::{Got, VERSIONS};
use crate::harness::{
    Authority, BLOG, KeyKind, Leaf, Origin, Pintle, Reply, eventually, in_time, outcome, output, send_signal,
};

const STALE: &str = "stale_if_error = \"7d\"\n";

/// An origin that can be switched off, and a folder of state that several processes use, one after the other.
struct Bed {
    authority: Authority,
    leaf: Leaf,
    origin: Origin,
    /// The origin closes each connection without an answer.
    is_down: Arc<AtomicBool>,
    fields: Arc<Mutex<HashMap<String, String>>>,
    folder: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let (authority, is_down) = (Authority::new(), Arc::<AtomicBool>::default());
        let fields: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let (own_fields, closes) = (fields.clone(), is_down.clone());
        let origin = Origin::start(move |received| {
            if closes.load(Ordering::SeqCst) {
                return Reply::Close(Vec::new());
            }
            let own = own_fields.lock().unwrap().get(received.path()).cloned();
            let fields = own.unwrap_or_else(|| "Cache-Control: max-age=0\r\nETag: \"x\"\r\n".to_owned());
            match received.line().starts_with("POST") {
                true => Reply::new("200 OK", "", "posted"),
                false => Reply::new("200 OK", &fields, &body_of(received.path())),
            }
        });
        // Valid by each of the clocks.
        let leaf = authority.leaf_of("blog", &[BLOG], KeyKind::Ecdsa, -1000, 9000);
        Self { authority, leaf, origin, is_down, fields, folder: tempfile::TempDir::new().unwrap() }
    }

    fn down(&self) {
        self.is_down.store(true, Ordering::SeqCst);
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn config(&self, cache: &str) -> String {
        let (leaf, url) = (&self.leaf, self.origin.url());
        format!(
            "[state]\ndirectory = {:?}\n[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{url}\"\n[site.certificate]\nchain = {:?}\n\
             key = {:?}\n[site.cache]\n{cache}",
            self.state(),
            leaf.chain,
            leaf.key
        )
    }

    fn start(&self, cache: &str) -> Pintle {
        Pintle::start(&self.authority, &self.config(cache))
    }

    /// The same with another clock: ahead by so many seconds, after a restart of the machine.
    fn start_at(&self, cache: &str, ahead: i64) -> Pintle {
        let clock = self.folder.path().join("clock");
        fs::write(&clock, format!("{ahead} boot-{ahead}")).unwrap();
        let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 2\n";
        Pintle::start_command(&self.authority, listen, &self.config(cache), |command| {
            command.env("PINTLE_TEST_CLOCK", &clock);
        })
    }

    /// The stored files.
    fn files(&self) -> Vec<PathBuf> {
        all_files(&self.state().join("cache"))
            .into_iter()
            .filter(|path| path.file_name().unwrap().len() == 49)
            .collect()
    }
}

/// A body that tells its path at each place.
fn body_of(path: &str) -> String {
    format!("{path};").repeat(400)
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { all.extend(all_files(&path)) } else { all.push(path) }
    }
    all
}

#[track_caller]
fn get(pintle: &Pintle, version: &str, path: &str, more: &[&str]) -> Got {
    let mut curl = pintle.curl();
    super::read(curl.args([version, "--include", "--path-as-is"]).args(more).arg(format!("https://{BLOG}{path}")))
}

/// One after the other, over one connection. Returns bodies and statuses.
fn get_all(pintle: &Pintle, paths: &[String]) -> Vec<(String, u16)> {
    let mut curl = pintle.curl();
    curl.args(["--write-out", "\n%{http_code}\u{1e}"]).args(paths.iter().map(|path| format!("https://{BLOG}{path}")));
    let (_, out, _) = outcome(&mut curl);
    let answers = out.split('\u{1e}').filter_map(|answer| answer.rsplit_once('\n'));
    answers.map(|(body, status)| (body.to_owned(), status.parse().unwrap())).collect()
}

/// The figures of the part on disk.
fn on_disk(pintle: &Pintle) -> serde_json::Value {
    pintle.status()["caches"][0]["disk"].clone()
}

#[track_caller]
fn written(pintle: &Pintle, files: u64) {
    eventually(&format!("{files} files"), || (on_disk(pintle)["files"].as_u64() >= Some(files)).then_some(()));
}

/// Nothing is stored: the answer is pintle's own, whether it has asked the origin or knows that it is down.
fn is_missing(status: u16) -> bool {
    matches!(status, 502 | 503)
}

fn kill(mut pintle: Pintle) {
    pintle.signal("KILL");
    pintle.wait();
}

#[track_caller]
fn is_stale(got: &Got, path: &str) {
    assert_eq!((got.status, got.body.as_str()), (200, body_of(path).as_str()), "{path}");
    assert!(got.cache().contains("detail=stale-if-error"), "{got:?}");
}

/// Every page that was seen is sent after a stop, a kill and another stop, though the origin has been down since.
#[test]
fn pages_outlive_the_process_while_the_origin_is_down() {
    let bed = Bed::new();
    let paths: Vec<String> = (0..60).map(|n| format!("/page/{n}?q=ä{n}").replace('ä', "%C3%A4")).collect();
    let pintle = bed.start(STALE);
    get_all(&pintle, &paths);
    get(&pintle, "--http2", "/fresh", &[]);
    written(&pintle, 61);
    bed.down();
    assert_eq!(pintle.stop(), 0);
    for (how, version) in [("killed", "--http1.1"), ("stopped", "--http2")] {
        let pintle = bed.start(STALE);
        for path in &paths {
            is_stale(&get(&pintle, version, path, &[]), path);
        }
        assert!(is_missing(get(&pintle, version, "/never-seen", &[]).status));
        pintle.logs("stale responses are sent");
        let record = pintle.access_line("/page/7?q=%C3%A47");
        assert_eq!(record["cache"], "stale", "{record}");
        let metrics = output(pintle.command("status").arg("--json"));
        assert!(metrics.contains("\"read\""), "{metrics}");
        assert!(on_disk(&pintle)["events"]["read"].as_u64() >= Some(60), "{}", on_disk(&pintle));
        match how {
            "killed" => kill(pintle),
            _ => assert_eq!(pintle.stop(), 0),
        }
    }
    // Parts of a page and its head are made from it, too.
    let pintle = bed.start(STALE);
    let part = get(&pintle, "--http2", &paths[0], &["--range", "0-4"]);
    assert_eq!((part.status, part.body.as_str()), (206, "/page"), "{part:?}");
    assert_eq!(get(&pintle, "--http2", &paths[1], &["--head"]).status, 200);
    assert_eq!(get(&pintle, "--http2", &paths[2], &["-H", "If-None-Match: \"x\""]).status, 304);
    let only = get(&pintle, "--http2", &paths[3], &["-H", "Cache-Control: only-if-cached"]);
    assert_eq!(only.status, 504, "stale: {only:?}");
}

#[test]
fn fresh_pages_are_hits_after_a_restart_and_keep_their_age() {
    let bed = Bed::new();
    bed.fields.lock().unwrap().insert("/a".to_owned(), "Cache-Control: max-age=600\r\nAge: 100\r\n".to_owned());
    let pintle = bed.start(STALE);
    get(&pintle, "--http2", "/a", &[]);
    written(&pintle, 1);
    pintle.stop();
    // The same boot: the clock that nobody sets counts.
    let pintle = bed.start(STALE);
    let got = get(&pintle, "--http2", "/a", &[]);
    let age = |got: &Got| got.field("age").unwrap().parse::<i64>().unwrap();
    assert!(got.is_hit() && (100..160).contains(&age(&got)), "{got:?}");
    assert_eq!(bed.origin.received().len(), 1);
    pintle.stop();
    // After a restart of the machine, the wall clock counts.
    let pintle = bed.start_at(STALE, 200);
    let got = get(&pintle, "--http2", "/a", &[]);
    assert!(got.is_hit() && (300..360).contains(&age(&got)), "{got:?}");
    pintle.stop();
    let pintle = bed.start_at(STALE, 700);
    let got = get(&pintle, "--http2", "/a", &[]);
    assert!(!got.is_hit() && got.cache().contains("fwd=stale"), "{got:?}");
    written(&pintle, 1);
    pintle.stop();
    // A clock that went back: nobody knows the age, so the page is validated.
    let pintle = bed.start_at(STALE, -86_400);
    let got = get(&pintle, "--http2", "/a", &[]);
    assert!(!got.is_hit() && got.cache().contains("fwd=stale"), "{got:?}");
    assert_eq!(bed.origin.received().len(), 3);
}

#[test]
fn a_clock_that_went_back_loses_no_page() {
    let bed = Bed::new();
    let pintle = bed.start_at(STALE, 0);
    get(&pintle, "--http2", "/a", &[]);
    written(&pintle, 1);
    pintle.stop();
    bed.down();
    for ahead in [-10 * 86_400, 3600, 6 * 86_400] {
        let pintle = bed.start_at(STALE, ahead);
        is_stale(&get(&pintle, "--http2", "/a", &[]), "/a");
        pintle.stop();
    }
    // The time that stale_if_error gives is over. Back within it, the page is there again.
    let pintle = bed.start_at(STALE, 8 * 86_400);
    assert!(is_missing(get(&pintle, "--http2", "/a", &[]).status));
    pintle.stop();
    let pintle = bed.start_at(STALE, 86_400);
    is_stale(&get(&pintle, "--http2", "/a", &[]), "/a");
}

/// An upgrade while the origin is down: at no moment is a page missing.
#[test]
fn pages_outlive_an_upgrade() {
    let bed = Bed::new();
    let paths: Vec<String> = (0..20).map(|n| format!("/{n}")).collect();
    let pintle = bed.start(STALE);
    get_all(&pintle, &paths);
    written(&pintle, 20);
    bed.down();
    for round in 0..2 {
        let before: Vec<u64> = vec![pintle.status()["pid"].as_u64().unwrap_or_default()];
        let upgrade = pintle.command("upgrade").output().unwrap();
        assert!(upgrade.status.success(), "{upgrade:?}");
        for path in &paths {
            is_stale(&get(&pintle, VERSIONS[round % 2], path, &[]), path);
        }
        eventually("the new process answers", || {
            let pid = pintle.status()["pid"].as_u64();
            (pid.is_some() && pid != Some(before[0])).then_some(())
        });
        eventually("all files are known", || (on_disk(&pintle)["looked_through"] == true).then_some(()));
        assert_eq!(on_disk(&pintle)["files"], 20);
    }
    // A purge reaches the new process, and the folder.
    output(&mut pintle.command(&format!("purge https://{BLOG}/3")));
    assert!(is_missing(get(&pintle, "--http2", "/3", &[]).status));
    assert_eq!(bed.files().len(), 19);
    end_all(&pintle);
}

/// Ends the process that serves now, which may not be the child of this test.
pub(super) fn end_all(pintle: &Pintle) {
    if let Some(pid) = pintle.status()["pid"].as_u64() {
        assert!(send_signal("TERM", pid));
        eventually("it has ended", || (outcome(&mut pintle.command("status")).0 != 0).then_some(()));
    }
}

/// Killed at random while it writes: what is sent afterwards is right, or missing.
#[test]
fn killed_while_it_writes() {
    let bed = Bed::new();
    let paths: Vec<String> = (0..200).map(|n| format!("/k/{n}")).collect();
    let mut seen = 0;
    for round in 0..12_u64 {
        let pintle = bed.start(STALE);
        let own: Vec<String> = paths[usize::try_from(round).unwrap() * 16..][..16].to_vec();
        std::thread::scope(|scope| {
            let pintle = &pintle;
            let asking = scope.spawn(move || {
                let mut curl = pintle.curl();
                curl.args(["--parallel", "--parallel-max", "8", "--output", "/dev/null"]);
                let _ = curl.args(own.iter().map(|path| format!("https://{BLOG}{path}"))).output();
            });
            // Not at a moment of the test's choice, but after another number of files each time.
            let least = seen + usize::try_from(round * 5 % 14).unwrap();
            let _ = in_time(|| (bed.files().len() >= least || asking.is_finished()).then_some(()));
            pintle.signal("KILL");
        });
        drop(pintle);
        seen = bed.files().len();
    }
    assert!(seen > 40, "{seen} files");
    bed.down();
    let pintle = bed.start(STALE);
    let mut found = 0;
    for (body, status) in get_all(&pintle, &paths) {
        match status {
            200 => {
                let path = body.split(';').next().unwrap().to_owned();
                assert_eq!(body, body_of(&path));
                found += 1;
            }
            status => assert!(is_missing(status), "{status} {body}"),
        }
    }
    assert!(found >= seen, "{found} pages of {seen} files");
    assert!(all_files(&bed.state().join("cache")).iter().all(|path| !path.to_string_lossy().ends_with(".new")));
}

#[test]
fn damaged_files_are_not_sent() {
    let bed = Bed::new();
    let paths: Vec<String> = (0..24).map(|n| format!("/{n}")).collect();
    let pintle = bed.start(STALE);
    get_all(&pintle, &paths);
    written(&pintle, 24);
    pintle.stop();
    for (n, file) in bed.files().into_iter().enumerate() {
        let mut whole = fs::read(&file).unwrap();
        let at = whole.len() * (n % 12) / 12;
        match n {
            0..12 => whole[at] ^= 4,
            _ => whole.truncate(at),
        }
        fs::write(&file, whole).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    bed.down();
    let pintle = bed.start(STALE);
    for (body, status) in get_all(&pintle, &paths) {
        assert!(
            is_missing(status) || status == 200 && body == body_of(body.split(';').next().unwrap()),
            "{status} {body}"
        );
    }
    eventually("the files are removed", || bed.files().is_empty().then_some(()));
    assert!(on_disk(&pintle)["events"]["damaged"].as_u64() >= Some(24), "{}", on_disk(&pintle));
}

/// A disk without space, then with some; and a folder that cannot be written to.
#[test]
fn a_full_disk_hurts_nobody() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("left out: only root mounts a small disk");
    }
    let bed = Bed::new();
    let cache = bed.state().join("cache");
    fs::create_dir_all(&cache).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&cache).output().unwrap();
    if !mounted.status.success() {
        return eprintln!("left out: no permission to mount");
    }
    let unmount = || output(Command::new("umount").arg("--lazy").arg(&cache));
    let paths: Vec<String> = (0..100).map(|n| format!("/{n}")).collect();
    let pintle = bed.start(STALE);
    let all = get_all(&pintle, &paths);
    assert!(all.len() == 100 && all.iter().all(|(_, status)| *status == 200), "{all:?}");
    let refused = in_time(|| (!pintle.log_json("the cache cannot write to disk").is_empty()).then_some(()));
    let fresh = get(&pintle, "--http2", "/after", &[]);
    let purged = outcome(&mut pintle.command(&format!("purge --site {BLOG}")));
    unmount();
    assert!(refused.is_some(), "{}", pintle.log());
    assert_eq!(pintle.log_json("the cache cannot write to disk").len(), 1);
    assert_eq!(fresh.status, 200);
    assert_eq!(purged.0, 0, "{purged:?}");
    assert!(on_disk(&pintle)["events"]["dropped"].as_u64() > Some(0));
}

/// Purges, changes and private answers.
#[test]
fn what_is_purged_stays_purged() {
    let bed = Bed::new();
    let tagged = "Cache-Control: max-age=600\r\nETag: \"x\"\r\nCache-Tag: t\r\n";
    for path in ["/hard", "/soft", "/tag", "/changed", "/kept", "/section/a", "/section/b"] {
        bed.fields.lock().unwrap().insert(path.to_owned(), tagged.to_owned());
    }
    for (path, fields) in [
        ("/private", "Cache-Control: private, max-age=600\r\n"),
        ("/cookie", "Cache-Control: max-age=600\r\nSet-Cookie: sid=secret\r\n"),
        ("/no-store", "Cache-Control: no-store\r\n"),
    ] {
        bed.fields.lock().unwrap().insert(path.to_owned(), fields.to_owned());
    }
    let pintle = bed.start(STALE);
    let all = ["/hard", "/soft", "/changed", "/kept", "/section/a", "/section/b"];
    for path in all.iter().chain(&["/private", "/cookie", "/no-store"]) {
        get(&pintle, "--http2", path, &[]);
    }
    written(&pintle, 6);
    // Answers of visitors' own, and answers to requests that say no-store.
    get(&pintle, "--http2", "/own", &["-H", "Cookie: sid=secret"]);
    get(&pintle, "--http2", "/unstored", &["-H", "Cache-Control: no-store"]);
    output(&mut pintle.command(&format!("purge https://{BLOG}/hard")));
    output(&mut pintle.command(&format!("purge --soft https://{BLOG}/soft")));
    output(&mut pintle.command(&format!("purge --prefix https://{BLOG}/section")));
    get(&pintle, "--http2", "/changed", &["--data", "x=1"]);
    // The purge's answer comes after the change of the files; so does this one, behind the change by a client.
    output(&mut pintle.command("purge --tag none"));
    kill(pintle);
    bed.down();
    let pintle = bed.start(STALE);
    let state = |path: &str| {
        let got = get(&pintle, "--http2", path, &[]);
        let status = if is_missing(got.status) { 502 } else { got.status };
        (status, got.status == 200 && got.is_hit() && !got.cache().contains("detail"))
    };
    for (path, want) in [
        ("/hard", (502, false)),
        ("/soft", (200, false)),
        ("/changed", (200, false)),
        ("/kept", (200, true)),
        ("/section/a", (502, false)),
        ("/section/b", (502, false)),
        ("/private", (502, false)),
        ("/cookie", (502, false)),
        ("/own", (502, false)),
        ("/unstored", (502, false)),
    ] {
        assert_eq!(state(path), want, "{path}");
    }
    let all = all_files(&bed.state().join("cache"));
    let secret = all.iter().any(|path| fs::read(path).unwrap().windows(10).any(|bytes| bytes == b"sid=secret"));
    assert!(!secret && bed.files().len() == 3, "{all:?}");
    // A purge of everything, and nothing comes back.
    output(&mut pintle.command(&format!("purge --site {BLOG}")));
    assert!(bed.files().is_empty());
    kill(pintle);
    let pintle = bed.start(STALE);
    assert!(is_missing(get(&pintle, "--http2", "/kept", &[]).status));
}

/// Other sources of pages have another folder; the former one goes when it has been unused for an hour.
#[test]
fn another_configuration_has_other_pages() {
    let bed = Bed::new();
    let pintle = bed.start(STALE);
    get(&pintle, "--http2", "/a", &[]);
    written(&pintle, 1);
    let folders = |bed: &Bed| fs::read_dir(bed.state().join("cache")).unwrap().count();
    assert_eq!(folders(&bed), 1);
    pintle.stop();
    bed.down();
    let other = format!("{STALE}query_sort = true\n");
    let pintle = bed.start(&other);
    assert!(is_missing(get(&pintle, "--http2", "/a", &[]).status));
    let marks = |bed: &Bed| -> Vec<PathBuf> {
        let all = all_files(&bed.state().join("cache")).into_iter();
        all.filter(|path| path.ends_with("unused")).collect()
    };
    let mark = eventually("the folder is marked", || marks(&bed).pop());
    // Back within the hour: the pages are there.
    pintle.rewrite(|text| text.replace("query_sort = true\n", ""));
    pintle.reload();
    is_stale(&get(&pintle, "--http2", "/a", &[]), "/a");
    assert!(!mark.exists());
    pintle.rewrite(|text| text.replace(STALE, &other));
    pintle.reload();
    let mark = eventually("the folder is marked again", || marks(&bed).pop());
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3700);
    fs::File::open(&mark).unwrap().set_modified(long_ago).unwrap();
    pintle.rewrite(|text| text.replace("[site.cache]\n", "[site.cache]\ndisk = 0\n"));
    pintle.reload();
    eventually("the folder is removed", || (!mark.exists()).then_some(()));
    assert_eq!(on_disk(&pintle), serde_json::Value::Null);
    pintle.stop();
}

/// A page that was purged, or changed, under another configuration does not come back with the former one.
#[test]
fn former_pages_are_purged_too() {
    let bed = Bed::new();
    bed.fields.lock().unwrap().insert("/p".into(), "Cache-Control: max-age=600\r\n".into());
    bed.fields.lock().unwrap().insert("/q".into(), "Cache-Control: max-age=600\r\nX-Page: q\r\n".into());
    for other in ["query_sort = true\n", "disk = 0\n"] {
        let pintle = bed.start(STALE);
        for path in ["/p", "/q"] {
            get(&pintle, "--http2", path, &[]);
        }
        written(&pintle, 2);
        let (usual, changed) = (format!("[site.cache]\n{STALE}"), format!("[site.cache]\n{other}{STALE}"));
        pintle.rewrite(|text| text.replace(&usual, &changed));
        pintle.reload();
        // A change makes the former page one to be validated; a purge takes all of them.
        get(&pintle, "--http2", "/q", &["--data", "x"]);
        pintle.rewrite(|text| text.replace(&changed, &usual));
        pintle.reload();
        let asked = bed.origin.received().len();
        let got = get(&pintle, "--http2", "/q", &[]);
        assert!(!got.is_hit() && bed.origin.received().len() == asked + 1, "{other}: {got:?}");
        pintle.rewrite(|text| text.replace(&usual, &changed));
        pintle.reload();
        output(&mut pintle.command(&format!("purge https://{BLOG}/p")));
        pintle.rewrite(|text| text.replace(&changed, &usual));
        pintle.reload();
        bed.down();
        let got = get(&pintle, "--http2", "/p", &[]);
        assert!(is_missing(got.status), "{other}: {got:?}");
        bed.is_down.store(false, Ordering::SeqCst);
        pintle.stop();
        fs::remove_dir_all(bed.state().join("cache")).unwrap();
    }
}

#[test]
fn the_size_on_disk_is_checked() {
    let bed = Bed::new();
    let check = |config: String| {
        let file = bed.folder.path().join("checked.toml");
        fs::write(&file, config).unwrap();
        let (code, out, err) = outcome(crate::harness::pintle().args(["check", "-c"]).arg(&file));
        (code, out + &err)
    };
    for (cache, state, want) in [
        ("disk = \"1KiB\"", true, "site.cache.disk: must be between 16 MiB and 16 TiB, or 0 for none"),
        ("disk = \"1GiB\"", false, "site.cache.disk: needs state.directory"),
    ] {
        let config = bed.config(cache);
        let config = if state {
            config
        } else {
            config.split_once("\n[[site]]").map(|(_, rest)| format!("[[site]]{rest}")).unwrap()
        };
        let (code, text) = check(config);
        assert!(code == 1 && text.contains(want), "{cache}: {text}");
    }
    for cache in ["disk = 0\nstale_if_error = \"1d\"", "disk = \"1GiB\""] {
        let (code, text) = check(bed.config(cache));
        assert_eq!(code, 0, "{cache}: {text}");
    }
}

/// Without `disk = 0`, a cache that may send stale pages has a part on disk; any other has none.
#[test]
fn who_has_a_part_on_disk() {
    let bed = Bed::new();
    for (cache, limit) in [("", None), (STALE, Some(256 << 20)), ("disk = \"16MiB\"", Some(16 << 20))] {
        let pintle = bed.start(cache);
        assert_eq!(on_disk(&pintle)["limit"].as_u64(), limit, "{cache}");
        let shown = output(&mut pintle.command("cache"));
        assert_eq!(shown.contains("on disk: 0 responses"), limit.is_some(), "{shown}");
        if limit.is_some() {
            get(&pintle, "--http2", "/a", &[]);
            written(&pintle, 1);
            let shown = output(&mut pintle.command(&format!("cache https://{BLOG}/a")));
            assert!(shown.contains("on disk: 1 response"), "{shown}");
            output(&mut pintle.command(&format!("purge --site {BLOG}")));
        }
        pintle.stop();
    }
}

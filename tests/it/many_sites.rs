//! Many sites: what a start and a page do grows with their number as little as it can. Nothing here is timed: waits for the
//! disk, work and bytes are counted.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::admin::get;
use crate::harness::{Authority, Client, Leaf, Origin, Pintle, eventually, pintle};

/// More than the builder and the copies treat one by one.
const SITES: usize = 80;
const COPIED: &str = "copied the pairs in use";

struct Many {
    authority: Authority,
    origin: Origin,
    leaf: Leaf,
    spare: PathBuf,
    folder: TempDir,
}

impl Many {
    fn new() -> Self {
        let authority = Authority::new();
        let leaf = authority.leaf("many", &["*.example.com"]);
        let spare = authority.public_key("spare");
        Self { authority, origin: Origin::hello(), leaf, spare, folder: TempDir::new().unwrap() }
    }

    fn host(number: usize) -> String {
        format!("site-{number}.example.com")
    }

    fn config(&self) -> String {
        let spare = &self.spare;
        let site = |number: usize| {
            format!(
                "[[site]]\nhosts = [{:?}]\nupstream = {:?}\n[site.certificate]\nchain = {:?}\nkey = {:?}\n[site.hpkp]\n\
                 max_age = \"1d\"\nbackups = [{spare:?}]\n",
                Self::host(number),
                self.origin.url(),
                self.leaf.chain,
                self.leaf.key,
            )
        };
        let sites: String = (0..SITES).map(site).collect();
        format!("[state]\ndirectory = {:?}\n{sites}", self.state())
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn start(&self) -> Pintle {
        Pintle::start(&self.authority, &self.config())
    }

    /// The names and contents of the copies.
    fn copies(&self) -> Vec<(String, String)> {
        let entries = fs::read_dir(self.state().join("last-good")).into_iter().flatten().flatten();
        let copy = |path: &Path| {
            let name = path.file_name()?.to_str()?.to_owned();
            name.ends_with(".pem").then(|| Some((name, fs::read_to_string(path).ok()?)))?
        };
        let mut all: Vec<_> = entries.filter_map(|entry| copy(&entry.path())).collect();
        all.sort();
        all
    }
}

/// Each line about copies: how many are new, and the waits for the disk.
fn copied(pintle: &Pintle, lines: usize) -> Vec<(u64, u64)> {
    let number = |line: &Value, name: &str| line[name].as_u64().unwrap();
    pintle.logged(COPIED, lines).iter().map(|line| (number(line, "new"), number(line, "waits"))).collect()
}

#[test]
fn a_start_waits_for_the_disk_together() {
    let many = Many::new();
    let pintle = many.start();
    assert_eq!(copied(&pintle, 2)[..2], [(SITES as u64, 2), (0, 0)]);
    let copies = many.copies();
    assert_eq!(copies.len(), SITES);
    assert!(copies.iter().all(|(_, copy)| copy.contains("PRIVATE KEY") && copy.ends_with("-----\n")));
    for number in [0, SITES - 1] {
        let answer = Client::new(&many.authority).get(pintle.https(), &Many::host(number), "/");
        assert_eq!(answer.status, 200);
        assert!(answer.field("public-key-pins").is_some());
    }
    drop(pintle);
    let pintle = many.start();
    assert_eq!(copied(&pintle, 2)[..2], [(0, 0), (0, 0)], "all of them are there");
    assert_eq!(many.copies(), copies);
}

/// A process that is killed while it copies leaves nothing half, and the next one completes it.
#[test]
fn a_start_that_is_killed_while_it_copies() {
    let many = Many::new();
    let path = many.folder.path().join("pintle.toml");
    let listen = "[sandbox]\nconnect = \"any\"\n[listen]\nhttps = [\"127.0.0.1:0\"]\n";
    fs::write(&path, format!("{listen}{}", many.config())).unwrap();
    for _ in 0..3 {
        let _ = fs::remove_dir_all(many.state());
        let mut child = pintle().env("PINTLE_ALLOW_ROOT", "1").args(["run", "-c"]).arg(&path).spawn().unwrap();
        eventually("the folder of copies", || many.state().join("last-good").exists().then_some(()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(many.copies().iter().all(|(_, copy)| copy.contains("PRIVATE KEY") && copy.ends_with("-----\n")));
    }
    let pintle = many.start();
    copied(&pintle, 2);
    assert_eq!(many.copies().len(), SITES);
    let left = fs::read_dir(many.state().join("last-good")).unwrap().count();
    assert_eq!(left, SITES, "nothing else is left");
}

#[test]
fn pages_are_small() {
    let many = Many::new();
    let _pintle = many.start();
    let socket = many.state().join("admin.sock");
    let host = Many::host(7);
    for page in ["/", "/?page=2", "/?q=site-7", "/keys", "/config", "/config?find=SITE-79", &format!("/site/{host}")] {
        let answer = get(&socket, page);
        assert!(answer.contains("</html>") && answer.len() < 60 << 10, "{page}: {} bytes", answer.len());
    }
    assert!(get(&socket, "/config?find=SITE-79").contains("site-79.example.com"));
    assert!(get(&socket, "/?q=site-77").contains("site-77.example.com"));
}

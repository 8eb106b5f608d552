use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::name::SUFFIX;
use super::*;
use crate::policy::promise::SiteNames;

fn hosts(names: &[&str]) -> Vec<HostPattern> {
    names.iter().map(|name| HostPattern::parse(name).unwrap()).collect()
}

fn of_site(hosts: &[HostPattern]) -> SiteNames<'_> {
    SiteNames { hosts, except: &[] }
}

fn served<'p>(site: &'p str, chain: &'p Path, pin: Pin) -> ServedPair<'p> {
    ServedPair { site, chain, pin }
}

fn never(_: &[HostPattern], _: &CopyName<'_>) -> bool {
    false
}

#[test]
fn kept_and_read() {
    let state = tempfile::TempDir::new().unwrap();
    let copies = LastGood::of(state.path());
    let (one, two) = (Path::new("/etc/a/blog.pem"), Path::new("/etc/b/blog.pem"));
    let site = "a.example";
    let (old, new) = (Pin::of_spki(b"old"), Pin::of_spki(b"new"));
    let read = |path: &Path| copies.read(path, &hosts(&[site]));
    assert_eq!(read(one), None);
    LastGood::of(state.path()).retain(std::iter::empty(), std::iter::empty(), never).unwrap();
    assert!(copies.keep(served(site, one, old), b"first").unwrap());
    assert!(!copies.keep(served(site, one, old), b"first").unwrap());
    assert!(copies.keep(served(site, two, old), b"other").unwrap());
    assert!(copies.keep(served(site, one, old), b"second").unwrap());
    assert_eq!((read(one).unwrap(), read(two).unwrap()), (b"second".to_vec(), b"other".to_vec()));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&copies.path(served(site, one, old))), 0o600);
    assert_eq!(mode(&state.path().join(FOLDER)), 0o700);
    copies.retain([served(site, two, old)].into_iter(), [one].into_iter(), never).unwrap();
    assert_eq!(read(one).unwrap(), b"second", "nothing has replaced it");
    // Another key: the copy of the old one goes before the new one is there.
    copies.retain([served(site, one, new), served(site, two, old)].into_iter(), std::iter::empty(), never).unwrap();
    assert_eq!((read(one), read(two).unwrap()), (None, b"other".to_vec()));
    // Whoever was still at work on the old one is too late.
    assert!(!copies.clone().keep(served(site, one, old), b"second").unwrap());
    assert_eq!(read(one), None);
    assert!(copies.keep(served(site, one, new), b"third").unwrap());
    assert_eq!(read(one).unwrap(), b"third");
    // A copy that a kill has left half written is none.
    fs::write(copies.path(served(site, one, old)).with_extension("new"), b"fourth").unwrap();
    assert_eq!(read(one).unwrap(), b"third");
    copies.retain(std::iter::empty(), std::iter::empty(), never).unwrap();
    assert_eq!((read(one), read(two)), (None, None));
    // One that is allowed is written beside the ones that are there.
    copies.allow([served(site, one, old)].into_iter());
    assert!(copies.keep(served(site, one, old), b"fifth").unwrap());
    assert!(!copies.keep(served(site, one, new), b"sixth").unwrap());
}

/// Two sites name the same files. A renewal that one of them refuses leaves them with different pairs.
#[test]
fn sites_that_share_a_file_have_their_own_copies() {
    let state = tempfile::TempDir::new().unwrap();
    let copies = LastGood::of(state.path());
    let chain = Path::new("/etc/a/both.pem");
    let (old, new) = (Pin::of_spki(b"old"), Pin::of_spki(b"new"));
    let text = |names: &[&str], of: &str| {
        format!("{}{of}", Breaches::of(of_site(&hosts(names)), Vec::new()).text()).into_bytes()
    };
    copies.keep(served("a.example", chain, old), &text(&["a.example", "www.a.example"], "A")).unwrap();
    copies.keep(served("b.example", chain, new), &text(&["b.example"], "B")).unwrap();
    let read = |names: &[&str]| copies.read(chain, &hosts(names)).map(|found| *found.last().unwrap() as char);
    assert_eq!((read(&["a.example"]), read(&["b.example"])), (Some('A'), Some('B')));
    // The names have another order, or the first one is gone.
    assert_eq!((read(&["www.a.example", "a.example"]), read(&["www.a.example"])), (Some('A'), Some('A')));
    assert_eq!(read(&["c.example"]), None);
    let index = CopyIndex::of(&copies);
    assert_eq!(index.read_with(new, &hosts(&["a.example"])), None);
    assert!(index.read_with(new, &hosts(&["b.example"])).is_some());
    // A copy of an older version has no site: it is for any, unless there is a better one.
    let named = copies.path(served("a.example", chain, old));
    let name = named.file_name().unwrap().to_str().unwrap();
    let older = format!("{}{SUFFIX}", name.rsplit_once('-').unwrap().0);
    fs::write(state.path().join(FOLDER).join(older), b"O").unwrap();
    assert_eq!((read(&["c.example"]), read(&["a.example"])), (Some('O'), Some('A')));
}

/// The copy stays until the new one is there: it may have the only key.
#[test]
fn a_copy_under_another_name_waits_for_the_new_one() {
    let state = tempfile::TempDir::new().unwrap();
    let copies = LastGood::of(state.path());
    let (chain, pin) = (Path::new("/etc/a/blog.pem"), Pin::of_spki(b"key"));
    copies.keep(served("a.example", chain, pin), b"first").unwrap();
    let after = || copies.retain([served("b.example", chain, pin)].into_iter(), std::iter::empty(), never).unwrap();
    after();
    assert_eq!(copies.names().unwrap().len(), 1);
    copies.keep(served("b.example", chain, pin), b"second").unwrap();
    after();
    assert_eq!(copies.names().unwrap(), [served("b.example", chain, pin).name()]);
}

#[test]
fn a_copy_of_a_site_that_is_gone_is_set_aside_while_its_key_is_needed() {
    let state = tempfile::TempDir::new().unwrap();
    let copies = LastGood::of(state.path());
    let (chain, pin) = (Path::new("/etc/a/blog.pem"), Pin::of_spki(b"key"));
    let names = hosts(&["a.example"]);
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let text = Breaches::of(of_site(&names), Vec::new()).text() + &key;
    copies.keep(served("a.example", chain, pin), text.as_bytes()).unwrap();
    let is_needed = |of: &[HostPattern], copy: &CopyName<'_>| of == names && copy.is_of(pin);
    for _ in 0..2 {
        copies.retain(std::iter::empty(), std::iter::empty(), is_needed).unwrap();
        assert_eq!(copies.read(chain, &names), None, "it replaces no pair");
        let former = copies.former();
        assert_eq!((former.len(), &former[0].hosts), (1, &names));
        assert_eq!(fs::read_to_string(&former[0].path).unwrap(), text);
        assert!(copies.with_key(pin).is_some());
    }
    copies.retain(std::iter::empty(), std::iter::empty(), never).unwrap();
    assert!(copies.former().is_empty() && copies.names().unwrap().is_empty());
}

/// Thousands of pairs wait for the disk no longer than a few of them.
#[test]
fn many_copies_wait_for_the_disk_together() {
    let state = tempfile::TempDir::new().unwrap();
    let copies = LastGood::of(state.path());
    let pin = Pin::of_spki(b"key");
    let sites: Vec<String> = (0..300).map(|n| format!("{n}.example")).collect();
    let chains: Vec<PathBuf> = (0..300).map(|n| format!("/etc/a/{n}.pem").into()).collect();
    let write = |contents: &[u8], most: usize| {
        let mut batch = copies.begin();
        for (site, chain) in sites.iter().zip(&chains).take(most) {
            batch.add(served(site, chain, pin), contents);
        }
        batch.finish().unwrap()
    };
    assert_eq!(write(b"first", 300), CopiesWritten { new: 300, waits: 2 });
    assert_eq!(write(b"first", 300), CopiesWritten { new: 0, waits: 0 });
    assert_eq!(write(b"second", 2), CopiesWritten { new: 2, waits: 3 });
    let read = |at: usize| copies.read(&chains[at], &hosts(&[&sites[at]])).unwrap();
    assert_eq!((read(0), read(1), read(2)), (b"second".to_vec(), b"second".to_vec(), b"first".to_vec()));
}

/// A process may be killed at any moment: each copy is an old or a new one, and whole.
#[test]
fn a_batch_that_is_killed_leaves_whole_copies() {
    let state = tempfile::TempDir::new().unwrap();
    let copies = LastGood::of(state.path());
    let (chain, pin) = (Path::new("/etc/a/blog.pem"), Pin::of_spki(b"key"));
    let sites: Vec<String> = (0..20).map(|n| format!("{n}.example")).collect();
    let read = || sites.iter().map(|site| copies.read(chain, &hosts(&[site]))).collect::<Vec<_>>();
    for site in &sites[..10] {
        copies.keep(served(site, chain, pin), b"old").unwrap();
    }
    let before = read();
    // Killed before the sync, after it, and before the names are durable. The new files stay.
    for steps in 0..3 {
        let mut batch = copies.begin();
        for site in &sites {
            batch.add(served(site, chain, pin), b"new");
        }
        if steps > 0 {
            batch.sync();
        }
        if steps > 1 {
            assert_eq!(batch.give_names(), 20);
        }
        drop(batch);
        let want = if steps > 1 { vec![Some(b"new".to_vec()); 20] } else { before.clone() };
        assert_eq!(read(), want, "{steps}");
    }
    // The next process removes what is left.
    fs::write(copies.folder.join("blog-0-0-0.new"), b"half").unwrap();
    copies.retain(sites.iter().map(|site| served(site, chain, pin)), std::iter::empty(), never).unwrap();
    assert_eq!(copies.names().unwrap().len(), 20);
}

/// Pairs that are no longer served get no copies, even if these were on their way. Others' are left on their way.
#[test]
fn a_batch_and_a_change_of_pairs() {
    let state = tempfile::TempDir::new().unwrap();
    let copies = LastGood::of(state.path());
    let (chain, pin) = (Path::new("/etc/a/blog.pem"), Pin::of_spki(b"key"));
    let [stays, goes] = ["a.example", "b.example"].map(|site| served(site, chain, pin));
    let mut batch = copies.begin();
    batch.add(stays, b"A");
    batch.add(goes, b"B");
    copies.retain([stays].into_iter(), std::iter::empty(), never).unwrap();
    assert_eq!(batch.finish().unwrap(), CopiesWritten { new: 1, waits: 2 });
    assert_eq!(copies.names().unwrap(), [stays.name()]);
}

/// Whatever is written is read back: a site may have tens of thousands of names.
#[test]
fn a_large_copy_is_read_back() {
    let state = tempfile::TempDir::new().unwrap();
    let copies = LastGood::of(state.path());
    let (chain, pin) = (Path::new("/etc/a/blog.pem"), Pin::of_spki(b"key"));
    let text = "x".repeat(5 * 1024 * 1024);
    assert!(copies.keep(served("a.example", chain, pin), text.as_bytes()).unwrap());
    assert_eq!(copies.read(chain, &hosts(&["a.example"])).unwrap().len(), text.len());
    let beyond = vec![b'x'; usize::try_from(COPY_MAX).unwrap() + 1];
    assert!(copies.keep(served("a.example", chain, pin), &beyond).is_err());
    assert_eq!(copies.read(chain, &hosts(&["a.example"])).unwrap().len(), text.len(), "the previous copy stays");
}

#[test]
fn links_are_not_followed() {
    let state = tempfile::TempDir::new().unwrap();
    let copies = LastGood::of(state.path());
    let (chain, pin) = (Path::new("/etc/a/blog.pem"), Pin::of_spki(b"key"));
    let (pair, names) = (served("a.example", chain, pin), hosts(&["a.example"]));
    copies.keep(pair, b"first").unwrap();
    let elsewhere = state.path().join("elsewhere");
    fs::write(&elsewhere, "mine").unwrap();
    fs::remove_file(copies.path(pair)).unwrap();
    symlink(&elsewhere, copies.path(pair)).unwrap();
    assert_eq!(copies.read(chain, &names), None);
    assert!(copies.keep(pair, b"second").unwrap());
    assert_eq!(
        (fs::read(&elsewhere).unwrap(), copies.read(chain, &names).unwrap()),
        (b"mine".to_vec(), b"second".to_vec())
    );
}

/// However many sites and names ask, each copy is read once for the index, and once for whoever gets it.
#[test]
fn many_sites_read_each_copy_once() {
    let state = tempfile::TempDir::new().unwrap();
    let copies = LastGood::of(state.path());
    let (chain, pin) = (Path::new("/etc/a/both.pem"), Pin::of_spki(b"key"));
    let names = |n: u32| hosts(&[&format!("{n}.example"), &format!("www.{n}.example")]);
    let mut batch = copies.begin();
    for n in 0..40 {
        let text = Breaches::of(of_site(&names(n)), Vec::new()).text() + &n.to_string();
        batch.add(served(&format!("{n}.example"), chain, pin), text.as_bytes());
    }
    batch.finish().unwrap();
    let index = CopyIndex::of(&copies);
    let last = |contents: &[u8]| String::from_utf8_lossy(contents).lines().last().unwrap().to_owned();
    for n in 0..40 {
        for name in names(n) {
            let places = index.made_for(&name);
            assert_eq!(places.len(), 1);
            assert_eq!(last(&index.contents(places[0]).unwrap()), n.to_string());
        }
        // The site's first name is another one now.
        let site = hosts(&["new.example", &format!("www.{n}.example")]);
        for found in [index.read(chain, &site), index.read_with(pin, &site), index.read_any(&site)] {
            assert_eq!(last(&found.unwrap()), n.to_string());
        }
        assert_eq!(index.read(chain, &hosts(&["new.example"])), None);
        assert_eq!(index.read(Path::new("/etc/a/other.pem"), &site), None);
    }
    assert_eq!(index.reads.get(), 40 * (1 + 2 + 3));
}

/// A name below a wildcard was served by the wildcard's pair, unless it was an exception, or had a site of its own.
#[test]
fn names_below_a_wildcard_are_found() {
    let state = tempfile::TempDir::new().unwrap();
    let copies = LastGood::of(state.path());
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let [wide, except, own] =
        [&["*.w.example"][..], &["x.w.example"], &["own.w.example"]].map(|names: &[&str]| hosts(names));
    let wildcard = Breaches::of(SiteNames { hosts: &wide, except: &except }, Vec::new()).text() + &key;
    let of_own = Breaches::of(of_site(&own), Vec::new()).text() + &key;
    let chain = Path::new("/etc/a.pem");
    copies.keep(served("*.w.example", chain, Pin::of_spki(b"a")), wildcard.as_bytes()).unwrap();
    copies.keep(served("own.w.example", chain, Pin::of_spki(b"b")), of_own.as_bytes()).unwrap();
    let found = |name: &str| {
        let index = CopyIndex::of(&copies);
        let contents = index.serving(&hosts(&[name])[0]).into_iter().filter_map(|at| index.contents(at));
        contents.map(|contents| Breaches::read(&contents).known_hosts().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(found("q.w.example"), std::slice::from_ref(&wide));
    assert_eq!(found("own.w.example"), std::slice::from_ref(&own));
    assert_eq!(found("*.w.example"), std::slice::from_ref(&wide));
    for other in ["x.w.example", "a.q.w.example", "w.example"] {
        assert!(found(other).is_empty(), "{other}");
    }
    // Its site is gone: the wildcard serves the name.
    let kept = served("*.w.example", chain, Pin::of_spki(b"a"));
    copies.retain([kept].into_iter(), std::iter::empty(), |_, _| true).unwrap();
    assert_eq!(found("own.w.example"), [wide, own]);
}

#[test]
fn copies_of_sites_that_are_gone_are_found_by_their_names() {
    let state = tempfile::TempDir::new().unwrap();
    let copies = LastGood::of(state.path());
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for (site, pin) in [("a.example", Pin::of_spki(b"a")), ("b.example", Pin::of_spki(b"b"))] {
        let text = Breaches::of(of_site(&hosts(&[site])), Vec::new()).text() + &key;
        copies.keep(served(site, Path::new("/etc/a.pem"), pin), text.as_bytes()).unwrap();
    }
    copies.retain(std::iter::empty(), std::iter::empty(), |_, _| true).unwrap();
    let index = CopyIndex::of(&copies);
    let find = |names: &[&str]| index.former().find(&hosts(names)).map(|copy| copy.hosts.clone());
    assert_eq!(find(&["b.example"]), Some(hosts(&["b.example"])));
    assert_eq!(find(&["www.example", "a.example"]), Some(hosts(&["a.example"])));
    assert_eq!(find(&["c.example"]), None);
    // They replace no pair, and may still stand in for a name.
    assert_eq!(index.read_any(&hosts(&["a.example"])), None);
    assert_eq!(index.made_for(&hosts(&["a.example"])[0]).len(), 1);
}

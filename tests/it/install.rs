//! `pintle install`: a certificate is judged, put in place, and looked at from outside; or everything stays as it was.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{BLOG, KeyKind, Leaf, Pintle, outcome, output, pintle};
use crate::rotation::{Bed, refusal};

const HOSTS: [&str; 2] = [BLOG, "www.example.com"];

/// `pintle install` for the blog; nothing but these arguments more.
fn install(config: &Path, host: &str, more: &[&Path]) -> Command {
    let mut command = pintle();
    command.args(["install", "--site", host, "-c"]).arg(config).args(more);
    command
}

/// The end of the served certificate, which differs between certificates of the same key.
fn end(pintle: &Pintle) -> String {
    pintle.status()["sites"][0]["certificates"][0]["not_after"].as_str().unwrap().to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The names and contents of the folder of the site's files.
fn files(bed: &Bed) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(bed.folder.path()).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file());
    let mut files: Vec<_> = entries.map(|p| (p.clone(), fs::read(p).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn a_dry_run_only_says() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let before = files(&bed);
    let renewed = bed.authority.renew("renewed", &bed.live.key, &HOSTS, 91);
    let out = output(&mut install(&pintle.config_path(), BLOG, &["--dry-run".as_ref(), &renewed.chain]));
    assert!(out.contains("fit to be served") && out.contains(&bed.live.pin) && !out.contains("wrote"), "{out}");
    let (code, out, err) =
        outcome(&mut install(&pintle.config_path(), BLOG, &["--dry-run".as_ref(), &bed.stranger.chain]));
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        err.contains("would lock readers out") && err.contains("usable from 20") && !out.contains("fit to"),
        "{out}{err}"
    );
    assert!(out.contains("stranger.pem, pin") && out.contains(": refused"), "{out}");
    // The same for programs.
    let mut command = install(&pintle.config_path(), BLOG, &["--dry-run".as_ref(), &bed.stranger.chain]);
    let (code, out, _) = outcome(command.arg("--json"));
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["ok"], &answer["verdict"]), (1, &false.into(), &"refused".into()), "{out}");
    let hint = answer["problems"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|p| p["hint"].as_str().filter(|h| h.contains("usable from")));
    assert!(hint.unwrap().contains("--accept-lockout-until 20"), "{out}");
    assert!(hint.unwrap().contains(&format!("{} (in use)", bed.live.pin)), "{out}");
    assert_eq!(files(&bed), before);
    assert_eq!((bed.served(&pintle), refusal(&pintle).is_null()), (bed.live.pin.clone(), true));
    let mut command = install(&pintle.config_path(), BLOG, &[&renewed.chain]);
    let answer: serde_json::Value = serde_json::from_str(&output(command.arg("--json"))).unwrap();
    assert_eq!(
        (&answer["ok"], &answer["verified"], &answer["pin"]),
        (&true.into(), &true.into(), &bed.live.pin.clone().into())
    );
}

#[test]
fn the_same_key_renewed() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let renewed = bed.authority.renew("renewed", &bed.live.key, &HOSTS, 91);
    let before = end(&pintle);
    // Any of the site's names will do, however it is written.
    let out = output(&mut install(&pintle.config_path(), "WWW.example.com", &[&renewed.chain]));
    assert!(out.contains(&format!("wrote {}", bed.chain().display())) && !out.contains("blog.key"), "{out}");
    assert!(out.contains("verified: "), "{out}");
    assert_ne!(end(&pintle), before);
    assert_eq!(fs::read(bed.chain()).unwrap(), fs::read(&renewed.chain).unwrap());
    assert_eq!(
        (pintle.status()["rotations"].as_u64(), pintle.status()["rotations_refused"].as_u64()),
        (Some(1), Some(0))
    );
    // The same again is no change, and no fault.
    output(&mut install(&pintle.config_path(), BLOG, &[&renewed.chain]));
    // Nor is it where it is to go: what an ACME client's hook may say.
    output(&mut install(&pintle.config_path(), BLOG, &[&bed.chain()]));
    // An older one is served, but not without a word.
    let (code, _, err) = outcome(&mut install(&pintle.config_path(), BLOG, &[&bed.live.chain]));
    assert!(code == 0 && err.contains("before the one in use"), "{err}");
    assert_eq!(err.matches("before the one in use").count(), 1, "printed once: {err}");
    assert_eq!(end(&pintle), before);
}

#[test]
fn the_next_key_is_found_beside_its_chain() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    // Only its owner can read it, if everybody could.
    fs::set_permissions(bed.key(), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&bed.next.key, fs::Permissions::from_mode(0o644)).unwrap();
    let out = output(&mut install(&pintle.config_path(), BLOG, &[&bed.next.chain]));
    assert!(out.contains(&format!("the key of this chain is {}", bed.next.key.display())), "{out}");
    assert_eq!(bed.served(&pintle), bed.next.pin);
    assert_eq!(fs::read(bed.key()).unwrap(), fs::read(&bed.next.key).unwrap());
    assert_eq!((mode(&bed.key()), mode(&bed.chain())), (0o600, 0o644));
    assert!(files(&bed).iter().all(|(path, _)| path.extension().is_some_and(|e| e != "new")));
}

#[test]
fn a_key_that_is_given() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let before = files(&bed);
    let (code, out, err) = outcome(&mut install(&pintle.config_path(), BLOG, &[&bed.next.chain, &bed.spare.key]));
    // It is the given file that is at fault, not the one in use.
    let key = bed.spare.key.display().to_string();
    assert!(code == 1 && err.contains(&format!("{key}: not the key of")), "{out}{err}");
    assert!(err.contains(&bed.next.pin) && err.contains(&bed.spare.pin), "{err}");
    let nonsense = bed.authority.write("nonsense", "nonsense");
    let (code, _, err) = outcome(&mut install(&pintle.config_path(), BLOG, &[&bed.next.chain, &nonsense]));
    assert!(code == 1 && err.contains("nonsense: "), "{err}");
    let (code, _, err) = outcome(&mut install(&pintle.config_path(), BLOG, &[&nonsense]));
    assert!(code == 1 && err.contains("nonsense: no certificate chain"), "{err}");
    let (code, _, err) = outcome(&mut install(&pintle.config_path(), BLOG, &[Path::new("/nowhere.pem")]));
    assert!(code == 1 && err.contains("/nowhere.pem: "), "{err}");
    let (code, _, err) = outcome(&mut install(&pintle.config_path(), "other.example", &[&bed.next.chain]));
    assert!(code == 1 && err.contains("no site has the host") && err.contains(BLOG), "{err}");
    assert_eq!(files(&bed), before);
    output(&mut install(&pintle.config_path(), BLOG, &[&bed.next.chain, &bed.next.key]));
    assert_eq!(bed.served(&pintle), bed.next.pin);
    // A key that is nowhere is asked for.
    let hidden = bed.folder.path().join("hidden");
    fs::create_dir(&hidden).unwrap();
    fs::rename(&bed.spare.key, hidden.join("spare.key")).unwrap();
    let (code, _, err) = outcome(&mut install(&pintle.config_path(), BLOG, &[&bed.spare.chain]));
    assert!(code == 1 && err.contains("its key is neither the one in use") && err.contains("hint: name it"), "{err}");
}

#[test]
fn a_key_that_was_never_promised() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let before = files(&bed);
    let (code, _, err) = outcome(&mut install(&pintle.config_path(), BLOG, &[&bed.stranger.chain, &bed.stranger.key]));
    assert!(code == 1 && err.contains("would lock readers out") && err.contains("not installed"), "{err}");
    // About the file that was given: the one in its place is fine.
    assert!(err.contains(&format!("{}: would lock", bed.stranger.chain.display())), "{err}");
    assert_eq!(files(&bed), before);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    // The running process has seen nothing of it.
    assert_eq!(pintle.status()["rotations_refused"], 0);
    assert!(!pintle.log().contains("refused"));
}

#[test]
fn a_lockout_is_accepted_by_its_date_alone() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let before = files(&bed);
    let with = |day: &str| {
        let mut command = install(&pintle.config_path(), BLOG, &[&bed.stranger.chain]);
        command.args(["--accept-lockout-until", day]);
        command
    };
    let (_, _, err) = outcome(&mut install(&pintle.config_path(), BLOG, &[&bed.stranger.chain]));
    let day = err.split("accept_lockout_until = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let (code, _, err) = outcome(&mut with("2026-01-01"));
    assert!(code == 1 && err.contains(&format!("should be \"{day}\"")), "{err}");
    for nonsense in ["for ever", "2026-13-01", "", "2026-11-23&host=other"] {
        let (code, _, err) = outcome(&mut with(nonsense));
        assert!(code == 2 && err.contains("accept-lockout-until"), "{nonsense:?}: {code} {err}");
    }
    assert_eq!(files(&bed), before);
    let (code, out, err) = outcome(&mut with(&day));
    assert!(code == 0 && out.contains("verified") && err.contains("would lock readers out"), "{out}{err}");
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
    assert_eq!(pintle.status()["lockouts_accepted"], 1);
    pintle.logs("readers who hold the old pins are locked out");
    let config = pintle.config_path();
    let text = fs::read_to_string(&config).unwrap();
    drop(pintle);
    // It is on record, and asks for nothing more.
    let again =
        Pintle::start(&bed.authority, &text.split("[state]").nth(1).map(|rest| format!("[state]{rest}")).unwrap());
    assert_eq!(bed.served(&again), bed.stranger.pin);
}

#[test]
fn without_a_running_process() {
    let bed = Bed::new();
    drop(bed.start(&bed.pins("30d")));
    let config = bed.folder.path().join("pintle.toml");
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n";
    fs::write(&config, format!("{listen}{}", bed.config(&bed.pins("30d"), ""))).unwrap();
    let before = files(&bed);
    let (code, _, err) = outcome(&mut install(&config, BLOG, &[&bed.stranger.chain]));
    assert!(code == 1 && err.contains("would lock readers out"), "the ledger is asked all the same: {err}");
    assert_eq!(files(&bed), before);
    let out = output(&mut install(&config, BLOG, &[&bed.next.chain]));
    assert!(out.contains("pintle is not running with this configuration: served at the next start"), "{out}");
    let (_, _, err) = outcome(&mut install(&config, BLOG, &[&bed.stranger.chain]));
    let day = err.split("accept_lockout_until = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    output(install(&config, BLOG, &[&bed.stranger.chain]).args(["--accept-lockout-until", &day]));
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
}

/// An existing breach does not excuse a new one, and a fault of another site does not prevent an installation.
#[test]
fn faults_that_were_there_before() {
    let bed = Bed::new();
    let expired = bed.authority.leaf_of("expired", &HOSTS, KeyKind::Ecdsa, -90, -2);
    bed.put(&expired);
    let config = bed.folder.path().join("pintle.toml");
    let other = "[[site]]\nhosts = [\"other.example.com\"]\nupstream = \"http://127.0.0.1:9\"\n\
                 [site.certificate]\nchain = \"nowhere.pem\"\nkey = \"nowhere.key\"\n";
    fs::write(&config, bed.config("", "") + other).unwrap();
    let again = bed.authority.renew("again", &expired.key, &HOSTS, -2);
    let (code, out, err) = outcome(&mut install(&config, BLOG, &["--dry-run".as_ref(), &again.chain]));
    assert!(code == 1 && err.contains("expired on"), "{out}{err}");
    let (code, out, err) = outcome(&mut install(&config, BLOG, &[&bed.live.chain]));
    assert!(code == 0 && out.contains("fit to be served"), "{out}{err}");
    assert!(err.contains("has other errors\n  hint: pintle check") && !err.contains("nowhere.pem"), "{err}");
    // A first certificate, where there is none yet.
    let leaf = bed.authority.leaf("other", &["other.example.com"]);
    let (code, _, err) = outcome(&mut install(&config, "other.example.com", &[&leaf.chain]));
    assert_eq!(code, 0, "{err}");
    let placed = bed.folder.path().join("nowhere.key");
    assert_eq!((fs::read(&placed).unwrap(), mode(&placed)), (fs::read(&leaf.key).unwrap(), 0o600));
    output(pintle().args(["check", "-c"]).arg(&config));
    // Not where its folder is not: nothing is written then, the key included.
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("chain = \"nowhere.pem\"", "chain = \"no/folder.pem\"")).unwrap();
    let next = bed.authority.leaf("another", &["other.example.com"]);
    let (code, _, err) = outcome(&mut install(&config, "other.example.com", &[&next.chain]));
    assert!(code == 1 && err.contains("not installed") && err.contains("no/folder.pem"), "{err}");
    assert_eq!(fs::read(&placed).unwrap(), fs::read(&leaf.key).unwrap());
}

#[test]
fn of_a_pair_only_its_like_is_replaced() {
    let bed = Bed::new();
    let rsa = bed.authority.leaf_of("rsa", &HOSTS, KeyKind::Rsa, -1, 90);
    let path = |name: &str| bed.folder.path().join(name);
    fs::copy(&rsa.chain, path("rsa.pem")).unwrap();
    fs::copy(&rsa.key, path("rsa.key")).unwrap();
    let config = bed.config("", "").replace("[site.certificate]", "[[site.certificate]]")
        + &format!("[[site.certificate]]\nchain = {:?}\nkey = {:?}\n", path("rsa.pem"), path("rsa.key"));
    let pintle = Pintle::start(&bed.authority, &config);
    let ecdsa = fs::read(bed.chain()).unwrap();
    let renewed = bed.authority.leaf_of("rsa2", &HOSTS, KeyKind::Rsa, -1, 91);
    let out = output(&mut install(&pintle.config_path(), BLOG, &[&renewed.chain]));
    assert!(out.contains("verified"), "{out}");
    assert_eq!(fs::read(path("rsa.pem")).unwrap(), fs::read(&renewed.chain).unwrap());
    assert_eq!(fs::read(bed.chain()).unwrap(), ecdsa);
    output(&mut install(&pintle.config_path(), BLOG, &[&bed.next.chain]));
    assert_eq!(bed.served(&pintle), bed.next.pin);
    assert_eq!(fs::read(path("rsa.pem")).unwrap(), fs::read(&renewed.chain).unwrap());
}

#[test]
fn links_and_owners_stay() {
    let bed = Bed::new();
    let real = bed.folder.path().join("real");
    fs::create_dir(&real).unwrap();
    for file in [bed.chain(), bed.key()] {
        let target = real.join(file.file_name().unwrap());
        fs::rename(&file, &target).unwrap();
        symlink(Path::new("real").join(file.file_name().unwrap()), &file).unwrap();
        // Only root can give files away; for others, their own stay theirs.
        let _ = std::os::unix::fs::chown(&target, Some(1234), Some(4321));
    }
    let owner = |file: &Path| fs::metadata(file).map(|m| (m.uid(), m.gid())).unwrap();
    let before = [owner(&bed.chain()), owner(&bed.key())];
    let pintle = bed.start(&bed.pins("30d"));
    output(&mut install(&pintle.config_path(), BLOG, &[&bed.next.chain]));
    assert_eq!(bed.served(&pintle), bed.next.pin);
    for file in [bed.chain(), bed.key()] {
        assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
    }
    assert_eq!([owner(&bed.chain()), owner(&bed.key())], before);
    assert_eq!(mode(&bed.key()), 0o600);
    // Each with its previous file, of the same owner.
    let previous = [bed.chain(), bed.key()].map(|file| {
        let name = format!("{}.pintle-previous", file.file_name().unwrap().display());
        real.join(name)
    });
    assert_eq!([owner(&previous[0]), owner(&previous[1])], before);
    assert_eq!((fs::read(&previous[1]).unwrap(), mode(&previous[1])), (fs::read(&bed.live.key).unwrap(), 0o600));
    assert_eq!(fs::read_dir(&real).unwrap().count(), 4);
}

/// The file says less than the running process knows: a name was taken out, and it was not reloaded yet.
#[test]
fn what_the_running_process_refuses_is_not_written() {
    let bed = Bed::new();
    fs::set_permissions(bed.key(), fs::Permissions::from_mode(0o640)).unwrap();
    let pintle = bed.start("");
    let before = files(&bed);
    let one_name = bed.authority.leaf("one", &[BLOG]);
    pintle.rewrite(|text| text.replace(", \"www.example.com\"", ""));
    for more in [&["--dry-run".as_ref(), one_name.chain.as_path()][..], &[one_name.chain.as_path()]] {
        let (code, out, err) = outcome(&mut install(&pintle.config_path(), BLOG, more));
        assert!(code == 1 && err.contains("does not cover www.example.com"), "{out}{err}");
        assert!(err.contains("the running process refuses it") && err.contains("nothing was written"), "{err}");
        assert!(out.contains(": refused") && !out.contains("wrote"), "{out}");
    }
    // It has never seen the files, so there is nothing to be refused.
    assert!(refusal(&pintle).is_null() && !pintle.log().contains("certificate refused"), "{}", pintle.log());
    assert_eq!(files(&bed), before);
    assert_eq!(mode(&bed.key()), 0o640);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    pintle.reload();
    assert!(output(&mut install(&pintle.config_path(), BLOG, &[&one_name.chain])).contains("verified"));
}

#[test]
fn what_is_not_served_is_not_called_so() {
    let bed = Bed::new();
    let pintle = bed.start("");
    // Elsewhere from now on, but the process does not know it.
    let [chain, key] = ["else.pem", "else.key"].map(|name| bed.folder.path().join(name));
    pintle.rewrite(|text| {
        text.replace(bed.chain().to_str().unwrap(), chain.to_str().unwrap())
            .replace(bed.key().to_str().unwrap(), key.to_str().unwrap())
    });
    let (code, out, err) = outcome(&mut install(&pintle.config_path(), BLOG, &[&bed.next.chain]));
    assert!(code == 1 && err.contains("still serves another certificate"), "{out}{err}");
    assert!(err.contains("hint: `pintle reload -c ") && !out.contains("verified"), "{out}{err}");
    pintle.reload();
    assert_eq!(bed.served(&pintle), bed.next.pin);
}

#[test]
fn names_of_a_wildcard() {
    let bed = Bed::new();
    let path = |name: &str| bed.folder.path().join(name);
    let hosts = ["*.shop.example.com"];
    let [old, new]: [Leaf; 2] = ["old", "new"].map(|name| bed.authority.leaf(name, &hosts));
    fs::copy(&old.chain, path("shop.pem")).unwrap();
    fs::copy(&old.key, path("shop.key")).unwrap();
    let site = format!(
        "[[site]]\nhosts = {hosts:?}\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        bed.origin.url(),
        path("shop.pem"),
        path("shop.key")
    );
    let pintle = Pintle::start(&bed.authority, &(bed.config("", "") + &site));
    for (host, leaf) in [("a.shop.example.com", &new), ("*.shop.example.com", &old)] {
        let out = output(&mut install(&pintle.config_path(), host, &[&leaf.chain]));
        assert!(out.contains("verified"), "{host}: {out}");
        assert_eq!(fs::read(path("shop.pem")).unwrap(), fs::read(&leaf.chain).unwrap());
    }
}

/// If TLS ends in front, the chain is there for its pins, and no client gets it from here.
#[test]
fn a_chain_without_a_key() {
    let bed = Bed::new();
    let pintle = bed.start("");
    let front = "front.example.net";
    let leaf = bed.authority.leaf("front", &[front]);
    let site = format!(
        "\n[[site]]\nhosts = [\"{front}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\n",
        bed.origin.url(),
        leaf.chain
    );
    pintle.rewrite(|text| format!("{text}{site}"));
    pintle.reload();
    let renewed = bed.authority.renew("front-renewed", &leaf.key, &[front], 91);
    let out = output(&mut install(&pintle.config_path(), front, &[&renewed.chain]));
    assert!(out.contains("loaded by the running process\nnot verified: TLS ends in front"), "{out}");
}

#[test]
fn the_way_back() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let back = |more: &[&str]| {
        let mut command = pintle.command("install --previous");
        outcome(command.args(["--site", BLOG]).args(more))
    };
    let (code, _, err) = back(&[]);
    assert!(code == 1 && err.contains("there is no previous pair"), "{err}");
    let (first, before) = (fs::read(bed.chain()).unwrap(), end(&pintle));
    let renewed = bed.authority.renew("renewed", &bed.live.key, &HOSTS, 91);
    output(&mut install(&pintle.config_path(), BLOG, &[&renewed.chain]));
    // The same again is no change: the way back stays.
    output(&mut install(&pintle.config_path(), BLOG, &[&renewed.chain]));
    let (code, out, err) = back(&["--dry-run"]);
    assert!(code == 0 && out.contains("the previous pair: serial ") && out.contains("replaced on 20"), "{out}{err}");
    assert!(out.contains("fit to be served") && out.contains("valid until 20"), "{out}");
    assert_ne!(end(&pintle), before);
    let (code, out, err) = back(&["--json"]);
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["verified"], &answer["previous"]), (0, &true.into(), &true.into()), "{out}{err}");
    assert_eq!((end(&pintle), fs::read(bed.chain()).unwrap()), (before, first));
    // The way back leads forward again.
    let (code, _, err) = back(&[]);
    assert_eq!((code, fs::read(bed.chain()).unwrap()), (0, fs::read(&renewed.chain).unwrap()), "{err}");
    // A key that clients do not know any more: the guard decides as always.
    output(&mut install(&pintle.config_path(), BLOG, &[&bed.next.chain]));
    let (code, _, err) = back(&[]);
    assert!(code == 1 && err.contains("would lock readers out"), "{err}");
    assert_eq!(bed.served(&pintle), bed.next.pin);
    let wrong = outcome(pintle.command("install --previous").args(["--site", BLOG]).arg(&renewed.chain));
    assert!(wrong.0 == 2 && wrong.2.contains("cannot be used with"), "{}", wrong.2);
}

#[test]
fn of_several_pairs_the_way_back_names_one() {
    let bed = Bed::new();
    let rsa = bed.authority.leaf_of("rsa", &HOSTS, KeyKind::Rsa, -1, 90);
    let path = |name: &str| bed.folder.path().join(name);
    fs::copy(&rsa.chain, path("rsa.pem")).unwrap();
    fs::copy(&rsa.key, path("rsa.key")).unwrap();
    let config = bed.config("", "").replace("[site.certificate]", "[[site.certificate]]")
        + &format!("[[site.certificate]]\nchain = {:?}\nkey = {:?}\n", path("rsa.pem"), path("rsa.key"));
    let pintle = Pintle::start(&bed.authority, &config);
    let other = bed.authority.leaf_of("rsa2", &HOSTS, KeyKind::Rsa, -1, 91);
    output(&mut install(&pintle.config_path(), BLOG, &[&other.chain]));
    output(&mut install(&pintle.config_path(), BLOG, &[&bed.next.chain]));
    let back = |more: &[&str]| outcome(pintle.command("install --previous").args(["--site", BLOG]).args(more));
    let (code, _, err) = back(&[]);
    assert!(code == 1 && err.contains("hint: name the kind of key: --algorithm rsa"), "{err}");
    let (code, out, err) = back(&["--algorithm", "rsa"]);
    assert!(code == 0 && out.contains("verified"), "{out}{err}");
    assert_eq!(fs::read(path("rsa.key")).unwrap(), fs::read(&rsa.key).unwrap());
    assert_eq!(fs::read(bed.key()).unwrap(), fs::read(&bed.next.key).unwrap());
    let (code, out, err) = back(&["--algorithm", "ecdsa"]);
    assert!(code == 0 && out.contains("verified"), "{out}{err}");
    assert_eq!(fs::read(bed.key()).unwrap(), fs::read(&bed.live.key).unwrap());
}

#[test]
fn a_certificate_of_pintles_own_is_not_installed_by_hand() {
    let bed = Bed::new();
    let config = bed.folder.path().join("pintle.toml");
    let site = format!("[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n", bed.origin.url());
    let acme = "[acme]\nterms = true\nemail = \"a@example.com\"\n";
    let state = format!("[state]\ndirectory = {:?}\n", bed.state());
    fs::write(&config, format!("{state}{acme}{site}certificate = {{ acme = true }}\n")).unwrap();
    for more in [&["--previous".as_ref()][..], &[bed.live.chain.as_path()]] {
        let (code, _, err) = outcome(&mut install(&config, BLOG, more));
        assert!(code == 1 && err.contains("pintle obtains this certificate itself"), "{err}");
        assert!(err.contains(&format!("pintle acme renew --site {BLOG} -c {}", config.display())), "{err}");
    }
}

/// Killed at any step, with nothing but its own files to mend it: no state, and so no other copy of the live key.
#[test]
fn killed_half_way() {
    let bed = Bed::new();
    let site = bed.config("", "");
    let config = bed.folder.path().join("pintle.toml");
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n";
    let without_state = format!("[[site]]{}", site.split_once("[[site]]").unwrap().1);
    fs::write(&config, format!("{listen}{without_state}")).unwrap();
    let old = |path: PathBuf| PathBuf::from(format!("{}.pintle-old", path.display()));
    for step in 0..4 {
        bed.put(&bed.live);
        let killed = install(&config, BLOG, &[&bed.next.chain]).env("PINTLE_TEST_DIE_AT", step.to_string()).output();
        assert_eq!(killed.unwrap().status.code(), None, "step {step}");
        let is_kept = fs::read(old(bed.key())).unwrap();
        assert_eq!((is_kept, mode(&old(bed.key()))), (fs::read(&bed.live.key).unwrap(), 0o600), "step {step}");
        // A check only tells.
        let (code, _, err) = outcome(pintle().args(["check", "-c"]).arg(&config));
        assert!(err.contains("an installation was interrupted"), "step {step}: {err}");
        assert_eq!((code == 0, old(bed.key()).exists()), (step != 1, true), "step {step}: {err}");
        let served = Pintle::start(&bed.authority, &without_state);
        let (message, leaf) = match step {
            0 => ("so it is finished now", &bed.live),
            1 => ("it is undone, and the previous files are back", &bed.live),
            _ => ("so it is finished now", &bed.next),
        };
        assert_eq!(bed.served(&served), leaf.pin, "step {step}");
        served.logs(message);
        assert_eq!(fs::read(bed.key()).unwrap(), fs::read(&leaf.key).unwrap(), "step {step}");
        assert!(!old(bed.key()).exists() && !old(bed.chain()).exists(), "step {step}");
    }
    // The next installation mends it, too.
    bed.put(&bed.live);
    let _ = install(&config, BLOG, &[&bed.next.chain]).env("PINTLE_TEST_DIE_AT", "1").output();
    let (code, _, err) = outcome(&mut install(&config, BLOG, &[&bed.spare.chain]));
    assert!(code == 0 && err.contains("it is undone"), "{err}");
    assert_eq!(fs::read(bed.key()).unwrap(), fs::read(&bed.spare.key).unwrap());
    assert!(files(&bed).iter().all(|(path, _)| path.extension().is_some_and(|e| e != "pintle-old")));
}

/// The copies of an installation that nobody finished, and a key that another program has put in place since: to undo the
/// installation destroys no key.
#[test]
fn undone_over_a_key_of_another_program() {
    let bed = Bed::new();
    let config = bed.folder.path().join("pintle.toml");
    let site = bed.config("", "");
    fs::write(&config, format!("[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{site}")).unwrap();
    let killed = install(&config, BLOG, &[&bed.next.chain]).env("PINTLE_TEST_DIE_AT", "2").output();
    assert_eq!(killed.unwrap().status.code(), None);
    fs::copy(&bed.spare.key, bed.key()).unwrap();
    let pintle = Pintle::start(&bed.authority, &site);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    assert_eq!(fs::read(bed.key()).unwrap(), fs::read(&bed.live.key).unwrap());
    let undone = PathBuf::from(format!("{}.pintle-undone", bed.key().display()));
    assert_eq!((fs::read(&undone).unwrap(), mode(&undone)), (fs::read(&bed.spare.key).unwrap(), 0o600));
    pintle.logs("blog.key.pintle-undone has the key that was in place");
}

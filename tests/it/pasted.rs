//! Commands in messages, as an operator pastes them: they do what the message says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{BLOG, Client, Leaf, Pintle, eventually, outcome, output, pintle};
use crate::last_good::{LISTEN, copied};
use crate::loss::command;
use crate::refused_edits::{hpkp, pins_at, site, state};
use crate::rotation::Bed;
use crate::upgrade::Line;

/// Runs a command in a shell, with this pintle on its path.
fn paste(command: &str) -> (i32, String, String) {
    let program = pintle();
    let folder = Path::new(program.get_program()).parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    outcome(Command::new("sh").args(["-c", command]).env("PATH", path).env("PINTLE_ALLOW_ROOT", "1"))
}

/// The command that accepts a lockout, in a refusal.
#[track_caller]
fn acceptance(refusal: &str) -> String {
    let mut quoted = refusal.split('`').filter(|text| text.starts_with("pintle install "));
    let found = quoted.find(|text| text.contains(" --accept-lockout-until 20"));
    found.unwrap_or_else(|| panic!("no command in {refusal}")).to_owned()
}

fn install(config: &Path, host: &str, leaf: &Leaf) -> (i32, String, String) {
    let mut command = pintle();
    command.args(["install", "--site", host, "-c"]).arg(config).arg(&leaf.chain).arg(&leaf.key);
    outcome(&mut command)
}

/// The pins of the served keys, by site.
fn served(pintle: &Pintle) -> Vec<String> {
    let status = pintle.status();
    let sites = status["sites"].as_array().unwrap();
    sites.iter().map(|site| site["certificates"][0]["pin"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_acceptance_of_a_lockout() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let folder = bed.folder.path().join("two words");
    fs::create_dir(&folder).unwrap();
    let copy = |from: &Path, name: &str| -> PathBuf {
        fs::copy(from, folder.join(name)).unwrap();
        folder.join(name)
    };
    let new = Leaf {
        chain: copy(&bed.stranger.chain, "new.pem"),
        key: copy(&bed.stranger.key, "new.key"),
        pin: bed.stranger.pin.clone(),
    };
    let (code, _, err) = install(&pintle.config_path(), BLOG, &new);
    assert_eq!(code, 1, "{err}");
    let command = acceptance(&err);
    for part in [&new.chain, &new.key, &pintle.config_path()] {
        assert!(command.contains(&part.display().to_string()), "{part:?} in {command}");
    }
    let (code, out, err) = paste(&command);
    assert!(code == 0 && out.contains(&format!("the lockout is accepted for {BLOG}")), "{command}: {out}{err}");
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
    // The files that are in place already: what a hook of certbot has left.
    let another = bed.authority.leaf("another", &[BLOG, "www.example.com"]);
    bed.put(&another);
    let (code, _, err) = outcome(&mut pintle.command("check"));
    assert_eq!(code, 1, "{err}");
    let command = acceptance(&err);
    let (code, out, err) = paste(&command);
    assert_eq!(code, 0, "{command}: {out}{err}");
    assert_eq!(bed.served(&pintle), another.pin);
}

/// All keys of two sites with one chain file are lost: one command accepts the lockout for both, while pintle runs and
/// while it is stopped. Its day is the later one.
#[test]
fn the_acceptance_for_two_sites_with_one_chain_file() {
    let hosts = ["a.test", "b.test"];
    for is_running in [true, false] {
        let bed = Bed::new();
        let [live, new] = ["both", "both-new"].map(|name| bed.authority.leaf(name, &hosts));
        bed.put(&live);
        let site = |host: &str, backup: &Leaf, max_age: &str| {
            format!(
                "[[site]]\nhosts = [\"{host}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n\
                 [site.hpkp]\nmax_age = \"{max_age}\"\nbackups = [{:?}]\n",
                bed.origin.url(),
                bed.chain(),
                bed.key(),
                backup.key.with_extension("csr")
            )
        };
        let state = format!("[state]\ndirectory = {:?}\n", bed.state());
        let text = state + &site("a.test", &bed.next, "20d") + &site("b.test", &bed.spare, "30d");
        let mut running = Some(Pintle::start(&bed.authority, &text));
        let pintle = running.as_ref().unwrap();
        for host in hosts {
            let answer = Client::new(&bed.authority).get(pintle.https(), host, "/");
            assert!(answer.field("public-key-pins").is_some(), "{host}");
        }
        let config = bed.authority.write("two.toml", fs::read(pintle.config_path()).unwrap());
        if !is_running {
            running = None;
        }
        let (code, _, err) = install(&config, "a.test", &new);
        assert!(code == 1 && err.contains("(for all sites with this chain file: a.test, b.test)"), "{err}");
        let command = acceptance(&err);
        let (code, out, err) = paste(&command);
        assert!(code == 0 && out.contains("the lockout is accepted for a.test, b.test"), "{command}: {out}{err}");
        let pintle = running.unwrap_or_else(|| Pintle::start(&bed.authority, &text));
        assert_eq!(served(&pintle), [new.pin.clone(), new.pin.clone()], "{is_running}");
        // Nothing is accepted but this key.
        let (code, _, err) = install(&config, "b.test", &bed.authority.leaf("third", &hosts));
        assert!(code == 1 && err.contains("would lock readers out"), "{err}");
    }
}

/// Two sites are refused while pintle is stopped, and a check prints a command for each: neither waits for the other one.
#[test]
fn the_acceptances_for_two_refused_sites_while_it_is_stopped() {
    for has_copies in [true, false] {
        let bed = Bed::new();
        let hosts = ["a.test", "b.test"];
        let leaf = |name: &str, host: &str| bed.authority.leaf(&format!("{name}-{}", &host[..1]), &[host]);
        let [own, new] = ["own", "new"].map(|name| hosts.map(|host| leaf(name, host)));
        let with_pins = |leaf: &Leaf, host: &str| {
            let backup = bed.authority.public_key(&format!("backup-{}", &host[..1]));
            site(&bed, &[host], leaf, &hpkp(&[backup], ""))
        };
        let text = state(&bed) + &with_pins(&own[0], hosts[0]) + &with_pins(&own[1], hosts[1]);
        let running = Pintle::start(&bed.authority, &text);
        for (leaf, host) in own.iter().zip(hosts) {
            assert!(pins_at(&bed, &running, host).is_some());
            copied(&bed, leaf);
        }
        let config = bed.authority.write("two.toml", fs::read(running.config_path()).unwrap());
        drop(running);
        if !has_copies {
            fs::remove_dir_all(bed.state().join("last-good")).unwrap();
        }
        for (own, new) in own.iter().zip(&new) {
            fs::copy(&new.chain, &own.chain).unwrap();
            fs::copy(&new.key, &own.key).unwrap();
        }
        let (_, _, err) = outcome(&mut command(&["check"], &config));
        let commands: Vec<&str> = err.split('`').filter(|text| text.contains(" --accept-lockout-until 20")).collect();
        assert_eq!(commands.len(), 2, "{err}");
        for (command, host) in commands.iter().zip(hosts) {
            let (code, out, err) = paste(command);
            let said = format!("the lockout is accepted for {host}");
            assert!(code == 0 && out.contains(&said), "{has_copies}: {command}: {out}{err}");
        }
        assert_eq!(served(&Pintle::start(&bed.authority, &text)), new.map(|leaf| leaf.pin), "{has_copies}");
    }
}

/// A parent's pins bind a site that has no certificate yet: the running process knows it before anything is written, and
/// the hint is a way.
#[test]
fn a_parents_pins_are_known_before_anything_is_written() {
    let bed = Bed::new();
    let parent = bed.authority.leaf("parent", &["p.test"]);
    let child = bed.authority.leaf("child", &["c.p.test"]);
    let csr = bed.authority.csr(&child);
    let placed = |name: &str| bed.folder.path().join(name);
    fs::copy(&child.chain, placed("child.pem")).unwrap();
    fs::copy(&child.key, placed("child.key")).unwrap();
    let site = |host: &str, chain: &Path, key: &Path| {
        format!(
            "[[site]]\nhosts = [\"{host}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {chain:?}\nkey = {key:?}\n",
            bed.origin.url()
        )
    };
    let first = format!("[state]\ndirectory = {:?}\n", bed.state())
        + &site("p.test", &parent.chain, &parent.key)
        + &bed.pins("30d")
        + "include_subdomains = true\n";
    let pintle = Pintle::start(&bed.authority, &first);
    assert!(Client::new(&bed.authority).get(pintle.https(), "p.test", "/").field("public-key-pins").is_some());
    drop(pintle);
    let both = first + &site("c.p.test", &placed("child.pem"), &placed("child.key"));
    let pintle = Pintle::start(&bed.authority, &both);
    let (code, _, err) = install(&pintle.config_path(), "c.p.test", &child);
    assert_eq!(code, 1, "{err}");
    let command = acceptance(&err);
    let (code, out, err) = paste(&command);
    assert!(code == 1 && !out.contains("wrote") && !out.contains("fit to be served"), "{out}{err}");
    assert!(err.contains("nothing was written") && err.contains("add the key of c.p.test to backups"), "{err}");
    pintle.rewrite(|text| text.replace("backups = [", &format!("backups = [{csr:?}, ")));
    output(&mut pintle.command("reload"));
    let command = acceptance(&install(&pintle.config_path(), "c.p.test", &child).2);
    let (code, out, err) = paste(&command);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(served(&pintle)[1], child.pin);
    // The same key again locks nobody out any more.
    let renewed = bed.authority.renew("child-renewed", &child.key, &["c.p.test"], 91);
    let (code, out, err) = install(&pintle.config_path(), "c.p.test", &renewed);
    assert_eq!(code, 0, "{out}{err}");
}

/// With another state.directory in the file, no command finds the process. What the log and the commands name does.
#[test]
fn an_upgrade_to_another_admin_socket() {
    let bed = Bed::new();
    let line = Line::start(&bed.authority, LISTEN, &bed.config(&bed.pins("30d"), ""));
    let promised = bed.header(&line.pintle);
    assert!(promised.is_some());
    let elsewhere = bed.folder.path().join("elsewhere");
    line.pintle.rewrite(|text| text.replace(&format!("{:?}", bed.state()), &format!("{elsewhere:?}")));
    line.pintle.signal("HUP");
    let message = "reload refused; pintle keeps serving the previous configuration";
    let refused = eventually("the reload is refused", || line.pintle.log_json(message).pop());
    let command = format!("kill -USR2 {}", line.pid());
    assert!(refused["hint"].as_str().unwrap().contains(&command), "{refused}");
    for name in ["reload", "upgrade"] {
        let (code, _, err) = outcome(&mut line.pintle.command(name));
        assert!(code == 1 && err.contains("no pintle listens at") && err.contains(&command), "{name}: {err}");
    }
    let (code, _, err) = paste(&command);
    assert_eq!(code, 0, "{err}");
    let pid = eventually("another process serves", || {
        let (code, out, _) = outcome(line.pintle.command("status").arg("--json"));
        let status: serde_json::Value = serde_json::from_str(&out).ok().filter(|_| code == 0)?;
        u32::try_from(status["pid"].as_u64()?).ok()
    });
    line.is_now(pid);
    let (new, moved) = (elsewhere.join("ledger.jsonl"), bed.state().join("ledger.moved"));
    eventually("the promises have moved", || (new.exists() && moved.exists()).then_some(()));
    assert_eq!(bed.header(&line.pintle), promised);
}

/// The next line of a script finds a process that is just starting.
#[test]
fn a_command_waits_for_a_process_that_is_starting() {
    let bed = Bed::new();
    let config = bed.folder.path().join("pintle.toml");
    fs::write(&config, format!("{LISTEN}{}", bed.config(&bed.pins("30d"), ""))).unwrap();
    let mut started = pintle();
    started.args(["run", "-c"]).arg(&config).stderr(std::process::Stdio::null());
    let mut started = started.stdout(std::process::Stdio::null()).spawn().unwrap();
    let (code, out, err) = outcome(pintle().args(["reload", "-c"]).arg(&config));
    started.kill().unwrap();
    started.wait().unwrap();
    assert!(code == 0 && out.contains("reloaded"), "{out}{err}");
    // Once it is gone, nobody waits.
    let (code, _, err) = outcome(pintle().args(["reload", "-c"]).arg(&config));
    let hint = format!("hint: `pintle run -c {}` starts it", config.display());
    assert!(code == 1 && err.contains("no pintle listens at") && err.contains(&hint), "{err}");
}

/// A file of the ledger that is none: the message names that one, and its command is the way on.
#[test]
fn the_file_of_the_ledger_that_is_none() {
    let bed = Bed::new();
    let server = bed.start(&bed.pins("30d"));
    assert!(bed.header(&server).is_some());
    let config = bed.authority.write("stopped.toml", fs::read(server.config_path()).unwrap());
    drop(server);
    let head = bed.state().join("ledger.head");
    fs::remove_file(&head).unwrap();
    fs::create_dir(&head).unwrap();
    let repair = || outcome(pintle().args(["ledger", "repair", "-c"]).arg(&config));
    let (code, _, err) = repair();
    assert!(code == 1 && err.contains(&format!("error: {}: ", head.display())), "{err}");
    let remedy = err.split("mv -T").nth(1).unwrap_or_else(|| panic!("{err}")).split(';').next().unwrap();
    assert_eq!(paste(&format!("mv -T{remedy}")).0, 0, "{err}");
    let (code, out, err) = repair();
    assert!(code == 0 && out.contains("nothing to repair"), "{out}{err}");
}

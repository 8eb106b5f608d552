//! Actions of people, and events of a machine.

use std::fs;

use pintle::ledger::{self, Book, Burnt, Record};

use crate::model::random::Random;

use super::client::Seconds;
use super::keys::{KEYS, NAMES, RSA_FROM, SITES, VERSIONS};
use super::node::{Node, Said};
use super::tables::{Mode, Tables, chain_path, key_path};
use super::world::{LEDGER_FILES, World};

const HOUR: Seconds = 3600;
const DAY: Seconds = 86_400;
/// All that is played; each at least once in so many histories.
pub const KINDS: [(&str, u64); 21] = [
    ("put", 2),
    ("put badly", 2),
    ("renew", 4),
    ("edit", 2),
    ("reload", 1),
    ("install", 5),
    ("install accepted", 40),
    ("kill", 8),
    ("terminate", 8),
    ("upgrade", 8),
    ("export", 10),
    ("merge", 25),
    ("burn", 80),
    ("sleep", 10),
    ("down", 10),
    ("clock behind", 20),
    ("clock ahead", 60),
    ("clock right", 60),
    ("disk full", 20),
    ("ledger touched", 2),
    ("start", 1),
];

/// Does what a number says; then it is looked at.
pub fn act(world: &mut World<'_>, number: u64, trace: &mut dyn FnMut(String)) -> Result<(), String> {
    world.random = Random::new(number);
    if world.is_full && world.random.once_in(3) {
        world.has_room();
        trace("the disk has room again".into());
    }
    world.are_copied();
    let done = do_one(world);
    match done {
        Ok(what) => trace(what),
        Err(why) => {
            let promised = world.node.command(&["ledger", "show"]);
            return Err(world.keys.named(&format!("{why}\n{}", promised.text)));
        }
    }
    world.check().map_err(|why| {
        trace(format!("(the log ends with)\n{}", world.node.log()));
        world.keys.named(&why)
    })
}

fn do_one(world: &mut World<'_>) -> Result<String, String> {
    Ok(match world.random.below(31) {
        0..=4 => put(world)?,
        5..=6 => put_badly(world),
        7..=8 => renew(world)?,
        9..=13 => edit(world),
        14 => {
            let said = world.reload();
            if !said.ok && world.is_taken() && world.files_are_served() {
                return Err(format!("a reload of nothing is refused: {}", said.text));
            }
            "reload".into()
        }
        15..=16 => install(world)?,
        17..=18 => restart(world, true)?,
        19..=20 => restart(world, false)?,
        21 => upgrade(world)?,
        22 => export(world),
        23 if world.random.once_in(4) => burn(world)?,
        23 => merge(world)?,
        24..=25 => sleep(world),
        26 => down(world)?,
        27 => clock(world)?,
        28 => fill_disk(world),
        _ => touch_ledger(world)?,
    })
}

/// A site, and one of the kinds of its pairs.
fn place(world: &mut World<'_>) -> (usize, &'static str, usize) {
    let sites: Vec<usize> = (0..SITES).filter(|site| world.tables.sites[*site].is_there).collect();
    let site = *world.random.pick(&sites);
    let (kind, first) = *world.random.pick(world.tables.kinds(site));
    (site, kind, first)
}

fn any_key(world: &mut World<'_>, first: usize) -> usize {
    if first == RSA_FROM { RSA_FROM + world.random.index(KEYS - RSA_FROM) } else { world.random.index(RSA_FROM) }
}

/// Somebody has the program look at the files: by name, by a reload, or not at all, as it will do so by itself.
fn poke(world: &mut World<'_>, site: usize) -> Option<Said> {
    match world.random.below(4) {
        0 => None,
        1 => Some(world.reload()),
        _ => Some(world.node.look(Tables::label(site))),
    }
}

fn judge_refusal(world: &mut World<'_>, site: usize, said: Option<&Said>) -> Result<(), String> {
    let Some(said) = said.filter(|said| !said.ok && said.text.contains("would lock readers out: no key")) else {
        return Ok(());
    };
    world.count("refused by the guard");
    // Other sites' files may be what a reload is refused for.
    let is_needed = |world: &World<'_>| (0..SITES).any(|other| world.is_needed(other)) || world.is_needed(site);
    // Files may have been taken since the last visit, and other pins are sent with them.
    let needed = is_needed(world) || {
        world.check()?;
        is_needed(world)
    };
    // The replacement of a bad pair may be half of a good one.
    if needed || world.blind || world.is_changed || world.files.values().any(Option::is_none) {
        return Ok(());
    }
    Err(format!("REFUSED WITHOUT NEED: {}\nghosts: {:?}", said.text, world.ghosts))
}

fn put(world: &mut World<'_>) -> Result<String, String> {
    let (site, kind, first) = place(world);
    let key = any_key(world, first);
    let version = world.random.index(VERSIONS);
    world.put(site, kind, (key, version));
    world.count("put");
    let said = poke(world, site);
    judge_refusal(world, site, said.as_ref())?;
    Ok(format!(
        "put key {key} (certificate {version}) for {}, {kind}: {}",
        Tables::label(site),
        in_words(said.as_ref())
    ))
}

fn in_words(said: Option<&Said>) -> String {
    match said {
        None => "no signal".into(),
        Some(said) if said.ok => "taken".into(),
        Some(said) => format!("refused: {}", errors(&said.text)),
    }
}

/// The errors, without warnings.
fn errors(text: &str) -> String {
    let is_of_use = |line: &&str| line.contains(": ") && !line.contains("warning: ") && !line.contains("hint: ");
    let lines = text.lines().map(str::trim).filter(is_of_use).map(|l| l.split("\\n").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join(" | ")
}

fn put_badly(world: &mut World<'_>) -> String {
    let (site, kind, first) = place(world);
    let (chain, key) = (chain_path(&world.node.folder, site, kind), key_path(&world.node.folder, site, kind));
    let leaf = world.keys.leaf(site, any_key(world, first), 0).clone();
    let how = match world.random.below(6) {
        0 => {
            world.put_one(&chain, &leaf.chain);
            "the chain alone"
        }
        1 => {
            world.put_one(&key, &leaf.key);
            "the key alone"
        }
        2 => {
            let whole = fs::read(&leaf.chain).unwrap();
            fs::write(&chain, &whole[..world.random.index(whole.len())]).unwrap();
            "half a chain"
        }
        3 => {
            fs::write(&key, "garbage").unwrap();
            "garbage for a key"
        }
        4 => {
            let _ = fs::remove_file(&chain);
            "no chain"
        }
        _ => {
            fs::write(&chain, "").unwrap();
            "an empty chain"
        }
    };
    world.files.insert((site, kind), None);
    world.count("put badly");
    let said = poke(world, site);
    format!("put {how} for {}, {kind}: {}", Tables::label(site), in_words(said.as_ref()))
}

/// A renewal with the key that is served, after whatever happened to the files.
fn renew(world: &mut World<'_>) -> Result<String, String> {
    let (site, kind, first) = place(world);
    // RSA clients may be served by either.
    let keys = if first == RSA_FROM { RSA_FROM..KEYS } else { 0..RSA_FROM };
    let served = keys.clone().find(|key| world.leaves.contains(world.keys.pin(site, *key)));
    let key = served.unwrap_or(first);
    let version = world.random.index(VERSIONS);
    world.put(site, kind, (key, version));
    world.count("renew");
    let said = world.node.look(Tables::label(site));
    judge_refusal(world, site, Some(&said))?;
    let others_are_whole = world.files.iter().all(|(_, pair)| pair.is_some());
    if !said.ok
        && served.is_some()
        && others_are_whole
        && world.is_taken()
        && said.text.contains("would lock readers out: no key")
        && !world.is_changed
        // The same key under another authority may break what the authority's own key has kept.
        && !world.is_needed(site)
    {
        let is_other = world.tables.kinds(site).len() > 1;
        if !is_other {
            return Err(format!("a renewal with the served key is refused: {}", said.text));
        }
    }
    Ok(format!("renew with key {key} for {}, {kind}: {}", Tables::label(site), in_words(Some(&said))))
}

fn edit(world: &mut World<'_>) -> String {
    let before = world.tables.clone();
    let mut random = Random::new(world.random.next());
    let what: Vec<_> = (0..1 + random.below(2)).map(|_| world.tables.edit(&mut random)).collect();
    world.write_tables();
    world.count("edit");
    what.iter().for_each(|what| world.count(format!("edit {what}")));
    if world.random.once_in(6) {
        return format!("edit {}; no signal", what.join(" and "));
    }
    let said = world.reload();
    if !said.ok && !world.random.once_in(3) {
        world.tables = before;
        world.write_tables();
    }
    format!("edit {}: {}", what.join(" and "), in_words(Some(&said)))
}

fn install(world: &mut World<'_>) -> Result<String, String> {
    let (site, kind, first) = place(world);
    let (key, version) = (any_key(world, first), world.random.index(VERSIONS));
    let leaf = world.keys.leaf(site, key, version).clone();
    let words = ["install", "--site", Tables::label(site)];
    let files = [leaf.chain.to_str().unwrap(), leaf.key.to_str().unwrap()];
    let mut said = world.node.command(&[&words[..], &files].concat());
    let mut refused = String::new();
    world.count("install");
    if said.ok {
        world.files.insert((site, kind), Some((key, version)));
    } else if said.text.contains("would lock readers out: no key") {
        world.count("install refused");
        let day = said.text.split("--accept-lockout-until ").nth(1).and_then(|rest| rest.get(..10)).map(str::to_owned);
        if let Some(day) = day.filter(|_| world.random.once_in(3)) {
            refused = format!("refused, accepted until {day}: {}; ", errors(&said.text));
            said = world.node.command(&[&words[..], &["--accept-lockout-until", &day], &files].concat());
            if said.ok {
                world.files.insert((site, kind), Some((key, version)));
            }
            world.count("install accepted");
            world.accept_lockout(site, (key, version));
            // The ledger does not tell what is promised in the same second, before his word, from what is after it.
            std::thread::sleep(std::time::Duration::from_millis(1100));
        }
    }
    Ok(format!("install key {key} for {}, {kind}: {refused}{}", Tables::label(site), in_words(Some(&said))))
}

fn restart(world: &mut World<'_>, at_once: bool) -> Result<String, String> {
    let what = if at_once { "kill" } else { "terminate" };
    world.count(what);
    world.stop(at_once);
    world.start()?;
    Ok(format!("{what} and start"))
}

fn upgrade(world: &mut World<'_>) -> Result<String, String> {
    world.count("upgrade");
    let said = world.node.upgrade();
    if said.ok {
        // The new process may write as much as it likes.
        world.is_full = false;
        world.taken = world.tables.clone();
        world.blind = false;
    } else {
        world.count("upgrade refused");
        if world.is_taken() && !world.blind && !world.uncopied {
            return Err(format!("an upgrade of nothing is refused: {}", said.text));
        }
    }
    Ok(format!("upgrade: {}", in_words(Some(&said))))
}

fn export(world: &mut World<'_>) -> String {
    let (site, ..) = place(world);
    let form = *world.random.pick(&["okhttp", "json", "tlsa"]);
    let life = *world.random.pick(&["1h", "3d", "30d"]);
    let said = world.node.command(&["export", "--site", Tables::label(site), "--as", form, "--life", life]);
    world.count("export");
    if said.ok && !world.blind {
        world.count("exported");
        world.give_out();
    }
    format!("export {} as {form} for {life}: {}", Tables::label(site), if said.ok { "given out" } else { &said.text })
}

/// Another node of the first site, with a key of its own, has told clients of its pins; then its ledger comes here.
fn merge(world: &mut World<'_>) -> Result<String, String> {
    let mut other = world.taken.clone();
    other.sites[0].mode = Mode::Enforce;
    other.sites[0].has_rsa = false;
    other.sites[0].has_ramp = false;
    other.sites[0].backups = 0b1111;
    other.sites[1].is_there = false;
    other.sites[2].is_there = false;
    let key = world.random.index(RSA_FROM);
    let folder = world.node.folder.join(format!("other-{}", world.counts.get("merge").copied().unwrap_or_default()));
    let theirs = Node::new(&folder);
    let here = std::mem::replace(&mut world.node, theirs);
    let (tables, taken) =
        (std::mem::replace(&mut world.tables, other.clone()), std::mem::replace(&mut world.taken, other));
    let (files, ghosts) = (world.files.clone(), std::mem::take(&mut world.ghosts));
    let (behind, stepped, leaves) = (world.behind, world.stepped.take(), world.leaves.clone());
    world.behind = 0;
    world.set_clock();
    world.put(0, "e", (key, 0));
    world.write_tables();
    let blind = std::mem::take(&mut world.blind);
    let played = world.node.start().and_then(|()| world.check());
    world.node.stop(true);
    let ledger = world.node.state().join(LEDGER_FILES[0]);
    (world.tables, world.taken, world.files, world.leaves) = (tables, taken, files, leaves);
    (world.behind, world.stepped, world.blind) = (behind, stepped, blind);
    let mut told_there = std::mem::replace(&mut world.ghosts, ghosts);
    world.node = here;
    played.map_err(|why| format!("at the other node: {why}"))?;
    world.count("merge");
    // Nobody meets a chain between the last visits and the merge: those who cannot be helped are known.
    world.settle();
    let while_stopped = world.random.once_in(4);
    if while_stopped {
        world.stop(false);
    }
    let said = world.node.command(&["ledger", "merge", ledger.to_str().unwrap()]);
    if said.ok {
        // Whoever is locked out by what is served already cannot be helped.
        for ghost in &mut told_there {
            ghost.excused.extend(world.leaves.iter().cloned());
        }
        world.ghosts.extend(told_there);
    }
    if while_stopped {
        world.start()?;
    }
    let when = if while_stopped { " while it is stopped" } else { "" };
    Ok(format!("merge the ledger of a node with key {key}{when}: {}", said.text))
}

/// Another node has burnt a key of a site; then its ledger comes here.
fn burn(world: &mut World<'_>) -> Result<String, String> {
    let (site, _, first) = place(world);
    let key = any_key(world, first);
    let at = world.now() - world.behind.max(0);
    let burnt = Burnt { site: Tables::label(site).into(), pin: world.keys.pin(site, key).parse().unwrap(), at };
    let mut theirs = Book::default();
    theirs.apply(Record::Burnt(burnt));
    let file = world.node.folder.join("burnt.jsonl");
    fs::write(&file, ledger::written(&theirs)).unwrap();
    world.count("burn");
    world.settle();
    let while_stopped = world.random.once_in(3);
    if while_stopped {
        let at_once = world.random.once_in(2);
        world.stop(at_once);
    }
    let said = world.node.command(&["ledger", "merge", file.to_str().unwrap()]);
    if while_stopped {
        world.start()?;
    }
    let when = if while_stopped { " while it is stopped" } else { "" };
    Ok(format!("key {key} of {} is burnt elsewhere{when}: {}", Tables::label(site), said.text))
}

fn any_time(world: &mut World<'_>) -> Seconds {
    let times = [90, HOUR, 10 * HOUR, 3 * DAY, 12 * DAY, 40 * DAY];
    // Not so long that certificates expire.
    let times = if world.ahead > 400 * DAY { &times[..3] } else { &times[..] };
    *world.random.pick(times)
}

/// The machine sleeps, and wakes up.
fn sleep(world: &mut World<'_>) -> String {
    let time = any_time(world);
    world.ahead += time;
    world.count("sleep");
    world.clock_goes_forward(time);
    let said = if world.random.once_in(2) { Some(world.reload()) } else { None };
    format!("sleep for {time} s; {}", in_words(said.as_ref()))
}

fn down(world: &mut World<'_>) -> Result<String, String> {
    let at_once = world.random.once_in(2);
    world.go_down(at_once);
    let time = any_time(world);
    world.ahead += time;
    world.set_clock();
    world.count("down");
    // Things are done meanwhile, too.
    if world.random.once_in(2) {
        let (site, kind, first) = place(world);
        let key = any_key(world, first);
        world.put(site, kind, (key, 0));
    }
    world.start()?;
    Ok(format!("down for {time} s"))
}

/// The clock was behind when the machine came up, or is set right.
fn clock(world: &mut World<'_>) -> Result<String, String> {
    if world.behind > 0 && world.random.once_in(2) {
        return clock_right_and_killed(world);
    }
    Ok(set_clock(world))
}

/// The clock is set right, and the process is killed before it can write what that means.
fn clock_right_and_killed(world: &mut World<'_>) -> Result<String, String> {
    let is_full = world.random.once_in(2) && world.node.fill_disk(true);
    let by = std::mem::take(&mut world.behind);
    world.clock_goes_forward(by);
    if is_full && world.random.once_in(2) {
        world.reload();
    }
    world.stop(true);
    world.count("clock right, killed");
    let disk = if is_full { " with a full disk" } else { "" };
    world.start()?;
    Ok(format!("the clock is set right by {by} s, and the process killed{disk}"))
}

fn set_clock(world: &mut World<'_>) -> String {
    if world.behind == 0 && world.random.once_in(3) {
        return clock_ahead(world);
    }
    if world.behind < 0 {
        world.behind = 0;
        world.set_clock();
        world.count("clock right");
        let said = world.reload();
        return format!("the clock is set back, and right: {}", in_words(Some(&said)));
    }
    if world.behind == 0 {
        world.go_down(true);
        world.behind = any_time(world);
        world.set_clock();
        world.count("clock behind");
        return match world.start() {
            Ok(()) => format!("start with a clock {} s behind", world.behind),
            Err(why) => {
                // By its clock, a certificate may not be valid yet; the clock is set right, and all is well.
                world.behind = 0;
                world.set_clock();
                let well = world.start();
                format!("a start with a clock behind fails: {why}; with the right time: {well:?}")
            }
        };
    }
    let by = std::mem::take(&mut world.behind);
    world.clock_goes_forward(by);
    world.count("clock right");
    let said = world.reload();
    format!("the clock is set right by {by} s: {}", in_words(Some(&said)))
}

/// The clock goes wrong, ahead of the clients': while it runs, or at a start.
fn clock_ahead(world: &mut World<'_>) -> String {
    let by = *world.random.pick(&[90, HOUR, 10 * HOUR, 3 * DAY, 12 * DAY]);
    world.count("clock ahead");
    if world.random.once_in(2) {
        world.behind = -by;
        world.clock_goes_forward(by);
        return format!("the clock goes {by} s ahead while it runs");
    }
    if world.random.once_in(2) {
        world.go_down(true);
    } else {
        // For the node, that is a clock that was behind before.
        world.stop(true);
        world.ghosts.iter_mut().for_each(|ghost| ghost.slack += by);
    }
    world.behind = -by;
    world.set_clock();
    match world.start() {
        Ok(()) => format!("start with a clock {by} s ahead"),
        Err(why) => {
            world.behind = 0;
            world.set_clock();
            let well = world.start();
            format!("a start with a clock ahead fails: {why}; with the right time: {well:?}")
        }
    }
}

/// Nothing can be written any more, for a while.
fn fill_disk(world: &mut World<'_>) -> String {
    if world.node.fill_disk(true) {
        world.is_full = true;
        world.uncopied = true;
        world.count("disk full");
    }
    // What is sent goes on until its lease ends, and nothing else begins.
    let said = if world.random.once_in(2) { Some(world.reload()) } else { None };
    format!("the disk is full; {}", in_words(said.as_ref()))
}

/// Somebody is at the ledger's files; then the program is stopped, or upgraded.
fn touch_ledger(world: &mut World<'_>) -> Result<String, String> {
    let state = world.node.state();
    let read = || LEDGER_FILES.map(|name| (name, fs::read(state.join(name)).unwrap_or_default())).to_vec();
    if world.copies.is_empty() || world.random.once_in(4) {
        world.copies.push(read());
    }
    world.count("ledger touched");
    let while_stopped = world.random.once_in(2);
    let at_once = while_stopped && world.random.once_in(2);
    if while_stopped {
        world.stop(at_once);
    }
    let file = state.join(LEDGER_FILES[0]);
    let mut bytes = fs::read(&file).unwrap_or_default();
    let how = match world.random.below(5) {
        0 => {
            let _ = fs::remove_file(&file);
            "deleted"
        }
        1 => {
            for (name, contents) in &world.copies[world.random.index(world.copies.len())] {
                let all = world.random.once_in(2);
                if *name == LEDGER_FILES[0] || all {
                    fs::write(state.join(name), contents).unwrap();
                }
            }
            "replaced by an old copy"
        }
        2 if !bytes.is_empty() => {
            let at = world.random.index(bytes.len());
            bytes[at] ^= 1 << world.random.below(7);
            fs::write(&file, &bytes).unwrap();
            world.is_changed = true;
            "damaged"
        }
        3 if !bytes.is_empty() => {
            // What a crash leaves of a record under which nothing was sent.
            let from = bytes[..bytes.len() - 1].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            let last = bytes[from..].to_vec();
            bytes.extend(&last[..last.len() / 2]);
            fs::write(&file, &bytes).unwrap();
            "torn"
        }
        _ => {
            let _ = fs::remove_file(state.join(LEDGER_FILES[1]));
            "without its head"
        }
    };
    world.count(format!("ledger {how}"));
    // Nothing is lost where only the end of a line is missing.
    world.blind = how != "torn" || !while_stopped;
    if while_stopped {
        world.start()?;
        return Ok(format!("the ledger is {how} while it is stopped; start"));
    }
    let then = match world.random.below(3) {
        0 => upgrade(world)?,
        1 => restart(world, false)?,
        _ => {
            // Killed, with nobody left who knows: what was only there is lost, and what is left must say so.
            let said = world.reload();
            format!("reload: {}", in_words(Some(&said)))
        }
    };
    Ok(format!("the ledger is {how}; {then}"))
}

/// That a history has happened at all.
pub fn assert_enough(counts: &super::world::Counts, histories: u64) {
    let count = |what: &str| counts.get(what).copied().unwrap_or_default();
    for (what, seldom) in KINDS {
        assert!(count(what) >= histories / seldom / 2, "{what}: {} in {histories} histories: {counts:?}", count(what));
    }
    for (what, each) in [("visit", 20), ("noted", 5), ("policy heard", 10), ("handshake", 20), ("h2", 5)] {
        assert!(count(what) >= histories * each, "{what}: {} in {histories} histories: {counts:?}", count(what));
    }
    for (what, seldom) in
        [("resumed", 1), ("refused by the guard", 8), ("exported", 20), ("interim", 1), ("malformed", 1)]
    {
        assert!(count(what) >= histories / seldom / 2, "{what}: {} in {histories} histories: {counts:?}", count(what));
    }
    let _ = NAMES;
}

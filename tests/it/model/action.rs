//! Actions on the fleet, one for each number, so that a history without one of them keeps the others.

use pintle::lease::ahead;
use pintle::ledger::{Ramp, Ramped, Record};
use pintle::policy::guard::locked_out;
use pintle::policy::promise::{Promise, PromiseChannel};

use super::build::Objection;
use super::client::{App, Millis};
use super::fleet::Fleet;
use super::node::Outcome;
use super::random::Random;
use super::site::{PATTERNS, Table, key, pin};
use super::tables::{any_key, change, rotate};

/// Tells of what happened, if anybody listens.
pub type Trace<'t> = &'t mut dyn FnMut(&dyn Fn() -> String);

/// Carries out one action, and looks at everything that must hold after it.
pub fn act(fleet: &mut Fleet, seed: u64, trace: Trace<'_>) -> Result<(), String> {
    let mut random = Random::new(seed);
    let random = &mut random;
    let node = random.index(2);
    if fleet.nodes[node].running.is_none() {
        start(fleet, node, random, trace)?;
    } else {
        match random.below(100) {
            0..=24 => pass_time(fleet, node, random, trace)?,
            25..=32 => squeeze(fleet, node, random, trace)?,
            33..=53 => reload(fleet, node, random, trace)?,
            54..=66 => pick_up(fleet, node, random, trace)?,
            67..=69 => climb(fleet, node, random, trace)?,
            70..=74 => export(fleet, node, random, trace)?,
            75..=79 => merge(fleet, node, trace)?,
            80..=83 => {
                let power_fails = random.once_in(2);
                trace(&|| format!("node {node} stops; power fails: {power_fails}"));
                fleet.counts.power_failures += u64::from(power_fails);
                fleet.stop(node, power_fails);
            }
            84..=90 => disk(fleet, node, random, trace),
            _ => clock(fleet, node, random, trace),
        }
    }
    for node in 0..2 {
        if fleet.nodes[node].is_off() {
            trace(&|| format!("power fails at node {node}"));
            fleet.counts.power_failures += 1;
            fleet.stop(node, true);
        }
        fleet.mended(node);
        fleet.check_all(node)?;
    }
    fleet.visit(fleet.now)?;
    fleet.wander(node, random)
}

fn start(fleet: &mut Fleet, node: usize, random: &mut Random, trace: Trace<'_>) -> Result<(), String> {
    {
        // A disk that was exchanged, or has room again; a clock that has lost its battery.
        let machine = &mut fleet.nodes[node];
        let mut disk = machine.disk();
        (disk.fail_at, disk.room, disk.crash_at) = (None, None, None);
        drop(disk);
        if random.once_in(4) {
            let far = *random.pick(&[500, 5000, 100_000, 500_000]);
            machine.behind += random.below(far);
        }
    }
    let (mut outcome, mut objections) = fleet.nodes[node].start(fleet.now, &mut fleet.sets);
    fleet.judge(node, &objections)?;
    if matches!(outcome, Outcome::Refused) && random.once_in(2) {
        // What was in use before may do; or a key that is known.
        let mut tables = fleet.nodes[node].draft.clone();
        if random.once_in(2) {
            change(&mut tables, random);
        }
        fleet.nodes[node].file = tables;
        (outcome, objections) = fleet.nodes[node].start(fleet.now, &mut fleet.sets);
        fleet.judge(node, &objections)?;
    }
    let machine = &fleet.nodes[node];
    trace(&|| {
        format!("node {node} starts, {} ms behind: {}: {}", machine.behind, in_words(&outcome), show(&machine.file))
    });
    fleet.counts.starts += u64::from(matches!(outcome, Outcome::Admitted { .. }));
    settle(fleet, node, &outcome)
}

/// Books what came of it; with a disk that works, what is to be sent is sent.
fn settle(fleet: &mut Fleet, node: usize, outcome: &Outcome) -> Result<(), String> {
    let now = fleet.now;
    let words = match outcome {
        Outcome::Admitted { kept, accepted } => {
            fleet.counts.admitted += 1;
            fleet.counts.kept += *kept as u64;
            accepted.as_slice()
        }
        Outcome::Refused => &[],
        Outcome::Unwritten { accepted } => {
            fleet.counts.unwritten += 1;
            accepted
        }
    };
    for word in words {
        fleet.counts.accepted += 1;
        fleet.excuse(node, word.site.clone(), key(&word.pin));
        // The ledger does not tell what was promised before his word from what was in the same second after it.
        fleet.now = now + 1000;
    }
    let machine = &fleet.nodes[node];
    let disk = machine.disk();
    let is_sound = disk.fail_at.is_none() && disk.room.is_none() && disk.crash_at.is_none();
    let withheld = machine.running.iter().flat_map(|r| &r.entries).find(|entry| {
        let uptime = machine.running.as_ref().map_or(0, |r| r.uptime(now));
        entry.pledge.as_ref().is_some_and(|pledge| !pledge.lease.holds(uptime))
    });
    match withheld {
        Some(entry) if is_sound && matches!(outcome, Outcome::Admitted { .. }) => {
            Err(format!("pins are withheld without need: {entry:?}"))
        }
        _ => Ok(()),
    }
}

fn pass_time(fleet: &mut Fleet, node: usize, random: &mut Random, trace: Trace<'_>) -> Result<(), String> {
    let from = fleet.now;
    let time = some_time(fleet, node, random).max(1);
    fleet.now += time;
    fleet.visit(from)?;
    // Control may be held up, by a disk that hangs; workers are not.
    let ticks = [!random.once_in(4), !random.once_in(4)];
    trace(&|| format!("{time} ms pass; ticks at the end: {ticks:?}"));
    for (node, _) in ticks.iter().enumerate().filter(|(_, ticks)| **ticks) {
        tick(fleet, node);
    }
    fleet.visit(fleet.now)
}

/// Just before somebody has forgotten what he knows, his site gets another key. Nothing is renewed in the meantime: there
/// is no time at which a guard that lets go too early would sooner be found out.
fn squeeze(fleet: &mut Fleet, node: usize, random: &mut Random, trace: Trace<'_>) -> Result<(), String> {
    let known: Vec<usize> = (0..fleet.ghosts.len()).filter(|at| fleet.ghosts[*at].name_at(node).is_some()).collect();
    if known.is_empty() {
        return Ok(());
    }
    let ghost = *random.pick(&known);
    let name = fleet.ghosts[ghost].name_at(node).unwrap_or_default();
    let end = fleet.ghosts[ghost].end();
    // While its set is sent, somebody always comes by still later.
    for end in [Some(end), None] {
        let later =
            || fleet.ghosts.iter().filter(|g| g.name_at(node) == Some(name)).map(super::fleet::Ghost::end).max();
        let until = end.or_else(later).unwrap_or(fleet.now) - random.below(600);
        if until > fleet.now {
            let from = std::mem::replace(&mut fleet.now, until);
            fleet.visit(from)?;
        }
    }
    if random.once_in(4) {
        let power_fails = random.once_in(2);
        trace(&|| format!("node {node} stops; power fails: {power_fails}"));
        fleet.stop(node, power_fails);
        start(fleet, node, random, trace)?;
    }
    let machine = &mut fleet.nodes[node];
    let Some(site) = machine.running.as_ref().and_then(|r| r.routes[name]) else { return Ok(()) };
    trace(&|| {
        format!("it is {} now, just before a client of {} has forgotten its pins", fleet.now, super::site::NAMES[name])
    });
    let machine = &mut fleet.nodes[node];
    machine.file = machine.draft.clone();
    let what = rotate(&mut machine.file[site], random);
    put_to_use(fleet, node, vec![what], random, trace)
}

fn tick(fleet: &mut Fleet, node: usize) {
    let behind = fleet.nodes[node].behind;
    if let Some(running) = &mut fleet.nodes[node].running {
        running.tick(fleet.now, behind, &mut fleet.sets);
    }
}

/// Any time; often one at which something is just about to end, or just over.
fn some_time(fleet: &Fleet, node: usize, random: &mut Random) -> Millis {
    let machine = &fleet.nodes[node];
    let around = random.below(2400) - 1200;
    match random.below(8) {
        0..=1 => random.below(3000),
        2 => random.below(60_000),
        3 if random.once_in(6) => random.below(50_000_000),
        3 => random.below(700_000),
        4 => {
            let entry = machine.running.as_ref().map(|r| random.pick(&r.entries).clone());
            let max_age = entry.and_then(|e| e.promise().map(|p| p.max_age)).unwrap_or(30);
            ahead(max_age) * 1000 + around
        }
        _ => {
            let promises = machine.book().map(|b| b.promises()).unwrap_or_default();
            if promises.is_empty() {
                return random.below(10_000);
            }
            let end = random.pick(promises).honoured_until() * 1000 + machine.behind - fleet.now + around;
            if end > 0 { end } else { random.below(10_000) }
        }
    }
}

fn reload(fleet: &mut Fleet, node: usize, random: &mut Random, trace: Trace<'_>) -> Result<(), String> {
    let mut tables = fleet.nodes[node].draft.clone();
    let mut what = Vec::new();
    if random.once_in(6) {
        // As it was before; the keys are still there.
        tables.clone_from(random.pick(&fleet.nodes[node].drafts));
        what.push("an old configuration");
    } else {
        what.push(change(&mut tables, random));
    }
    if random.once_in(3) {
        what.push(change(&mut tables, random));
    }
    fleet.nodes[node].file = tables;
    put_to_use(fleet, node, what, random, trace)
}

/// The file is read; if it is refused, the operator may insist, put back what was there, or leave it for the next start.
fn put_to_use(
    fleet: &mut Fleet,
    node: usize,
    mut what: Vec<&str>,
    random: &mut Random,
    trace: Trace<'_>,
) -> Result<(), String> {
    let (mut outcome, objections) = fleet.nodes[node].look(false, fleet.now, &mut fleet.sets);
    fleet.judge(node, &objections)?;
    if let (Outcome::Refused, true) = (&outcome, random.once_in(3)) {
        outcome = accept(fleet, node, &objections)?;
        what.push("with accept_lockout_until");
    }
    let machine = &fleet.nodes[node];
    trace(&|| format!("node {node} reloads ({}): {}: {}", what.join(", "), in_words(&outcome), show(&machine.file)));
    settle(fleet, node, &outcome)?;
    let machine = &mut fleet.nodes[node];
    if !matches!(outcome, Outcome::Admitted { .. }) && !random.once_in(4) {
        machine.file = machine.draft.clone();
    }
    for table in machine.file.iter_mut().chain(&mut machine.draft).filter(|_| random.once_in(2)) {
        table.accept_lockout_until = None;
    }
    Ok(())
}

/// The operator writes the days that the refusals name.
fn accept(fleet: &mut Fleet, node: usize, objections: &[Objection]) -> Result<Outcome, String> {
    for objection in objections {
        if let Some(table) = fleet.nodes[node].file.get_mut(objection.site) {
            table.accept_lockout_until.clone_from(&objection.day);
        }
    }
    let (outcome, objections) = fleet.nodes[node].look(false, fleet.now, &mut fleet.sets);
    fleet.judge(node, &objections)?;
    Ok(outcome)
}

/// Certificates change on the disk, and those that are fit are taken; or nothing changes, and what was refused is
/// looked at again.
fn pick_up(fleet: &mut Fleet, node: usize, random: &mut Random, trace: Trace<'_>) -> Result<(), String> {
    let machine = &mut fleet.nodes[node];
    let (before, is_file) = (machine.draft.clone(), machine.file == machine.draft);
    let mut what = "nothing";
    for table in &mut machine.draft {
        if random.once_in(2) {
            let backups = table.hpkp.as_ref().map(|h| h.backups.clone());
            what = rotate(table, random);
            if let (Some(hpkp), Some(backups)) = (&mut table.hpkp, backups) {
                hpkp.backups = backups;
            }
        }
    }
    let (outcome, objections) = machine.look(true, fleet.now, &mut fleet.sets);
    fleet.judge(node, &objections)?;
    let machine = &mut fleet.nodes[node];
    trace(&|| format!("node {node} picks certificates up ({what}): {}: {}", in_words(&outcome), show(&machine.draft)));
    if !matches!(outcome, Outcome::Admitted { kept: 0, .. }) && random.once_in(2) {
        machine.draft = before;
    }
    if is_file {
        machine.file = machine.draft.clone();
    }
    settle(fleet, node, &outcome)
}

fn climb(fleet: &mut Fleet, node: usize, random: &mut Random, trace: Trace<'_>) -> Result<(), String> {
    let since = fleet.nodes[node].wall(fleet.now);
    let Some(running) = &fleet.nodes[node].running else { return Ok(()) };
    let entry = random.pick(&running.entries).clone();
    let Some(steps) = entry.table.hpkp.as_ref().and_then(super::site::HpkpTable::steps) else { return Ok(()) };
    let Some(at) = running.ledger.book().ramp(&entry.label(), Ramped::Hpkp) else { return Ok(()) };
    let Some(next) = steps.next(at.step, since) else { return Ok(()) };
    let record = Ramp { site: entry.label(), policy: Ramped::Hpkp, step: next.step, since };
    if !fleet.nodes[node].record(vec![Record::Ramp(record)]) {
        return Ok(());
    }
    let (outcome, objections) = fleet.nodes[node].look(true, fleet.now, &mut fleet.sets);
    trace(&|| format!("node {node}: {} climbs to {next:?}: {}", entry.label(), in_words(&outcome)));
    fleet.judge(node, &objections)?;
    settle(fleet, node, &outcome)
}

fn export(fleet: &mut Fleet, node: usize, random: &mut Random, trace: Trace<'_>) -> Result<(), String> {
    let clock = fleet.nodes[node].wall(fleet.now);
    let Some(running) = &fleet.nodes[node].running else { return Ok(()) };
    let entry = random.pick(&running.entries).clone();
    let life = *random.pick(&[10, 100, 1000]);
    let backups = entry.table.hpkp.as_ref().map(|h| h.backups.clone()).unwrap_or_default();
    let mut keys: Vec<_> = entry.table.chains.iter().map(|c| c[0]).chain(backups).chain([any_key(random)]).collect();
    keys.dedup();
    let mut pins: Vec<_> = keys.iter().map(|k| pin(*k)).collect();
    pins.sort_unstable();
    pins.dedup();
    fleet.counts.exports += 1;
    let app = App {
        id: format!("app-{}", fleet.counts.exports),
        names: entry.table.hosts.iter().map(|at| PATTERNS[*at]).collect(),
        include_subdomains: random.once_in(3),
        pins: keys,
        leaf_only: random.once_in(2),
        until: (clock + life) * 1000,
    };
    let promise = Promise {
        site: entry.label(),
        hosts: entry.hosts.clone(),
        except: Vec::new(),
        pins,
        max_age: life as u64,
        include_subdomains: app.include_subdomains,
        channel: PromiseChannel::Export { form: "json".into(), id: app.id.clone(), leaf_only: app.leaf_only },
        first_sent: clock,
        last_sent: clock,
    };
    let offers: Vec<_> = running.entries.iter().map(|e| e.offer(false)).collect();
    let locked_out = locked_out(&promise, &offers);
    let is_refused = !locked_out.is_empty();
    trace(&|| format!("node {node} exports, refused: {is_refused}: {app:?}"));
    if is_refused {
        let is_needed = locked_out.iter().all(|(site, chain)| {
            let keys = &running.entries[*site].table.chains[*chain];
            let names = super::site::NAMES.iter().zip(&running.routes).filter(|(_, to)| **to == Some(*site));
            names.into_iter().any(|(name, _)| !app.accepts(name, keys, clock * 1000))
        });
        return is_needed.then_some(()).ok_or_else(|| format!("an export is refused without need: {app:?}"));
    }
    fleet.apps.push(app.clone());
    if fleet.nodes[node].record(vec![Record::Promise(promise)]) {
        fleet.give_out(node, app)?;
    }
    Ok(())
}

/// A node takes in the other one's ledger, whether that one runs or not.
fn merge(fleet: &mut Fleet, node: usize, trace: Trace<'_>) -> Result<(), String> {
    let other = 1 - node;
    let contents = fleet.nodes[other].contents();
    if fleet.nodes[node].merge(&contents) {
        fleet.counts.merges += 1;
        fleet.learn(node);
        let (outcome, objections) = fleet.nodes[node].look(true, fleet.now, &mut fleet.sets);
        trace(&|| format!("node {node} merges the ledger of node {other}: {}", in_words(&outcome)));
        fleet.judge(node, &objections)?;
        settle(fleet, node, &outcome)?;
    }
    Ok(())
}

fn disk(fleet: &mut Fleet, node: usize, random: &mut Random, trace: Trace<'_>) {
    let mut disk = fleet.nodes[node].disk();
    match random.below(6) {
        0..=1 => disk.fail_at = Some(disk.operations + 1 + random.index(6)),
        2 => disk.room = Some(random.index(1500)),
        3..=4 => disk.crash_at = Some(disk.operations + random.index(10)),
        _ => (disk.fail_at, disk.room) = (None, None),
    }
    let (now, fail, room, crash) = (disk.operations, disk.fail_at, disk.room, disk.crash_at);
    trace(&|| {
        format!("disk of node {node} after {now} operations: fails at {fail:?}, room {room:?}, power until {crash:?}")
    });
}

/// The clock falls behind, or is set right; which is noticed at the next tick.
fn clock(fleet: &mut Fleet, node: usize, random: &mut Random, trace: Trace<'_>) {
    let machine = &mut fleet.nodes[node];
    let far = *random.pick(&[500, 5000, 100_000, 2_000_000]);
    machine.behind = match random.below(5) {
        0..=1 => machine.behind + random.below(far),
        2 => random.below(machine.behind + 1),
        _ => 0,
    };
    let behind = machine.behind;
    if random.once_in(4) {
        // When everything goes wrong at once.
        let mut disk = machine.disk();
        disk.room = Some(random.index(400));
    }
    trace(&|| format!("the clock of node {node} is {behind} ms behind now"));
    tick(fleet, node);
}

fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Admitted { kept: 0, accepted } if accepted.is_empty() => "admitted".into(),
        Outcome::Admitted { kept, accepted } => format!("admitted, {kept} keep what they have, accepted {accepted:?}"),
        Outcome::Refused => "refused".into(),
        Outcome::Unwritten { .. } => "could not be written".into(),
    }
}

fn show(tables: &[Table]) -> String {
    let one = |table: &Table| {
        let hosts: Vec<&str> = table.hosts.iter().map(|at| PATTERNS[*at]).collect();
        let hpkp = table.hpkp.as_ref().map(|h| {
            let below = if h.include_subdomains { " and below" } else { "" };
            let ramp = if h.ramp { " by steps" } else { "" };
            format!(" {:?} {} s{ramp}{below}, backups {:?}", h.mode, h.max_age, h.backups)
        });
        format!("[{} chains {:?}{}]", hosts.join(" "), table.chains, hpkp.unwrap_or_default())
    };
    tables.iter().map(one).collect::<Vec<_>>().join(" ")
}

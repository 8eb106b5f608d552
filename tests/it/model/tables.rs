//! Random configurations of operators.

use pintle::policy::hpkp::Mode;

use super::client::{KEYS, Key};
use super::random::Random;
use super::site::{HpkpTable, PATTERNS, Table};

const AGES: [u64; 8] = [0, 5, 30, 100, 100, 300, 600, 40_000];
const SITES_MAX: usize = 3;

/// A configuration for a start: each site is sound, more often than not.
pub fn any_tables(random: &mut Random) -> Vec<Table> {
    let mut tables = Vec::new();
    for _ in 0..1 + random.index(SITES_MAX) {
        add_site(&mut tables, random);
    }
    tables
}

/// Changes something, and says what.
pub fn change(tables: &mut Vec<Table>, random: &mut Random) -> &'static str {
    let at = random.index(tables.len());
    match random.below(20) {
        0 if tables.len() < SITES_MAX => {
            add_site(tables, random);
            "a new site"
        }
        1 if tables.len() > 1 => {
            tables.remove(at);
            "a site is removed"
        }
        2..=3 => {
            hosts(tables, at, random);
            "other hosts"
        }
        4..=9 => rotate(&mut tables[at], random),
        10 => {
            let hpkp = if tables[at].hpkp.is_some() { None } else { Some(any_hpkp(&tables[at].chains, random)) };
            tables[at].hpkp = hpkp;
            "[site.hpkp] comes or goes"
        }
        _ => match &mut tables[at].hpkp {
            Some(hpkp) => policy(hpkp, random),
            None => rotate(&mut tables[at], random),
        },
    }
}

/// Other certificates for a site.
pub fn rotate(table: &mut Table, random: &mut Random) -> &'static str {
    let backup = table.hpkp.as_ref().and_then(|h| h.backups.first().copied());
    let at = random.index(table.chains.len());
    match (random.below(8), backup) {
        (0..=2, Some(next)) => {
            table.chains[at][0] = next;
            if let (true, Some(hpkp)) = (random.once_in(2), &mut table.hpkp) {
                hpkp.backups.remove(0);
                hpkp.backups.push(any_key(random));
            }
            "a backup becomes live"
        }
        (3, _) => {
            table.chains[at].truncate(1);
            table.chains[at].extend(any_chain(random).into_iter().skip(1));
            "other intermediates"
        }
        (4, _) if table.chains.len() == 1 => {
            table.chains.push(any_chain(random));
            "a second chain"
        }
        (4, _) => {
            table.chains.pop();
            "the second chain goes"
        }
        _ => {
            table.chains[at] = any_chain(random);
            "a new key"
        }
    }
}

fn policy(hpkp: &mut HpkpTable, random: &mut Random) -> &'static str {
    match random.below(6) {
        0 => {
            hpkp.max_age = *random.pick(&AGES);
            "another max_age"
        }
        1 => {
            hpkp.mode = any_mode(random);
            "another mode"
        }
        2 => {
            hpkp.include_subdomains = !hpkp.include_subdomains;
            "include_subdomains"
        }
        3 => {
            hpkp.ramp = !hpkp.ramp;
            "a ramp"
        }
        4 => {
            hpkp.backups.push(any_key(random));
            "one more backup"
        }
        _ => {
            hpkp.backups = any_keys(random);
            "other backups"
        }
    }
}

fn add_site(tables: &mut Vec<Table>, random: &mut Random) {
    let host = random.index(PATTERNS.len());
    if tables.iter().any(|t| t.hosts.contains(&host)) {
        return;
    }
    let mut chains = vec![any_chain(random)];
    if random.once_in(6) {
        chains.push(any_chain(random));
    }
    let hpkp = (!random.once_in(4)).then(|| any_hpkp(&chains, random));
    tables.push(Table { hosts: vec![host], chains, hpkp, accept_lockout_until: None });
    if random.once_in(3) {
        let at = tables.len() - 1;
        hosts(tables, at, random);
    }
}

/// A host comes, taken from another site if that has it, or goes.
fn hosts(tables: &mut [Table], at: usize, random: &mut Random) {
    let host = random.index(PATTERNS.len());
    match tables.iter().position(|t| t.hosts.contains(&host)) {
        Some(of) if tables[of].hosts.len() == 1 => {}
        Some(of) => {
            tables[of].hosts.retain(|h| *h != host);
            if of != at {
                tables[at].hosts.push(host);
            }
        }
        None => tables[at].hosts.push(host),
    }
}

fn any_hpkp(chains: &[Vec<Key>], random: &mut Random) -> HpkpTable {
    let mut backups = any_keys(random);
    if !random.once_in(8) {
        backups.retain(|key| !chains.iter().flatten().any(|k| k == key));
        backups.dedup();
    }
    HpkpTable {
        mode: any_mode(random),
        max_age: *random.pick(&AGES),
        ramp: random.once_in(6),
        include_subdomains: random.once_in(3),
        backups,
    }
}

fn any_mode(random: &mut Random) -> Mode {
    match random.below(8) {
        0 => Mode::ReportOnly,
        1 => Mode::Withdraw,
        _ => Mode::Enforce,
    }
}

fn any_keys(random: &mut Random) -> Vec<Key> {
    let mut keys: Vec<Key> = (0..1 + random.below(3)).map(|_| any_key(random)).collect();
    if !random.once_in(8) {
        keys.sort_unstable();
        keys.dedup();
    }
    keys
}

/// Leaf first; intermediates may be keys that are pinned elsewhere.
fn any_chain(random: &mut Random) -> Vec<Key> {
    (0..1 + random.below(3)).map(|_| any_key(random)).collect()
}

pub fn any_key(random: &mut Random) -> Key {
    random.below(i64::from(KEYS)) as Key
}

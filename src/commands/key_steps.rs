//! The next steps after `pintle key new`.

use std::path::Path;

use serde_json::Value;

use super::live_chain::live_pins;
use super::pin;
use crate::config::new_key::KeyPath;
use crate::config::{Outline, SiteOutline};
use crate::export::Role;
use crate::keys::key_file::public_key;
use crate::keys::pin::Pin;
use crate::reason::pasted::option_for;
use crate::reason::shell_path;

/// Prints the next steps, by role.
pub(super) fn print_steps(path: &Path, outline: &Outline, site: &SiteOutline, role: Role, place: &KeyPath) {
    let (key, csr) = (place.name("key"), place.name("csr"));
    println!("Next:");
    if role == Role::Live {
        println!("  1. send the CSR to your CA, and put the chain that you get beside the key");
        println!("  2. in {}:", path.display());
        println!("       [site.certificate]");
        println!("       chain = {}", quoted(&place.name("pem")));
        println!("       key   = {}", quoted(&key));
        println!("     Clients that hold pins of this site must know this key first: `pintle key list`");
    } else {
        let live = live_pins(path, outline, site);
        let is_live = |file: &str| pin_of(&outline.path(file)).is_some_and(|pin| live.contains(&pin));
        let (promoted, others): (Vec<&String>, Vec<&String>) = site.given_backups().iter().partition(|b| is_live(b));
        let (kept, gone): (Vec<&String>, Vec<&String>) =
            others.into_iter().filter(|b| **b != csr).partition(|b| outline.path(b).exists());
        let mut backups: Vec<String> = kept.into_iter().map(|b| quoted(b)).collect();
        if !site.has_hpkp {
            // Whoever makes both keys before the first [site.hpkp] pastes the last line.
            let other = other_csr(&csr, role).filter(|other| outline.path(other).exists() && !is_live(other));
            backups.extend(other.map(|other| quoted(&other)));
        }
        // pintle's own next key comes first by itself.
        backups.insert(if role == Role::Next { 0 } else { backups.len() }, quoted(&csr));
        match site.own_next {
            0 => println!("  1. name the CSR in {}; the first backup is the next key:", path.display()),
            _ => println!("  1. name the CSR in {}; pintle's own next key is a backup besides:", path.display()),
        }
        println!("       [site.hpkp]");
        println!("       backups = [{}]", backups.join(", "));
        for file in gone {
            println!("     ({file} is left out: file not found)");
        }
        for file in promoted {
            println!("     ({file} is left out: its key is live now)");
        }
        if !site.has_hpkp {
            println!("     This turns the Public-Key-Pins header on. To export pins without the header:");
            println!("       pintle export --backup {} ...", outline.path(&csr).display());
        }
    }
    match role {
        Role::Live => {}
        Role::Next => {
            println!("  2. move the private key off this host until you use it: pintle needs only the CSR");
            println!(
                "  3. wait until every client knows the new pins (the column \"usable from\" of `pintle key list`)"
            );
            println!("  4. send the CSR to your CA, and serve the certificate with this key");
        }
        Role::Spare => {
            println!("  2. copy the private key to paper or to a USB stick in a safe, then remove it here:");
            println!("       shred -u {}", shell_path(&outline.path(&key)));
            println!("     It replaces the live and the next key if both are lost or stolen");
        }
    }
    println!("  Then run `pintle check{}`", option_for(path));
}

/// The CSR that `pintle key new` makes beside this one for the other kind of backup.
fn other_csr(csr: &str, role: Role) -> Option<String> {
    let other = if role == Role::Next { Role::Spare } else { Role::Next };
    let stem = csr.strip_suffix(&format!("-{}.csr", role.name()))?;
    Some(format!("{stem}-{}.csr", other.name()))
}

fn pin_of(path: &Path) -> Option<Pin> {
    public_key(&pin::read(path).ok()?).ok().map(|key| key.pin)
}

/// A TOML string. TOML accepts the escapes of JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

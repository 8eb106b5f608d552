//! Facts from other programs: iptables, timedatectl, chronyc and arping. The time and the output of each are limited.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::host::Forward;
use super::network::Mac;

/// Time limit for a program.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes of its output.
const OUTPUT_MAX: u64 = 64 * 1024;
/// The folders of programs, whatever PATH says.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Returns the policy for forwarded packets.
#[must_use]
pub fn forward_policy(is_root: bool) -> Forward {
    if !is_root {
        return Forward::Unknown("root".to_owned());
    }
    let Some(rules) = output("iptables", &["-w", "2", "-S", "FORWARD"]) else {
        return Forward::Unknown("iptables".to_owned());
    };
    match rules.lines().next().map(str::trim) {
        Some("-P FORWARD ACCEPT") => Forward::Accept,
        Some("-P FORWARD DROP") => Forward::Drop,
        _ => Forward::Unknown("iptables with a chain FORWARD".to_owned()),
    }
}

/// Returns the state of the kernel's clock, as systemd reads it, or else as chrony sets it; `None`
/// if neither runs here.
#[must_use]
pub fn synchronised() -> Option<bool> {
    let by_systemd = output("timedatectl", &["show", "--property=NTPSynchronized", "--value"]);
    let by_systemd = by_systemd.and_then(|text| match text.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    });
    by_systemd.or_else(|| leap_status(&output("chronyc", &["-c", "tracking"])?))
}

/// The state in the output of `chronyc -c tracking`, whose last value is the leap status.
fn leap_status(tracking: &str) -> Option<bool> {
    match tracking.trim().rsplit(',').next()? {
        "Normal" | "Insert second" | "Delete second" => Some(true),
        "Not synchronised" => Some(false),
        _ => None,
    }
}

/// Asks a link who has an address. `None` without root, without arping, or without an answer.
#[must_use]
pub fn answering(link: &str, address: IpAddr) -> Option<Mac> {
    let text = output("arping", &["-c", "1", "-w", "1", "-I", link, &address.to_string()])?;
    mac_in(&text)
}

/// The first hardware address in the output of either arping: `[02:…]`, or `from 02:…`.
fn mac_in(text: &str) -> Option<Mac> {
    let words = text.split(|c: char| c.is_whitespace() || "[]()".contains(c));
    words.filter(|word| word.len() == 17).find_map(Mac::parse)
}

/// Runs a program. `None` if it is missing, fails, or takes too long.
fn output(name: &str, arguments: &[&str]) -> Option<String> {
    let program = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).env("LC_ALL", "C");
    let mut child = command.spawn().ok()?;
    let out = child.stdout.take()?;
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = out.take(OUTPUT_MAX).read_to_end(&mut bytes);
        let _ = sender.send(read.map(|_| bytes));
    });
    let bytes = receiver.recv_timeout(PATIENCE);
    if bytes.is_err() {
        let _ = child.kill();
    }
    let is_success = child.wait().is_ok_and(|status| status.success());
    let bytes = bytes.ok()?.ok()?;
    is_success.then(|| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_chrony() {
        for (text, want) in [
            ("C0000201,192.0.2.1,3,1795888294.5,0.0,0.0,0.0,-1.5,0.0,0.1,0.03,0.01,64.2,Normal\n", Some(true)),
            ("7F7F0101,,0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n", Some(false)),
            ("506 Cannot talk to daemon\n", None),
            ("", None),
        ] {
            assert_eq!(leap_status(text), want, "{text}");
        }
    }

    #[test]
    fn both_kinds_of_arping() {
        for (text, want) in [
            ("ARPING 10.0.0.1 from 10.0.0.2 eth0\nUnicast reply from 10.0.0.1 [02:00:00:00:00:0A]  0.7ms\n", true),
            ("ARPING 10.0.0.1\n60 bytes from 02:00:00:00:00:0a (10.0.0.1): index=0 time=1 msec\n", true),
            ("ARPING 10.0.0.1 from 10.0.0.2 eth0\nSent 1 probes (1 broadcast(s))\nReceived 0 response(s)\n", false),
        ] {
            assert_eq!(mac_in(text), Mac::parse("02:00:00:00:00:0a").filter(|_| want), "{text}");
        }
    }
}

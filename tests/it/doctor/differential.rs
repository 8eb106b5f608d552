//! The plan of settings against the two programs that carry it out: random trees of files, applied in a namespace.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use pintle::doctor::files::HostFiles;
use pintle::doctor::sysctl::Tool;
use pintle::doctor::sysctl::plan::{outcomes, plan};
use tempfile::TempDir;

use super::{Cable, Shell};
use crate::harness::output;

const TREES: u64 = 60;
/// The settings, with the values before each run.
const SETTINGS: [(&str, &str); 7] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/d0/forwarding", "1"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/d0/rp_filter", "0"),
    ("net/ipv4/conf/d0.5/rp_filter", "0"),
    ("net/ipv4/conf/d1/rp_filter", "0"),
    ("net/ipv4/tcp_fin_timeout", "60"),
];
const KEYS: [&str; 15] = [
    "net.ipv4.ip_forward",
    "net/ipv4/ip_forward",
    "net.ipv4.conf.all.forwarding",
    "net.ipv4.conf.d0.forwarding",
    "net.ipv4.conf.all.accept_redirects",
    "net.ipv4.conf.d0.rp_filter",
    "net.ipv4.conf.d0/5.rp_filter",
    "net/ipv4/conf/d0.5/rp_filter",
    "net.ipv4.conf.d0.5.rp_filter",
    "net.ipv4.conf.d*.rp_filter",
    "net.ipv4.conf.d[01].rp_filter",
    "net/ipv4/conf/d?/rp_filter",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.unknown",
    "/proc/sys/net/ipv4/tcp_fin_timeout",
];
const VALUES: [&str; 9] = ["0", "1", "2", "1 # yes", "1x", "", "0x1", "01", "40000 50000"];
const NAMES: [&str; 7] = ["10-x.conf", "9-x.conf", "99-Z.conf", "99-a.conf", "zz-x.conf", ".90-a.conf", "50-x.txt"];
const FOLDERS: [&str; 4] = ["etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d"];

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }

    fn line(&mut self) -> String {
        let (key, value) = (self.one(&KEYS), self.one(&VALUES));
        match self.roll(12) {
            0 => format!("-{key}"),
            1 => format!("-{key} = {value}"),
            2 => format!("# {key} = {value}"),
            3 => format!("\t{key}\t=\t{value} "),
            4 => format!("{key} {value}"),
            5 => format!("{key}={value}\r"),
            6 => format!("; {key}={value}"),
            _ => format!("{key} = {value}"),
        }
    }

    fn text(&mut self) -> String {
        let count = self.roll(5);
        let lines: Vec<String> = (0..count).map(|_| self.line()).collect();
        lines.join("\n") + if self.roll(3) == 0 { "" } else { "\n" }
    }
}

fn write_tree(root: &Path, dice: &mut Dice) {
    for folder in FOLDERS {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).unwrap();
        for name in NAMES {
            match dice.roll(8) {
                0..=2 => fs::write(folder.join(name), dice.text()).unwrap(),
                3 => symlink("/dev/null", folder.join(name)).unwrap(),
                4 if dice.roll(3) == 0 => symlink("nowhere", folder.join(name)).unwrap(),
                _ => {}
            }
        }
    }
    if dice.roll(2) == 0 {
        fs::write(root.join("etc/sysctl.conf"), dice.text()).unwrap();
        if dice.roll(2) == 0 {
            symlink("../sysctl.conf", root.join("etc/sysctl.d/99-sysctl.conf")).unwrap();
        }
    }
    symlink("/proc", root.join("proc")).unwrap();
}

/// Puts the tree in its place, the settings to their start, and runs a program.
fn apply(shell: &mut Shell, root: &Path, program: &str) -> Vec<String> {
    let root = root.display();
    shell.ok("rm -rf /etc/sysctl.conf; for d in etc run usr/local/lib usr/lib; do find /$d/sysctl.d -mindepth 1 -delete; done");
    shell.ok(&format!("for d in etc run usr/local/lib usr/lib; do cp -a {root}/$d/sysctl.d/. /$d/sysctl.d/; done"));
    shell.run(&format!("cp {root}/etc/sysctl.conf /etc/sysctl.conf"));
    // It decides about others, so it goes first, and changes.
    shell.ok("echo 0 > /proc/sys/net/ipv4/ip_forward");
    for (path, value) in SETTINGS {
        shell.ok(&format!("echo '{value}' > /proc/sys/{path}"));
    }
    shell.run(program);
    SETTINGS.iter().map(|(path, _)| shell.ok(&format!("cat /proc/sys/{path}"))).collect()
}

#[test]
fn the_plan_is_what_both_programs_do() {
    let Some(cable) = Cable::make() else { return };
    let mut shell = cable.shell();
    shell.ok("for d in d0 d1 d0.5; do ip link add $d type bridge; done");
    let mut changed = 0;
    for seed in 0..TREES {
        let folder = TempDir::new().unwrap();
        write_tree(folder.path(), &mut Dice(seed));
        for (tool, program) in [(Tool::Systemd, "/lib/systemd/systemd-sysctl"), (Tool::Procps, "sysctl --system")] {
            apply(&mut shell, folder.path(), "true");
            let files = HostFiles::below(folder.path());
            let planned = cable.within(0, || outcomes(&files, &plan(&files, tool).writes)).values;
            let real = apply(&mut shell, folder.path(), program);
            for ((path, start), real) in SETTINGS.iter().zip(real) {
                let want = planned.get(*path).map_or(*start, |outcome| outcome.value.as_str());
                // A change of ip_forward, which no line of theirs decides about afterwards.
                let is_derived =
                    !planned.contains_key(*path) && (path.ends_with("forwarding") || path.ends_with("redirects"));
                let tree = || {
                    output(std::process::Command::new("sh").arg("-c").arg(format!(
                        "cd {} && for f in $(find etc run usr -name '*.conf' | sort); do ls -l $f; cat -A $f; done",
                        folder.path().display()
                    )))
                };
                let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(
                    is_derived || words(want) == words(&real),
                    "seed {seed}, {program}, {path}: planned {want:?}, real {real:?}\n{}",
                    tree()
                );
                changed += usize::from(words(start) != words(&real));
            }
        }
    }
    assert!(changed > 100, "only {changed} settings were changed by {TREES} trees");
}

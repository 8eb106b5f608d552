//! Certificates that are about to end: in the log once for each threshold, in `status`, in the metrics.

use std::fs;
use std::process::Command;

use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::harness::{Authority, BLOG, Leaf, Origin, Pintle, eventually, outcome, output};

const NEAR: &str = "certificate is about to expire";
const ENDED: &str = "certificate has expired: clients refuse it";
const LISTEN: &str = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n";

struct Bed {
    authority: Authority,
    folder: TempDir,
    origin: Origin,
}

impl Bed {
    fn new() -> Self {
        Self { authority: Authority::new(), folder: TempDir::new().unwrap(), origin: Origin::hello() }
    }

    /// A certificate with this lifetime, valid for `left` more hours; both in hours.
    fn leaf(&self, lifetime: i64, left: i64) -> Leaf {
        let key = self.authority.key("live", crate::harness::KeyKind::Ecdsa);
        self.authority.issue_as("live", key, &[BLOG], |params| {
            params.not_after = OffsetDateTime::now_utc() + Duration::hours(left) + Duration::minutes(1);
            params.not_before = params.not_after - Duration::hours(lifetime);
        })
    }

    /// Sets the test's clock ahead by this number of hours.
    fn set_clock(&self, hours: i64) {
        fs::write(self.folder.path().join("new"), (hours * 3600).to_string()).unwrap();
        fs::rename(self.folder.path().join("new"), self.folder.path().join("clock")).unwrap();
    }

    fn start(&self, leaf: &Leaf) -> Pintle {
        self.set_clock(0);
        let config = format!(
            "[state]\ndirectory = {:?}\n[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = \
             {:?}\nkey = {:?}\n",
            self.folder.path().join("state"),
            self.origin.url(),
            leaf.chain,
            leaf.key
        );
        let clock = self.folder.path().join("clock");
        Pintle::start_command(&self.authority, LISTEN, &config, |command| _ = command.env("PINTLE_TEST_CLOCK", clock))
    }

    fn metrics(&self) -> String {
        crate::admin::get(&self.folder.path().join("state/admin.sock"), "/metrics")
    }
}

#[test]
fn each_threshold_is_logged_once() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.leaf(90 * 24, 20 * 24));
    let (code, out, err) = outcome(pintle.command("status").arg("--exit-code"));
    assert!(code == 0 && out.contains("(20 days left)") && !out.contains("ATTENTION"), "{out}{err}");
    assert!(pintle.log_json(NEAR).is_empty());
    for (hours, left) in
        [(6 * 24, "14 days left"), (13 * 24, "7 days left"), (17 * 24, "3 days left"), (19 * 24, "23 hours left")]
    {
        let known = pintle.log_json(NEAR).len();
        bed.set_clock(hours + 1);
        let reported = pintle.logged(NEAR, known + 1);
        assert_eq!(reported.len(), known + 1, "{reported:?}");
        assert_eq!(reported[known]["left"], left, "{reported:?}");
        assert!(
            reported[known]["site"] == BLOG && reported[known]["file"].as_str().unwrap().ends_with("live.pem"),
            "{reported:?}"
        );
    }
    let stage = |stage: u8| {
        bed.metrics()
            .lines()
            .any(|l| l.starts_with("pintle_certificate_ending_stage{") && l.ends_with(&format!(" {stage}")))
    };
    assert!(stage(4), "{}", bed.metrics());
    let (code, out, _) = outcome(pintle.command("status").arg("--exit-code"));
    assert!(code == 1 && out.contains("ATTENTION") && out.contains("is about to expire"), "{out}");
    assert_eq!(pintle.status()["sites"][0]["certificates"][0]["state"], "ending");
    bed.set_clock(20 * 24 + 1);
    pintle.logged(ENDED, 1);
    assert!(stage(5), "{}", bed.metrics());
    assert_eq!(pintle.status()["sites"][0]["certificates"][0]["state"], "ended");
    assert_eq!(pintle.status()["sites"][0]["certificates"][0]["seconds_left"], 0);
    let human = output(&mut pintle.command("status"));
    assert!(human.contains("has expired") && human.contains("(expired)"), "{human}");
    assert_eq!((pintle.log_json(NEAR).len(), pintle.log_json(ENDED).len()), (4, 1));
}

/// A machine that slept: what was passed meanwhile is said once, with the time that is left.
#[test]
fn a_jump_over_several_thresholds_is_one_report() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.leaf(90 * 24, 20 * 24));
    bed.set_clock(18 * 24);
    let reported = pintle.logged(NEAR, 1);
    assert_eq!(reported[0]["left"], "2 days left", "{reported:?}");
    // A renewal ends it; the next certificate has reports of its own.
    let pin = |pintle: &Pintle| pintle.status()["sites"][0]["certificates"][0]["serial"].clone();
    let before = pin(&pintle);
    bed.leaf(200 * 24, 100 * 24);
    eventually("the renewed one is served", || (pin(&pintle) != before).then_some(()));
    bed.set_clock(90 * 24);
    let reported = pintle.logged(NEAR, 2);
    assert_eq!(reported.len(), 2, "{reported:?}");
}

/// Certificates of a few days are judged by fractions of their lifetime.
#[test]
fn a_certificate_of_six_days_is_not_always_about_to_end() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.leaf(160, 100));
    let (code, out, _) = outcome(pintle.command("status").arg("--exit-code"));
    assert!(code == 0 && out.contains("(4 days left)"), "{out}");
    bed.set_clock(50);
    let reported = pintle.logged(NEAR, 1);
    assert_eq!(reported[0]["left"], "2 days left", "{reported:?}");
}

/// The words on a terminal: in colour, wrapped to its width; and neither where the output is none.
#[test]
fn a_terminal_gets_colour_and_lines_that_fit() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.leaf(90 * 24, 5 * 24));
    let plain = output(&mut pintle.command("status"));
    assert!(!plain.contains('\x1b') && plain.lines().any(|line| line.chars().count() > 80), "{plain}");
    let attention = plain.find("ATTENTION").unwrap();
    assert!(attention < plain.find("configuration").unwrap(), "problems come first: {plain}");
    assert!(plain.contains("connections    ") && plain.contains("with 4xx") && plain.contains("with 5xx"), "{plain}");
    let program = crate::harness::pintle().get_program().to_owned();
    let on_terminal = |prefix: &str| {
        let line = format!("stty cols 60; {prefix} {} status -c {}", program.display(), pintle.config_path().display());
        output(Command::new("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR"))
    };
    let shown = on_terminal("");
    assert!(shown.contains("\x1b[1;31mATTENTION\x1b[0m"), "{shown:?}");
    let without: String = {
        let mut text = shown.clone();
        for code in ["\x1b[1;31m", "\x1b[1m", "\x1b[34m", "\x1b[0m"] {
            text = text.replace(code, "");
        }
        text
    };
    let long: Vec<&str> = without.lines().filter(|line| line.trim_end().chars().count() > 60).collect();
    // Words that are longer than a line stay whole.
    assert!(long.iter().all(|line| line.split_whitespace().any(|word| word.chars().count() > 43)), "{long:?}");
    assert!(!on_terminal("NO_COLOR=1").contains("\x1b["));
    assert!(output(pintle.command("status").args(["--color", "always"])).contains("\x1b["));
}

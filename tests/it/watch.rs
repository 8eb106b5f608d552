//! `pintle status --watch`: on a terminal that tmux plays, and in a pipe.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::admin::Bed;
use crate::harness::{BLOG, Pintle, eventually, outcome, output, pintle};

/// A terminal with a shell, which the test types into.
struct Terminal {
    socket: String,
}

impl Terminal {
    fn new(bed: &Bed, columns: u16, rows: u16) -> Self {
        let terminal = Self { socket: bed.folder.path().join("tmux").display().to_string() };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let mut shell = terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, "sh"]);
        output(shell.env("PS1", "> ").env("LC_ALL", "C.UTF-8").env("PINTLE_ALLOW_ROOT", "1"));
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.args(["-S", &self.socket]).args(arguments).env_remove("TMUX");
        tmux
    }

    #[track_caller]
    fn types(&self, keys: &[&str]) {
        output(&mut self.tmux(&[&["send-keys"], keys].concat()));
    }

    /// The lines on the screen.
    #[track_caller]
    fn screen(&self) -> Vec<String> {
        output(&mut self.tmux(&["capture-pane", "-p"])).lines().map(str::to_owned).collect()
    }

    /// The screen, as soon as a line of it has this text.
    #[track_caller]
    fn shows(&self, text: &str) -> Vec<String> {
        eventually(&format!("{text:?} on the screen"), || {
            Some(self.screen()).filter(|lines| lines.iter().any(|line| line.contains(text)))
        })
    }

    #[track_caller]
    fn is(&self, flag: &str) -> bool {
        output(&mut self.tmux(&["display-message", "-p", &format!("#{{{flag}}}")])).trim() == "1"
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]).output();
    }
}

fn line_of(pintle: &Pintle, arguments: &str) -> String {
    let program = crate::harness::pintle();
    format!("{} status -c {} {arguments}", program.get_program().display(), pintle.config_path().display())
}

#[test]
fn terminal() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let terminal = Terminal::new(&bed, 80, 24);
    terminal.types(&["echo BEFORE", "Enter"]);
    terminal.shows("BEFORE");
    terminal.types(&[&format!("{}; echo ENDED $?", line_of(&pintle, "--watch 0.2")), "Enter"]);
    // The row of the certificate comes last, and with a write of its own.
    let lines = terminal.shows(BLOG);
    assert!(lines.len() <= 24 && lines[0].starts_with("pintle "), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains(&bed.origin.url())), "{lines:#?}");
    assert!(lines.iter().any(|line| line == "certificates"), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("BEFORE")), "a screen of its own: {lines:#?}");
    assert!(terminal.is("alternate_on") && !terminal.is("cursor_flag"));
    // Requests show up as rates, in place: no line is there twice.
    for _ in 0..5 {
        output(pintle.curl().arg(format!("https://{BLOG}/")));
    }
    let lines = terminal.shows("5 in all");
    for label in ["first byte", "total", "upstream"] {
        let row = lines.iter().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("no {label}: {lines:#?}"));
        assert!(["p50", "p90", "p99"].iter().all(|word| row.contains(word)) && row.len() <= 80, "{row}");
    }
    let requests: Vec<&String> = lines.iter().filter(|line| line.starts_with("requests")).collect();
    assert!(requests.len() == 1 && requests[0].ends_with(" in all"), "one whole row: {lines:#?}");
    // A narrow terminal cuts lines, and never wraps them.
    output(&mut terminal.tmux(&["resize-window", "-x", "30", "-y", "12"]));
    let lines = eventually("the small screen", || {
        let lines = terminal.screen();
        let requests = lines.iter().find(|line| line.starts_with("requests"))?;
        (requests.len() <= 30 && lines.len() <= 12 && lines.iter().any(|line| line == "certificates")).then_some(lines)
    });
    let titles = lines.iter().filter(|line| line.starts_with("pintle ")).count();
    assert_eq!(titles, 1, "{lines:#?}");
    // A low one counts the rows that it has no space for.
    output(&mut terminal.tmux(&["resize-window", "-x", "40", "-y", "10"]));
    let lines = terminal.shows("certificates: 1 not shown");
    assert!(lines.len() <= 10 && lines.iter().any(|line| line.contains(&bed.origin.url()[..16])), "{lines:#?}");
    output(&mut terminal.tmux(&["resize-window", "-x", "80", "-y", "24"]));
    terminal.shows("in all");
    // Ctrl-C gives the terminal back as it was.
    terminal.types(&["C-c"]);
    let lines = terminal.shows("ENDED 0");
    assert!(lines.iter().any(|line| line.contains("BEFORE")), "{lines:#?}");
    assert!(!terminal.is("alternate_on") && terminal.is("cursor_flag"), "{lines:#?}");
    // The end of the process is on the screen, too.
    terminal.types(&["clear", "Enter"]);
    terminal.types(&[&line_of(&pintle, "--watch 0.2"), "Enter"]);
    terminal.shows("certificates");
    pintle.stop();
    terminal.shows("! no answer: no pintle listens at");
    terminal.types(&["C-c"]);
    eventually("the terminal is back", || (!terminal.is("alternate_on")).then_some(()));
}

#[test]
fn a_pipe_gets_plain_blocks() {
    let bed = Bed::new();
    let running = Pintle::start(&bed.authority, &bed.config(""));
    let text = output(running.command("status").args(["--watch", "0.1", "--rounds", "3"]));
    assert!(text.bytes().all(|b| b == b'\n' || (b' '..0x7f).contains(&b)), "{text:?}");
    let blocks: Vec<&str> = text.trim_end().split("\n\npintle ").collect();
    assert_eq!(blocks.len(), 3, "{text}");
    assert!(blocks[1].contains("0.0/s") && blocks[1].contains(BLOG), "{text}");
    let lines = output(running.command("status").args(["--json", "--watch", "100ms", "--rounds", "2"]));
    let pids: Vec<Value> = lines.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["pid"].clone()).collect();
    assert_eq!(pids, vec![Value::from(running.pid()); 2]);
    // A reader that leaves ends it.
    let mut command = running.command("status");
    let mut child = command.args(["--watch", "0.1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("pintle "), "{first}");
    eventually("it ends", || child.try_wait().unwrap());
    for wrong in ["--watch=x", "--watch=-1", "--rounds=3", "--watch=1e400"] {
        assert_eq!(outcome(running.command("status").arg(wrong)).0, 2, "{wrong}");
    }
    running.stop();
    let (code, out, err) = outcome(pintle().args(["status", "--watch", "0.1", "--rounds", "2", "-c", "nothing.toml"]));
    assert!(code == 1 && out.is_empty() && err.contains("nothing.toml"), "{out}{err}");
}

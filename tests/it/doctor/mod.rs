//! `pintle doctor` on real kernels: network namespaces with devices, neighbours and settings of their own. Without the
//! permission to make namespaces, the tests print the reason and end. The rules of each check are tables in
//! `src/doctor`.

mod command;
mod differential;
mod neighbours;
mod paths;
mod settings;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::Namespaces;

const PINTLE: &str = env!("CARGO_BIN_EXE_pintle");

/// Two namespaces, joined by a cable: `near` has 10.98.0.1, `far` has 10.98.0.2.
struct Cable(Namespaces);

impl Cable {
    /// Returns `None` if this is not permitted.
    fn make() -> Option<Self> {
        let cable = Namespaces::make(|[near, far]| {
            vec![
                format!("-n {near} link add near type veth peer name far netns {far}"),
                format!("-n {near} addr add 10.98.0.1/24 dev near"),
                format!("-n {far} addr add 10.98.0.2/24 dev far"),
                format!("-n {near} link set near up"),
                format!("-n {far} link set far up"),
            ]
        });
        cable.map(Self)
    }

    /// A shell on the near side, with folders of settings of its own.
    fn shell(&self) -> Shell {
        Shell::start(&self.names[0])
    }
}

impl Deref for Cable {
    type Target = Namespaces;

    fn deref(&self) -> &Namespaces {
        &self.0
    }
}

/// A root shell in a network namespace and a mount namespace: /etc is a copy, and the folders of settings are empty.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: TempDir,
}

impl Shell {
    fn start(namespace: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, "unshare", "--mount", "--propagation", "private", "sh"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut shell = Self { child, input, output, folder };
        let place = shell.folder.path().display().to_string();
        shell.ok(&format!("cp -a /etc {place}/etc && rm -rf {place}/etc/sysctl.d {place}/etc/sysctl.conf"));
        shell.ok(&format!("mkdir {place}/etc/sysctl.d {place}/lib && mount --bind {place}/etc /etc"));
        shell.ok(&format!("[ ! -d /usr/lib/sysctl.d ] || mount --bind {place}/lib /usr/lib/sysctl.d"));
        shell.ok("mount -t tmpfs none /run && mkdir -p /run/sysctl.d");
        shell.ok("mount -t tmpfs none /usr/local/lib && mkdir -p /usr/local/lib/sysctl.d");
        shell
    }

    /// Runs commands; gives exit code and output.
    fn run(&mut self, commands: &str) -> (i32, String) {
        writeln!(self.input, "(\n{commands}\n) </dev/null 2>&1; echo \"\n<<$?>>\"").unwrap();
        let mut text = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the shell has gone: {commands}\n{text}");
            if let Some(code) = line.strip_prefix("<<").and_then(|rest| rest.trim_end().strip_suffix(">>")) {
                return (code.parse().unwrap(), text.trim_end().to_owned());
            }
            text.push_str(&line);
        }
    }

    /// The same for what must succeed; gives its output.
    #[track_caller]
    fn ok(&mut self, commands: &str) -> String {
        let (code, text) = self.run(commands);
        assert_eq!(code, 0, "{commands}\n{text}");
        text
    }

    /// Writes a file as this shell sees it.
    fn write(&mut self, path: &str, text: &str) {
        let place = self.folder.path().join("contents");
        fs::write(&place, text).unwrap();
        self.ok(&format!("cp {} {path}", place.display()));
    }

    /// Runs the doctor; gives its report and exit code.
    #[track_caller]
    fn doctor(&mut self, arguments: &str) -> (Value, i32) {
        let (code, text) = self.run(&format!("{PINTLE} doctor --json {arguments} 2>/dev/null"));
        (serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")), code)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names of the findings.
fn ids(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["id"].as_str().unwrap()).collect()
}

/// A finding by its name.
#[track_caller]
fn finding<'r>(report: &'r Value, id: &str) -> &'r Value {
    let mut all = report["findings"].as_array().unwrap().iter();
    all.find(|finding| finding["id"] == id).unwrap_or_else(|| panic!("no {id} in {report:#}"))
}

/// The commands of a remedy, as they are pasted.
fn commands(finding: &Value, remedy: usize) -> String {
    let run = finding["remedies"][remedy]["run"].as_array().unwrap();
    run.iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// A configuration with an upstream, in a folder.
fn config(folder: &Path, upstream: &str) -> String {
    let path = folder.join("pintle.toml");
    let text = format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\n[[site]]\nhosts = [\"blog.example.com\"]\nupstream = {upstream:?}\n"
    );
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

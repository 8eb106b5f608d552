//! Programs of Debian's that the tests run: started in a folder of the test's own, and ended with it.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use super::eventually;

/// A program's path. Programs of administrators are not on everybody's PATH. Under `tests/run --fast`, a test has the
/// programs that are listed there, even if this machine has more.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    if let Ok(listed) = std::env::var("PINTLE_FAST_PROGRAMS") {
        let is_listed = listed.split(' ').any(|program| program == name);
        assert!(is_listed, "tests/run --fast does without {name}: name this test in left_out there");
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = path.split(':').map(|folder| Path::new(folder).join(name)).find(|p| p.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed; tests/run installs what the tests need"))
}

/// Sends a signal, by name or number: `true` if the process was there. The shell's own `kill` does it: the program of that
/// name is in a package that `tests/run --fast` does without.
pub fn send_signal(name: &str, pid: impl std::fmt::Display) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]).stderr(Stdio::null());
    shell.status().unwrap().success()
}

/// A port that is this process's until it ends: nobody listens on it, no other process of these tests gets it, and it is
/// below the ports that the kernel gives to others.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let end: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    assert!(end > LOWEST_PORT, "the kernel gives away the ports from {end} on");
    let user = rustix::process::getuid().as_raw();
    let folder = std::env::temp_dir().join(format!("pintle-ports-{user}"));
    fs::create_dir_all(&folder).unwrap();
    loop {
        let port = LOWEST_PORT + NEXT.fetch_add(1, Ordering::Relaxed) % (end - LOWEST_PORT);
        let claim = fs::File::create(folder.join(port.to_string())).unwrap();
        if claim.try_lock().is_ok() && is_free(port) {
            // The lock is kept until the process ends.
            std::mem::forget(claim);
            return port;
        }
    }
}

const LOWEST_PORT: u16 = 10_000;

fn is_free(port: u16) -> bool {
    let any = ("0.0.0.0", port);
    TcpListener::bind(any).is_ok() && UdpSocket::bind(any).is_ok()
}

/// A running program; killed when dropped.
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it, with all that it says in a file of that name in the folder.
    #[track_caller]
    pub fn start(command: &mut Command, folder: &Path, name: &str) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = fs::File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { child, log }
    }

    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it listens.
    #[track_caller]
    pub fn listens(mut self, port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually(&format!("something listens on {port}"), || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended at once ({status}): {}", self.said());
            }
            TcpStream::connect(address).ok()
        });
        self
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // First asked, so that its own children end, too.
        send_signal("TERM", self.child.id());
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// nginx with this text in its `http` block.
#[track_caller]
pub fn nginx(folder: &Path, port: u16, http: &str) -> Program {
    let folder = folder.join(format!("nginx-{port}"));
    fs::create_dir_all(&folder).unwrap();
    let at = folder.display();
    // The worker of a root's nginx is another user, who must get at the files.
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    let config = format!(
        "daemon off; {user} worker_processes 1; pid {at}/pid; error_log stderr warn;\nevents {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;\n\
         uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi; client_max_body_size 0; default_type text/plain;\n{http}\n}}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(program("nginx"));
    command.arg("-e").arg("stderr").arg("-p").arg(&folder).arg("-c").arg(&file);
    Program::start(&mut command, &folder, "nginx").listens(port)
}

/// Varnish in front of 127.0.0.1 at `backend`, with more VCL.
#[track_caller]
pub fn varnish(folder: &Path, port: u16, backend: u16, vcl: &str) -> Program {
    let folder = folder.join(format!("varnish-{port}"));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("default.vcl");
    fs::write(&file, format!("vcl 4.1;\nbackend default {{ .host = \"127.0.0.1\"; .port = \"{backend}\"; }}\n{vcl}\n"))
        .unwrap();
    let mut command = Command::new(program("varnishd"));
    command
        .args(["-F", "-j", "none", "-s", "malloc,32m", "-a", &format!("127.0.0.1:{port}"), "-n"])
        .arg(folder.join("work"))
        .arg("-f")
        .arg(&file);
    Program::start(&mut command, &folder, "varnish").listens(port)
}

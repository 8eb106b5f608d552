//! `pintle init`: a first configuration for a hosted blog.

mod ask;
mod steps;
mod table;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::fs::{Access, access};
use tokio::runtime::Runtime;

pub use crate::init::given::{Given, email};

use super::{Output, refuse};
use crate::init::conclude::{Conclusion, conclude};
use crate::init::evidence::Evidence;
use crate::init::json;
use crate::init::probe::{BlogTarget, Prober};
use crate::init::write::{Wishes, render};
use crate::os::plain_file::{self, folder_of};
use crate::os::words::words;
use crate::policy::Scheme;
use crate::reason::{Reason, shell_path, shell_word};
use crate::verify::target::{ConnectTo, Url, default_port};

/// The folder of a system's configuration.
const SYSTEM_FOLDER: &str = "/etc/pintle";
/// The file's name.
const FILE: &str = "pintle.toml";

/// The arguments.
#[derive(Debug)]
pub struct Options {
    /// The blog's URL.
    pub url: Url,
    /// Names, address and agreement.
    pub given: Given,
    /// `true` if the site shall send key pins.
    pub pins: bool,
    /// `true` to print the file only.
    pub dry_run: bool,
    /// The file to write.
    pub out: Option<PathBuf>,
    /// The file of roots.
    pub ca: Option<PathBuf>,
    /// The address to connect to instead of DNS.
    pub connect: Option<ConnectTo>,
    /// The address of plain HTTP.
    pub connect_http: Option<ConnectTo>,
    /// `true` for JSON.
    pub as_json: bool,
}

/// Looks at a blog, and writes a configuration for it.
pub fn init(options: Options, output: &Output) -> ExitCode {
    match run(options, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(InitError::Usage(reason)) => {
            refuse(&reason);
            ExitCode::from(2)
        }
        Err(InitError::Problem(reason)) => refuse(&reason),
    }
}

/// The reason why nothing was written.
enum InitError {
    /// An argument is missing.
    Usage(Reason),
    /// Something else.
    Problem(Reason),
}

impl From<Reason> for InitError {
    fn from(reason: Reason) -> Self {
        Self::Problem(reason)
    }
}

fn run(mut options: Options, output: &Output) -> Result<(), InitError> {
    let path = options.out.clone().unwrap_or_else(default_path);
    let is_asked = ask::can_ask();
    if options.given.hosts.is_empty() && !is_asked {
        let reason = Reason::new("no host: init needs the names under which visitors will see the blog");
        return Err(InitError::Usage(reason.hint(again(&options, " --host blog.example.com"))));
    }
    // Early messages. The file is created as a new one, which decides.
    if !options.dry_run {
        if path.symlink_metadata().is_ok() {
            return Err(exists(&path, &options).into());
        }
        may_create(&path)?;
    }
    let ca = options.ca.as_deref().map(absolute).transpose()?;
    let target = BlogTarget {
        url: options.url.clone(),
        connect: options.connect.clone(),
        connect_http: options.connect_http.clone(),
        trust: super::verify::trust(options.ca.as_deref())?,
        now: Timestamp::now(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Err(Reason::new(error.to_string()).into()),
    };
    let conclusion = look(&runtime, &target, &mut options, ca)?;
    // A lookup that still runs ends with the process.
    runtime.shutdown_background();
    let is_system = std::path::absolute(&path).is_ok_and(|path| path.starts_with(SYSTEM_FOLDER));
    let wishes = Wishes {
        email: options.given.email.clone(),
        terms: options.given.terms,
        pins: options.pins,
        is_system,
        day: Timestamp::now().to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string(),
        path: shell_path(&path),
    };
    let text = render(&conclusion, &wishes);
    finish(&options, &path, &conclusion, &wishes, &text, output)
}

/// Sends the requests, and asks for missing answers in between.
fn look(
    runtime: &Runtime,
    target: &BlogTarget,
    options: &mut Options,
    ca: Option<PathBuf>,
) -> Result<Conclusion, InitError> {
    let mut prober = Prober::new(target);
    let mut evidence: Evidence = runtime.block_on(prober.first()).map_err(|why| {
        let reason = Reason::new(format!("{}: cannot be reached: {why}", target.url));
        let reason = reason.hint("check the URL; --connect ADDR connects to another address than that of DNS");
        match target.url.scheme == Scheme::Https && target.url.port != default_port(Scheme::Https) {
            true => {
                reason.hint(format!("if the blog speaks plain HTTP at this port: http://{}", target.url.authority()))
            }
            false => reason,
        }
    })?;
    if ask::can_ask() {
        ask::fill(&mut options.given, &evidence)?;
    }
    evidence.set_hosts(options.given.hosts.clone());
    let choice = runtime.block_on(prober.rest(&mut evidence));
    Ok(conclude(&evidence, target, choice, ca))
}

/// Prints the file, or writes it; then the conclusions and the next steps.
fn finish(
    options: &Options,
    path: &Path,
    conclusion: &Conclusion,
    wishes: &Wishes,
    text: &str,
    output: &Output,
) -> Result<(), InitError> {
    if !options.dry_run {
        write(path, text, wishes.is_system).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(path, options),
            _ => Reason::new(format!("{}: {}", path.display(), words(&error)))
                .hint("name another file with -o FILE, or print it with --dry-run"),
        })?;
    }
    if options.as_json {
        let written = (!options.dry_run).then_some(path);
        println!("{:#}", json::report(conclusion, written, text));
        return Ok(());
    }
    if options.dry_run {
        // Standard output has the file alone.
        eprintln!("{}", table::render(conclusion));
        print_summary(conclusion, output);
        print!("{text}");
        return Ok(());
    }
    println!("{}", table::render(conclusion));
    print_summary(conclusion, output);
    println!("wrote {}\n", path.display());
    print!("{}", steps::render(path, conclusion, wishes));
    Ok(())
}

/// Prints the remarks.
fn print_summary(conclusion: &Conclusion, output: &Output) {
    for note in &conclusion.notes {
        let mut reason = Reason::new(note.text.trim_end_matches(['.', ':']));
        if let Some(code) = note.code {
            reason = reason.note(code);
        }
        if note.is_warning {
            eprintln!("{}", reason.render(crate::reason::Severity::Warning, output.color));
        } else {
            eprintln!("note: {}", reason.what);
        }
    }
}

/// `/etc/pintle/pintle.toml` for root, `pintle.toml` for others.
fn default_path() -> PathBuf {
    if rustix::process::geteuid().is_root() { Path::new(SYSTEM_FOLDER).join(FILE) } else { PathBuf::from(FILE) }
}

fn absolute(path: &Path) -> Result<PathBuf, Reason> {
    let absolute = std::path::absolute(path).map_err(|e| Reason::new(format!("{}: {}", path.display(), words(&e))))?;
    match absolute.to_str() {
        Some(_) => Ok(absolute),
        None => Err(Reason::new(format!("{}: the configuration cannot name this path", path.display()))
            .hint("give the file a name in Unicode")),
    }
}

fn exists(path: &Path, options: &Options) -> Reason {
    Reason::new(format!("{}: exists already, and init overwrites no file", path.display()))
        .hint(format!("{} prints the file", again(options, " --dry-run")))
        .hint("name another file with -o FILE")
}

/// The same command with all its arguments but the file, and with more of them.
fn again(options: &Options, more: &str) -> String {
    let mut command = format!("pintle init {}", shell_word(&options.url.to_string()));
    let mut add = |option: &str, value: Option<String>| {
        if let Some(value) = value {
            command += &format!(" {option} {}", shell_word(&value));
        }
    };
    let given = &options.given;
    given.hosts.iter().for_each(|host| add("--host", Some(host.to_string())));
    add("--email", given.email.clone());
    add("--ca", options.ca.as_ref().map(|file| file.display().to_string()));
    add("--connect", options.connect.as_ref().map(ToString::to_string));
    add("--connect-http", options.connect_http.as_ref().map(ToString::to_string));
    for (option, is_given) in
        [(" --accept-terms", given.terms), (" --pins", options.pins), (" --json", options.as_json)]
    {
        if is_given {
            command += option;
        }
    }
    command + more
}

/// Checks that the folder of a new file is there, and open to this user. init makes [`SYSTEM_FOLDER`] itself.
fn may_create(path: &Path) -> Result<(), Reason> {
    let folder: &Path = folder_of(path);
    let shown = folder.display();
    let refused = |why: &str| Reason::new(format!("{}: {why}", path.display()));
    match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => {
            Err(refused(&format!("{shown} is not a folder")).hint("name another file with -o FILE"))
        }
        Ok(_) if access(folder, Access::WRITE_OK | Access::EXEC_OK).is_err() => {
            Err(refused(&format!("this user may not write to the folder {shown}"))
                .hint("run the command with sudo, or name another file with -o FILE"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder != Path::new(SYSTEM_FOLDER) => {
            let make = format!("mkdir -p {}", shell_word(&shown.to_string()));
            Err(refused(&format!("there is no folder {shown}")).hint(format!("make it first: {make}")))
        }
        // Another error may be one of this check alone.
        _ => Ok(()),
    }
}

/// Creates the file. A system's configuration is readable for the user that serves, whatever the
/// umask is: it contains no secrets.
fn write(path: &Path, text: &str, is_system: bool) -> io::Result<()> {
    if is_system && !Path::new(SYSTEM_FOLDER).exists() {
        fs::create_dir(SYSTEM_FOLDER)?;
        fs::set_permissions(SYSTEM_FOLDER, Permissions::from_mode(0o755))?;
    }
    plain_file::create(path, text.as_bytes(), 0o644)?;
    if is_system {
        fs::set_permissions(path, Permissions::from_mode(0o644))?;
    }
    Ok(())
}

//! The history of the configuration: each adopted version is a commit in `state.directory/config.git`, a bare repository
//! that the operator's own git clones, reads and pushes.
//!
//! Secrets never enter it: [`secrets`] keeps their values out, and brings back those of the present file.

mod fault;
mod repository;
pub mod secrets;

use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::bstr::{BStr, ByteSlice as _};
use gix::objs::{Commit, Kind, Tree};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use repository::Repository;

pub use fault::Fault;

/// The repository, in the folder of the state.
pub const FOLDER: &str = "config.git";
/// The same, until it is whole.
pub const NEW_FOLDER: &str = "config.git.new";
/// The name of the file in it, if the configuration's own name is no text.
const NAME: &str = "pintle.toml";
/// The address of authors and of the committer: git wants one, and there is none.
const ADDRESS: &str = "pintle@localhost";
const COMMITTER: &str = "pintle";
/// The longest subject, in characters.
const SUBJECT_MAX: usize = 72;
/// The changes that one message lists, and the characters of each.
const NOTES_MAX: usize = 50;
const NOTE_MAX: usize = 200;
/// The characters of the author's name.
const WHO_MAX: usize = 100;
/// The versions that one search looks at.
const SEARCHED_MAX: usize = 100_000;
/// The fewest characters of an abbreviated id, as with git.
const ABBREVIATION_MIN: usize = 4;
/// The characters of an id in texts.
const SHORT: usize = 10;
/// The largest version that is read: a push may bring anything.
const READ_MAX: u64 = 64 << 20;

/// The occasion on which a version came into use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// The process started with it.
    #[default]
    Start,
    /// A new process took over with it.
    Upgrade,
    /// `pintle reload`.
    Reload,
    /// SIGHUP.
    Signal,
    /// `pintle config apply`, or the page.
    Apply,
    /// `pintle config restore`, or the page.
    Restore,
    /// Not by pintle: the operator's own git.
    #[serde(other)]
    Git,
}

impl How {
    /// Its word, as in the message of the commit.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Upgrade => "upgrade",
            Self::Reload => "reload",
            Self::Signal => "signal",
            Self::Apply => "apply",
            Self::Restore => "restore",
            Self::Git => "git",
        }
    }

    fn of_word(word: &str) -> Self {
        let all = [Self::Start, Self::Upgrade, Self::Reload, Self::Signal, Self::Apply, Self::Restore];
        all.into_iter().find(|how| how.word() == word).unwrap_or(Self::Git)
    }
}

/// An adoption: what the message of a commit says.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// The occasion.
    pub how: How,
    /// The user who asked for it.
    pub who: String,
    /// The time.
    pub at: Timestamp,
    /// The number of warnings of the verdict.
    pub warnings: usize,
    /// The changes, by the names of keys and sites. No values.
    pub notes: Vec<String>,
    /// The version that this one brings back.
    pub restores: Option<String>,
}

/// The sizes that the history keeps to.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of one version.
    pub version: u64,
    /// Bytes of the whole repository.
    pub history: u64,
}

/// A version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigVersion {
    /// The id of its commit.
    pub id: String,
    /// The same, abbreviated.
    pub short: String,
    /// The time of its adoption.
    pub at: Timestamp,
    /// The user who asked for it.
    pub who: String,
    /// The occasion.
    pub how: How,
    /// The first line of the message.
    pub subject: String,
    /// The verdict: `accepted`, `accepted, 2 warnings`; `None` for a commit of the operator's git.
    pub verdict: Option<String>,
    /// The changes, by the names of keys and sites.
    pub notes: Vec<String>,
    /// The version before it.
    pub parent: Option<String>,
    /// The id of the text. Versions with the same text have the same.
    pub text: Option<String>,
}

/// The outcome of [`ConfigHistory::record`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// A new commit.
    New(String),
    /// The newest version is the same.
    Same(String),
}

impl Recorded {
    /// The id of the commit.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::New(id) | Self::Same(id) => id,
        }
    }
}

/// The history in a folder.
#[derive(Debug, Clone)]
pub struct ConfigHistory {
    path: PathBuf,
    /// The name of the configuration file.
    name: String,
}

impl ConfigHistory {
    /// The history of a configuration file, in the folder of its state.
    #[must_use]
    pub fn of(state: &Path, config: &Path) -> Self {
        // A name that git would refuse in a tree is not the file's name here.
        let fits = |name: &&str| !name.is_empty() && !name.eq_ignore_ascii_case(".git");
        let name = config.file_name().and_then(|name| name.to_str()).filter(fits).unwrap_or(NAME);
        Self { path: state.join(FOLDER), name: name.to_owned() }
    }

    /// The repository.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the configuration file in its versions.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a version, unless the newest one has the same text and came into use by pintle. `masked` is its text without
    /// secrets; `None` if it is not TOML.
    ///
    /// # Errors
    ///
    /// [`Fault`]; the history is unchanged then.
    pub fn record(&self, masked: Option<&str>, adoption: &Adoption, bounds: Bounds) -> Result<Recorded, Fault> {
        let masked = masked.ok_or(Fault::Unreadable)?;
        let is = u64::try_from(masked.len()).unwrap_or(u64::MAX);
        if is > bounds.version {
            return Err(Fault::TooLarge { is, most: bounds.version });
        }
        let repository = Repository::open_or_make(&self.path)?;
        let blob = gix::objs::compute_hash(gix::hash::Kind::Sha1, Kind::Blob, masked.as_bytes())
            .map_err(|error| Fault::of(&self.path, &error))?;
        let head = repository.head()?;
        let before = head.map(|head| Ok::<_, Fault>((head, repository.commit(head)?))).transpose()?;
        let tree = before.as_ref().map(|(_, commit)| repository.tree(commit.tree)).transpose()?;
        let is_same = tree.as_ref().and_then(|tree| self.entry(tree)) == Some(blob);
        if let Some((head, commit)) = &before
            && is_same
            && parsed(*head, commit).how != How::Git
        {
            return Ok(Recorded::Same(head.to_string()));
        }
        let size = repository.size().map_err(|error| Fault::Io(self.path.clone(), error))?;
        if size.saturating_add(is) > bounds.history {
            return Err(Fault::Full { path: self.path.clone(), is: size, most: bounds.history });
        }
        repository::leave_reserve(&self.path, is)?;
        let blob = repository.write(Kind::Blob, masked.as_bytes())?;
        let tree = repository.write_tree(tree, &self.name, blob)?;
        let time = gix::date::Time { seconds: adoption.at.as_second(), offset: 0 };
        let signature = |name: &str| gix::actor::Signature { name: name.into(), email: ADDRESS.into(), time };
        let commit = Commit {
            tree,
            parents: head.into_iter().collect(),
            author: signature(&of_author(&adoption.who)),
            committer: signature(COMMITTER),
            encoding: None,
            message: message(adoption).into(),
            extra_headers: Vec::new(),
        };
        repository.write_commit(&commit).map(|id| Recorded::New(id.to_string()))
    }

    /// The newest versions, from the one after `before` on.
    ///
    /// # Errors
    ///
    /// [`Fault`] if the history cannot be read, or has no version `before`.
    pub fn versions(&self, before: Option<&str>, most: usize) -> Result<Vec<ConfigVersion>, Fault> {
        let Some(repository) = Repository::open(&self.path)? else {
            return match before {
                Some(asked) => Err(no_such(asked)),
                None => Ok(Vec::new()),
            };
        };
        let mut at = match before {
            Some(asked) => {
                let id = self.find(&repository, asked)?;
                repository.commit(id)?.parents.first().copied()
            }
            None => repository.head()?,
        };
        let mut versions = Vec::new();
        while let Some(id) = at.filter(|_| versions.len() < most) {
            let commit = repository.commit(id)?;
            let mut version = parsed(id, &commit);
            version.text = self.entry(&repository.tree(commit.tree)?).map(|text| text.to_string());
            at = commit.parents.first().copied();
            versions.push(version);
        }
        Ok(versions)
    }

    /// A version and its text. `asked` is an id, its beginning, `HEAD`, or `HEAD~2`.
    ///
    /// # Errors
    ///
    /// [`Fault`] if the history cannot be read, or has no such version.
    pub fn version(&self, asked: &str) -> Result<(ConfigVersion, String), Fault> {
        let repository = Repository::open(&self.path)?.ok_or_else(|| no_such(asked))?;
        self.read(&repository, self.find(&repository, asked)?, asked)
    }

    /// A version, its text, and the text before: empty for the first version, and after a commit without a configuration.
    ///
    /// # Errors
    ///
    /// [`Fault`] if the history cannot be read, or has no such version.
    pub fn version_and_before(&self, asked: &str) -> Result<(ConfigVersion, String, String), Fault> {
        let repository = Repository::open(&self.path)?.ok_or_else(|| no_such(asked))?;
        let (version, text) = self.read(&repository, self.find(&repository, asked)?, asked)?;
        let parent = version.parent.as_ref().and_then(|id| ObjectId::from_hex(id.as_bytes()).ok());
        let before = parent.and_then(|id| self.read(&repository, id, asked).ok());
        Ok((version, text, before.map(|(_, text)| text).unwrap_or_default()))
    }

    /// A commit as a version, and its text.
    fn read(&self, repository: &Repository, id: ObjectId, asked: &str) -> Result<(ConfigVersion, String), Fault> {
        let commit = repository.commit(id)?;
        let blob = self.entry(&repository.tree(commit.tree)?);
        let wrong = |why| Fault::NoSuch { asked: asked.to_owned(), why: Some(why) };
        let blob = blob.ok_or_else(|| wrong("it has no configuration file"))?;
        if repository.length(blob)? > READ_MAX {
            return Err(wrong("larger than any configuration"));
        }
        let text = repository.object(blob, Kind::Blob)?;
        let text = String::from_utf8(text).map_err(|_| wrong("not UTF-8"))?;
        let mut version = parsed(id, &commit);
        version.text = Some(blob.to_string());
        Ok((version, text))
    }

    /// The commit that somebody names, if it is in the history of HEAD.
    fn find(&self, repository: &Repository, asked: &str) -> Result<ObjectId, Fault> {
        let mut at = repository.head()?;
        let name = asked.strip_prefix("HEAD").or_else(|| asked.strip_prefix('@'));
        let steps = name.and_then(|rest| match rest {
            "" => Some(0),
            rest if rest.bytes().all(|byte| byte == b'^') => Some(rest.len()),
            rest => rest.strip_prefix('~').and_then(|n| if n.is_empty() { Some(1) } else { n.parse().ok() }),
        });
        let wanted = asked.to_ascii_lowercase();
        let is_id = wanted.len() >= ABBREVIATION_MIN && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        if steps.is_none() && !is_id {
            return Err(no_such(asked));
        }
        let mut found = None;
        for step in 0..SEARCHED_MAX {
            let Some(id) = at else { break };
            if steps == Some(step) {
                return Ok(id);
            }
            if steps.is_none() && id.to_string().starts_with(&wanted) {
                if found.is_some() {
                    let why = Some("several versions begin with that: write more of the id");
                    return Err(Fault::NoSuch { asked: asked.to_owned(), why });
                }
                found = Some(id);
                if wanted.len() == id.to_string().len() {
                    break;
                }
            }
            at = repository.commit(id)?.parents.first().copied();
        }
        found.ok_or_else(|| no_such(asked))
    }

    /// The blob of the configuration in a tree: under its name, or the only file.
    fn entry(&self, tree: &Tree) -> Option<ObjectId> {
        let mut files = tree.entries.iter().filter(|entry| entry.mode.is_blob());
        let named = files.clone().find(|entry| entry.filename == self.name.as_str());
        let only = || files.next().filter(|_| tree.entries.len() == 1);
        named.or_else(only).map(|entry| entry.oid)
    }
}

/// The id in the history of a text without secrets: that of its blob.
#[must_use]
pub fn blob_id(masked: &str) -> Option<String> {
    gix::objs::compute_hash(gix::hash::Kind::Sha1, Kind::Blob, masked.as_bytes()).ok().map(|id| id.to_string())
}

/// The id of a version as texts have it.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

fn no_such(asked: &str) -> Fault {
    Fault::NoSuch { asked: asked.to_owned(), why: None }
}

/// `start`, `reload: new site shop.example.com`, `restore 1a2b3c4d5e: blog.example.com: upstream has changed`
fn message(adoption: &Adoption) -> String {
    let Adoption { how, who, warnings, notes, restores, .. } = adoption;
    let line = |text: &str, most: usize| -> String {
        let text = text.trim();
        let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect();
        if text.chars().nth(most).is_some() {
            line.push('…');
        }
        line
    };
    let front = match restores.as_deref().map(short).unwrap_or_default() {
        "" => how.word().to_owned(),
        id => format!("{} {id}", how.word()),
    };
    let subject = match notes.as_slice() {
        [] => front,
        [one] => format!("{front}: {one}"),
        [first, more @ ..] => format!("{front}: {first}, and {} more", crate::reason::counted(more.len(), "change")),
    };
    let mut message = format!("{}\n\n", line(&subject, SUBJECT_MAX));
    for note in notes.iter().take(NOTES_MAX) {
        message.push_str(&format!("- {}\n", line(note, NOTE_MAX)));
    }
    if let more @ 1.. = notes.len().saturating_sub(NOTES_MAX) {
        message.push_str(&format!("- and {more} more\n"));
    }
    if !notes.is_empty() {
        message.push('\n');
    }
    let verdict = match warnings {
        0 => "accepted".to_owned(),
        more => format!("accepted, {}", crate::reason::counted(more, "warning")),
    };
    message.push_str(&format!(
        "Pintle-How: {}\nPintle-Who: {}\nPintle-Verdict: {verdict}\n",
        how.word(),
        line(who, WHO_MAX)
    ));
    if let Some(id) = restores {
        message.push_str(&format!("Pintle-Restores: {}\n", line(id, WHO_MAX)));
    }
    message.push_str(&format!("Pintle-Version: {}\n", env!("CARGO_PKG_VERSION")));
    message
}

/// A name that git takes: without the characters that end it.
fn of_author(who: &str) -> String {
    let plain = |c: &char| !c.is_control() && !matches!(c, '<' | '>');
    let name: String = who.chars().filter(plain).take(WHO_MAX).collect();
    let name = name.trim_matches(|c: char| c.is_whitespace() || ".,:;\"'\\".contains(c));
    if name.is_empty() { COMMITTER.to_owned() } else { name.to_owned() }
}

/// A commit in words. One of the operator's git has no trailers of pintle.
fn parsed(id: ObjectId, commit: &Commit) -> ConfigVersion {
    let message = commit.message.to_str_lossy();
    let is_own = commit.committer.name == COMMITTER && commit.committer.email == ADDRESS;
    let trailer = |name: &str| {
        let lines = message.lines().rev().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        lines.map(str::to_owned).next().filter(|_| is_own)
    };
    let name = |name: &BStr| name.to_str_lossy().into_owned();
    let how = trailer("Pintle-How").map_or(How::Git, |word| How::of_word(&word));
    let id = id.to_string();
    let notes = message.lines().filter_map(|line| line.strip_prefix("- "));
    ConfigVersion {
        short: short(&id).to_owned(),
        id,
        at: Timestamp::from_second(commit.author.time.seconds).unwrap_or_default(),
        who: trailer("Pintle-Who").unwrap_or_else(|| name(commit.author.name.as_bstr())),
        how,
        subject: message.lines().next().unwrap_or_default().to_owned(),
        verdict: trailer("Pintle-Verdict"),
        notes: if is_own { notes.map(str::to_owned).collect() } else { Vec::new() },
        parent: commit.parents.first().map(ToString::to_string),
        text: None,
    }
}

#[cfg(test)]
mod tests;

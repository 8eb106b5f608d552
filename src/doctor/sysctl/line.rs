//! The lines of a sysctl file, as systemd and procps read them.

/// A program that applies the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// systemd-sysctl, at boot and by `systemctl restart systemd-sysctl`.
    Systemd,
    /// `sysctl --system`.
    Procps,
}

impl Tool {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Systemd, Self::Procps];

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Systemd => "systemd-sysctl",
            Self::Procps => "sysctl --system",
        }
    }
}

/// The meaning of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SysctlLine {
    /// Nothing, or a comment.
    Blank,
    /// `key = value`: the path below /proc/sys, which may be a pattern; the value; `true` if errors are ignored.
    Set(String, String, bool),
    /// `-key`: patterns do not set this path.
    Exclude(String),
    /// Neither.
    Fault,
}

/// The longest line that systemd reads, in bytes.
const LINE_MAX: usize = 1 << 20;

/// Reads a line.
pub(super) fn read(line: &str, tool: Tool) -> SysctlLine {
    let text = line.trim_matches(is_blank);
    // procps skips lines of one character.
    if text.is_empty()
        || text.starts_with(['#', ';'])
        || text.len() > LINE_MAX
        || (tool == Tool::Procps && text.len() < 2)
    {
        return SysctlLine::Blank;
    }
    let Some((key, value)) = text.split_once('=') else {
        return match text.strip_prefix('-').filter(|key| !key.is_empty()) {
            Some(key) => SysctlLine::Exclude(path_of(key)),
            None => SysctlLine::Fault,
        };
    };
    let (ignore, key) = match key.trim_matches(is_blank).strip_prefix('-') {
        None => (false, key.trim_matches(is_blank)),
        // procps looks for a key that begins with a space.
        Some(key) if tool == Tool::Procps => (true, key),
        Some(key) => (true, key.trim_matches(is_blank)),
    };
    if key.is_empty() {
        return SysctlLine::Fault;
    }
    SysctlLine::Set(path_of(key), value.trim_matches(is_blank).to_owned(), ignore)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Returns the path of a key: if its first separator is a dot, dots and slashes change places.
pub(super) fn path_of(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'.' => key.chars().map(swapped).collect(),
        _ => key.to_owned(),
    }
}

/// Returns the key of a path as people write it: with dots, or with slashes if a part has dots.
pub(super) fn key_of(path: &str) -> String {
    if path.contains('.') { path.to_owned() } else { path.replace('/', ".") }
}

fn swapped(c: char) -> char {
    match c {
        '.' => '/',
        '/' => '.',
        other => other,
    }
}

/// Returns `true` for a pattern.
pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// Returns `true` if a name fits a pattern of glob(7) without slashes.
pub(super) fn fits(pattern: &[char], name: &[char]) -> bool {
    // The place to continue if the characters after the last `*` do not fit.
    let mut again: Option<(usize, usize)> = None;
    let (mut p, mut n) = (0, 0);
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            again = Some((p + 1, n));
            p += 1;
            continue;
        }
        match one(&pattern[p.min(pattern.len())..], name[n]) {
            Some(length) => (p, n) = (p + length, n + 1),
            None => match &mut again {
                Some((after, from)) => {
                    *from += 1;
                    (p, n) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p.min(pattern.len())..].iter().all(|c| *c == '*')
}

/// Returns the length of the beginning of a pattern that fits one character.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '\\' if pattern.len() > 1 => (pattern[1] == c).then_some(2),
        '[' => match set(pattern) {
            Some((length, negated, members)) => {
                let is_in = members.iter().any(|(from, to)| (*from..=*to).contains(&c));
                (is_in != negated).then_some(length)
            }
            None => (c == '[').then_some(1),
        },
        other => (*other == c).then_some(1),
    }
}

/// The members of a set, as ranges.
type Ranges = Vec<(char, char)>;

/// Reads `[a-z]`: its length, `true` if it is negated, and its ranges. `None` if it has no end.
fn set(pattern: &[char]) -> Option<(usize, bool, Ranges)> {
    let negated = matches!(pattern.get(1), Some('!' | '^'));
    let first = if negated { 2 } else { 1 };
    let mut members = Vec::new();
    let mut at = first;
    loop {
        let c = *pattern.get(at)?;
        if c == ']' && at > first {
            return Some((at + 1, negated, members));
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some('-'), Some(to)) if *to != ']' => {
                members.push((c, *to));
                at += 3;
            }
            _ => {
                members.push((c, c));
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_programs() {
        let set = |path: &str, value: &str, ignore| SysctlLine::Set(path.into(), value.into(), ignore);
        let same: &[(&str, SysctlLine)] = &[
            ("", SysctlLine::Blank),
            ("  # a = 1", SysctlLine::Blank),
            (";a = 1", SysctlLine::Blank),
            ("net.ipv4.ip_forward=1", set("net/ipv4/ip_forward", "1", false)),
            ("\tnet/ipv4/ip_forward =\t1 \r", set("net/ipv4/ip_forward", "1", false)),
            ("-vm.swappiness = 1 # low", set("vm/swappiness", "1 # low", true)),
            ("kernel.core_pattern=|/bin/x a=b", set("kernel/core_pattern", "|/bin/x a=b", false)),
            ("-net.ipv4.conf.d0.rp_filter", SysctlLine::Exclude("net/ipv4/conf/d0/rp_filter".into())),
            ("net.ipv4.conf.d0/5.rp_filter = 1", set("net/ipv4/conf/d0.5/rp_filter", "1", false)),
            ("net/ipv4/conf/d0.5/rp_filter = 1", set("net/ipv4/conf/d0.5/rp_filter", "1", false)),
            ("net.ipv4.ip_forward 1", SysctlLine::Fault),
            ("= 1", SysctlLine::Fault),
        ];
        for (line, want) in same {
            for tool in Tool::ALL {
                assert_eq!(read(line, tool), *want, "{tool:?} {line:?}");
            }
        }
        assert_eq!(read("- a.b = 1", Tool::Systemd), set("a/b", "1", true));
        assert_eq!(read("- a.b = 1", Tool::Procps), set(" a/b", "1", true));
    }

    #[test]
    fn patterns() {
        for (pattern, name, want) in [
            ("*", "eth0", true),
            ("*", "", true),
            ("eth?", "eth0", true),
            ("eth?", "eth10", false),
            ("e*0", "eth10", true),
            ("*a*b*", "xaxbx", true),
            ("*a*b*", "xbxax", false),
            ("eth[0-3]", "eth2", true),
            ("eth[!0-3]", "eth2", false),
            ("eth[", "eth[", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("", "a", false),
            ("[]]", "]", true),
            ("ab", "a", false),
            ("é?", "éa", true),
        ] {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            assert_eq!(fits(&chars(pattern), &chars(name)), want, "{pattern} {name}");
        }
    }
}

//! The form of the ledger's file: records in a chain, so that none can be changed or missing without being noticed.
//!
//! Each line has a number and a hash over the line before it. The newest number and hash are in a second small file, the
//! *head*, too, which is written after the ledger's file and before anybody acts on the records. So a file that ends before
//! its head has lost something: it was cut, or it is an old copy. A crash leaves at worst lines behind the head, on which
//! nobody has acted.
//!
//! A file that is written anew begins with a format record that names the heads it follows; the head is brought up to date
//! afterwards.

use serde::Deserialize;

use super::Notice;
use super::book::Book;
use super::record::{Read, Record, VERSION, sum};
use super::text::Line;

/// Where a line stands in the chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number, from 1, over all files that ever had this name.
    pub(super) seq: u64,
    /// The hash of it and of all lines before it in its file.
    pub(super) chain: String,
}

impl Link {
    fn next(&self, record_sum: &str) -> Self {
        let seq = self.seq.saturating_add(1);
        Self { seq, chain: sum(&format!("{}:{seq}:{record_sum}", self.chain)) }
    }

    fn text(&self) -> String {
        format!("{}:{}", self.seq, self.chain)
    }

    fn parse(text: &str) -> Option<Self> {
        let (seq, chain) = text.split_once(':')?;
        Some(Self { seq: seq.parse().ok()?, chain: chain.to_owned() })
    }

    /// The line that makes it the head.
    pub(super) fn head_line(&self) -> String {
        let text = self.text();
        format!("{text} {}\n", sum(&text))
    }
}

/// What a head's file says: its last two whole lines; and whether a line may be added behind what is there.
pub(super) fn read_head(contents: &[u8]) -> (Vec<Link>, bool) {
    let mut links = Vec::new();
    let mut is_clean = true;
    for line in contents.split_inclusive(|b| *b == b'\n') {
        let link = line.strip_suffix(b"\n").and_then(|line| {
            let (text, of) = std::str::from_utf8(line).ok()?.split_once(' ')?;
            (sum(text) == of).then(|| Link::parse(text)).flatten()
        });
        is_clean &= link.is_some();
        links.extend(link);
    }
    (links.split_off(links.len().saturating_sub(2)), is_clean)
}

/// Lines that are to be written.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) text: String,
    pub(super) count: usize,
    /// Where the last one stands.
    pub(super) link: Link,
}

impl Lines {
    /// Behind the lines that are there.
    pub(super) fn behind(link: &Link) -> Self {
        Self { text: String::new(), count: 0, link: link.clone() }
    }

    /// A new file, which follows one that had any of these as its head, and this many lines.
    pub(super) fn anew(heads: &[Link], seq: u64) -> Self {
        let seq = heads.iter().map(|head| head.seq).chain([seq]).max().unwrap_or_default();
        let mut lines = Self::behind(&Link { seq, chain: String::new() });
        let after: Vec<String> = heads.iter().map(|head| format!("\"{}\"", head.text())).collect();
        lines.add_json(&format!("{{\"type\":\"format\",\"version\":{VERSION},\"after\":[{}]}}", after.join(",")));
        lines
    }

    pub(super) fn add(&mut self, record: &Record) {
        self.add_json(&record.json());
    }

    fn add_json(&mut self, json: &str) {
        let sum = sum(json);
        self.link = self.link.next(&sum);
        let Link { seq, chain } = &self.link;
        let end = format!(",\"seq\":{seq},\"chain\":\"{chain}\"}}\n");
        self.text.reserve(json.len() + end.len() + sum.len() + 20);
        for part in ["{\"sum\":\"", &sum, "\",\"record\":", json, &end] {
            self.text.push_str(part);
        }
        self.count += 1;
    }
}

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// All records whose checksum fits.
    pub(super) book: Book,
    /// Records that can be made out, though their checksum does not fit.
    pub(super) doubtful: Vec<Record>,
    pub(super) notices: Vec<Notice>,
    /// Bytes up to the end of the last whole line.
    pub(super) good: usize,
    pub(super) lines: usize,
    /// Where the last line stands.
    pub(super) link: Link,
    /// All lines are in the chain, in this program's format.
    pub(super) is_current: bool,
}

impl Found {
    /// Takes in promises that can only be made out, too: that makes the guard stricter, never laxer. A ramp or an
    /// accepted lockout would make it laxer.
    pub(super) fn believe_all(mut self) -> Self {
        let is_strict = |record: &Record| matches!(record, Record::Promise(_) | Record::Unknown(_));
        for record in std::mem::take(&mut self.doubtful).into_iter().filter(is_strict) {
            self.book.apply(record);
        }
        self
    }
}

/// The heads that a new file follows.
fn heads_before(json: &str) -> Vec<Link> {
    #[derive(Deserialize)]
    struct Format {
        #[serde(default)]
        after: Vec<String>,
    }
    let format = serde_json::from_str::<Format>(json);
    format.map(|f| f.after.iter().filter_map(|text| Link::parse(text)).collect()).unwrap_or_default()
}

/// What stands before the line that is read.
enum Before {
    /// Nothing that has a place in the chain.
    Nothing,
    Line(Link),
    /// Damage: whatever comes next is taken as it is.
    Damage,
}

/// Reads a file; with its head, if there is one.
pub(super) fn read(contents: &[u8], head: Option<&Link>) -> Found {
    let mut found = Found { is_current: true, ..Found::default() };
    let mut before = Before::Nothing;
    let mut holds_head = head.is_none();
    let mut torn = 0;
    // Lines that have lost their number.
    let mut unnumbered = 0;
    for (number, segment) in contents.split_inclusive(|b| *b == b'\n').enumerate() {
        let Some(text) = segment.strip_suffix(b"\n") else {
            // Without its end, nobody has acted upon it; if it is whole otherwise, it does no harm.
            torn = segment.len();
            if let Read::Good(record) = Record::read(segment) {
                found.book.apply(record);
            }
            break;
        };
        found.good += segment.len();
        found.lines += 1;
        if text.is_empty() {
            continue;
        }
        let line = number + 1;
        let parsed = serde_json::from_slice::<Line<'_>>(text).ok();
        let read = parsed.as_ref().map_or(Read::Bad, Record::of_line);
        let (Some(parsed), Read::Good(record)) = (parsed, &read) else {
            let believed = matches!(read, Read::Doubtful(_));
            found.notices.push(Notice::Damaged { line, believed });
            if let Read::Doubtful(record) = read {
                found.doubtful.push(record);
            }
            before = Before::Damage;
            unnumbered += 1;
            continue;
        };
        if let Record::Format(format) = record {
            found.is_current &= *format == VERSION;
            if *format > VERSION {
                found.notices.push(Notice::Newer { format: *format });
            }
            holds_head |= head.is_some_and(|head| heads_before(parsed.record.get()).contains(head));
        }
        if let (Some(seq), Some(chain)) = (parsed.seq, parsed.chain) {
            let link = Link { seq, chain: chain.to_owned() };
            found.notices.extend(fault(&before, &link, parsed.sum, line));
            holds_head |= head == Some(&link);
            (found.link, unnumbered) = (link.clone(), 0);
            before = Before::Line(link);
        } else {
            // An older program wrote it.
            found.is_current = false;
        }
        found.book.apply(record.clone());
    }
    if let (false, Some(head)) = (holds_head, head) {
        let ends = found.link.seq.saturating_add(unnumbered);
        let is_told = ends >= head.seq && found.notices.iter().any(Notice::is_loss);
        if !is_told {
            found.notices.push(Notice::Behind { ends, head: head.seq });
            return found;
        }
    }
    if torn > 0 {
        found.notices.push(Notice::Torn { bytes: torn });
    }
    found
}

/// What is wrong with a line's place in the chain.
fn fault(before: &Before, link: &Link, record_sum: &str, line: usize) -> Option<Notice> {
    let last = match before {
        Before::Damage => return None,
        Before::Nothing => Link { seq: link.seq.saturating_sub(1), chain: String::new() },
        Before::Line(last) => last.clone(),
    };
    if last.next(record_sum) == *link {
        return None;
    }
    Some(match link.seq.checked_sub(last.seq.saturating_add(1)) {
        Some(0) => Notice::Damaged { line, believed: true },
        missing => Notice::Missing { line, records: missing },
    })
}

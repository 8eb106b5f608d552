//! The format of the ledger's file: a hash chain of records, which reveals every changed or missing
//! record.
//!
//! Each line has a number and a hash over the previous line. The newest number and hash are also in
//! a second small file, the *head*. pintle writes the head after the ledger's file and before it
//! acts on the records. So a file that ends before its head has lost records: it was truncated, or
//! it is an old copy. A crash leaves at most lines after the head, on which nobody has acted.
//!
//! A rewritten file begins with a format record that names the heads it follows; the head is
//! updated afterwards.
//!
//! Somebody may put an older pair of both files back. So the lock's file, which nobody backs up,
//! has a *note* of the newest number, and of the id of the ledger that it counts the records of. A
//! ledger with another id has come in the place of the own one, whose records are lost. The note is
//! written last, and may be behind.

use serde::Deserialize;

use super::book::Book;
use super::boot::catch_up;
use super::json::LineJson;
use super::line::{Read, VERSION, sum};
use super::notice::Notice;
use super::record::Record;
use crate::clock::boot::BootMoment;

/// The position of a line in the chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Its number, from 1, over all files that ever had this name.
    pub(super) seq: u64,
    /// The hash of this line and all previous lines of its file.
    pub(super) chain: String,
}

impl Position {
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

    /// Returns the line of the head's file for this position.
    pub(super) fn head_line(&self) -> String {
        let text = self.text();
        format!("{text} {}\n", sum(&text))
    }
}

/// The digits of a ledger's id.
const ID_LEN: usize = 16;

/// Returns an id for a new ledger.
pub(super) fn new_id() -> String {
    let mut random = [0; ID_LEN / 2];
    // Without random bytes, nothing tells a ledger of this folder from another.
    let _ = aws_lc_rs::rand::fill(&mut random);
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The newest record of a folder's ledger, in the lock's file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NewestRecord {
    /// The ledger's id.
    pub(super) id: String,
    /// The number of the record.
    pub(super) seq: u64,
    /// pintle has served from the folder: only commands, or starts that have failed, have written otherwise.
    pub(super) is_served: bool,
}

impl NewestRecord {
    /// Of the same length in both cases. Older versions read the sign as a part of the number.
    pub(super) fn text(&self) -> String {
        let Self { id, seq, is_served } = self;
        if *is_served { format!("{id:0>ID_LEN$} {seq:020}\n") } else { format!("{id:0>ID_LEN$} {seq:+020}\n") }
    }

    pub(super) fn read(contents: &[u8]) -> Option<Self> {
        // More may follow: the mark of a folder that was left.
        let end = contents.iter().position(|byte| *byte == b'\n')?;
        let (id, seq) = std::str::from_utf8(contents.get(..end)?).ok()?.split_once(' ')?;
        Some(Self { id: id.to_owned(), seq: seq.parse().ok()?, is_served: !seq.starts_with('+') })
    }
}

/// The contents of the head's file.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Its last two readable lines, the newest at the end.
    pub(super) positions: Vec<Position>,
    /// Another line may be appended.
    pub(super) is_clean: bool,
    /// A complete line is damaged, and none after it is readable: it may have named a newer record.
    pub(super) is_damaged: bool,
}

/// Reads the head's file.
pub(super) fn read_head(contents: &[u8]) -> Head {
    let mut positions = Vec::new();
    let (mut is_clean, mut is_damaged) = (true, false);
    for line in contents.split_inclusive(|b| *b == b'\n') {
        let position = line.strip_suffix(b"\n").and_then(|line| {
            let (text, of) = std::str::from_utf8(line).ok()?.split_once(' ')?;
            (sum(text) == of).then(|| Position::parse(text)).flatten()
        });
        is_clean &= position.is_some();
        if position.is_some() || line.ends_with(b"\n") {
            is_damaged = position.is_none();
        }
        positions.extend(position);
    }
    Head { positions: positions.split_off(positions.len().saturating_sub(2)), is_clean, is_damaged }
}

/// Lines to be written.
#[derive(Debug)]
pub(super) struct NewLines {
    pub(super) text: String,
    pub(super) count: usize,
    /// The position of the last one.
    pub(super) position: Position,
}

impl NewLines {
    /// Continues after existing lines.
    pub(super) fn after(position: &Position) -> Self {
        Self { text: String::new(), count: 0, position: position.clone() }
    }

    /// Begins a new file of the ledger with this id. It follows a file with one of these heads, or
    /// with this many lines.
    pub(super) fn new_file(heads: &[Position], seq: u64, id: &str) -> Self {
        let seq = heads.iter().map(|head| head.seq).chain([seq]).max().unwrap_or_default();
        let mut lines = Self::after(&Position { seq, chain: String::new() });
        let after: Vec<String> = heads.iter().map(|head| format!("\"{}\"", head.text())).collect();
        let after = after.join(",");
        lines.add_json(&format!("{{\"type\":\"format\",\"version\":{VERSION},\"after\":[{after}],\"id\":\"{id}\"}}"));
        lines
    }

    pub(super) fn add(&mut self, record: &Record) {
        self.add_json(&record.json());
    }

    fn add_json(&mut self, json: &str) {
        let sum = sum(json);
        self.position = self.position.next(&sum);
        let Position { seq, chain } = &self.position;
        let end = format!(",\"seq\":{seq},\"chain\":\"{chain}\"}}\n");
        self.text.reserve(json.len() + end.len() + sum.len() + 20);
        for part in ["{\"sum\":\"", &sum, "\",\"record\":", json, &end] {
            self.text.push_str(part);
        }
        self.count += 1;
    }
}

/// The contents of a ledger's file.
#[derive(Debug, Default)]
pub(super) struct FileContents {
    /// All records with a correct checksum.
    pub(super) book: Book,
    /// Readable records with a wrong checksum.
    pub(super) doubtful: Vec<Record>,
    pub(super) notices: Vec<Notice>,
    /// Bytes up to the end of the last complete line.
    pub(super) good: usize,
    pub(super) lines: usize,
    /// The position of the last line.
    pub(super) position: Position,
    /// The ledger's id; `None` in a file of an older version.
    pub(super) id: Option<String>,
    /// `true` if all lines are in the chain, in this version's format.
    pub(super) is_current: bool,
}

impl FileContents {
    /// Adds the promises and burnt keys among the doubtful records, which only makes the guard
    /// stricter. Leaves out ramps and accepted lockouts, which would make it laxer.
    pub(super) fn with_doubtful(mut self) -> Self {
        let is_strict = |record: &Record| matches!(record, Record::Promise(_) | Record::Burnt(_) | Record::Unknown(_));
        for record in std::mem::take(&mut self.doubtful).into_iter().filter(is_strict) {
            self.book.apply(record);
        }
        self
    }

    /// Corrects dates that a clock of this boot, set right since, left too early. Returns `true` if
    /// there are any.
    pub(super) fn catch_up(&mut self) -> bool {
        let behind = catch_up(&mut self.book, &BootMoment::now());
        self.notices.extend(behind.map(|behind| Notice::DatedEarly { seconds: behind.seconds }));
        behind.is_some()
    }
}

/// The format record of a file.
#[derive(Default, Deserialize)]
struct FirstLine {
    /// The heads that the file follows.
    #[serde(default)]
    after: Vec<String>,
    #[serde(default)]
    id: Option<String>,
}

impl FirstLine {
    fn read(json: &str) -> Self {
        serde_json::from_str(json).unwrap_or_default()
    }

    fn follows(&self, head: &Position) -> bool {
        self.after.iter().any(|text| Position::parse(text).as_ref() == Some(head))
    }
}

/// The line before the one being read.
enum Previous {
    /// No line that has a position in the chain.
    None,
    Line(Position),
    /// A damaged line: the next one may have any position.
    Damaged,
}

/// Reads a file, and compares it with its head, if it has one.
pub(super) fn read(contents: &[u8], head: Option<&Position>) -> FileContents {
    let found = FileContents { is_current: true, ..FileContents::default() };
    let mut reader = LedgerReader { found, previous: Previous::None, head, holds_head: head.is_none(), unnumbered: 0 };
    let mut torn = 0;
    for (number, segment) in contents.split_inclusive(|b| *b == b'\n').enumerate() {
        if let Some(text) = segment.strip_suffix(b"\n") {
            reader.found.good += segment.len();
            reader.found.lines += 1;
            reader.line(number + 1, text);
            continue;
        }
        // A line without its end: nobody has acted on it. If it is complete otherwise, keeping it
        // is harmless.
        torn = segment.len();
        if let Read::Good(record) = Record::read(segment) {
            reader.found.book.apply(record);
        }
    }
    reader.finish(torn)
}

/// The state of reading a file line by line.
struct LedgerReader<'h> {
    found: FileContents,
    previous: Previous,
    head: Option<&'h Position>,
    /// `true` once the file has reached its head.
    holds_head: bool,
    /// Damaged lines since the last one with a number.
    unnumbered: u64,
}

impl LedgerReader<'_> {
    /// Reads a complete line, without its end. `number` counts from 1.
    fn line(&mut self, number: usize, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let parsed = serde_json::from_slice::<LineJson<'_>>(text).ok();
        let read = parsed.as_ref().map_or(Read::Bad, Record::of_line);
        let (Some(parsed), Read::Good(record)) = (parsed, &read) else {
            self.damaged(number, read);
            return;
        };
        if let Record::Format(format) = record {
            self.found.is_current &= *format == VERSION;
            if *format > VERSION {
                self.found.notices.push(Notice::Newer { format: *format });
            }
            let first = FirstLine::read(parsed.record.get());
            self.holds_head |= self.head.is_some_and(|head| first.follows(head));
            self.found.id = first.id.filter(|id| id.len() == ID_LEN);
        }
        if let (Some(seq), Some(chain)) = (parsed.seq, parsed.chain) {
            let position = Position { seq, chain: chain.to_owned() };
            self.found.notices.extend(fault(&self.previous, &position, parsed.sum, number));
            self.holds_head |= self.head == Some(&position);
            (self.found.position, self.unnumbered) = (position.clone(), 0);
            self.previous = Previous::Line(position);
        } else {
            // Written by an older version.
            self.found.is_current = false;
        }
        self.found.book.apply(record.clone());
    }

    fn damaged(&mut self, line: usize, read: Read) {
        let believed = matches!(read, Read::Doubtful(_));
        self.found.notices.push(Notice::Damaged { line, believed });
        if let Read::Doubtful(record) = read {
            self.found.doubtful.push(record);
        }
        self.previous = Previous::Damaged;
        self.unnumbered += 1;
    }

    /// Compares the end of the file with its head. `torn` is the length of its incomplete last line.
    fn finish(self, torn: usize) -> FileContents {
        let Self { mut found, head, holds_head, unnumbered, .. } = self;
        if let (false, Some(head)) = (holds_head, head) {
            let ends = found.position.seq.saturating_add(unnumbered);
            let is_reported = ends >= head.seq && found.notices.iter().any(Notice::is_loss);
            if !is_reported {
                found.notices.push(Notice::Behind { ends, head: head.seq });
                return found;
            }
        }
        if torn > 0 {
            found.notices.push(Notice::Torn { bytes: torn });
        }
        found
    }
}

/// Returns the fault in a line's position.
fn fault(previous: &Previous, position: &Position, record_sum: &str, line: usize) -> Option<Notice> {
    let last = match previous {
        Previous::Damaged => return None,
        Previous::None => Position { seq: position.seq.saturating_sub(1), chain: String::new() },
        Previous::Line(last) => last.clone(),
    };
    if last.next(record_sum) == *position {
        return None;
    }
    Some(match position.seq.checked_sub(last.seq.saturating_add(1)) {
        Some(0) => Notice::Damaged { line, believed: true },
        missing => Notice::Missing { line, records: missing },
    })
}

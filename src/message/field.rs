//! Header fields, in the order of the wire, over one buffer.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::ops::Range;

use super::name::Name;

/// The most buffers that a thread keeps, and their largest sizes in bytes and fields.
const SPARE: usize = 64;
const SPARE_BYTES: usize = 4096;
const SPARE_FIELDS: usize = 64;

thread_local! {
    /// Each head needs two buffers, and each request has two heads.
    static BUFFERS: RefCell<Vec<(Vec<u8>, Vec<Field>)>> = const { RefCell::new(Vec::new()) };
}

/// A field: the positions of its name and value in the buffer.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The name, if a rule knows it.
    pub name: Name,
    /// A list names this field. If Connection does, the field belongs to its hop.
    named: bool,
    name_at: usize,
    name_len: usize,
    value_at: usize,
    value_len: usize,
}

impl Field {
    /// Returns `true` if [`Fields::mark`] or `Fields::mark_hop` has marked this field.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.named
    }

    fn name_range(&self) -> Range<usize> {
        self.name_at..self.name_at + self.name_len
    }

    pub(super) fn value_range(&self) -> Range<usize> {
        self.value_at..self.value_at + self.value_len
    }
}

/// The fields of a head or of a trailer section.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    raw: Vec<u8>,
    list: Vec<Field>,
    /// The names that were added, a bit for each: most questions are for fields that are not there.
    names: NameSet,
}

/// A set of names.
#[derive(Debug, Clone, Copy, Default)]
struct NameSet(u64);

impl NameSet {
    fn add(&mut self, name: Name) {
        self.0 |= 1 << name as u8;
    }

    fn has(self, name: Name) -> bool {
        self.0 >> name as u8 & 1 == 1
    }
}

impl Fields {
    /// Removes all fields, and keeps the buffers.
    pub fn clear(&mut self) {
        self.raw.clear();
        self.list.clear();
        self.names = NameSet::default();
    }

    /// Returns `true` if the buffers have a usual size.
    #[must_use]
    pub fn is_worth_keeping(&self) -> bool {
        (1..=SPARE_BYTES).contains(&self.raw.capacity()) && self.list.capacity() <= SPARE_FIELDS
    }

    /// Takes kept buffers, if it has none yet.
    fn warm(&mut self) {
        if self.raw.capacity() == 0
            && self.list.capacity() == 0
            && let Some((raw, list)) = BUFFERS.with_borrow_mut(Vec::pop)
        {
            self.raw = raw;
            self.list = list;
        }
    }

    /// Returns a copy that grows in buffers which the thread keeps: a clone has none to spare.
    #[must_use]
    pub fn working_copy(&self) -> Self {
        let mut copy = Self::default();
        copy.warm();
        copy.names = self.names;
        copy.raw.extend_from_slice(&self.raw);
        copy.list.extend_from_slice(&self.list);
        copy
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.warm();
        let name_at = self.raw.len();
        self.raw.extend_from_slice(name);
        let value_at = self.raw.len();
        self.raw.extend_from_slice(value);
        self.add(Name::of(name), name_at..name_at + name.len(), value_at..value_at + value.len());
    }

    /// Makes fields from their text, name and value one after the other, and from the names and the lengths.
    #[must_use]
    pub fn of_parts(text: &[u8], parts: impl Iterator<Item = (Name, usize, usize)>) -> Self {
        let mut fields = Self::default();
        fields.warm();
        fields.raw.extend_from_slice(text);
        let mut at = 0;
        for (known, name_len, value_len) in parts {
            let value_at = at + name_len;
            fields.add(known, at..value_at, value_at..value_at + value_len);
            at = value_at + value_len;
        }
        fields
    }

    /// Copies a whole head. [`Fields::push_range`] then adds its fields.
    pub(super) fn set_raw(&mut self, head: &[u8], fields: usize) {
        self.warm();
        self.raw.clear();
        self.raw.extend_from_slice(head);
        self.list.clear();
        self.list.reserve(fields);
        self.names = NameSet::default();
    }

    /// Adds a field that is in the buffer already.
    pub(super) fn push_range(&mut self, name: Range<usize>, value: Range<usize>) {
        self.add(Name::of(&self.raw[name.clone()]), name, value);
    }

    fn add(&mut self, known: Name, name: Range<usize>, value: Range<usize>) {
        self.names.add(known);
        self.list.push(Field {
            name: known,
            named: false,
            name_at: name.start,
            name_len: name.len(),
            value_at: value.start,
            value_len: value.len(),
        });
    }

    /// Adds bytes that belong to no field, such as a request target. Returns their position.
    pub(super) fn push_raw(&mut self, bytes: &[u8]) -> Range<usize> {
        let at = self.raw.len();
        self.raw.extend_from_slice(bytes);
        at..self.raw.len()
    }

    pub(super) fn raw(&self, range: Range<usize>) -> &[u8] {
        &self.raw[range]
    }

    pub(super) fn raw_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.raw[range]
    }

    /// Returns the size of the buffer, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.raw.len()
    }

    /// Returns the bytes that the buffers have room for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.raw.capacity() + self.list.capacity() * size_of::<Field>()
    }

    /// Returns the number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns `true` if there are no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the name as received.
    #[must_use]
    pub fn name(&self, field: &Field) -> &[u8] {
        &self.raw[field.name_range()]
    }

    /// Returns the value, without white space around it.
    #[must_use]
    pub fn value(&self, field: &Field) -> &[u8] {
        &self.raw[field.value_range()]
    }

    /// The field as a line of HTTP/1.1, `Name: value` and CRLF, if that is how it came.
    #[must_use]
    pub fn line(&self, field: &Field) -> Option<&[u8]> {
        let (name, value) = (field.name_range(), field.value_range());
        let line = self.raw.get(name.start..value.end + 2)?;
        let is_line =
            value.start == name.end + 2 && line.get(name.len()..)?.starts_with(b": ") && line.ends_with(b"\r\n");
        is_line.then_some(line)
    }

    /// Returns all fields, in the order of the wire.
    pub fn iter(&self) -> impl Iterator<Item = (Name, &[u8], &[u8])> {
        self.list.iter().map(|f| (f.name, self.name(f), self.value(f)))
    }

    /// Returns the fields as positions.
    #[must_use]
    pub fn list(&self) -> &[Field] {
        &self.list
    }

    /// The fields to look through for that name: none, if it was never added.
    fn with(&self, name: Name) -> &[Field] {
        if self.names.has(name) { &self.list } else { &[] }
    }

    /// Returns the value of the first field with this name.
    #[must_use]
    pub fn get(&self, name: Name) -> Option<&[u8]> {
        self.with(name).iter().find(|f| f.name == name).map(|f| self.value(f))
    }

    /// Returns the values of all fields with this name.
    pub fn get_all(&self, name: Name) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.with(name).iter().filter(move |f| f.name == name).map(|f| self.value(f))
    }

    /// Returns `true` if a field has this name.
    #[must_use]
    pub fn has(&self, name: Name) -> bool {
        self.with(name).iter().any(|f| f.name == name)
    }

    /// Replaces the value of the field at `index`.
    pub fn replace(&mut self, index: usize, value: &[u8]) {
        let at = self.raw.len();
        self.raw.extend_from_slice(value);
        if let Some(field) = self.list.get_mut(index) {
            field.value_at = at;
            field.value_len = value.len();
        }
    }

    /// Reads the Connection fields.
    pub(super) fn read_connection(&self, options: &mut ConnectionOptions) {
        for value in self.get_all(Name::Connection) {
            options.any = true;
            match value {
                b"keep-alive" => options.keep_alive = true,
                b"close" => options.close = true,
                _ => tokens(value).for_each(|token| options.read(token)),
            }
        }
    }

    /// Marks the fields that Connection fields name.
    pub(super) fn mark_hop(&mut self) {
        let lists: Vec<Range<usize>> =
            self.list.iter().filter(|f| f.name == Name::Connection).map(Field::value_range).collect();
        let Self { raw, list, .. } = self;
        let tokens = lists.into_iter().flat_map(|list| tokens(&raw[list]));
        mark(raw, list, tokens.filter(|token| !ConnectionOptions::default().is_read(token)));
    }

    /// Marks the fields with these names.
    pub fn mark<'a>(&mut self, names: impl Iterator<Item = &'a [u8]>) {
        mark(&self.raw, &mut self.list, names);
    }

    /// Returns the values of all fields with this name, which need not be a known one.
    pub fn values_of<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        // Most names have another length: their text need not be looked at.
        let with_length = self.list.iter().filter(move |f| f.name_len == name.len());
        with_length.filter(move |f| self.name(f).eq_ignore_ascii_case(name)).map(|f| self.value(f))
    }

    /// Returns the value of the first field with this name.
    #[must_use]
    pub fn value_of<'a>(&'a self, name: &'a [u8]) -> Option<&'a [u8]> {
        self.values_of(name).next()
    }

    /// Returns `true` if there is a field with this name.
    #[must_use]
    pub fn has_field(&self, name: &[u8]) -> bool {
        self.value_of(name).is_some()
    }

    /// Keeps the fields for which `keep`, given the field and its name, returns `true`.
    pub fn retain(&mut self, mut keep: impl FnMut(&Field, &[u8]) -> bool) {
        let raw = &self.raw;
        self.list.retain(|f| keep(f, &raw[f.name_range()]));
    }

    /// Removes the marked fields.
    pub(super) fn remove_named(&mut self) {
        self.list.retain(|f| !f.named);
    }

    /// Removes the fields for which `drop`, given name and value, returns `true`.
    pub fn remove_if(&mut self, mut drop: impl FnMut(Name, &[u8], &[u8]) -> bool) {
        let raw = &self.raw;
        self.list.retain(|f| !drop(f.name, &raw[f.name_range()], &raw[f.value_range()]));
    }
}

/// The content of Connection fields.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConnectionOptions {
    /// The head has a Connection field.
    pub(super) any: bool,
    pub(super) keep_alive: bool,
    pub(super) close: bool,
    pub(super) upgrade: bool,
    /// The field has other members: names of fields.
    pub(super) names_fields: bool,
}

impl ConnectionOptions {
    fn read(&mut self, token: &[u8]) {
        self.names_fields |= !self.is_read(token);
    }

    /// Reads a token. Returns `false` if it is the name of a field.
    fn is_read(&mut self, token: &[u8]) -> bool {
        let option = match token.len() {
            5 if token.eq_ignore_ascii_case(b"close") => &mut self.close,
            7 if token.eq_ignore_ascii_case(b"upgrade") => &mut self.upgrade,
            10 if token.eq_ignore_ascii_case(b"keep-alive") => &mut self.keep_alive,
            _ => return false,
        };
        *option = true;
        true
    }
}

/// Marks the fields with these names. Lists and heads may be long: each name is looked up in sorted
/// fields.
fn mark<'a>(raw: &[u8], list: &mut [Field], names: impl Iterator<Item = &'a [u8]>) {
    let mut order: Vec<usize> = (0..list.len()).collect();
    order.sort_unstable_by(|a, b| by_name(&raw[list[*a].name_range()], &raw[list[*b].name_range()]));
    for name in names {
        let begin = order.partition_point(|at| by_name(&raw[list[*at].name_range()], name) == Ordering::Less);
        for at in &order[begin..] {
            // The first mention of a name marks all its fields.
            if list[*at].named || by_name(&raw[list[*at].name_range()], name) != Ordering::Equal {
                break;
            }
            list[*at].named = true;
        }
    }
}

/// Orders names without regard to case.
fn by_name(a: &[u8], b: &[u8]) -> Ordering {
    let lower = |b: &u8| b.to_ascii_lowercase();
    a.len().cmp(&b.len()).then_with(|| a.iter().map(lower).cmp(b.iter().map(lower)))
}

/// Keeps the buffers for other heads.
impl Drop for Fields {
    fn drop(&mut self) {
        if !self.is_worth_keeping() {
            return;
        }
        // Fails only in a thread that ends.
        let _ = BUFFERS.try_with(|buffers| {
            let mut buffers = buffers.borrow_mut();
            if buffers.len() < SPARE {
                self.clear();
                buffers.push((std::mem::take(&mut self.raw), std::mem::take(&mut self.list)));
            }
        });
    }
}

#[cfg(test)]
impl Fields {
    /// Fields of these names and values.
    pub(crate) fn of(list: &[(&str, &str)]) -> Self {
        let mut fields = Self::default();
        list.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        fields
    }
}

/// Returns the members of a comma-separated list, trimmed, without empty ones (RFC 9110 section
/// 5.6.1).
pub fn tokens(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

/// Returns `true` if a comma-separated list has this member, in any case.
#[must_use]
pub fn has_token(value: &[u8], token: &[u8]) -> bool {
    tokens(value).any(|t| t.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order() {
        let mut fields = Fields::default();
        fields.push(b"Set-Cookie", b"a=1");
        fields.push(b"X", b"y");
        fields.push(b"set-cookie", b"b=2");
        assert_eq!(fields.get_all(Name::SetCookie).collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        fields.replace(0, b"c=3; Secure");
        assert_eq!(fields.get(Name::SetCookie), Some(&b"c=3; Secure"[..]));
        fields.remove_if(|name, _, value| name == Name::SetCookie && value == b"b=2");
        assert_eq!(fields.len(), 2);
    }

    /// Cut to 16 bits, the name would be another one.
    #[test]
    fn long_names_and_values_stay_whole() {
        let (name, value) = ([b"Transfer-Encoding".to_vec(), vec![b'x'; 1 << 16]].concat(), vec![b'y'; 1 << 17]);
        let mut fields = Fields::default();
        fields.push(&name, &value);
        let (known, bytes, held) = fields.iter().next().unwrap();
        assert_eq!((known, bytes.len(), held.len()), (Name::Other, name.len(), value.len()));
    }

    #[test]
    fn fields_that_are_lines() {
        let head = b"A: b\r\nC:d\r\nE:  f\r\nG: h \r\nI:\ti\r\nJ: k\nL: m\r\n";
        let mut fields = Fields::default();
        fields.set_raw(head, 7);
        for (name, value) in [(0, 3), (6, 8), (11, 15), (18, 21), (25, 28), (31, 34), (36, 39)] {
            fields.push_range(name..name + 1, value..value + 1);
        }
        let lines: Vec<_> = fields.list().iter().map(|f| fields.line(f)).collect();
        assert_eq!(lines, [Some(&b"A: b\r\n"[..]), None, None, None, None, None, Some(b"L: m\r\n")]);
        fields.replace(0, b"c");
        fields.push(b"N", b"o");
        assert_eq!((fields.line(&fields.list()[0]), fields.line(&fields.list()[7])), (None, None));
    }

    #[test]
    fn fields_that_a_list_names() {
        let mut fields = Fields::default();
        for (name, value) in [("X-A", ""), ("Connection", "x-a, close ,X-c"), ("x-A", ""), ("X-B", ""), ("Close", "")] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields.push(b"connection", b"Keep-Alive, x-b-not, , x-a");
        fields.mark_hop();
        assert_eq!(
            fields.list().iter().map(Field::is_named).collect::<Vec<_>>(),
            [true, false, true, false, false, false]
        );
        fields.remove_named();
        assert_eq!(fields.len(), 4);
    }

    /// Forty thousand million comparisons, were each member held against each field.
    #[test]
    fn long_lists_and_many_fields() {
        let mut fields = Fields::default();
        let many = 200_000;
        for n in 0..many {
            fields.push(format!("x-{n}").as_bytes(), b"");
        }
        let list: Vec<String> = (0..many).map(|n| format!("X-{}", 2 * n)).collect();
        fields.push(b"Connection", list.join(",").as_bytes());
        let begin = tokio::time::Instant::now();
        fields.mark_hop();
        assert_eq!(fields.list().iter().filter(|f| f.is_named()).count(), many / 2);
        assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
    }

    #[test]
    fn lists() {
        assert_eq!(tokens(b" a,, b ,").collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(has_token(b"keep-alive, Upgrade", b"upgrade"));
        assert!(!has_token(b"keep-alive-not", b"keep-alive"));
    }
}

//! The directives of Cache-Control (RFC 9111 section 5.2), and of the fields that are for caches
//! like this one (RFC 9213).

use std::borrow::Cow;

use sfv::{BareItem, Dictionary, ListEntry, Parser};

use crate::message::Fields;

/// The largest age in seconds; larger ones are this (RFC 9111 section 1.2.2).
pub const AGE_MAX: u32 = 1 << 31;
/// The fields for this cache alone, the first one first (RFC 9213 section 2.2).
pub const TARGETS: [&[u8]; 2] = [b"pintle-cache-control", b"cdn-cache-control"];
/// The room for a name: no directive has a longer one.
const NAME_MAX: usize = 32;
/// The longest targeted field that is read, in bytes.
const TARGETED_MAX: usize = 8192;

/// The fields to which `private` or `no-cache` applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The whole response.
    Whole,
    /// These fields, in lower case.
    Fields(Vec<Box<[u8]>>),
}

impl Scope {
    /// Both together: the whole response, or the fields of both.
    fn join(held: Option<Self>, other: Self) -> Self {
        match (held, other) {
            (Some(Self::Fields(mut held)), Self::Fields(more)) => {
                held.extend(more);
                Self::Fields(held)
            }
            (None, other) => other,
            _ => Self::Whole,
        }
    }

    /// `true` for the whole response.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }
}

/// The directives of a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the directive of that name")]
pub struct Response {
    /// A field for this cache decides (RFC 9213): Expires does not count.
    pub is_targeted: bool,
    pub no_store: bool,
    pub no_cache: Option<Scope>,
    pub private: Option<Scope>,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub no_transform: bool,
    pub immutable: bool,
    /// In seconds, as all ages here. 0 if it cannot be read: stale at once.
    pub s_maxage: Option<u32>,
    pub max_age: Option<u32>,
    pub stale_while_revalidate: Option<u32>,
    pub stale_if_error: Option<u32>,
}

/// The directives of a stored response that its uses depend on, in few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptDirectives {
    bits: u8,
    stale_while_revalidate: u32,
    stale_if_error: u32,
}

impl KeptDirectives {
    /// No time is stated. Times are at most [`AGE_MAX`].
    const NONE: u32 = u32::MAX;

    /// Keeps directives. `no-cache` with a list of fields has had its effect when they were removed.
    #[must_use]
    pub fn of(all: &Response) -> Self {
        let is_whole = |scope: &Option<Scope>| scope.as_ref().is_some_and(Scope::is_whole);
        let bits = [
            is_whole(&all.no_cache),
            all.public,
            all.must_revalidate,
            all.proxy_revalidate,
            all.immutable,
            all.no_transform,
            all.s_maxage.is_some(),
        ];
        Self {
            bits: bits.iter().rev().fold(0, |bits, is_so| bits << 1 | u8::from(*is_so)),
            stale_while_revalidate: all.stale_while_revalidate.unwrap_or(Self::NONE),
            stale_if_error: all.stale_if_error.unwrap_or(Self::NONE),
        }
    }

    /// Returns them as those of a response. Lifetimes that were stated are 0: the response knows its own.
    #[must_use]
    pub fn all(self) -> Response {
        let has = |bit: u8| self.bits >> bit & 1 == 1;
        let time = |seconds: u32| Some(seconds).filter(|seconds| *seconds != Self::NONE);
        Response {
            no_cache: has(0).then_some(Scope::Whole),
            public: has(1),
            must_revalidate: has(2),
            proxy_revalidate: has(3),
            immutable: has(4),
            no_transform: has(5),
            s_maxage: has(6).then_some(0),
            stale_while_revalidate: time(self.stale_while_revalidate),
            stale_if_error: time(self.stale_if_error),
            ..Response::default()
        }
    }
}

/// The directives of a request: advice to a shared cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the directive of that name")]
pub struct Request {
    pub no_cache: bool,
    pub no_store: bool,
    pub no_transform: bool,
    pub only_if_cached: bool,
    /// In seconds, as all ages here.
    pub max_age: Option<u32>,
    pub min_fresh: Option<u32>,
    /// [`AGE_MAX`] if any age will do.
    pub max_stale: Option<u32>,
    pub stale_if_error: Option<u32>,
}

impl Response {
    /// Reads the directives of a response: those of the first valid targeted field, otherwise
    /// those of Cache-Control.
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        let targeted = TARGETS.iter().find_map(|name| Self::targeted(&joined(fields, name)));
        targeted.unwrap_or_else(|| {
            let mut all = Self::default();
            members(&joined(fields, b"cache-control"), |name, value| all.read(name, value));
            all
        })
    }

    /// Reads a targeted field. `None` if it is empty or not a Dictionary (RFC 9213 section 2.1).
    fn targeted(value: &[u8]) -> Option<Self> {
        if value.is_empty() || value.len() > TARGETED_MAX {
            return None;
        }
        let dictionary: Dictionary = Parser::new(value).parse().ok()?;
        if dictionary.is_empty() {
            return None;
        }
        let mut all = Self { is_targeted: true, ..Self::default() };
        for (name, entry) in &dictionary {
            let ListEntry::Item(item) = entry else { continue };
            let (name, is_age) = (name.as_str().as_bytes(), is_age(name.as_str()));
            match &item.bare_item {
                BareItem::Boolean(true) if !is_age => all.read(name, None),
                BareItem::Integer(age) if is_age => all.read(name, Some(i64::from(*age).to_string().as_bytes())),
                BareItem::String(list) if !is_age => all.read(name, Some(list.as_str().as_bytes())),
                // Another type: unreadable. An age is then over at once.
                _ if is_age => all.read(name, Some(b"")),
                _ => {}
            }
        }
        Some(all)
    }

    fn read(&mut self, name: &[u8], value: Option<&[u8]>) {
        match name {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = Some(Scope::join(self.no_cache.take(), scope(value))),
            b"private" => self.private = Some(Scope::join(self.private.take(), scope(value))),
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"no-transform" => self.no_transform = true,
            b"immutable" => self.immutable = true,
            b"s-maxage" => lowest(&mut self.s_maxage, value),
            b"max-age" => lowest(&mut self.max_age, value),
            b"stale-while-revalidate" => lowest(&mut self.stale_while_revalidate, value),
            b"stale-if-error" => lowest(&mut self.stale_if_error, value),
            _ => {}
        }
    }
}

impl Request {
    /// Reads the directives of a request. `Pragma: no-cache` counts if there is no Cache-Control
    /// (RFC 9111 section 5.4).
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        let mut all = Self::default();
        let stated = joined(fields, b"cache-control");
        if stated.is_empty() {
            members(&joined(fields, b"pragma"), |name, _| all.no_cache |= name == b"no-cache");
            return all;
        }
        members(&stated, |name, value| match name {
            b"no-cache" => all.no_cache = true,
            b"no-store" => all.no_store = true,
            b"no-transform" => all.no_transform = true,
            b"only-if-cached" => all.only_if_cached = true,
            b"max-age" => lowest(&mut all.max_age, value),
            b"min-fresh" => {
                // The largest one is the strictest; one that cannot be read asks for nothing.
                let asked = value.and_then(age).unwrap_or_default();
                all.min_fresh = all.min_fresh.max(Some(asked));
            }
            b"max-stale" if value.is_none() => all.max_stale = all.max_stale.or(Some(AGE_MAX)),
            b"max-stale" => lowest(&mut all.max_stale, value),
            b"stale-if-error" => lowest(&mut all.stale_if_error, value),
            _ => {}
        });
        all
    }
}

fn is_age(name: &str) -> bool {
    matches!(name, "s-maxage" | "max-age" | "stale-while-revalidate" | "stale-if-error")
}

/// All values of a field as one list.
fn joined<'f>(fields: &'f Fields, name: &'f [u8]) -> Cow<'f, [u8]> {
    let mut values = fields.values_of(name);
    let first = Cow::from(values.next().unwrap_or_default());
    values.fold(first, |all, value| match all.is_empty() {
        true => value.into(),
        false => [&all[..], value].join(&b", "[..]).into(),
    })
}

/// The lower of two ages. One that cannot be read is 0 (RFC 9111 section 4.2.1).
fn lowest(held: &mut Option<u32>, value: Option<&[u8]>) {
    let stated = value.and_then(age).unwrap_or_default();
    *held = Some(held.map_or(stated, |held| held.min(stated)));
}

/// delta-seconds (RFC 9111 section 1.2.2).
pub(super) fn age(digits: &[u8]) -> Option<u32> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let add = |sum: u32, digit: &u8| {
        let sum = u64::from(sum) * 10 + u64::from(digit - b'0');
        u32::try_from(sum.min(u64::from(AGE_MAX))).unwrap_or(AGE_MAX)
    };
    is_number.then(|| digits.iter().fold(0, add))
}

/// The list of fields, or the whole response if there is none or it is malformed.
fn scope(value: Option<&[u8]>) -> Scope {
    let Some(value) = value else { return Scope::Whole };
    let names: Vec<Box<[u8]>> = value
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
        .map(|name| name.to_ascii_lowercase().into_boxed_slice())
        .collect();
    let is_list = !names.is_empty() && names.iter().all(|name| name.iter().all(|b| is_token(*b)));
    if is_list { Scope::Fields(names) } else { Scope::Whole }
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Reads a list of `token [ "=" ( token / quoted-string ) ]`. Names are given in lower case. A
/// comma in quotes does not separate. A quote without end is none: what follows it is read.
fn members(list: &[u8], mut each: impl FnMut(&[u8], Option<&[u8]>)) {
    let mut rest = list;
    while !rest.is_empty() {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|b| !is_token(*b)).unwrap_or(rest.len());
        let mut room = [0; NAME_MAX];
        let name = lower(&rest[..end], &mut room);
        rest = rest[end..].trim_ascii_start();
        let mut value = None;
        if let Some(after) = rest.strip_prefix(b"=") {
            rest = after.trim_ascii_start();
            if let Some((text, after)) = rest.strip_prefix(b"\"").and_then(quoted) {
                value = Some(Cow::Owned(text));
                rest = after;
            } else {
                let end = rest.iter().position(|b| matches!(*b, b',' | b'"')).unwrap_or(rest.len());
                value = Some(Cow::Borrowed(rest[..end].trim_ascii()));
                rest = rest[end..].strip_prefix(b"\"").unwrap_or_else(|| &rest[end..]);
            }
        }
        if !name.is_empty() {
            each(name, value.as_deref());
        }
        // To the next member; on the way, a quoted text hides its commas.
        rest = next(rest);
    }
}

/// A name in lower case; one that is longer than all known ones, as it is.
fn lower<'n>(name: &'n [u8], room: &'n mut [u8; NAME_MAX]) -> &'n [u8] {
    match room.get_mut(..name.len()) {
        Some(lower) => {
            lower.copy_from_slice(name);
            lower.make_ascii_lowercase();
            lower
        }
        None => name,
    }
}

fn next(mut rest: &[u8]) -> &[u8] {
    loop {
        match rest.first() {
            None => return rest,
            Some(b',') => return &rest[1..],
            Some(b'"') => rest = quoted(&rest[1..]).map_or(&rest[1..], |(_, after)| after),
            // A blank after a value without quotes: another directive without its comma counts, too.
            Some(b) if is_token(*b) => return rest,
            Some(_) => rest = &rest[1..],
        }
    }
}

/// The text up to the closing quote, without escapes, and what follows.
fn quoted(rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut text = Vec::new();
    let mut at = 0;
    loop {
        match *rest.get(at)? {
            b'"' => return Some((text, &rest[at + 1..])),
            b'\\' => {
                text.push(*rest.get(at + 1)?);
                at += 2;
            }
            b => {
                text.push(b);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(value: &str) -> Response {
        Response::of(&Fields::of(&[("Cache-Control", value)]))
    }

    fn names(list: &[&str]) -> Option<Scope> {
        Some(Scope::Fields(list.iter().map(|n| n.as_bytes().into()).collect()))
    }

    #[test]
    fn ages() {
        for (value, want) in [
            ("max-age=60", Some(60)),
            ("MAX-AGE=60", Some(60)),
            ("max-age=\"60\"", Some(60)),
            ("max-age=060", Some(60)),
            ("max-age = 60", Some(60)),
            ("max-age=0", Some(0)),
            ("max-age=99999999999999999999", Some(AGE_MAX)),
            ("max-age=4294967356", Some(AGE_MAX)),
            ("max-age=60, max-age=60", Some(60)),
            ("max-age=60, max-age=30", Some(30)),
            ("max-age=30, max-age=60", Some(30)),
            ("max-age=60, max-age=x", Some(0)),
            ("max-age=abc", Some(0)),
            ("max-age=-1", Some(0)),
            ("max-age=1.5", Some(0)),
            ("max-age=", Some(0)),
            ("max-age", Some(0)),
            ("max-age=60s", Some(0)),
            ("foo=\"max-age=0\", max-age=60", Some(60)),
            ("foo=\"a,max-age=0\", max-age=60", Some(60)),
            ("foo=\"\\\",max-age=0\", max-age=60", Some(60)),
            ("foo=\"a, max-age=60", Some(60)),
            (",,max-age=60,,", Some(60)),
            ("max-age=60 public", Some(0)),
            ("x-max-age=60", None),
            ("max-agee=60", None),
            ("\"max-age=60\"", None),
            ("", None),
        ] {
            assert_eq!(response(value).max_age, want, "{value}");
        }
    }

    #[test]
    fn directives_that_are_kept() {
        let kept = |value: &str| KeptDirectives::of(&response(value)).all();
        for value in
            ["no-cache", "public, immutable", "must-revalidate, no-transform", "proxy-revalidate, stale-if-error=0"]
        {
            assert_eq!(kept(value), response(value), "{value}");
        }
        let all = kept("s-maxage=5, max-age=6, no-cache=\"x\", stale-while-revalidate=9, stale-if-error=99999999999");
        let want = Response {
            s_maxage: Some(0),
            stale_while_revalidate: Some(9),
            stale_if_error: Some(AGE_MAX),
            ..Response::default()
        };
        assert_eq!(all, want);
    }

    #[test]
    fn directives_of_responses() {
        let all = response(
            "no-store, no-cache, private, public, must-revalidate, proxy-revalidate, must-understand, no-transform, \
             immutable, s-maxage=1, max-age=2, stale-while-revalidate=3, stale-if-error=4, unknown, other=5",
        );
        let want = Response {
            is_targeted: false,
            no_store: true,
            no_cache: Some(Scope::Whole),
            private: Some(Scope::Whole),
            public: true,
            must_revalidate: true,
            proxy_revalidate: true,
            must_understand: true,
            no_transform: true,
            immutable: true,
            s_maxage: Some(1),
            max_age: Some(2),
            stale_while_revalidate: Some(3),
            stale_if_error: Some(4),
        };
        assert_eq!(all, want);
        let lines = Fields::of(&[("cache-control", "max-age=60"), ("X", "no-store"), ("CACHE-CONTROL", "public")]);
        let want = Response { public: true, max_age: Some(60), ..Response::default() };
        assert_eq!(Response::of(&lines), want);
        // Without its comma, or behind a quote without end, a restriction still counts.
        assert!(response("max-age=60; no-store").no_store || response("max-age=60; no-store").max_age == Some(0));
        assert!(response("foo=\"bar, no-store").no_store);
        assert!(response("public no-store").no_store);
        assert!(response("max-age=\"60\" no-store").no_store);
        // Values of directives that have none are not looked at.
        assert!(response("no-store=0").no_store && response("no-store=\"x\"").no_store);
    }

    #[test]
    fn scopes() {
        for (value, want) in [
            ("private=\"set-cookie, X-U\"", names(&["set-cookie", "x-u"])),
            ("private=set-cookie", names(&["set-cookie"])),
            ("private=\"a\", private=\"b\"", names(&["a", "b"])),
            ("private=\"a\", private", Some(Scope::Whole)),
            ("private, private=\"a\"", Some(Scope::Whole)),
            ("private=\"\"", Some(Scope::Whole)),
            ("private=\" , \"", Some(Scope::Whole)),
            ("private=\"a b\"", Some(Scope::Whole)),
            ("private=", Some(Scope::Whole)),
            ("private=\"set-cookie", Some(Scope::Whole)),
            ("public", None),
        ] {
            assert_eq!(response(value).private, want, "{value}");
            assert_eq!(response(&value.replace("private", "no-cache")).no_cache, want, "{value}");
        }
    }

    #[test]
    fn fields_for_this_cache() {
        let plain = ("Cache-Control", "max-age=1");
        for (list, targeted, age) in [
            (vec![plain, ("CDN-Cache-Control", "max-age=60")], true, Some(60)),
            (vec![plain, ("CDN-Cache-Control", "max-age=60"), ("Pintle-Cache-Control", "max-age=9")], true, Some(9)),
            (vec![plain, ("CDN-Cache-Control", "max-age=60"), ("Pintle-Cache-Control", "")], true, Some(60)),
            (vec![plain, ("CDN-Cache-Control", "max-age=60"), ("Pintle-Cache-Control", "a,")], true, Some(60)),
            (vec![plain, ("Other-Cache-Control", "max-age=60")], false, Some(1)),
            // Structured fields: errors void the whole field.
            (vec![plain, ("CDN-Cache-Control", "MAX-AGE=60")], false, Some(1)),
            (vec![plain, ("CDN-Cache-Control", "max-age=60,")], false, Some(1)),
            (vec![plain, ("CDN-Cache-Control", "max-age=99999999999999999999")], false, Some(1)),
            // Read, but of another type: over at once.
            (vec![plain, ("CDN-Cache-Control", "max-age=\"60\"")], true, Some(0)),
            (vec![plain, ("CDN-Cache-Control", "max-age=1.5")], true, Some(0)),
            (vec![plain, ("CDN-Cache-Control", "max-age=-1")], true, Some(0)),
            (vec![plain, ("CDN-Cache-Control", "max-age")], true, Some(0)),
            (vec![plain, ("CDN-Cache-Control", "max-age=(60)")], true, None),
            (vec![plain, ("CDN-Cache-Control", "max-age=60;x=1")], true, Some(60)),
            (vec![plain, ("CDN-Cache-Control", "max-age=60"), ("CDN-Cache-Control", "no-cache")], true, Some(60)),
        ] {
            let read = Response::of(&Fields::of(&list));
            assert_eq!((read.is_targeted, read.max_age), (targeted, age), "{list:?}");
        }
        let read = |value| Response::of(&Fields::of(&[("Pintle-Cache-Control", value)]));
        assert!(read("no-store").no_store && !read("no-store=?0").no_store);
        assert_eq!(read("private=\"x-u\", max-age=5").private, names(&["x-u"]));
        assert_eq!(read("no-cache").no_cache, Some(Scope::Whole));
        assert!(read("must-revalidate, max-age=5").must_revalidate);
    }

    #[test]
    fn directives_of_requests() {
        let request = |value| Request::of(&Fields::of(&[("Cache-Control", value)]));
        let all = request("no-cache, no-store, no-transform, only-if-cached, max-age=1, min-fresh=2, max-stale=3");
        let want = Request {
            no_cache: true,
            no_store: true,
            no_transform: true,
            only_if_cached: true,
            max_age: Some(1),
            min_fresh: Some(2),
            max_stale: Some(3),
            stale_if_error: None,
        };
        assert_eq!(all, want);
        assert_eq!(request("max-stale").max_stale, Some(AGE_MAX));
        assert_eq!(request("max-stale, max-stale=5").max_stale, Some(5));
        assert_eq!(request("min-fresh=5, min-fresh=9").min_fresh, Some(9));
        assert_eq!(request("max-age=x").max_age, Some(0));
        let pragma = |list: &[(&str, &str)]| Request::of(&Fields::of(list)).no_cache;
        assert!(pragma(&[("Pragma", "no-cache")]) && pragma(&[("Pragma", "x, No-Cache")]));
        assert!(!pragma(&[("Pragma", "no-cache"), ("Cache-Control", "max-age=5")]) && !pragma(&[("Pragma", "x")]));
    }

    proptest::proptest! {
        #[test]
        fn any_list_is_read(list in "[a-z=\",\\\\ 0-9\u{80}-]{0,80}") {
            let _ = (response(&list), Request::of(&Fields::of(&[("Cache-Control", &list)])));
        }

        /// A restriction that is stated by itself is found, whatever stands before it in whole members.
        #[test]
        fn no_member_hides_the_next(name in "[a-z-]{1,8}", value in "[^\"\\\\\u{0}-\u{1f}]{0,20}") {
            let list = format!("{name}=\"{value}\", no-store");
            proptest::prop_assert!(response(&list).no_store);
        }
    }
}

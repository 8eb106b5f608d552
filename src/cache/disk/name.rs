//! The names of files: hashes, so that no URL leads outside of the folder.

use sha2::{Digest as _, Sha256};

use crate::cache::key;
use crate::cache::vary::Variant;

/// The number of folders that the files of a site are spread over.
pub(super) const FOLDERS: usize = 256;
/// The end of the name of a file that is not whole yet.
pub(super) const NEW: &str = ".new";

/// The name of a stored response: the hashes of its URL, and of what else selects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageFileName {
    pub(super) page: [u64; 2],
    pub(super) variant: u64,
}

/// The hash of a URL: of the authority as the client asked for it, and the target.
pub(super) fn page_of(page_key: &[u8]) -> [u64; 2] {
    let (authority, target) = key::parts(page_key);
    page_of_url(authority, target)
}

/// The same, of the parts.
pub(super) fn page_of_url(authority: &[u8], target: &[u8]) -> [u64; 2] {
    let hash = Sha256::new().chain_update(authority).chain_update(b"\n").chain_update(target);
    let hash: [u8; 32] = hash.finalize().into();
    [number(&hash, 0), number(&hash, 8)]
}

fn number(hash: &[u8], at: usize) -> u64 {
    let bytes = hash.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    u64::from_be_bytes(bytes.unwrap_or_default())
}

impl PageFileName {
    /// Returns the name of a variant of a page.
    #[must_use]
    pub fn of(page_key: &[u8], variant: &Variant) -> Self {
        let mut hash = Sha256::new();
        // The whole key: a trusted proxy may state another authority for the same URL.
        hash.update((page_key.len() as u64).to_be_bytes());
        hash.update(page_key);
        for (name, value) in variant.fields() {
            for part in [name, value.unwrap_or_default()] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            hash.update([u8::from(value.is_some())]);
        }
        let hash: [u8; 32] = hash.finalize().into();
        Self { page: page_of(page_key), variant: number(&hash, 0) }
    }

    /// Returns the first and the last name of a page.
    pub(super) fn all_of(page: [u64; 2]) -> std::ops::RangeInclusive<Self> {
        Self { page, variant: 0 }..=Self { page, variant: u64::MAX }
    }

    /// Returns the number of its folder.
    pub(super) fn folder(self) -> usize {
        folder_of(self.page)
    }

    /// Returns its name in that folder.
    pub(super) fn file(self) -> String {
        format!("{}-{:016x}", beginning(self.page), self.variant)
    }

    /// Reads a name; `None` if it is none of these.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (page, variant) = text.split_once('-')?;
        let (first, second) = page.split_at_checked(16)?;
        let number = |digits: &str| (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten();
        let name = Self { page: [number(first)?, number(second)?], variant: number(variant)? };
        (name.file() == text).then_some(name)
    }
}

/// The number of the folder of a page.
pub(super) fn folder_of(page: [u64; 2]) -> usize {
    usize::from(page[0].to_be_bytes()[0])
}

/// The name of a folder, by its number.
pub(super) fn folder_name(number: usize) -> String {
    format!("{number:02x}")
}

/// The beginning that the names of a page's files have in common.
pub(super) fn beginning(page: [u64; 2]) -> String {
    format!("{:016x}{:016x}", page[0], page[1])
}

/// The hash of a word that a purge may name.
fn mark(kind: u8, parts: [&[u8]; 2]) -> u32 {
    let hash = Sha256::new().chain_update([kind]).chain_update(parts[0]).chain_update(b"\n").chain_update(parts[1]);
    let hash: [u8; 32] = hash.finalize().into();
    let bytes = hash.first_chunk::<4>().copied();
    // The largest number has a meaning of its own.
    u32::from_be_bytes(bytes.unwrap_or_default()).min(DEEP - 1)
}

/// The mark of a page whose path has more segments than are noted: any purge of a prefix is for it.
const DEEP: u32 = u32::MAX;
/// The most slashes of a path that are noted.
const SLASHES_MAX: usize = 16;

/// Returns `true` if a trusted proxy states another name for a page than its file has.
pub(super) fn is_renamed(page_key: &[u8]) -> bool {
    key::names(page_key).nth(1).is_some()
}

/// The marks of a response: hashes of its tags, and of the prefixes of its path. By them, a purge finds files without
/// reading them. If two words have the same hash, a purge of one removes the pages of both, and they are fetched again.
pub(super) fn marks(page_key: &[u8], tags: &[Box<[u8]>]) -> Box<[u32]> {
    let (_, target) = key::parts(page_key);
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    let mut marks: Vec<u32> = tags.iter().map(|tag| mark(b't', [tag, b""])).collect();
    let mut prefixes = vec![path];
    for (count, at) in slashes.enumerate() {
        if count == SLASHES_MAX {
            marks.push(DEEP);
            break;
        }
        prefixes.push(&path[..at]);
        prefixes.push(&path[..=at]);
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.retain(|prefix| !prefix.is_empty());
    for authority in key::names(page_key) {
        marks.extend(prefixes.iter().map(|prefix| mark(b'p', [authority, prefix])));
    }
    // The file has the name of the URL that was asked for. A trusted proxy may state another one.
    marks.extend(key::names(page_key).skip(1).map(|authority| mark(b'u', [authority, target])));
    if !tags.is_empty() {
        marks.push(mark(b'o', [key::origin(page_key), b""]));
    }
    marks.into_boxed_slice()
}

/// The names and marks that a purge is for.
pub(super) enum Sought {
    /// All.
    All,
    /// The files of a page.
    Page([u64; 2]),
    /// The same, and those with this mark.
    Url([u64; 2], u32),
    /// Pages with this mark. With `true`, also those whose paths have more segments than there are marks.
    Mark(u32, bool),
    /// Pages with both marks.
    Both(u32, u32),
}

impl Sought {
    pub(super) fn of(scope: &crate::cache::purge::PurgeScope) -> Self {
        use crate::cache::purge::PurgeScope;
        match scope {
            PurgeScope::Site => Self::All,
            PurgeScope::Page(authority, target) => Self::Page(page_of_url(authority, target)),
            PurgeScope::Url(authority, target) => {
                Self::Url(page_of_url(authority, target), mark(b'u', [authority, target]))
            }
            PurgeScope::Prefix(authority, path) => Self::Mark(mark(b'p', [authority, path]), true),
            PurgeScope::Tag(tag) => Self::Mark(mark(b't', [tag, b""]), false),
            PurgeScope::Group(origin, tag) => Self::Both(mark(b'o', [origin, b""]), mark(b't', [tag, b""])),
        }
    }

    /// `true` if a file is among them.
    pub(super) fn finds(&self, name: PageFileName, marks: &[u32]) -> bool {
        match self {
            Self::All => true,
            Self::Page(page) => name.page == *page,
            Self::Url(page, mark) => name.page == *page || marks.contains(mark),
            Self::Both(one, other) => marks.contains(one) && marks.contains(other),
            Self::Mark(mark, or_deep) => marks.iter().any(|own| own == mark || (*or_deep && *own == DEEP)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::key;
    use crate::cache::purge::PurgeScope;
    use crate::message::Fields;

    fn variant(language: Option<&str>) -> Variant {
        let (mut response, mut request) = (Fields::default(), Fields::default());
        response.push(b"Vary", b"Accept-Language");
        if let Some(language) = language {
            request.push(b"Accept-Language", language.as_bytes());
        }
        Variant::of(&response, &request, false).unwrap()
    }

    #[test]
    fn names() {
        let evil = key(b"a.example", None, None, b"/../../etc/passwd%00\n");
        let name = PageFileName::of(&evil, &Variant::default());
        let file = name.file();
        assert_eq!(file.len(), 49);
        assert!(file.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'), "{file}");
        assert_eq!(PageFileName::parse(&file), Some(name));
        assert!(file.starts_with(&beginning(name.page)) && file.starts_with(&folder_name(name.folder())));
        for text in ["", "..", "a-b", &file[1..], &file.to_uppercase(), &format!("{file}.new"), &file.replace('-', "+")]
        {
            assert_eq!(PageFileName::parse(text), None, "{text}");
        }
        let plain = key(b"a.example", None, None, b"/x");
        let stated = key(b"a.example", None, Some(b"b.example"), b"/x");
        let all = [
            PageFileName::of(&plain, &Variant::default()),
            PageFileName::of(&stated, &Variant::default()),
            PageFileName::of(&plain, &variant(None)),
            PageFileName::of(&plain, &variant(Some(""))),
            PageFileName::of(&plain, &variant(Some("de"))),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(PageFileName::all_of(all[0].page).contains(one));
            assert!(all[at + 1..].iter().all(|other| other.variant != one.variant));
        }
    }

    /// Marks find what the rule itself finds.
    #[test]
    fn marks_find_the_same() {
        let targets = ["/", "/a", "/a/", "/a/b", "/ab", "/a?x=/q/", "/a/b/?c", "//a", "/a//b", "*"];
        let paths = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/", "//", "/c"];
        let tags: [Box<[u8]>; 2] = [b"x"[..].into(), b"y"[..].into()];
        let prefix = |path: &str| PurgeScope::Prefix(b"a.example".to_vec(), path.as_bytes().to_vec());
        let keys = targets.iter().flat_map(|target| {
            [None, Some(&b"b.example"[..]), Some(&b"a.example:443"[..])]
                .map(|stated| (*target, key(b"a.example", None, stated, target.as_bytes())))
        });
        let url = |host: &str, path: &str| PurgeScope::Url(host.as_bytes().to_vec(), path.as_bytes().to_vec());
        let group = |host: &str| PurgeScope::Group(host.as_bytes().to_vec(), b"x".to_vec());
        for (target, own) in keys {
            let (name, marks) = (PageFileName::of(&own, &Variant::default()), marks(&own, &tags));
            let scopes = paths.iter().map(|path| prefix(path)).chain([
                PurgeScope::Site,
                PurgeScope::Tag(b"x".to_vec()),
                PurgeScope::Tag(b"X".to_vec()),
                PurgeScope::Page(b"a.example".to_vec(), b"/a".to_vec()),
                PurgeScope::Page(b"b.example".to_vec(), b"/a".to_vec()),
                url("a.example", "/a"),
                url("b.example", "/a"),
                url("b.example", "/a/"),
                group("a.example"),
                group("b.example"),
                group("c.example"),
                PurgeScope::Prefix(b"b.example".to_vec(), b"/".to_vec()),
                PurgeScope::Prefix(b"c.example".to_vec(), b"/".to_vec()),
            ]);
            for scope in scopes {
                let found = Sought::of(&scope).finds(name, &marks);
                assert_eq!(found, scope.covers(&own, &tags), "{target} {scope:?}");
            }
        }
        let deep = key(b"a.example", None, None, "/x".repeat(40).as_bytes());
        let marks = marks(&deep, &[]);
        assert!(marks.len() <= 2 * SLASHES_MAX + 2, "{}", marks.len());
        let name = PageFileName::of(&deep, &Variant::default());
        assert!(
            Sought::of(&prefix("/x")).finds(name, &marks)
                && !Sought::of(&PurgeScope::Tag(b"x".to_vec())).finds(name, &marks)
        );
    }
}

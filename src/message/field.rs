//! Header fields, in the order of the wire, over one buffer.

use std::cell::RefCell;
use std::ops::Range;

/// Buffers of heads that a thread keeps, and the largest that it keeps, in octets and fields.
const SPARE: usize = 64;
const SPARE_OCTETS: usize = 4096;
const SPARE_FIELDS: usize = 64;

thread_local! {
    /// A head needs two buffers, and there are two heads to each request.
    static BUFFERS: RefCell<Vec<(Vec<u8>, Vec<Field>)>> = const { RefCell::new(Vec::new()) };
}

/// The field names that some rule knows; all others are [`Name::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the field of that name")]
pub enum Name {
    Accept,
    Connection,
    ContentLength,
    ContentLocation,
    Cookie,
    Date,
    EarlyData,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    Location,
    MaxForwards,
    Origin,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    PublicKeyPins,
    PublicKeyPinsReportOnly,
    Referer,
    Refresh,
    SecWebsocketAccept,
    SecWebsocketKey,
    SetCookie,
    StrictTransportSecurity,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Vary,
    Via,
    XForwardedFor,
    XForwardedHost,
    /// `X-Forwarded-Port`, `X-Forwarded-Proto-Version` and the like.
    XForwardedOther,
    XForwardedProto,
    XRealIp,
    Other,
}

impl Name {
    /// The name that these octets spell, in any case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        // By length and first letter: nearly every name is decided by one comparison, or none. Most come in this case.
        let first = name.first().map_or(0, |b| b | 0x20);
        let candidate: Option<(&[u8], Self)> = match (name.len(), first) {
            (2, b't') => Some((b"TE", Self::Te)),
            (3, b'v') => Some((b"Via", Self::Via)),
            (4, b'd') => Some((b"Date", Self::Date)),
            (4, b'h') => Some((b"Host", Self::Host)),
            (4, b'v') => Some((b"Vary", Self::Vary)),
            (6, b'a') => Some((b"Accept", Self::Accept)),
            (6, b'c') => Some((b"Cookie", Self::Cookie)),
            (6, b'e') => Some((b"Expect", Self::Expect)),
            (6, b'o') => Some((b"Origin", Self::Origin)),
            (7, b'r') if name[3] | 0x20 == b'e' => Some((b"Referer", Self::Referer)),
            (7, b'r') => Some((b"Refresh", Self::Refresh)),
            (7, b't') => Some((b"Trailer", Self::Trailer)),
            (7, b'u') => Some((b"Upgrade", Self::Upgrade)),
            (8, b'l') => Some((b"Location", Self::Location)),
            (9, b'f') => Some((b"Forwarded", Self::Forwarded)),
            (9, b'x') => Some((b"X-Real-IP", Self::XRealIp)),
            (10, b'c') => Some((b"Connection", Self::Connection)),
            (10, b'e') => Some((b"Early-Data", Self::EarlyData)),
            (10, b'k') => Some((b"Keep-Alive", Self::KeepAlive)),
            (10, b's') => Some((b"Set-Cookie", Self::SetCookie)),
            (10, b'u') => Some((b"User-Agent", Self::UserAgent)),
            (12, b'm') => Some((b"Max-Forwards", Self::MaxForwards)),
            (14, b'c') => Some((b"Content-Length", Self::ContentLength)),
            (14, b'h') => Some((b"HTTP2-Settings", Self::Http2Settings)),
            (15, b'p') => Some((b"Public-Key-Pins", Self::PublicKeyPins)),
            (15, b'x') => Some((b"X-Forwarded-For", Self::XForwardedFor)),
            (16, b'c') => Some((b"Content-Location", Self::ContentLocation)),
            (16, b'p') => Some((b"Proxy-Connection", Self::ProxyConnection)),
            (16, b'x') => Some((b"X-Forwarded-Host", Self::XForwardedHost)),
            (17, b's') => Some((b"Sec-WebSocket-Key", Self::SecWebsocketKey)),
            (17, b't') => Some((b"Transfer-Encoding", Self::TransferEncoding)),
            (17, b'x') => Some((b"X-Forwarded-Proto", Self::XForwardedProto)),
            (18, b'p') => Some((b"Proxy-Authenticate", Self::ProxyAuthenticate)),
            (19, b'p') => Some((b"Proxy-Authorization", Self::ProxyAuthorization)),
            (20, b's') => Some((b"Sec-WebSocket-Accept", Self::SecWebsocketAccept)),
            (25, b's') => Some((b"Strict-Transport-Security", Self::StrictTransportSecurity)),
            (27, b'p') => Some((b"Public-Key-Pins-Report-Only", Self::PublicKeyPinsReportOnly)),
            _ => None,
        };
        if let Some((spelled, known)) = candidate
            && (name == spelled || name.eq_ignore_ascii_case(spelled))
        {
            return known;
        }
        if first == b'x' && name.len() > 12 && name[..12].eq_ignore_ascii_case(b"x-forwarded-") {
            return Self::XForwardedOther;
        }
        Self::Other
    }

    /// The name that an origin of the CGI kind would take these octets for: there `_` and `-` become the same
    /// variable, so `X_Forwarded_Proto` could pass for a field that pintle vouches for.
    #[must_use]
    pub fn of_lookalike(name: &[u8]) -> Self {
        if !name.contains(&b'_') {
            return Self::of(name);
        }
        let mut dashed = name.to_vec();
        for b in &mut dashed {
            if *b == b'_' {
                *b = b'-';
            }
        }
        Self::of(&dashed)
    }

    /// Whether the field belongs to one hop (RFC 9110 section 7.6.1, RFC 9113 section 8.2.2) and never passes.
    ///
    /// `TE` and `Trailer` are not here: what they say about trailers passes, where trailers do.
    #[must_use]
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::Http2Settings
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
        )
    }

    /// Whether a field of this name must not stand in a trailer section: framing, routing and the fields that
    /// pintle answers for (RFC 9110 section 6.5.1).
    #[must_use]
    pub fn is_forbidden_trailer(self) -> bool {
        self != Self::Other
    }
}

/// One field: where its name and value lie in the buffer.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// What the name is, if a rule knows it.
    pub name: Name,
    name_at: usize,
    name_len: usize,
    value_at: usize,
    value_len: usize,
}

impl Field {
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
}

impl Fields {
    /// Forgets all fields and keeps the buffers.
    pub fn clear(&mut self) {
        self.raw.clear();
        self.list.clear();
    }

    /// Whether its buffers are of a size that most heads need.
    #[must_use]
    pub fn is_worth_keeping(&self) -> bool {
        (1..=SPARE_OCTETS).contains(&self.raw.capacity()) && self.list.capacity() <= SPARE_FIELDS
    }

    /// Takes buffers that others have left, if it has none yet.
    fn warm(&mut self) {
        if self.raw.capacity() == 0
            && self.list.capacity() == 0
            && let Some((raw, list)) = BUFFERS.with_borrow_mut(Vec::pop)
        {
            self.raw = raw;
            self.list = list;
        }
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.warm();
        let name_at = self.raw.len();
        self.raw.extend_from_slice(name);
        let value_at = self.raw.len();
        self.raw.extend_from_slice(value);
        self.list.push(Field { name: Name::of(name), name_at, name_len: name.len(), value_at, value_len: value.len() });
    }

    /// Takes over a whole head; its fields are then named by [`Fields::push_range`].
    pub(super) fn set_raw(&mut self, head: &[u8], fields: usize) {
        self.warm();
        self.raw.clear();
        self.raw.extend_from_slice(head);
        self.list.clear();
        self.list.reserve(fields);
    }

    /// Adds a field that lies in the buffer already.
    pub(super) fn push_range(&mut self, name: Range<usize>, value: Range<usize>) {
        self.list.push(Field {
            name: Name::of(&self.raw[name.clone()]),
            name_at: name.start,
            name_len: name.len(),
            value_at: value.start,
            value_len: value.len(),
        });
    }

    /// Adds octets that belong to no field, such as a request target; gives their place.
    pub(super) fn push_raw(&mut self, octets: &[u8]) -> Range<usize> {
        let at = self.raw.len();
        self.raw.extend_from_slice(octets);
        at..self.raw.len()
    }

    pub(super) fn raw(&self, range: Range<usize>) -> &[u8] {
        &self.raw[range]
    }

    pub(super) fn raw_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.raw[range]
    }

    /// Octets of the head that the fields lie in.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.raw.len()
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The octets of the name, in the case of the wire.
    #[must_use]
    pub fn name(&self, field: &Field) -> &[u8] {
        &self.raw[field.name_range()]
    }

    /// The octets of the value, without white space around them.
    #[must_use]
    pub fn value(&self, field: &Field) -> &[u8] {
        &self.raw[field.value_range()]
    }

    /// All fields, in the order of the wire.
    pub fn iter(&self) -> impl Iterator<Item = (Name, &[u8], &[u8])> {
        self.list.iter().map(|f| (f.name, self.name(f), self.value(f)))
    }

    /// The fields themselves.
    #[must_use]
    pub fn list(&self) -> &[Field] {
        &self.list
    }

    /// The value of the first field of that name.
    #[must_use]
    pub fn get(&self, name: Name) -> Option<&[u8]> {
        self.list.iter().find(|f| f.name == name).map(|f| self.value(f))
    }

    /// The values of all fields of that name.
    pub fn get_all(&self, name: Name) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.list.iter().filter(move |f| f.name == name).map(|f| self.value(f))
    }

    /// Whether there is a field of that name.
    #[must_use]
    pub fn has(&self, name: Name) -> bool {
        self.list.iter().any(|f| f.name == name)
    }

    /// Gives the field at `index` another value.
    pub fn replace(&mut self, index: usize, value: &[u8]) {
        let at = self.raw.len();
        self.raw.extend_from_slice(value);
        if let Some(field) = self.list.get_mut(index) {
            field.value_at = at;
            field.value_len = value.len();
        }
    }

    /// Drops the fields that `drop` says yes to.
    pub fn remove_if(&mut self, mut drop: impl FnMut(Name, &[u8], &[u8]) -> bool) {
        let raw = &self.raw;
        self.list.retain(|f| !drop(f.name, &raw[f.name_range()], &raw[f.value_range()]));
    }
}

/// Leaves the buffers to others.
impl Drop for Fields {
    fn drop(&mut self) {
        if !self.is_worth_keeping() {
            return;
        }
        // A thread that ends has no use for them.
        let _ = BUFFERS.try_with(|buffers| {
            let mut buffers = buffers.borrow_mut();
            if buffers.len() < SPARE {
                self.clear();
                buffers.push((std::mem::take(&mut self.raw), std::mem::take(&mut self.list)));
            }
        });
    }
}

/// The members of a comma-separated list, trimmed, without the empty ones (RFC 9110 section 5.6.1).
pub fn tokens(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

/// Whether a comma-separated list has that member, in any case.
#[must_use]
pub fn has_token(value: &[u8], token: &[u8]) -> bool {
    tokens(value).any(|t| t.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |text: &str, want| assert_eq!(Name::of(text.as_bytes()), want, "{text}");
        check("Host", Name::Host);
        check("x-FORWARDED-proto", Name::XForwardedProto);
        check("X-Forwarded-Port", Name::XForwardedOther);
        check("X-Forwarded-", Name::Other);
        check("X_Forwarded_Proto", Name::Other);
        check("Strict-Transport-Security", Name::StrictTransportSecurity);
        check("", Name::Other);
        assert_eq!(Name::of_lookalike(b"X_Forwarded_Proto"), Name::XForwardedProto);
        assert_eq!(Name::of_lookalike(b"X_Other"), Name::Other);
    }

    #[test]
    fn every_name_is_known_in_any_case() {
        let all = [
            ("Accept", Name::Accept),
            ("Connection", Name::Connection),
            ("Content-Length", Name::ContentLength),
            ("Content-Location", Name::ContentLocation),
            ("Cookie", Name::Cookie),
            ("Date", Name::Date),
            ("Early-Data", Name::EarlyData),
            ("Expect", Name::Expect),
            ("Forwarded", Name::Forwarded),
            ("Host", Name::Host),
            ("HTTP2-Settings", Name::Http2Settings),
            ("Keep-Alive", Name::KeepAlive),
            ("Location", Name::Location),
            ("Max-Forwards", Name::MaxForwards),
            ("Origin", Name::Origin),
            ("Proxy-Authenticate", Name::ProxyAuthenticate),
            ("Proxy-Authorization", Name::ProxyAuthorization),
            ("Proxy-Connection", Name::ProxyConnection),
            ("Public-Key-Pins", Name::PublicKeyPins),
            ("Public-Key-Pins-Report-Only", Name::PublicKeyPinsReportOnly),
            ("Referer", Name::Referer),
            ("Refresh", Name::Refresh),
            ("Sec-WebSocket-Accept", Name::SecWebsocketAccept),
            ("Sec-WebSocket-Key", Name::SecWebsocketKey),
            ("Set-Cookie", Name::SetCookie),
            ("Strict-Transport-Security", Name::StrictTransportSecurity),
            ("TE", Name::Te),
            ("Trailer", Name::Trailer),
            ("Transfer-Encoding", Name::TransferEncoding),
            ("Upgrade", Name::Upgrade),
            ("User-Agent", Name::UserAgent),
            ("Vary", Name::Vary),
            ("Via", Name::Via),
            ("X-Forwarded-For", Name::XForwardedFor),
            ("X-Forwarded-Host", Name::XForwardedHost),
            ("X-Forwarded-Proto", Name::XForwardedProto),
            ("X-Real-IP", Name::XRealIp),
        ];
        for (text, want) in all {
            for spelled in [text.to_owned(), text.to_ascii_lowercase(), text.to_ascii_uppercase()] {
                assert_eq!(Name::of(spelled.as_bytes()), want, "{spelled}");
            }
            // One octet off is another name, wherever it is.
            for at in 0..text.len() {
                let mut other = text.as_bytes().to_vec();
                other[at] = b'~';
                assert_ne!(Name::of(&other), want, "{}", String::from_utf8_lossy(&other));
            }
        }
    }

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
        let (known, octets, held) = fields.iter().next().unwrap();
        assert_eq!((known, octets.len(), held.len()), (Name::Other, name.len(), value.len()));
    }

    #[test]
    fn lists() {
        assert_eq!(tokens(b" a,, b ,").collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(has_token(b"keep-alive, Upgrade", b"upgrade"));
        assert!(!has_token(b"keep-alive-not", b"keep-alive"));
    }
}

//! W3C Trace Context: `traceparent` and `tracestate`, as received and as passed on.

use crate::telemetry::access::Sample;

/// The id of a trace.
pub type TraceId = [u8; 16];
/// The id of a span.
pub type SpanId = [u8; 8];

/// The length of a `traceparent` of version 00, and of the part of later versions that has its form.
const TRACEPARENT: usize = 55;
/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;
/// The flags that version 00 defines: sampled, and random.
const KNOWN_FLAGS: u8 = 3;
/// The most members of a `tracestate`.
const MEMBERS_MAX: usize = 32;
/// The most bytes of a `tracestate` that pintle passes on. Each hop passes at least 512 on.
const STATE_MAX: usize = 2048;
/// The longest key and value of a member.
const MEMBER_MAX: usize = 256;

/// The span that a request continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Its trace.
    pub trace: TraceId,
    /// Its id.
    pub span: SpanId,
    /// The flags of the trace.
    pub flags: u8,
}

impl TraceParent {
    /// Reads a `traceparent`. `None` if it is invalid. Of a later version, only the part is read that has the form of
    /// version 00.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (head, rest) = value.split_at_checked(TRACEPARENT)?;
        let &[v1, v2, b'-', ref ids @ .., b'-', f1, f2] = head else { return None };
        let (trace, span) = ids.split_at_checked(32)?;
        let span = span.strip_prefix(b"-")?;
        let ([version], [flags]): ([u8; 1], [u8; 1]) = (unhex(&[v1, v2])?, unhex(&[f1, f2])?);
        let (flags, is_whole) = match version {
            0 => (flags & KNOWN_FLAGS, rest.is_empty()),
            0xff => return None,
            _ => (flags & SAMPLED, rest.is_empty() || rest.starts_with(b"-")),
        };
        let (trace, span): (TraceId, SpanId) = (unhex(trace)?, unhex(span)?);
        (is_whole && trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, flags })
    }
}

/// The context of a request: its place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The span that it continues; `None` if the trace begins here.
    pub parent: Option<SpanId>,
    /// The request's own span.
    pub server: SpanId,
    /// The span of the request to the upstream.
    pub client: SpanId,
    flags: u8,
}

impl Trace {
    /// Continues the parent's trace, or begins one and decides whether it is sampled.
    #[must_use]
    pub fn new(parent: Option<TraceParent>, random: &[u8; 32], sample: Sample) -> Self {
        let mut ids = random.chunks_exact(8).map(|id| <[u8; 8]>::try_from(id).unwrap_or_default()).map(|mut id| {
            // An id of zeros is invalid.
            id[7] |= u8::from(id == [0; 8]);
            id
        });
        let mut next = || ids.next().unwrap_or([1; 8]);
        let (server, client) = (next(), next());
        match parent {
            Some(TraceParent { trace, span, flags }) => Self { id: trace, parent: Some(span), server, client, flags },
            None => {
                let mut id = [0; 16];
                let (left, right) = id.split_at_mut(8);
                left.copy_from_slice(&next());
                right.copy_from_slice(&next());
                let [.., a, b, c, d] = id;
                Self {
                    id,
                    parent: None,
                    server,
                    client,
                    flags: u8::from(sample.takes(u32::from_be_bytes([a, b, c, d]))),
                }
            }
        }
    }

    /// `true` if the trace is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags of the trace.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// The `traceparent` for the upstream.
    #[must_use]
    pub fn traceparent(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(TRACEPARENT);
        text.extend_from_slice(b"00-");
        push_hex(&mut text, &self.id);
        text.push(b'-');
        push_hex(&mut text, &self.client);
        text.push(b'-');
        push_hex(&mut text, &[self.flags]);
        text
    }
}

/// Returns the `tracestate` to pass on, from all fields of this name. Members are dropped whole, from the end, if there
/// are too many. `None` without members, and if one is invalid.
#[must_use]
pub fn tracestate<'v>(values: impl Iterator<Item = &'v [u8]>) -> Option<Vec<u8>> {
    let mut state: Vec<u8> = Vec::new();
    let (mut kept, mut keys, mut is_full) = (0, Vec::new(), false);
    for value in values {
        for member in value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()) {
            let key = key_of(member)?;
            if keys.contains(&key) {
                return None;
            }
            is_full |= kept == MEMBERS_MAX || state.len() + 1 + member.len() > STATE_MAX;
            if is_full {
                continue;
            }
            keys.push(key);
            kept += 1;
            if !state.is_empty() {
                state.push(b',');
            }
            state.extend_from_slice(member);
        }
    }
    (!state.is_empty()).then_some(state)
}

/// Returns the key of a member, if the member is valid.
fn key_of(member: &[u8]) -> Option<&[u8]> {
    let at = member.iter().position(|b| *b == b'=')?;
    let (key, value) = (&member[..at], &member[at + 1..]);
    let is_of_key = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
    let is_begun = |part: &[u8]| part.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let mut parts = key.split(|b| *b == b'@');
    let is_key = parts.clone().count() <= 2 && parts.all(|part| is_begun(part) && part.iter().all(is_of_key));
    let is_value = !value.is_empty() && value.iter().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b',' | b'='));
    (is_key && is_value && key.len() <= MEMBER_MAX && value.len() <= MEMBER_MAX).then_some(key)
}

/// Returns bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len() * 2);
    push_hex(&mut text, bytes);
    String::from_utf8(text).unwrap_or_default()
}

fn push_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    let digit = |n: u8| if n < 10 { b'0' + n } else { b'a' + n - 10 };
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

/// Reads lower-case hexadecimal digits.
fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn traceparents() {
        let flags = |value: &str| TraceParent::parse(value.as_bytes()).map(|parent| parent.flags);
        let whole = format!("00-{TRACE}-{SPAN}-01");
        let parent = TraceParent::parse(whole.as_bytes()).unwrap();
        assert_eq!((hex(&parent.trace), hex(&parent.span), parent.flags), (TRACE.to_owned(), SPAN.to_owned(), 1));
        for (text, want) in [
            (format!("00-{TRACE}-{SPAN}-00"), Some(0)),
            (format!("00-{TRACE}-{SPAN}-03"), Some(3)),
            (format!("00-{TRACE}-{SPAN}-ff"), Some(3)),
            (format!("00-{TRACE}-{SPAN}-fe"), Some(2)),
            (format!("cc-{TRACE}-{SPAN}-01"), Some(1)),
            (format!("cc-{TRACE}-{SPAN}-03"), Some(1)),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future"), Some(1)),
            (format!("cc-{TRACE}-{SPAN}-01."), None),
            (format!("cc-{TRACE}-{SPAN}-01what"), None),
            (format!("00-{TRACE}-{SPAN}-01-"), None),
            (format!("00-{TRACE}-{SPAN}-01-more"), None),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            (format!("0-{TRACE}-{SPAN}-01"), None),
            (format!("0A-{TRACE}-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00-{TRACE}-{}-01", SPAN.to_uppercase()), None),
            (format!("00-{TRACE}-{SPAN}-0A"), None),
            (format!("00-{TRACE}-{SPAN}-1"), None),
            (format!("00-{TRACE}-{SPAN}"), None),
            (format!("00-{TRACE}-{SPAN}-"), None),
            (format!("00_{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}_{SPAN}-01"), None),
            (format!("00-{TRACE}-{SPAN}_01"), None),
            (format!("00-{TRACE}-{SPAN}-01 "), None),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            (format!("00-{TRACE}-{SPAN}-01").replace('4', "."), None),
            (format!("00-{}-{SPAN}-01", &TRACE[1..]), None),
            (format!("00-{TRACE}0-{SPAN}-01"), None),
            (String::new(), None),
            ("-".repeat(55), None),
            ("\u{e9}".repeat(55), None),
        ] {
            assert_eq!(flags(&text), want, "{text}");
        }
    }

    #[test]
    fn states() {
        let check = |values: &[&str], want: Option<&str>| {
            let state = tracestate(values.iter().map(|value| value.as_bytes()));
            assert_eq!(state.map(|state| String::from_utf8(state).unwrap()), want.map(str::to_owned), "{values:?}");
        };
        check(&[], None);
        check(&[""], None);
        check(&["a=1"], Some("a=1"));
        check(&["a=1 , b=2", "c@d=3,,"], Some("a=1,b=2,c@d=3"));
        check(&["a=b c~"], Some("a=b c~"));
        for wrong in ["a", "=1", "a=", "A=1", "a=1=2", "a b=1", "a@b@c=1", "@a=1", "a@=1", "a=1,a=2", "a=\u{e9}"] {
            check(&["z=1", wrong], None);
        }
        check(&[&format!("{}=1", "a".repeat(256))], Some(&format!("{}=1", "a".repeat(256))));
        check(&[&format!("{}=1", "a".repeat(257))], None);
        check(&[&format!("a={}", "1".repeat(257))], None);
        // Whole members are dropped, from the end.
        let many: Vec<String> = (0..40).map(|n| format!("k{n}={n}")).collect();
        check(&[&many.join(",")], Some(&many[..32].join(",")));
        let long: Vec<String> = (0..32).map(|n| format!("k{n:02}={}", "x".repeat(200))).collect();
        check(&[&long.join(",")], Some(&long[..9].join(",")));
        assert!(long[..9].join(",").len() >= 512);
    }

    #[test]
    fn a_trace_continues_or_begins() {
        let random: [u8; 32] = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let parent = TraceParent::parse(format!("00-{TRACE}-{SPAN}-01").as_bytes()).unwrap();
        let trace = Trace::new(Some(parent), &random, Sample(0.0));
        assert!(trace.is_sampled(), "the parent decides");
        assert_eq!(String::from_utf8(trace.traceparent()).unwrap(), format!("00-{TRACE}-08090a0b0c0d0e0f-01"));
        assert_eq!((trace.parent, trace.server), (Some(parent.span), [0, 1, 2, 3, 4, 5, 6, 7]));
        let unsampled = Trace::new(Some(TraceParent { flags: 2, ..parent }), &random, Sample(1.0));
        assert!(!unsampled.is_sampled() && unsampled.traceparent().ends_with(b"-02"));
        let begun = Trace::new(None, &random, Sample(1.0));
        assert_eq!((hex(&begun.id), begun.parent), ("101112131415161718191a1b1c1d1e1f".to_owned(), None));
        assert!(begun.is_sampled() && !Trace::new(None, &random, Sample(0.0)).is_sampled());
        let zeros = Trace::new(None, &[0; 32], Sample(1.0));
        assert!(zeros.server != [0; 8] && TraceParent::parse(&zeros.traceparent()).is_some());
    }
}

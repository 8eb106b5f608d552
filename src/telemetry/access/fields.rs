//! The fields of a record, and the choice among them: `log.fields`.

use crate::reason::near::did_you_mean;

macro_rules! fields {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// A field of a record that can be left out. Each record also has `time`, `schema` and `kind`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum RecordField {
            $($(#[doc = $doc])* $name,)*
        }

        impl RecordField {
            /// All fields, in the order of a record.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The field's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The field's name in a record, up to its value.
            pub(super) const fn key(self) -> &'static str {
                match self { $(Self::$name => concat!(",\"", $text, "\":"),)* }
            }
        }
    };
}

fields! {
    /// The record's own id.
    Id = "id",
    /// The trace that the request belongs to.
    TraceId = "trace_id",
    /// The site's first name.
    Site = "site",
    /// The client's address, from a trusted source.
    Client = "client",
    /// The address of the connection's other end.
    Peer = "peer",
    /// `http` or `https`, as the client sees it.
    Scheme = "scheme",
    /// The source of the scheme.
    SchemeFrom = "scheme_from",
    /// The method.
    Method = "method",
    /// The requested host.
    Host = "host",
    /// Path and query.
    Target = "target",
    /// The HTTP version.
    Version = "version",
    /// The status code.
    Status = "status",
    /// Bytes of the response's body.
    Bytes = "bytes",
    /// Bytes of the request's body.
    ReceivedBytes = "received_bytes",
    /// From the request's head to the end of the response.
    Duration = "duration_ms",
    /// From the request's head to the beginning of the response.
    FirstByte = "first_byte_ms",
    /// From asking the upstream to its response's head.
    UpstreamTime = "upstream_ms",
    /// Waiting for a connection to the upstream.
    Wait = "wait_ms",
    /// DNS and TCP of a new connection to the upstream.
    Connect = "connect_ms",
    /// TLS of a new connection to the upstream.
    Tls = "tls_ms",
    /// The upstream's address.
    Upstream = "upstream",
    /// The connection to the upstream had been used before.
    UpstreamReused = "upstream_reused",
    /// Retries.
    Retries = "retries",
    /// The part of the site's cache in the answer.
    Cache = "cache",
    /// The references that pintle has rewritten in the response's body.
    Rewritten = "rewritten",
    /// The coding that pintle has compressed the response with.
    Coding = "coding",
    /// Bytes of the response's body before pintle compressed it.
    UncompressedBytes = "uncompressed_bytes",
    /// The TLS version of the client's connection.
    TlsVersion = "tls_version",
    /// Its cipher suite.
    TlsCipher = "tls_cipher",
    /// Its key exchange.
    TlsGroup = "tls_group",
    /// Its handshake resumed a session.
    TlsResumed = "tls_resumed",
    /// The time of its handshake.
    Handshake = "handshake_ms",
    /// The server name that the client asked for.
    Sni = "sni",
    /// The negotiated application protocol.
    Alpn = "alpn",
    /// The TLS versions in the ClientHello.
    VersionsOffered = "versions_offered",
    /// The groups in the ClientHello.
    GroupsOffered = "groups_offered",
    /// The application protocols in the ClientHello.
    AlpnOffered = "alpn_offered",
    /// The User-Agent field.
    UserAgent = "user_agent",
    /// The Referer field.
    Referer = "referer",
    /// The way in which the request or the handshake ended.
    Ended = "ended",
    /// The limit that ended it.
    Limit = "limit",
    /// The table of limits of requests that refused it, by its name.
    Rule = "rule",
    /// The cause of an upstream's failure.
    Cause = "cause",
    /// The system's error, by its name.
    Errno = "errno",
    /// The TLS alert that pintle sent.
    AlertSent = "alert_sent",
    /// The TLS alert that pintle received.
    AlertReceived = "alert_received",
    /// The error in words.
    Error = "error",
    /// Failed handshakes of one network that this record sums up.
    Count = "count",
    /// The time that they took place in.
    Period = "period_s",
    /// The fraction of requests that are recorded.
    Sample = "sample",
}

/// Names that stand in every record.
const ALWAYS: [&str; 3] = ["time", "schema", "kind"];
/// Stands for all fields.
const DEFAULT: &str = "default";

/// A set of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFields(u64);

impl Default for RecordFields {
    /// All fields.
    fn default() -> Self {
        Self(u64::MAX)
    }
}

/// A name that `log.fields` does not know.
#[derive(Debug, PartialEq, Eq)]
pub enum WrongField {
    /// No field has this name. The hint names the nearest one.
    Unknown(Option<String>),
    /// Every record has the field.
    Always,
}

impl RecordFields {
    /// No field.
    pub const NONE: Self = Self(0);

    /// `true` if the field is in the set.
    #[must_use]
    pub const fn has(self, field: RecordField) -> bool {
        self.0 & 1 << field as u64 != 0
    }

    /// Adds a field.
    pub const fn insert(&mut self, field: RecordField) {
        self.0 |= 1 << field as u64;
    }

    /// The set with a word of `log.fields` applied: a name adds the field, `-name` removes it, `default` adds all.
    ///
    /// # Errors
    ///
    /// [`WrongField`]
    pub fn with(self, word: &str) -> Result<Self, WrongField> {
        let (name, removes) = match word.strip_prefix('-') {
            Some(name) => (name, true),
            None => (word, false),
        };
        if name == DEFAULT && !removes {
            return Ok(Self::default());
        }
        if ALWAYS.contains(&name) {
            return if removes { Err(WrongField::Always) } else { Ok(self) };
        }
        let known = || RecordField::ALL.iter().map(|field| field.name()).chain(ALWAYS).chain([DEFAULT]);
        let found = RecordField::ALL.iter().find(|field| field.name() == name);
        let field = found.ok_or_else(|| WrongField::Unknown(did_you_mean(name, known())))?;
        let bit = 1 << *field as u64;
        Ok(Self(if removes { self.0 & !bit } else { self.0 | bit }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices() {
        let of = |from: RecordFields, words: &[&str]| words.iter().try_fold(from, |fields, word| fields.with(word));
        assert!(RecordField::ALL.len() <= 64, "a set has as many bits");
        let some = of(RecordFields::NONE, &["time", "client", "status"]).unwrap();
        assert!(some.has(RecordField::Client) && some.has(RecordField::Status) && !some.has(RecordField::Target));
        let most = of(RecordFields::NONE, &["default", "-user_agent"]).unwrap();
        assert!(most.has(RecordField::Client) && !most.has(RecordField::UserAgent));
        assert_eq!(of(most, &["user_agent"]).unwrap(), RecordFields::default());
        assert_eq!(of(most, &["-time"]), Err(WrongField::Always));
        let WrongField::Unknown(Some(hint)) = of(most, &["user_agnet"]).unwrap_err() else { panic!("no hint") };
        assert!(hint.contains("user_agent"), "{hint}");
        assert!(matches!(of(most, &["-default"]), Err(WrongField::Unknown(_))));
    }
}

//! The signatures of Standard Webhooks: HMAC-SHA256 over id, time and body.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

/// The most secrets of a hook: the new one, and the old one while it is replaced.
pub const SECRETS_MAX: usize = 2;
/// The beginning of a secret as text.
const PREFIX: &str = "whsec_";
/// The length of a secret, in bytes.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that a hook and its receiver share.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Reads a secret: `whsec_` and 24 to 64 bytes in base64.
    fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?);
        LENGTH.contains(&bytes.len()).then_some(Self(bytes))
    }

    fn sign(&self, signed: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(&key, signed)))
    }
}

/// Reads the secrets of a file, one a line.
///
/// # Errors
///
/// The reason, without the text of any secret.
pub fn secrets(text: &str) -> Result<Vec<Secret>, String> {
    let mut secrets = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match Secret::parse(line.trim()) {
            Some(secret) => secrets.push(secret),
            None => return Err(format!("line {}: not whsec_ and 24 to 64 bytes in base64", number + 1)),
        }
    }
    match secrets.len() {
        0 => Err("no secret".to_owned()),
        1..=SECRETS_MAX => Ok(secrets),
        more => Err(format!("{more} secrets: at most {SECRETS_MAX}, the new one and the old one")),
    }
}

/// Returns the value of `webhook-signature`: one signature for each secret.
pub(super) fn signature(secrets: &[Secret], id: &str, seconds: i64, body: &str) -> String {
    let signed = format!("{id}.{seconds}.{body}");
    secrets.iter().map(|secret| secret.sign(signed.as_bytes())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard's reference libraries.
    #[test]
    fn the_example_of_the_standard() {
        let secret = secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signature = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_of_a_file() {
        let of = |bytes: usize| format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]));
        let count = |text: &str| secrets(text).map(|secrets| secrets.len()).ok();
        assert_eq!(count(&of(24)), Some(1));
        assert_eq!(count(&format!("\n {} \r\n{}\n", of(64), of(32))), Some(2));
        for wrong in
            ["", "\n", &of(23), &of(65), "whsec_", "whsec_###", &of(32)[6..], &[of(32), of(32), of(32)].join("\n")]
        {
            assert_eq!(count(wrong), None, "{wrong}");
        }
        let why = secrets(&format!("{}\nwhsec_topsecret", of(24))).unwrap_err();
        assert!(why.starts_with("line 2") && !why.contains("topsecret"), "{why}");
        assert_eq!(format!("{:?}", secrets(&of(24)).unwrap()), "[Secret(..)]");
    }
}

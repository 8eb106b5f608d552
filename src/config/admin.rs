//! The readers of the admin pages: roles, names and passwords.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};

/// Memory of a new hash, in KiB, and its passes: the second of OWASP's equivalent settings for Argon2id.
const MEMORY: u32 = 19_456;
const PASSES: u32 = 2;
/// The least memory, in KiB, and the least product of memory and passes: the last of OWASP's settings, and the weakest product.
const MEMORY_MIN: u32 = 7_168;
const WORK_MIN: u64 = 35_840;
/// The most memory, passes and lanes that pintle spends on a log-in.
const MEMORY_MAX: u32 = 262_144;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
/// The least lengths of a salt and of a hash, in bytes.
const SALT_MIN: usize = 8;
const HASH_MIN: usize = 16;
/// Bytes of a new salt.
const SALT: usize = 16;
/// The longest name of a reader, and of the user behind a command.
pub const NAME_MAX: usize = 64;

/// `true` for such a name: the log and the history show it as it is.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=NAME_MAX).contains(&text.len()) && text.chars().all(is_of_name)
}

/// `true` for a character of a name.
#[must_use]
pub fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".-_@".contains(c)
}

/// The permissions of a reader; each role includes the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminRole {
    /// See everything except secrets.
    View,
    /// Also install, renew and reload.
    Operate,
    /// Also change the configuration, keys and promises.
    Configure,
}

impl AdminRole {
    /// Every role with its name, in order.
    pub const ALL: [(&'static str, Self); 3] =
        [("view", Self::View), ("operate", Self::Operate), ("configure", Self::Configure)];

    /// The name of the role: `view`, `operate` or `configure`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Operate => "operate",
            Self::Configure => "configure",
        }
    }
}

impl fmt::Display for AdminRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AdminRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, role)| *role).ok_or_else(|| "expected one of: view, operate, configure".to_owned())
    }
}

/// The settings of the admin pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminAccess {
    /// The readers with passwords.
    pub users: Vec<AdminUser>,
    /// `true` if private keys may be uploaded.
    pub allow_keys: bool,
}

/// A reader with a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminUser {
    /// The name.
    pub name: String,
    /// The permissions.
    pub role: AdminRole,
    /// The hash of the password.
    pub password: StoredPassword,
}

/// The hash of a password, as the configuration has it: `$argon2id$…`.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredPassword(String);

/// The fault of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordFault {
    /// No hash by Argon2id.
    NotArgon2id,
    /// Its settings would cost too much memory or time.
    TooCostly,
}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredPassword")
    }
}

impl StoredPassword {
    /// Reads a hash.
    ///
    /// # Errors
    ///
    /// [`PasswordFault`] if pintle cannot use it.
    pub fn parse(text: &str) -> Result<Self, PasswordFault> {
        let hash = PasswordHash::new(text).map_err(|_| PasswordFault::NotArgon2id)?;
        let is_whole = hash.salt.as_ref().is_some_and(|salt| salt.len() >= SALT_MIN)
            && hash.hash.as_ref().is_some_and(|hash| hash.len() >= HASH_MIN);
        if hash.algorithm.as_str() != "argon2id" || !is_whole {
            return Err(PasswordFault::NotArgon2id);
        }
        let params = Params::try_from(&hash).map_err(|_| PasswordFault::NotArgon2id)?;
        if params.m_cost() > MEMORY_MAX || params.t_cost() > PASSES_MAX || params.p_cost() > LANES_MAX {
            return Err(PasswordFault::TooCostly);
        }
        Ok(Self(text.to_owned()))
    }

    /// Hashes a new password.
    ///
    /// # Errors
    ///
    /// If there are no random bytes, or no memory.
    pub fn new(password: &[u8]) -> Result<Self, String> {
        let mut salt = [0; SALT];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| "no random bytes".to_owned())?;
        let params = Params::new(MEMORY, PASSES, 1, None).map_err(|error| error.to_string())?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash = argon2.hash_password_with_salt(password, &salt).map_err(|error| error.to_string())?;
        Ok(Self(hash.to_string()))
    }

    /// `true` if this is the password. Takes tens of milliseconds and megabytes.
    #[must_use]
    pub fn fits(&self, password: &[u8]) -> bool {
        PasswordHash::new(&self.0).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
    }

    /// `true` if the settings are weaker than OWASP's advice.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        let params = PasswordHash::new(&self.0).ok().and_then(|hash| Params::try_from(&hash).ok());
        params.is_none_or(|params| {
            params.m_cost() < MEMORY_MIN || u64::from(params.m_cost()) * u64::from(params.t_cost()) < WORK_MIN
        })
    }

    /// The text of the hash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The settings in use, for the threads that need them.
#[derive(Debug, Clone, Default)]
pub struct SharedAccess(Arc<RwLock<Arc<AdminAccess>>>);

impl SharedAccess {
    /// The settings in use.
    #[must_use]
    pub fn now(&self) -> Arc<AdminAccess> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other settings in use.
    pub fn replace(&self, access: Arc<AdminAccess>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = access;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_hash_fits_its_password_alone() {
        let hash = StoredPassword::new(b"correct horse").unwrap();
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.as_str());
        assert_eq!(StoredPassword::parse(hash.as_str()).unwrap(), hash);
        assert!(hash.fits(b"correct horse") && !hash.fits(b"correct horsf") && !hash.fits(b"") && !hash.is_weak());
        assert_ne!(StoredPassword::new(b"correct horse").unwrap(), hash, "the salt is random");
        assert!(!format!("{hash:?}").contains('$'));
    }

    #[test]
    fn faulty_and_weak_hashes() {
        let tail = "$c29tZXNhbHRzb21l$iWh06vD8Fy27wf9npn6FXWiCX4K6pW6Ue1Bnzz07Z8A";
        let parse = |head: &str| StoredPassword::parse(&format!("{head}{tail}"));
        assert!(!parse("$argon2id$v=19$m=19456,t=2,p=1").unwrap().is_weak());
        assert!(!parse("$argon2id$v=19$m=7168,t=5,p=1").unwrap().is_weak());
        assert!(parse("$argon2id$v=19$m=4096,t=10,p=1").unwrap().is_weak());
        assert!(parse("$argon2id$v=19$m=19456,t=1,p=1").unwrap().is_weak());
        for head in ["$argon2i$v=19$m=19456,t=2,p=1", "$argon2d$v=19$m=19456,t=2,p=1", "$2b$12", "", "$scrypt"] {
            assert_eq!(parse(head), Err(PasswordFault::NotArgon2id), "{head}");
        }
        for head in ["$argon2id$v=19$m=4194304,t=2,p=1", "$argon2id$v=19$m=19456,t=100,p=1"] {
            assert_eq!(parse(head), Err(PasswordFault::TooCostly), "{head}");
        }
        for text in ["secret", "$argon2id$v=19$m=19456,t=2,p=1", "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21l"] {
            assert_eq!(StoredPassword::parse(text), Err(PasswordFault::NotArgon2id), "{text}");
        }
    }
}

//! `[admin]`: the readers of the pages.

use std::sync::Arc;

use super::checker::Checker;
use crate::config::admin::{AdminAccess, AdminRole, AdminUser, NAME_MAX, PasswordFault, StoredPassword, is_name};
use crate::config::file::{AdminTable, AdminUserTable};
use crate::config::problem::At;

/// The name of the reader whose hash stands in `[admin]` itself.
const ADMIN: &str = "admin";
/// The most readers.
const USERS_MAX: usize = 64;
/// The remedy for a hash.
const REMEDY: &str = "`pintle admin password` makes one";

pub(super) fn build(table: &AdminTable, r: &mut Checker<'_>) -> Arc<AdminAccess> {
    let mut users = Vec::new();
    if let Some(hash) = &table.password_hash {
        let password = password("admin.password_hash", hash, r);
        users.extend(password.map(|password| AdminUser { name: ADMIN.into(), role: AdminRole::Configure, password }));
    }
    if let Some(beyond) = table.users.get(USERS_MAX) {
        r.error(&beyond.span, format!("admin.user: at most {USERS_MAX} readers"));
    }
    for table in table.users.iter().take(USERS_MAX) {
        if let Some(user) = user(table, &users, r) {
            users.push(user);
        }
    }
    let allow_keys = table.allow_keys.as_ref().is_some_and(|allow| allow.value);
    Arc::new(AdminAccess { users, allow_keys })
}

fn user(table: &AdminUserTable, known: &[AdminUser], r: &mut Checker<'_>) -> Option<AdminUser> {
    let role = r.choice("admin.user.role", table.role.as_ref(), &AdminRole::ALL, AdminRole::View);
    let name = name(table, known, r);
    let Some(hash) = &table.password_hash else {
        r.error_with_hint(&table.span, "admin.user: password_hash is missing", REMEDY);
        return None;
    };
    let password = password("admin.user.password_hash", hash, r)?;
    Some(AdminUser { name: name?, role, password })
}

fn name(table: &AdminUserTable, known: &[AdminUser], r: &mut Checker<'_>) -> Option<String> {
    let Some(At { value, span }) = &table.name else {
        r.error_with_hint(&table.span, "admin.user: name is missing", "name = \"anna\"");
        return None;
    };
    if !is_name(value) {
        let what = format!("admin.user.name: invalid name {value:?}");
        r.error_with_hint(span, what, format!("up to {NAME_MAX} letters, digits and .-_@, as in \"anna\""));
        return None;
    }
    if known.iter().any(|user| user.name == *value) {
        let what = format!("admin.user.name: {value:?} is listed twice");
        let hint = if value == ADMIN { "admin.password_hash is the hash of \"admin\"" } else { "remove one of them" };
        r.error_with_hint(span, what, hint);
        return None;
    }
    Some(value.clone())
}

fn password(key: &str, hash: &At<String>, r: &mut Checker<'_>) -> Option<StoredPassword> {
    let At { value, span } = hash;
    match StoredPassword::parse(value) {
        Ok(password) => {
            if password.is_weak() {
                r.warn(
                    span,
                    format!("{key}: its settings are weak: a thief of the file finds the password sooner"),
                    REMEDY,
                );
            }
            Some(password)
        }
        // The value may be the password itself: no message repeats it.
        Err(PasswordFault::NotArgon2id) => {
            r.error_with_hint(span, format!("{key}: not a whole hash by argon2id"), REMEDY);
            None
        }
        Err(PasswordFault::TooCostly) => {
            let what = format!("{key}: each log-in would take more than 256 MiB, 16 passes or 16 lanes");
            r.error_with_hint(span, what, REMEDY);
            None
        }
    }
}

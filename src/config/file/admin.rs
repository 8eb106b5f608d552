//! `[admin]`: the readers of the pages.

use std::ops::Range;

use crate::config::problem::At;
use crate::config::reader::Reader;

/// `[admin]`, except `listen`.
#[derive(Debug, Default)]
pub(in crate::config) struct AdminTable {
    pub(in crate::config) password_hash: Option<At<String>>,
    pub(in crate::config) edit: Option<At<bool>>,
    pub(in crate::config) allow_keys: Option<At<bool>>,
    pub(in crate::config) users: Vec<AdminUserTable>,
    pub(in crate::config) https: Option<Box<AdminHttpsTable>>,
}

/// `[admin.https]`
#[derive(Debug, Default)]
pub(in crate::config) struct AdminHttpsTable {
    pub(in crate::config) span: Range<usize>,
    pub(in crate::config) listen: Option<Vec<At<String>>>,
    pub(in crate::config) site: Option<At<String>>,
    pub(in crate::config) chain: Option<At<String>>,
    pub(in crate::config) key: Option<At<String>>,
    pub(in crate::config) client_ca: Option<At<String>>,
    pub(in crate::config) client_role: Option<At<String>>,
}

/// `[[admin.user]]`
#[derive(Debug, Default)]
pub(in crate::config) struct AdminUserTable {
    pub(in crate::config) span: Range<usize>,
    pub(in crate::config) name: Option<At<String>>,
    pub(in crate::config) role: Option<At<String>>,
    pub(in crate::config) password_hash: Option<At<String>>,
}

impl AdminTable {
    pub(in crate::config) fn read(t: &Reader<'_>) -> Self {
        Self {
            password_hash: t.text("password_hash"),
            edit: t.boolean("edit"),
            allow_keys: t.boolean("allow_keys"),
            users: t.tables("user").into_iter().map(|user| user.whole(AdminUserTable::read)).collect(),
            https: t.table("https").map(|https| https.whole(AdminHttpsTable::read)).map(Box::new),
        }
    }
}

impl AdminHttpsTable {
    fn read(t: &Reader<'_>) -> Self {
        let [site, chain, key] = ["site", "chain", "key"].map(|key| t.text(key));
        let [client_ca, client_role] = ["client_ca", "client_role"].map(|key| t.text(key));
        Self { span: t.span.clone(), listen: t.texts("listen"), site, chain, key, client_ca, client_role }
    }
}

impl AdminUserTable {
    fn read(t: &Reader<'_>) -> Self {
        let [name, role, password_hash] = ["name", "role", "password_hash"].map(|key| t.text(key));
        Self { span: t.span.clone(), name, role, password_hash }
    }
}

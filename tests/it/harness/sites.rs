//! Configurations that many tests share.

use super::{Authority, Origin};

/// The name of the site that most tests ask for.
pub const BLOG: &str = "blog.example.com";

/// A site for [`BLOG`] with a certificate, in front of an origin.
pub fn blog(authority: &Authority, origin: &Origin) -> String {
    blog_at(authority, &origin.url())
}

/// The same, in front of any URL.
pub fn blog_at(authority: &Authority, upstream: &str) -> String {
    let leaf = authority.leaf("blog", &[BLOG]);
    format!(
        "[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{upstream}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        leaf.chain, leaf.key
    )
}

/// HSTS and pins for the site above it.
pub fn policies(authority: &Authority) -> String {
    let (next, spare) = (authority.public_key("next"), authority.public_key("spare"));
    format!("[site.hsts]\nmax_age = \"1y\"\n[site.hpkp]\nmax_age = \"30d\"\nbackups = [{next:?}, {spare:?}]\n")
}

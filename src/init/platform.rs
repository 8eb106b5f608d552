//! The platforms that `pintle init` knows.

/// A blog's platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the platform of that name")]
pub enum Platform {
    WordPressCom,
    WordPressVip,
    Pressable,
    WpEngine,
    Kinsta,
    WordPress,
    GhostPro,
    Ghost,
    Blogger,
    Tumblr,
    Squarespace,
    Wix,
    GitHubPages,
    Netlify,
    Vercel,
    Substack,
    Medium,
    HubSpot,
    Webflow,
    Hatena,
    Dreamwidth,
}

/// All platforms, in the order of [`Platform`]: the name in JSON, the name for people.
const TABLE: [(&str, &str, Platform); 21] = [
    ("wordpress.com", "WordPress.com", Platform::WordPressCom),
    ("wordpress-vip", "WordPress VIP", Platform::WordPressVip),
    ("pressable", "Pressable", Platform::Pressable),
    ("wp-engine", "WP Engine", Platform::WpEngine),
    ("kinsta", "Kinsta", Platform::Kinsta),
    ("wordpress", "WordPress on a server of its own", Platform::WordPress),
    ("ghost-pro", "Ghost(Pro)", Platform::GhostPro),
    ("ghost", "Ghost on a server of its own", Platform::Ghost),
    ("blogger", "Blogger", Platform::Blogger),
    ("tumblr", "Tumblr", Platform::Tumblr),
    ("squarespace", "Squarespace", Platform::Squarespace),
    ("wix", "Wix", Platform::Wix),
    ("github-pages", "GitHub Pages", Platform::GitHubPages),
    ("netlify", "Netlify", Platform::Netlify),
    ("vercel", "Vercel", Platform::Vercel),
    ("substack", "Substack", Platform::Substack),
    ("medium", "Medium", Platform::Medium),
    ("hubspot", "HubSpot", Platform::HubSpot),
    ("webflow", "Webflow", Platform::Webflow),
    ("hatena", "Hatena Blog", Platform::Hatena),
    ("dreamwidth", "Dreamwidth", Platform::Dreamwidth),
];

/// The settings in which a self-hosted WordPress keeps its own address.
const SITE_ADDRESS: &str = "set both addresses in Settings > General to {url}";
/// A platform on which the owner names the blog's domain.
const DOMAIN: &str = "add the domain {host} in the settings of the blog, if your plan allows it";

impl Platform {
    /// Returns all platforms.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|(.., platform)| *platform)
    }

    /// Returns its name in JSON. Programs depend on it: it does not change.
    #[must_use]
    pub fn id(self) -> &'static str {
        TABLE[self as usize].0
    }

    /// Returns its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// Returns `true` for software that runs on many hosts. Its signs count only if no host is named.
    #[must_use]
    pub fn is_software(self) -> bool {
        matches!(self, Self::WordPress | Self::Ghost | Self::Webflow)
    }

    /// Returns `true` for WordPress with a `wp-config.php` of its own.
    #[must_use]
    pub fn has_wp_config(self) -> bool {
        matches!(self, Self::WordPress | Self::Pressable | Self::WpEngine | Self::Kinsta | Self::WordPressVip)
    }

    /// Returns the way to tell the blog its public name.
    #[must_use]
    pub fn naming(self, host: &str) -> String {
        let text = match self {
            Self::WordPress | Self::Pressable | Self::WpEngine | Self::Kinsta => SITE_ADDRESS,
            Self::WordPressVip => "have the primary domain of the environment changed to {host}",
            Self::Ghost => "set \"url\" in config.production.json to {url}",
            Self::GitHubPages => "name {host} as the custom domain in the settings of the repository, under Pages",
            Self::Netlify | Self::Vercel => "add {host} to the domains of the project, or build it with {url}",
            Self::Dreamwidth => "Dreamwidth has no setting for it",
            _ => DOMAIN,
        };
        text.replace("{url}", &format!("https://{host}")).replace("{host}", host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        for (n, one) in Platform::all().enumerate() {
            assert_eq!(one as usize, n, "{one:?}: its row is elsewhere");
            for other in Platform::all().skip(n + 1) {
                assert!(one != other && one.id() != other.id() && one.name() != other.name());
            }
            let text = one.naming("blog.example.com");
            assert!(!text.contains('{') && text.is_ascii(), "{text}");
        }
    }
}

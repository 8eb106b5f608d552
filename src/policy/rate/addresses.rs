//! Lists of addresses: the most specific range decides.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// The lists that an address can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListedAs {
    /// It has no limits.
    Allowed,
    /// It is refused.
    Denied,
}

/// Ranges of addresses, each in one of the lists. Finding an address costs one look-up for each length of prefix in use.
#[derive(Debug, Clone, Default)]
pub struct AddressList {
    ranges: HashMap<IpNet, ListedAs>,
    /// The lengths in use, the longest first.
    lengths: Vec<u8>,
}

impl AddressList {
    /// Adds a range. Returns `false` if it is in the other list already.
    pub fn add(&mut self, range: IpNet, listed: ListedAs) -> bool {
        if !self.lengths.contains(&range.prefix_len()) {
            self.lengths.push(range.prefix_len());
            self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        }
        *self.ranges.entry(range.trunc()).or_insert(listed) == listed
    }

    /// Returns `true` if it has no ranges.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns the list of the most specific range that contains an address. IPv4 addresses in IPv6 form count as IPv4.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<ListedAs> {
        let address = address.to_canonical();
        let range = |length: &u8| IpNet::new(address, *length).ok().map(|range| range.trunc());
        self.lengths.iter().filter_map(range).find_map(|range| self.ranges.get(&range).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_range_decides() {
        let mut list = AddressList::default();
        assert!(list.is_empty());
        for (range, listed) in [
            ("0.0.0.0/0", ListedAs::Denied),
            ("10.1.2.3/8", ListedAs::Allowed),
            ("10.9.0.0/16", ListedAs::Denied),
            ("10.9.9.9/32", ListedAs::Allowed),
            ("2001:db8::/32", ListedAs::Denied),
        ] {
            assert!(list.add(range.parse().unwrap(), listed));
        }
        assert!(!list.add("10.0.0.0/8".parse().unwrap(), ListedAs::Denied));
        let find = |address: &str| list.find(address.parse().unwrap());
        assert_eq!(find("192.0.2.1"), Some(ListedAs::Denied));
        assert_eq!(find("10.200.0.1"), Some(ListedAs::Allowed));
        assert_eq!(find("::ffff:10.9.0.1"), Some(ListedAs::Denied));
        assert_eq!(find("10.9.9.9"), Some(ListedAs::Allowed));
        assert_eq!(find("2001:db8:1::1"), Some(ListedAs::Denied));
        assert_eq!(find("2001:db9::1"), None);
    }
}

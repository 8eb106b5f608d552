//! The ends of the promises that headers made: one index for ten thousand sites that ask.

use std::collections::HashMap;

use crate::host::HostPattern;
use crate::policy::hpkp::Mode;
use crate::policy::promise::{Promise, PromiseChannel, Seconds};

/// The time until which clients hold pins of a header: by the site that sent them, and by each host that they are for.
#[derive(Default)]
pub(super) struct HeldPins<'a> {
    by_site: HashMap<&'a str, Seconds>,
    by_host: HashMap<&'a HostPattern, Seconds>,
}

impl<'a> HeldPins<'a> {
    pub(super) fn of(promises: &'a [Promise], now: Seconds) -> Self {
        let mut held = Self::default();
        let is_enforced = |p: &&Promise| p.channel == PromiseChannel::Header(Mode::Enforce) && p.is_alive(now);
        for promise in promises.iter().filter(is_enforced) {
            let until = promise.honoured_until();
            let latest = |known: &mut Seconds| *known = until.max(*known);
            held.by_site.entry(&promise.site).and_modify(latest).or_insert(until);
            for host in &promise.hosts {
                held.by_host.entry(host).and_modify(latest).or_insert(until);
            }
        }
        held
    }

    /// The time until which clients hold pins of a site, or of another one for one of its hosts; `None` if they hold none.
    pub(super) fn until(&self, site: &str, hosts: &[HostPattern]) -> Option<Seconds> {
        let of_hosts = hosts.iter().filter_map(|host| self.by_host.get(host));
        of_hosts.chain(self.by_site.get(site)).max().copied()
    }
}

//! The intake of reports that clients send: a limit for each network of clients and for all, and bodies of a bounded
//! size.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::admission::ClientNetwork;
use crate::clock::Alarm;
use crate::limits::Limits;
use crate::wire::body::{Frame, RequestBody, RequestBodyError};
use crate::wire::min_rate::{MinRate, RateTimer, next_frame};

const MINUTE: Duration = Duration::from_secs(60);

/// The limit of reports of one kind.
#[derive(Debug, Default)]
pub(super) struct ReportIntake {
    minute: Option<Minute>,
}

/// The reports of the current minute.
#[derive(Debug)]
struct Minute {
    begin: Instant,
    count: u64,
    /// The same by network. No larger than the number of reports, of this minute and of those that were under way.
    by_network: HashMap<ClientNetwork, OfNetwork>,
    lines: u64,
}

/// A network's part of a minute.
#[derive(Debug, Default)]
struct OfNetwork {
    reports: u64,
    added: u64,
}

impl ReportIntake {
    /// Returns the current minute.
    fn minute(&mut self) -> &mut Minute {
        let now = Instant::now();
        if self.minute.as_ref().is_some_and(|minute| now.duration_since(minute.begin) >= MINUTE) {
            self.minute = None;
        }
        self.minute.get_or_insert_with(|| Minute { begin: now, count: 0, by_network: HashMap::new(), lines: 0 })
    }

    /// Returns `true` if this minute has room for another report. A report beyond its network's limit does not use up
    /// the limit of all.
    pub(super) fn takes(&mut self, network: ClientNetwork, limits: &Limits) -> bool {
        let minute = self.minute();
        let of_network = minute.by_network.get(&network).map_or(0, |own| own.reports);
        if minute.count >= limits.reports_per_minute || of_network >= limits.reports_per_client {
            return false;
        }
        minute.count += 1;
        minute.by_network.entry(network).or_default().reports += 1;
        true
    }

    /// Returns `true` if the reports of a network may add something new: `most` times a minute.
    pub(super) fn adds(&mut self, network: ClientNetwork, most: u64) -> bool {
        let own = self.minute().by_network.entry(network).or_default();
        let has_room = own.added < most;
        own.added += u64::from(has_room);
        has_room
    }

    /// Returns `true` if the log has room for another line about reports: `most` times a minute.
    pub(super) fn logs(&mut self, most: u64) -> bool {
        let minute = self.minute();
        let has_room = minute.lines < most;
        minute.lines += u64::from(has_room);
        has_room
    }
}

/// Reads a body of at most `max` bytes.
pub(super) async fn collect(
    mut body: RequestBody,
    max: usize,
    min_rate: MinRate,
    alarm: &Alarm,
) -> Result<Vec<u8>, RequestBodyError> {
    let (mut contents, mut rate_timer, mut before) = (Vec::new(), RateTimer::new(min_rate), 0);
    loop {
        rate_timer.wait_for_client((contents.len() - before) as u64, alarm);
        before = contents.len();
        match next_frame(&mut body, alarm).await {
            Some(Ok(Frame::Data(data))) if contents.len() + data.len() > max => {
                return Err(RequestBodyError::TooLarge);
            }
            Some(Ok(Frame::Data(data))) => contents.extend_from_slice(&data),
            Some(Ok(Frame::Trailers(_))) => {}
            Some(Err(error)) => return Err(error),
            None => return Ok(contents),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shares_of_a_minute() {
        let mut intake = ReportIntake::default();
        let [one, other] = [1, 2].map(|last| ClientNetwork::of(IpAddr::from([192, 0, 2, last])));
        let limits = Limits { reports_per_minute: 3, reports_per_client: 2, ..Limits::default() };
        for _ in 0..2 {
            let taken = [one, one, one, other, other].map(|network| intake.takes(network, &limits));
            assert_eq!(taken, [true, true, false, true, false]);
            let added = [one, one, one, other].map(|network| intake.adds(network, 2));
            assert_eq!(added, [true, true, false, true]);
            assert_eq!([(); 3].map(|()| intake.logs(2)), [true, true, false]);
            tokio::time::advance(MINUTE).await;
        }
    }
}

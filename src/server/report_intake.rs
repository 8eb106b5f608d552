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
    /// The same by network. No larger than the number of reports.
    by_network: HashMap<ClientNetwork, u64>,
}

impl ReportIntake {
    /// Returns `true` if this minute has room for another report. A report beyond its network's limit does not use up
    /// the limit of all.
    pub(super) fn takes(&mut self, network: ClientNetwork, limits: &Limits) -> bool {
        let now = Instant::now();
        let over = |minute: &mut Minute| now.duration_since(minute.begin) >= MINUTE;
        if self.minute.as_mut().is_none_or(over) {
            self.minute = Some(Minute { begin: now, count: 0, by_network: HashMap::new() });
        }
        let Some(minute) = &mut self.minute else { return false };
        let of_network = minute.by_network.get(&network).copied().unwrap_or_default();
        if minute.count >= limits.reports_per_minute || of_network >= limits.reports_per_client {
            return false;
        }
        minute.count += 1;
        minute.by_network.insert(network, of_network + 1);
        true
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

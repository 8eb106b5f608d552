//! The place of the driver that obtains certificates.

use tokio::sync::mpsc;

use crate::acme::driver::Driver;
use crate::acme::request::DriverRequest;

/// The driver, once a certificate is to be obtained.
#[derive(Default)]
pub(in crate::control) struct Desk {
    pub(in crate::control) running: Option<RunningDriver>,
}

pub(in crate::control) struct RunningDriver {
    pub(in crate::control) driver: Driver,
    pub(in crate::control) requests: mpsc::Receiver<DriverRequest>,
}

impl Desk {
    /// Waits for a question of the driver; forever without one.
    pub(in crate::control) async fn request(&mut self) -> DriverRequest {
        match &mut self.running {
            Some(running) => match running.requests.recv().await {
                Some(request) => request,
                None => {
                    tracing::error!("ACME: the thread has ended because of a bug; the next reload starts it again");
                    self.running = None;
                    std::future::pending().await
                }
            },
            None => std::future::pending().await,
        }
    }
}

//! The sockets of the pages over TLS: bound before permissions are dropped, opened and closed with the configuration, and
//! handed over in an upgrade.

use std::io;
use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Control;
use super::state::{AdminTask, OpenPageListener, PageSocket, VisitorListener};
use crate::config::Config;
use crate::ledger::time::wall;
use crate::os::words::words;

/// Takes the lent sockets that a configuration names, and binds the others that it can. The control thread reports the rest.
#[must_use]
pub fn bind_pages(config: &Config, lent: &mut Vec<PageSocket>) -> Vec<PageSocket> {
    let mut bound = Vec::new();
    for asked in config.admin_https.iter().flat_map(|https| https.listen.iter().copied()) {
        let fits = |known: &PageSocket| known.asked == asked || known.socket.local_addr().is_ok_and(|is| is == asked);
        match lent.iter().position(fits) {
            Some(at) => bound.push(PageSocket { asked, ..lent.swap_remove(at) }),
            None => bound.extend(bind_one(asked).ok()),
        }
    }
    bound
}

fn bind_one(asked: SocketAddr) -> io::Result<PageSocket> {
    let socket = TcpListener::bind(asked)?;
    socket.set_nonblocking(true)?;
    Ok(PageSocket { asked, socket })
}

impl Control {
    /// Opens the listeners that the configuration names, and closes the others. Logs what cannot be done, once.
    pub(super) fn open_page_listeners(&mut self) {
        let https = self.config.admin_https.clone();
        let pages = &mut self.operator.listener.pages;
        pages.https.replace(https.clone());
        let asked = https.as_ref().map(|https| https.listen.clone()).unwrap_or_default();
        pages.open.retain(|open| asked.contains(&open.is.asked));
        pages.bound.retain(|bound| asked.contains(&bound.asked));
        let mut faults: Vec<String> = https.iter().flat_map(|https| &https.troubles).map(|t| t.line()).collect();
        for address in asked {
            if self.operator.listener.pages.open.iter().any(|open| open.is.asked == address) {
                continue;
            }
            match self.open_page_listener(address) {
                Ok(open) => {
                    tracing::info!(address = %open.address, "pages over TLS listening");
                    self.operator.listener.pages.open.push(open);
                }
                Err(error) => faults.push(format!("admin.https.listen: {address}: {}", words(&error))),
            }
        }
        let reported = &mut self.operator.listener.pages.reported;
        for reason in faults.iter().filter(|fault| !reported.contains(fault)) {
            tracing::error!(reason, "pages over TLS: a fault; the sites are not concerned");
        }
        *reported = faults;
    }

    fn open_page_listener(&mut self, asked: SocketAddr) -> io::Result<OpenPageListener> {
        let thread = self.admin_thread()?;
        let bound = &mut self.operator.listener.pages.bound;
        let is = match bound.iter().position(|bound| bound.asked == asked) {
            Some(at) => bound.swap_remove(at),
            None => bind_one(asked)?,
        };
        let (_open, closes) = oneshot::channel();
        let listener = VisitorListener { socket: is.socket.try_clone()?, open: closes };
        let sent = thread.try_send(AdminTask::Listener(listener));
        sent.map_err(|_| io::Error::new(io::ErrorKind::WouldBlock, "the thread of the pages is busy"))?;
        let address = is.socket.local_addr()?;
        Ok(OpenPageListener { is, address, _open })
    }

    /// The state of the pages over TLS, for `pintle status`; null without them.
    pub(super) fn page_listeners(&self) -> Value {
        let Some(https) = &self.config.admin_https else { return Value::Null };
        let open = self.operator.listener.pages.open.iter().map(|open| open.address.to_string());
        let certificates = https.tls.iter().flat_map(|tls| tls.certificates.iter()).map(|certificate| {
            let leaf = &certificate.chain.leaf;
            let names: Vec<String> = leaf.all_names().collect();
            json!({ "serial": leaf.serial, "names": names, "not_after": leaf.not_after.to_string() })
        });
        json!({
            "listening": open.collect::<Vec<_>>(),
            "certificates": certificates.collect::<Vec<_>>(),
            "client_role": https.clients.as_ref().map(|(_, role)| role.name()),
        })
    }

    /// The present faults of the pages over TLS.
    pub(super) fn faults_of_pages(&self) -> Vec<crate::reason::Reason> {
        let now = jiff::Timestamp::from_second(wall()).unwrap_or_default();
        self.config.admin_https.iter().flat_map(|https| https.attention(now)).collect()
    }
}

//! Clients that trickle, stall, flood and waste: each runs into a limit that has a name, and others do not notice.
//!
//! The limits, and the tests that show them:
//!
//! | limit | test |
//! | --- | --- |
//! | `connections`, `connections_per_client` | `errors::connections_are_limited_in_all_and_by_client`, `crowds` |
//! | `shed_idle_at` | `crowds::the_longest_idle_connection_gives_way_first` |
//! | `rate_clients` | `rate::a_scan_neither_frees_nor_locks_out_anybody` |
//! | `buffer_memory`, `buffer_files` | `uploads::without_room_a_body_goes_on_as_it_comes` |
//! | `handshakes` | `slow::handshakes_that_never_end`, `crowds::hellos_that_are_left_alone` |
//! | `handshake`, `request_header`, `idle`, `body_progress` | `errors::time_limits`; heads of HTTP/2: `heads` |
//! | `body_progress`, to the client | `http2::a_window_held_shut_has_a_deadline`, `slow::answers_that_nobody_reads` |
//! | `body_rate` | `slow::bodies_that_trickle_in`, `slow::windows_that_open_byte_by_byte`, `slow::an_answer_that_is_taken_byte_by_byte` |
//! | `request_line`, `header_size`, `header_count`, `request_body` | `errors::sizes_have_limits_and_codes`; crumbs: `counts` |
//! | `field_size` | `counts::one_field`; every limit at its largest: `largest` |
//! | `requests_per_connection`, `http2_streams`, `websocket_idle`, `linger`, `response_header_size`, `response_header_count` | `counts` |
//! | `connection_memory` | `memory` |
//! | `http2_resets` | `floods::streams_that_are_given_up_one_after_another` |
//! | frames that request nothing | `floods::floods_of_frames_end_their_connection` |
//! | `drain` | `drain` |
//! | `upstream_connections` | `errors::a_busy_upstream_is_503` |
//! | `upstream_idle` | `upstream` |
//! | `reports_per_minute` | `reports` |
//! | `challenges` | `acme` |
//! | `log_queue` | `telemetry::sink::tests::bytes_that_wait_are_bounded` |
//! | `compressors` | `compression::load` |
//! | the size of a PROXY header | `proxy_protocol::wrong_headers_and_missing_ones_end_the_connection` |

mod counts;
mod crowds;
mod floods;
mod framing;
mod heads;
mod largest;
mod memory;
mod slow;
mod tls;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use tokio::time::Instant;

use crate::fuzz::targets::http2::{PREFACE, block};
pub use crate::harness::http2_frame::bytes;
use crate::harness::http2_frame::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::harness::{Authority, BLOG, Client, Connection, PATIENCE, Pintle, eventually};

fn fields(method: &str, path: &str) -> Vec<u8> {
    block(format!(":method: {method}\n:scheme: https\n:authority: {BLOG}\n:path: {path}\n").as_bytes())
}

pub fn get(stream: u32, path: &str) -> Vec<u8> {
    bytes(HEADERS, END_HEADERS | END_STREAM, stream, &fields("GET", path))
}

/// An HTTP/2 connection whose frames are written by hand.
pub struct Raw {
    pub connection: Connection,
    /// The error code of a GOAWAY that is a reproach, when it has come; none with an end without one.
    pub over: Option<Option<u32>>,
    /// The error codes of all GOAWAY frames.
    goaways: Vec<u32>,
    /// Streams that were reset, with the error code.
    pub resets: Vec<(u32, u32)>,
    /// Streams whose answer has begun.
    answered: Vec<u32>,
    acknowledged: usize,
    /// Bodies by their streams, where a test wants them.
    bodies: Option<BTreeMap<u32, Vec<u8>>>,
}

impl Raw {
    pub fn new(authority: &Authority, pintle: &Pintle, settings: &[u8]) -> Self {
        let mut config = Client::config(authority);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut connection = Client::with(config).connect(pintle.https(), BLOG);
        connection.send([PREFACE, &bytes(SETTINGS, 0, 0, settings)].concat());
        connection.stream.socket().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        connection.stream.socket().set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        Self {
            connection,
            over: None,
            goaways: Vec::new(),
            resets: Vec::new(),
            answered: Vec::new(),
            acknowledged: 0,
            bodies: None,
        }
    }

    /// Writes, and reads what has come meanwhile.
    pub fn send(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        let end = Instant::now() + PATIENCE;
        while !rest.is_empty() && self.over.is_none() {
            match self.connection.stream.write(rest) {
                Ok(0) => self.end(),
                Ok(len) => rest = &rest[len..],
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    assert!(Instant::now() < end, "nothing is read, and nothing ended");
                }
                Err(_) => self.end(),
            }
            self.receive();
        }
        let _ = self.connection.stream.flush();
        self.receive();
    }

    /// Reads what has come.
    fn receive(&mut self) {
        let mut buffer = [0; 64 * 1024];
        loop {
            match self.connection.stream.read(&mut buffer) {
                Ok(0) => return self.end(),
                Ok(len) => self.connection.received.extend_from_slice(&buffer[..len]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return self.frames(),
                Err(_) => return self.end(),
            }
            self.frames();
        }
    }

    fn end(&mut self) {
        self.frames();
        self.over.get_or_insert(None);
    }

    fn frames(&mut self) {
        let received = &mut self.connection.received;
        while let Some(head) = received.first_chunk::<9>() {
            let len = 9 + (usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]));
            if received.len() < len {
                return;
            }
            let kind = head[3];
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let number = |at: usize| u32::from_be_bytes(received[at..at + 4].try_into().unwrap());
            match kind {
                GOAWAY => {
                    self.goaways.push(number(13));
                    if number(13) != 0 {
                        self.over = Some(Some(number(13)));
                    }
                }
                HEADERS => self.answered.push(stream),
                RST_STREAM => self.resets.push((stream, number(9))),
                DATA => {
                    if let Some(bodies) = &mut self.bodies {
                        bodies.entry(stream).or_default().extend_from_slice(&received[9..len]);
                    }
                }
                PING => self.acknowledged += 1,
                _ => {}
            }
            received.drain(..len);
        }
    }

    /// Waits for what `found` looks for.
    pub fn until<T>(&mut self, what: &str, found: impl Fn(&Self) -> Option<T>) -> T {
        eventually(what, || {
            self.receive();
            found(self)
        })
    }
}

//! Questions to name servers, one packet each.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::Instant;

use super::files::HostFiles;
use super::host::ServerAnswer;
use super::visit::is_timeout;

/// Time limit for an answer; after it, the question is sent once more.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: usize = 2;
/// The most name servers, and names.
const SERVERS_MAX: usize = 8;
const NAMES_MAX: usize = 8;
/// The largest answer.
const ANSWER_MAX: usize = 4096;

/// Returns the name servers of the system.
#[must_use]
pub fn of_system(files: &HostFiles) -> Vec<SocketAddr> {
    let text = files.text("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next());
    servers.filter_map(|server| server.parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, 53)).collect()
}

/// Asks each server for each name, all servers at the same time.
#[must_use]
pub fn ask(servers: &[SocketAddr], names: &[String]) -> Vec<ServerAnswer> {
    std::thread::scope(|scope| {
        let asking: Vec<_> = servers
            .iter()
            .take(SERVERS_MAX)
            .map(|server| {
                scope.spawn(|| names.iter().take(NAMES_MAX).map(|name| question(*server, name)).collect::<Vec<_>>())
            })
            .collect();
        asking.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

fn question(server: SocketAddr, name: &str) -> ServerAnswer {
    let start = Instant::now();
    let result = exchange(server, name).map(|()| start.elapsed());
    ServerAnswer { server, name: name.to_owned(), result }
}

fn exchange(server: SocketAddr, name: &str) -> Result<(), String> {
    let mut parsed: Name = name.parse().map_err(|_| "no valid name".to_owned())?;
    parsed.set_fqdn(true);
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(parsed, RecordType::A));
    let bytes = message.to_vec().map_err(|error| error.to_string())?;
    let mut why = String::new();
    for _ in 0..TRIES {
        match once(server, &bytes, message.metadata.id) {
            // A name that does not exist is an answer: the visit reports it.
            Ok(ResponseCode::NoError | ResponseCode::NXDomain) => return Ok(()),
            Ok(code) => return Err(code.to_string()),
            Err(error) => why = words(&error),
        }
    }
    Err(why)
}

fn words(error: &io::Error) -> String {
    match is_timeout(error) {
        true => format!("no answer within {} s", PATIENCE.as_secs()),
        false => crate::os::words::words(error),
    }
}

fn once(server: SocketAddr, question: &[u8], id: u16) -> io::Result<ResponseCode> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(question)?;
    let end = Instant::now() + PATIENCE;
    let mut answer = [0; ANSWER_MAX];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut answer)?;
        // An answer to another question is no answer.
        if let Ok(message) = Message::from_vec(&answer[..length])
            && message.metadata.id == id
        {
            return Ok(message.metadata.response_code);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::*;

    #[test]
    fn servers_of_the_system() {
        let (_folder, files) =
            tree(&[("/etc/resolv.conf", "# x\nnameserver 192.0.2.1\n nameserver ::1 \nnameserver odd\nsearch a\n")]);
        assert_eq!(of_system(&files), ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert!(of_system(&tree(&[]).1).is_empty());
    }

    #[test]
    fn answers_and_refusals() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let mut bytes = [0; 512];
            for code in [ResponseCode::NoError, ResponseCode::ServFail] {
                let (length, from) = server.recv_from(&mut bytes).unwrap();
                server.send_to(b"odd", from).unwrap();
                let mut answer = Message::from_vec(&bytes[..length]).unwrap().into_response();
                answer.metadata.response_code = code;
                server.send_to(&answer.to_vec().unwrap(), from).unwrap();
            }
        });
        let answers = ask(&[address], &["up.example".to_owned(), "other.example".to_owned(), "..".to_owned()]);
        serving.join().unwrap();
        assert!(answers[0].result.is_ok());
        assert!(answers[1].result.is_err() && answers[2].result.is_err(), "{answers:?}");
    }
}

//! The clients of HTTP/2: downloads, uploads, and streams that are broken off, side by side on one connection.

use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, SendStream};

use super::clients::{Load, PAUSE, UPLOAD, body_of, bytes, count, judge};
use crate::harness::{BLOG, Client};

/// The purpose of a stream.
#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    Download,
    Upload,
    BrokenDownload,
    BrokenUpload,
}

/// The end of a stream.
#[derive(PartialEq)]
enum End {
    Done,
    /// Nobody has looked at it, as GOAWAY says: it is for the next connection (RFC 9113 section 6.8).
    Unsent,
}

/// A new connection when GOAWAY says so, and not before.
pub fn streams(load: &Load<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut number = 0;
        while load.goes_on() {
            if let Err(error) = connection(load, &mut number).await {
                return load.fails("HTTP/2", error);
            }
        }
    });
}

async fn connection(load: &Load<'_>, number: &mut usize) -> Result<(), String> {
    let mut config = Client::config(load.authority);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connected = async {
        let socket = tokio::net::TcpStream::connect(load.address).await?;
        let tls = connector.connect(BLOG.try_into().unwrap(), socket).await?;
        h2::client::handshake(tls).await.map_err(std::io::Error::other)
    };
    let (sender, connection) = connected.await.map_err(|error| format!("connect: {error}"))?;
    let connection = tokio::spawn(connection);
    while load.goes_on() {
        use Purpose::{BrokenDownload, BrokenUpload, Download, Upload};
        *number += 4;
        let last = match *number / 4 % 16 {
            0 => BrokenDownload,
            4 | 12 => Upload,
            8 => BrokenUpload,
            _ => Download,
        };
        let purposes = [Download, Download, Download, last];
        let all = purposes.iter().zip(*number..).map(|(purpose, number)| stream(load, &sender, *purpose, number));
        let ends = futures_util::future::join_all(all).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        if ends.contains(&End::Unsent) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    // The connection itself has an end, too: a proper one, even if windows are still on their way there.
    drop(sender);
    match connection.await.unwrap() {
        Err(error) if error.is_io() => count(&load.counts.torn),
        Err(error) if !is_notice(&error) => return Err(format!("the connection: {error}")),
        _ => {}
    }
    Ok(())
}

fn is_notice(error: &h2::Error) -> bool {
    error.is_go_away() && error.reason() == Some(Reason::NO_ERROR)
}

async fn stream(load: &Load<'_>, sender: &SendRequest<Bytes>, purpose: Purpose, number: usize) -> Result<End, String> {
    let (method, path) = match purpose {
        Purpose::Download => ("GET", format!("/{number}")),
        Purpose::BrokenDownload => ("GET", format!("/large/{number}")),
        Purpose::Upload | Purpose::BrokenUpload => ("POST", format!("/echo/{number}")),
    };
    // What cannot even be sent any more is for the next connection; whether this one ended rightly, it says itself.
    let Ok(mut sender) = sender.clone().ready().await else { return Ok(End::Unsent) };
    let request = http::Request::builder().method(method).uri(format!("https://{BLOG}{path}")).body(()).unwrap();
    let Ok((response, mut send)) = sender.send_request(request, method == "GET") else { return Ok(End::Unsent) };
    let part = 1 + number * 104_729 % (UPLOAD - 1);
    let answer = async {
        match purpose {
            Purpose::Upload => send_all(&mut send, bytes(number, UPLOAD), true).await?,
            Purpose::BrokenUpload => {
                send_all(&mut send, &bytes(number, UPLOAD)[..part], false).await?;
                send.send_reset(Reason::CANCEL);
                return Ok(None);
            }
            _ => {}
        }
        let (parts, mut body) = response.await?.into_parts();
        let mut all = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            all.extend_from_slice(&data);
            if purpose == Purpose::BrokenDownload && all.len() > part {
                send.send_reset(Reason::CANCEL);
                return Ok(None);
            }
        }
        Ok::<_, h2::Error>(Some((parts, all)))
    };
    match answer.await {
        Ok(Some((parts, body))) => {
            let due = if purpose == Purpose::Upload { bytes(number, UPLOAD) } else { body_of(&path) };
            let field = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
            judge(parts.status.as_u16(), field, &body, due).map_err(|fault| format!("{method} {path}: {fault}"))?;
            count(if purpose == Purpose::Upload { &load.counts.uploads } else { &load.counts.http2 });
            Ok(End::Done)
        }
        Ok(None) => {
            count(&load.counts.aborted);
            Ok(End::Done)
        }
        Err(error) if is_notice(&error) => Ok(End::Unsent),
        Err(error) => Err(format!("{method} {path}: {error}")),
    }
}

/// Sends as the windows allow.
async fn send_all(send: &mut SendStream<Bytes>, mut bytes: &'static [u8], ends: bool) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        send.reserve_capacity(bytes.len());
        let granted = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
        let Some(granted) = granted.transpose()? else {
            // The stream is closed, and its response says why.
            return Ok(());
        };
        let (part, rest) = bytes.split_at(granted.min(bytes.len()));
        bytes = rest;
        send.send_data(Bytes::from_static(part), ends && bytes.is_empty())?;
    }
    Ok(())
}

//! Chromium: trusts the chain, follows the redirect, keeps the cookies, and remembers HSTS.

use crate::harness::{Authority, BLOG, Browser, Origin, Pintle, Reply, blog, eventually};

const PAGE: &str = "<!doctype html><title>page</title><p id=p>hello</p><script>\n\
    const s = new WebSocket(location.href.replace(/^http/, 'ws') + 'echo'); s.onopen = () => s.send('hi');\n\
    s.onmessage = e => { p.textContent = 'echo ' + e.data; };</script>";

#[test]
fn a_browser_is_sent_to_https_and_stays_there() {
    let authority = Authority::new();
    let echo = Origin::start(|request| match request.path() {
        "/echo" => Reply::Custom(Box::new({
            let key = request.field("sec-websocket-key").unwrap_or_default().to_owned();
            move |socket| {
                use std::io::{Read, Write};
                let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
                write!(
                    socket,
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                )?;
                // "hi", masked; sent back without the mask.
                let mut frame = [0; 8];
                socket.read_exact(&mut frame)?;
                socket.write_all(&[0x81, 2, frame[6] ^ frame[2], frame[7] ^ frame[3]])?;
                let _ = socket.read(&mut frame);
                Ok(())
            }
        })),
        _ => Reply::new("200 OK", "Content-Type: text/html\r\nSet-Cookie: seen=1; Path=/\r\n", PAGE),
    });
    let pintle = Pintle::start(&authority, &(blog(&authority, &echo) + "[site.hsts]\nmax_age = \"1h\"\n"));
    let browser = Browser::start(&authority, pintle.https(), pintle.http());
    browser.go(&format!("http://{BLOG}/"));
    assert_eq!((browser.url(), browser.title()), (format!("https://{BLOG}/"), "page".into()));
    assert_eq!(browser.evaluate("document.cookie"), "seen=1");
    assert_eq!(browser.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol"), "h2");
    // A WebSocket from a page that came by HTTP/2.
    eventually("the echo is on the page", || {
        (browser.evaluate("document.getElementById('p').textContent") == "echo hi").then_some(())
    });
    // The second visit does not touch plain HTTP any more: the browser has kept the policy.
    let plain = |pintle: &Pintle| pintle.access().iter().filter(|l| l["scheme"] == "http").count();
    let before = eventually("the redirect is logged", || Some(plain(&pintle)).filter(|n| *n > 0));
    browser.go(&format!("http://{BLOG}/?again"));
    assert_eq!(browser.url(), format!("https://{BLOG}/?again"));
    pintle.access_line("/?again");
    assert_eq!(plain(&pintle), before);
}

//! The pages in Chromium: pins that the browser computes, a slider that asks, copying and live numbers, and no complaint of
//! the content security policy.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crate::admin::{Bed, get};
use crate::harness::{BLOG, Browser, Pintle, eventually, policies};

/// Keys, as WebDriver names them.
const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';
/// More stops of the Tab key than any page has.
const STOPS_MAX: usize = 200;
/// Notes the control that has the focus. Gives `null` for none, and the control if its focus cannot be seen.
const STOP: &str = "(() => { const e = document.activeElement; if (!e || e === document.body) return null; \
     e.dataset.reached = ''; const style = getComputedStyle(e), box = e.getBoundingClientRect(); \
     const seen = style.outlineStyle !== 'none' && box.width > 2 && box.bottom > 0 && box.top < innerHeight; \
     return seen ? '' : e.outerHTML.slice(0, 200); })()";
/// The controls that were not reached.
const MISSED: &str = "[...document.querySelectorAll('a[href], button:enabled, input:enabled:not([type=hidden]), \
     select, textarea, summary, [tabindex=\"0\"]')].filter(e => e.checkVisibility() && !('reached' in e.dataset))\
     .map(e => e.outerHTML.slice(0, 200))";

/// Puts a port of loopback in front of the admin socket.
fn relay(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(behind) = UnixStream::connect(&socket) else { return };
            let (mut from, mut to) = (client.try_clone().unwrap(), behind.try_clone().unwrap());
            std::thread::spawn(move || io::copy(&mut from, &mut to));
            let (mut from, mut to) = (behind, client);
            std::thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    address
}

/// Waits until the first page of a browser is complete: it asks for the icon last, now and then after the page is loaded.
fn await_own_requests(browser: &Browser, base: &str) {
    let icon = format!("{base}/favicon.ico");
    eventually("the page's own requests", || browser.requests().contains(&icon).then_some(()));
}

#[test]
fn the_browser_computes_pins_and_asks_about_days() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &(bed.config("") + &policies(&bed.authority)));
    let base = format!("http://{}", relay(bed.socket()));
    let browser = Browser::start(&bed.authority, pintle.https(), pintle.http());
    let text = |css: &str| browser.evaluate(&format!("document.querySelector({css:?})?.textContent ?? ''"));
    // A pin, computed without a request.
    browser.go(&format!("{base}/fingerprint"));
    let leaf = bed.authority.leaf("other", &["other.example"]);
    let pin = crate::headers::openssl_pin(&["x509", "-pubkey", "-noout"], &leaf.chain);
    await_own_requests(&browser, &base);
    browser.fill("textarea[name=text]", &std::fs::read_to_string(&leaf.chain).unwrap());
    browser.click("form[data-fingerprint] button");
    eventually("the pin is there", || (text("#result code.pin") == pin.as_str()).then_some(()));
    let sent = browser.requests();
    assert!(sent.is_empty(), "something was sent: {sent:?}");
    // A private key is refused, and its text is gone.
    browser.fill("textarea[name=text]", &std::fs::read_to_string(&leaf.key).unwrap());
    browser.click("form[data-fingerprint] button");
    eventually("it is refused", || {
        text("#result").as_str().is_some_and(|text| text.contains("is a private key")).then_some(())
    });
    assert_eq!(browser.evaluate("document.querySelector('textarea[name=text]').value"), "");
    assert!(browser.requests().is_empty(), "something was sent");
    // The slider asks about its day, without another page.
    browser.go(&format!("{base}/site/{BLOG}"));
    let slide = "const s = document.querySelector('#slide'); s.value = 20; s.dispatchEvent(new Event('input')); 1";
    browser.evaluate(&format!("(() => {{ {} }})()", slide.replace("; 1", "")));
    eventually("the answer is about that day", || {
        text("#answer").as_str().is_some_and(|text| text.contains("You may rotate to the next key on")).then_some(())
    });
    assert!(browser.url().contains("day="), "{}", browser.url());
    // The buttons that copy are there with a script only.
    assert_eq!(browser.evaluate("[...document.querySelectorAll('button.copy')].every(b => !b.hidden)"), true);
    assert!(get(&bed.socket(), &format!("/site/{BLOG}")).contains("hidden>Copy"));
    browser.go(&format!("{base}/"));
    eventually("numbers come", || browser.requests().iter().any(|url| url.ends_with("/live")).then_some(()));
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains("favicon")), "{complaints:?}");
}

#[test]
fn the_browser_checks_and_installs() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let base = format!("http://{}", relay(bed.socket()));
    let browser = Browser::start(&bed.authority, pintle.https(), pintle.http());
    let outcome = || browser.evaluate("document.querySelector('#outcome')?.textContent ?? ''");
    let says = |words: &str| {
        eventually(words, || outcome().as_str().is_some_and(|text| text.contains(words)).then_some(()));
    };
    let key = bed.authority.folder().join("blog.key");
    let renewed = bed.authority.renew("renewed", &key, &[BLOG], 91);
    browser.go(&format!("{base}/install?site={BLOG}"));
    // A private key stays in the browser.
    await_own_requests(&browser, &base);
    browser.fill("#pem", &std::fs::read_to_string(&key).unwrap());
    browser.click("form[data-install] .go");
    says("has a private key. It was not sent");
    assert_eq!(browser.evaluate("document.querySelector('#pem').value"), "");
    let sent = browser.requests();
    assert!(sent.is_empty(), "something was sent: {sent:?}");
    // The verdict comes beside the form; the installation is another page.
    browser.fill("#pem", &std::fs::read_to_string(&renewed.chain).unwrap());
    browser.click("form[data-install] .go");
    says("is fit to be served");
    browser.click("form[data-apply] .go");
    says("Installed. ");
    browser.click("tbody form button");
    says("Rolled back. ");
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains("favicon")), "{complaints:?}");
}

/// Every control is reached by the Tab key alone, and is seen then; none keeps the focus. A link skips the menu.
#[test]
fn every_control_is_reached_by_keyboard() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &(bed.config("") + &policies(&bed.authority)));
    let base = format!("http://{}", relay(bed.socket()));
    let browser = Browser::start(&bed.authority, pintle.https(), pintle.http());
    let [site, install] = ["/site/", "/install?site="].map(|page| format!("{page}{BLOG}"));
    let rotate = format!("/keys/rotate?site={BLOG}");
    for page in ["/", &site, &install, "/keys", &rotate, "/config", "/explain", "/fingerprint", "/doctor", "/logs"] {
        browser.go(&format!("{base}{page}"));
        browser.press(TAB);
        assert_eq!(browser.evaluate("document.activeElement.className"), "skip", "{page}");
        let mut unseen = Vec::new();
        let ends = (0..STOPS_MAX).any(|_| {
            let stop = browser.evaluate(STOP);
            if stop.is_null() {
                return true;
            }
            unseen.extend(Some(stop).filter(|stop| stop != ""));
            browser.press(TAB);
            false
        });
        assert!(ends, "{page}: the focus does not come to the end");
        assert!(unseen.is_empty(), "{page}: a focus that is not seen: {unseen:?}");
        assert_eq!(browser.evaluate(MISSED), serde_json::json!([]), "{page}: not reached");
    }
    browser.go(&format!("{base}/"));
    browser.press(TAB);
    browser.press(ENTER);
    eventually("the focus skips the menu", || (browser.evaluate("document.activeElement.id") == "main").then_some(()));
    browser.press(TAB);
    assert_eq!(browser.evaluate("document.querySelector('main').contains(document.activeElement)"), true);
}

//! An upgrade while a request is under way that changes pages: the new process, which has stored them, hears of it.

use std::sync::{Mutex, mpsc};
use std::thread;

use super::disk::end_all;
use super::{Bed, Pages};
use crate::harness::{Origin, Reply, eventually, output};

const PATHS: [&str; 3] = ["/changed", "/grouped", "/other"];

#[test]
fn changes_that_the_old_process_answers_reach_the_new_one() {
    // In memory only, and on disk, too.
    for cache in ["", "stale_if_error = \"7d\"\n"] {
        let (word, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let origin = Origin::start(move |received| {
            if received.line().starts_with("POST") {
                let _ = wait.lock().unwrap().recv();
                return Reply::new("200 OK", "Cache-Group-Invalidation: \"g\"\r\n", "posted");
            }
            let group = if received.path() == "/grouped" { "Cache-Groups: \"g\"\r\n" } else { "" };
            Reply::new("200 OK", &format!("Cache-Control: max-age=600\r\n{group}"), "page")
        });
        let bed = Bed::before(origin, Pages::default(), cache, "");
        let old = bed.pintle.status()["pid"].as_u64();
        let is_stored = |path: &str| bed.get("--http2", path, &["-H", "Cache-Control: only-if-cached"]).status == 200;
        thread::scope(|scope| {
            let posting = scope.spawn(|| bed.get("--http1.1", "/changed", &["--data", "x", "--max-time", "60"]));
            eventually("the request at the origin", || (bed.count("/changed") > 0).then_some(()));
            output(&mut bed.pintle.command("upgrade"));
            eventually("the new process stores all pages", || {
                PATHS.iter().for_each(|path| _ = bed.get("--http2", path, &[]));
                let status = bed.pintle.status();
                (status["pid"].as_u64() != old && status["caches"][0]["urls"] == PATHS.len()).then_some(())
            });
            assert!(PATHS.iter().all(|path| is_stored(path)));
            word.send(()).unwrap();
            assert_eq!(posting.join().unwrap().status, 200);
            eventually("the pages are validated", || PATHS[..2].iter().all(|path| !is_stored(path)).then_some(()));
            assert!(is_stored("/other"), "{:?}", bed.pintle.status());
        });
        end_all(&bed.pintle);
    }
}

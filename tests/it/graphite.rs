//! `metrics.graphite`: a real carbon stores what pintle sends, and a broken connection leaves no half line.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use crate::admin::Bed;
use crate::harness::{
    BLOG, Client, PATIENCE, Pintle, Program, eventually, free_port, outcome, output, pintle, program,
};

fn start(bed: &Bed, port: u16, more: &str) -> Pintle {
    let metrics = format!(
        "[sandbox]\n[metrics]\ngraphite = \"tcp://127.0.0.1:{port}\"\ngraphite_prefix = \"test.pintle\"\n\
         graphite_interval = \"1s\"\n{more}\n"
    );
    Pintle::start(&bed.authority, &bed.config(&metrics))
}

#[test]
fn a_real_carbon_stores_the_metrics() {
    let bed = Bed::new();
    let folder = bed.folder.path().join("carbon");
    fs::create_dir_all(folder.join("log")).unwrap();
    let [lines, pickles, queries] = [free_port(), free_port(), free_port()];
    let at = folder.display();
    fs::write(
        folder.join("carbon.conf"),
        format!(
            "[cache]\nSTORAGE_DIR = {at}\nCONF_DIR = {at}\nLOG_DIR = {at}/log\nPID_DIR = {at}\nLOCAL_DATA_DIR = {at}/whisper\n\
             USER =\nLINE_RECEIVER_INTERFACE = 127.0.0.1\nLINE_RECEIVER_PORT = {lines}\n\
             PICKLE_RECEIVER_INTERFACE = 127.0.0.1\nPICKLE_RECEIVER_PORT = {pickles}\n\
             CACHE_QUERY_INTERFACE = 127.0.0.1\nCACHE_QUERY_PORT = {queries}\nENABLE_TAGS = False\n\
             MAX_CREATES_PER_MINUTE = inf\nMAX_UPDATES_PER_SECOND = 100000\nENABLE_LOGROTATION = False\n"
        ),
    )
    .unwrap();
    fs::write(folder.join("storage-schemas.conf"), "[all]\npattern = .*\nretentions = 1s:1h\n").unwrap();
    let mut command = Command::new(program("carbon-cache"));
    command.arg(format!("--config={at}/carbon.conf")).args(["--debug", "start"]);
    let _carbon = Program::start(&mut command, &folder, "carbon").listens(lines);
    let pintle = start(&bed, lines, "");
    for _ in 0..3 {
        Client::new(&bed.authority).get(pintle.https(), BLOG, "/");
    }
    // The last value that carbon has stored.
    let stored = |path: &str| -> Option<f64> {
        let file = folder.join("whisper").join(path).with_extension("wsp");
        let found = file.exists().then(|| output(Command::new(program("whisper-fetch")).arg("--from=0").arg(&file)))?;
        found.lines().rev().find_map(|line| line.split_whitespace().nth(1)?.parse().ok())
    };
    let requests = bed.value("pintle_requests_total").unwrap();
    assert!(requests >= 3.0);
    let reaches = |path: &str, want: f64| {
        eventually(&format!("{path} is {want}"), || stored(path).filter(|found| *found == want).map(|_| ()));
    };
    reaches("test/pintle/requests_total", requests);
    reaches("test/pintle/upstream_circuit/blog_example_com/closed", 1.0);
    reaches("test/pintle/upstream_circuit/blog_example_com/open", 0.0);
    let series = format!("pintle_certificate_not_after_timestamp_seconds{{site=\"{BLOG}\",algorithm=\"ecdsa-p256\"}}");
    let end = bed.value(&series).unwrap();
    reaches("test/pintle/certificate_not_after_timestamp_seconds/blog_example_com/ecdsa-p256", end);
    assert!(stored("test/pintle/process_open_fds").unwrap() > 5.0);
    assert!(bed.value("pintle_graphite_lines_sent_total").unwrap() > 50.0);
    assert_eq!(bed.value("pintle_graphite_lines_dropped_total").unwrap(), 0.0);
    assert!(!folder.join("whisper/test/pintle/certificate_info").exists());
}

#[test]
fn a_cut_connection_resends_whole_lines() {
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pintle = start(&bed, listener.local_addr().unwrap().port(), "");
    let accept = || {
        let (socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    // Cut within a line, with bytes unread: a reset.
    let mut cut = [0; 100];
    let mut socket = accept();
    socket.read_exact(&mut cut).unwrap();
    drop(socket);
    let cut = String::from_utf8(cut.to_vec()).unwrap();
    let (whole, half) = cut.rsplit_once('\n').unwrap();
    assert!(!half.is_empty(), "not within a line: {cut}");
    let mut text = String::new();
    accept().read_to_string(&mut text).unwrap();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        let parts: Vec<&str> = line.split(' ').collect();
        let is_node =
            |node: &str| !node.is_empty() && node.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        assert!(parts[0].starts_with("test.pintle.") && parts[0].split('.').all(is_node), "{line}");
        assert!(parts.len() == 3 && parts[1].parse::<f64>().unwrap().is_finite(), "{line}");
        assert!((parts[2].parse::<i64>().unwrap() - jiff::Timestamp::now().as_second()).abs() < 300, "{line}");
    }
    // The same batch, from its beginning.
    let again: BTreeSet<&str> = text.lines().collect();
    assert!(whole.lines().all(|line| again.contains(line)), "{whole}\n---\n{text}");
    assert_eq!(again.len(), text.lines().count(), "no line twice");
    eventually("it is counted", || (bed.value("pintle_graphite_failures_total").unwrap() >= 1.0).then_some(()));
    eventually("lines are counted", || (bed.value("pintle_graphite_lines_sent_total").unwrap() >= 50.0).then_some(()));
    assert_eq!(pintle.log_json("cannot send metrics to graphite").len(), 1);
    pintle.logs("graphite takes metrics again");
}

#[test]
fn a_dead_graphite_costs_bounded_memory() {
    let bed = Bed::new();
    let pintle = start(&bed, free_port(), "[limits]\ngraphite_queue = \"64KiB\"");
    eventually("lines are dropped", || (bed.value("pintle_graphite_lines_dropped_total").unwrap() > 0.0).then_some(()));
    assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").status, 200);
    assert_eq!(pintle.log_json("cannot send metrics to graphite").len(), 1);
    // A reload turns it off.
    pintle.rewrite(|text| text.replace("graphite", "#graphite"));
    pintle.reload();
    let dropped = bed.value("pintle_graphite_lines_dropped_total").unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(bed.value("pintle_graphite_lines_dropped_total").unwrap(), dropped);
}

#[test]
fn check_names_what_is_wrong_with_graphite() {
    let bed = Bed::new();
    let file = bed.folder.path().join("pintle.toml");
    for (metrics, want) in [
        ("graphite = \"tcp://127.0.0.1:2003\"", ""),
        ("graphite = \"tcp://[::1]\"\ngraphite_prefix = \"a.b-c.d_1\"\ngraphite_interval = 10", ""),
        ("graphite = \"127.0.0.1:2003\"", "metrics.graphite: invalid address \"127.0.0.1:2003\""),
        ("graphite = \"udp://127.0.0.1\"", "metrics.graphite: invalid address"),
        ("graphite = \"tcp://a\"\ngraphite_prefix = \"a..b\"", "metrics.graphite_prefix: expected letters"),
        ("graphite = \"tcp://a\"\ngraphite_prefix = \"\"", "metrics.graphite_prefix: expected letters"),
        (
            "graphite = \"tcp://a\"\ngraphite_interval = \"100ms\"",
            "metrics.graphite_interval: must be between 1s and 1d",
        ),
        ("graphite_prefix = \"a\"", "metrics.graphite_prefix: has no effect without metrics.graphite"),
        ("grafite = \"tcp://a\"", "did you mean \"graphite\"?"),
    ] {
        fs::write(&file, bed.config(&format!("[metrics]\n{metrics}\n"))).unwrap();
        let (code, out, err) = outcome(pintle().args(["check", "-c"]).arg(&file));
        assert_eq!(code == 0, want.is_empty(), "{metrics}\n{out}{err}");
        assert!(format!("{out}{err}").contains(want), "{metrics}\n{out}{err}");
    }
}

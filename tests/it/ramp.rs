//! max-age goes up step by step, as long as nothing goes wrong.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::harness::{BLOG, Client, Pintle, eventually, outcome, output};
use crate::rotation::{Bed, refusal};

fn pins(bed: &Bed, ramp: &str) -> String {
    bed.pins("8s").replace("[site.hpkp]", &format!("[site.hpkp]\n{ramp}"))
}

/// max-age of a header, as clients get it.
fn max_age(bed: &Bed, pintle: &Pintle, field: &str) -> Option<u64> {
    let response = Client::new(&bed.authority).get(pintle.https(), BLOG, "/");
    let value = response.field(field)?.to_owned();
    value.split("max-age=").nth(1)?.split(';').next()?.parse().ok()
}

/// The first ramp of the site, in `status`.
fn ramp(pintle: &Pintle) -> Value {
    pintle.status()["sites"][0]["ramps"][0].clone()
}

fn seconds(time: &Value) -> i64 {
    time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
}

/// All ages that are seen until the last one is.
fn climbs(bed: &Bed, pintle: &Pintle, field: &str, goal: u64) -> Vec<u64> {
    let mut seen: Vec<u64> = Vec::new();
    eventually("the goal is reached", || {
        let age = max_age(bed, pintle, field).unwrap_or_else(|| panic!("no {field}"));
        if seen.last() != Some(&age) {
            seen.push(age);
        }
        (age == goal).then_some(())
    });
    seen
}

#[test]
fn pins_step_by_step() {
    let bed = Bed::new();
    let pintle = bed.start(&pins(&bed, "ramp = [\"2s\", \"4s\"]\nramp_every = \"5s\""));
    let first = ramp(&pintle);
    assert_eq!((&first["policy"], &first["step"], &first["steps"]), (&"hpkp".into(), &1.into(), &3.into()));
    assert_eq!((&first["max_age"], &first["next"]["max_age"]), (&2.into(), &4.into()));
    assert_eq!(seconds(&first["next"]["at"]), seconds(&first["since"]) + 5);
    let human = output(&mut pintle.command("status"));
    assert!(human.contains("hpkp: step 1 of 3, max-age 2s; next 4s on 20"), "{human}");
    assert_eq!(climbs(&bed, &pintle, "public-key-pins", 8), [2, 4, 8]);
    let taken = pintle.logged("max-age rises", 2);
    assert_eq!(taken.iter().map(|l| l["max_age"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 8]);
    // As `status` counts them.
    assert_eq!(taken.iter().map(|l| l["step"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3]);
    let last = ramp(&pintle);
    assert!(last["step"] == 3 && last["next"].is_null(), "{last}");
    // Each set is written down before it is sent.
    let ledger = fs::read_to_string(bed.state().join("ledger.jsonl")).unwrap();
    for age in [2, 4, 8] {
        assert!(ledger.contains(&format!("\"max_age\":{age},")), "{age}: {ledger}");
    }
}

#[test]
fn the_state_outlives_the_process() {
    let bed = Bed::new();
    let config = pins(&bed, "ramp = [\"2s\", \"4s\"]\nramp_every = \"2s\"");
    let pintle = bed.start(&config);
    eventually("the second step", || (ramp(&pintle)["step"] == 2).then_some(()));
    let before = ramp(&pintle);
    drop(pintle);
    // Slower from now on: what is there is gone on from.
    let pintle = bed.start(&config.replace("ramp_every = \"2s\"", "ramp_every = \"1d\""));
    let after = ramp(&pintle);
    assert_eq!((&after["step"], &after["since"]), (&2.into(), &before["since"]));
    assert_eq!(seconds(&after["next"]["at"]), seconds(&after["since"]) + 86400);
    assert_eq!(max_age(&bed, &pintle, "public-key-pins"), Some(4));
    // A reload makes it no younger.
    pintle.rewrite(|text| text.replace("ramp_every = \"1d\"", "ramp_every = \"2d\""));
    pintle.reload();
    assert_eq!((&ramp(&pintle)["step"], &ramp(&pintle)["since"]), (&2.into(), &before["since"]));
}

#[test]
fn hsts_step_by_step() {
    let bed = Bed::new();
    let hsts = "[site.hsts]\nmax_age = \"1h\"\nramp = [\"5s\", \"1m\"]\nramp_every = \"4s\"\n";
    let pintle = bed.start(hsts);
    let human = output(&mut pintle.command("status"));
    assert!(human.contains("hsts: step ") && human.contains(" of 3"), "{human}");
    assert_eq!(climbs(&bed, &pintle, "strict-transport-security", 3600), [5, 60, 3600]);
    assert_eq!(max_age(&bed, &pintle, "public-key-pins"), None);
}

#[test]
fn a_refused_rotation_makes_the_time_begin_anew() {
    let bed = Bed::new();
    let pintle = bed.start(&pins(&bed, "ramp = [\"5s\"]\nramp_every = \"4s\""));
    let first = seconds(&ramp(&pintle)["since"]);
    // As long as what lies there is refused, too.
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || (!refusal(&pintle).is_null()).then_some(()));
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(6) {
        assert_eq!(ramp(&pintle)["step"], 1, "{:?} after the refusal", begin.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(seconds(&ramp(&pintle)["since"]) > first);
    pintle.logs("the step's time restarts");
    bed.put(&bed.live);
    eventually("nothing is refused any more", || refusal(&pintle).is_null().then_some(()));
    let ended = Instant::now();
    eventually("the next step", || (ramp(&pintle)["step"] == 2).then_some(()));
    // The ledger counts whole seconds, and the clock is looked at twice in one.
    assert!(ended.elapsed() > Duration::from_millis(2500), "{:?}", ended.elapsed());
    assert_eq!(pintle.log_json("certificate refused; the old one keeps serving").len(), 1, "logged once");
}

/// Anybody can send reports: one network says nothing, and several hold a step up once, and no other policy's.
#[test]
fn reports_of_several_networks_hold_a_step_up_once() {
    let bed = Bed::new();
    let more = pins(&bed, "ramp = [\"5s\"]\nramp_every = \"1h\"")
        + "[site.hsts]\nmax_age = \"1h\"\nramp = [\"1m\"]\nramp_every = \"1h\"\n";
    let reports =
        format!("[limits]\nreports_per_client = 50\n[reports]\nhost = \"www.example.com\"\n{}", bed.config(&more, ""));
    let pintle = Pintle::start(&bed.authority, &reports);
    let of = |policy: &str| {
        let ramps = pintle.status()["sites"][0]["ramps"].as_array().unwrap().clone();
        ramps.into_iter().find(|ramp| ramp["policy"] == policy).unwrap()
    };
    let since = |policy: &str| seconds(&of(policy)["since"]);
    let send = |source: u8| {
        let report = crate::reports::report(BLOG, BLOG);
        let mut curl = crate::reports::post(&pintle, "https://www.example.com/hpkp", &report);
        let (code, status, err) = outcome(curl.args(["--interface", &format!("127.0.0.{source}")]));
        assert_eq!((code, status.as_str()), (0, "204"), "{err}");
    };
    // Twice a second it is looked at.
    let looked = || std::thread::sleep(Duration::from_millis(1600));
    let (first, hsts) = (since("hpkp"), since("hsts"));
    looked();
    (0..10).for_each(|_| send(1));
    send(2);
    looked();
    assert_eq!(since("hpkp"), first, "two networks are not several");
    send(3);
    let again = eventually("the time begins anew", || Some(since("hpkp")).filter(|since| *since > first));
    assert_eq!(seconds(&of("hpkp")["next"]["at"]), again + 3600);
    assert_eq!((&of("hpkp")["step"], &of("hpkp")["max_age"]), (&1.into(), &5.into()));
    assert_eq!(since("hsts"), hsts, "pins are no matter of HSTS");
    let reported = pintle.logged("clients of several networks report that no pin matched", 1);
    assert!(reported[0]["level"] == "WARN" && reported[0]["networks"] == 3, "{reported:?}");
    // However many come after that.
    looked();
    for round in 0..2 {
        (1..=8).for_each(send);
        looked();
        assert_eq!(since("hpkp"), again, "round {round}");
    }
    assert_eq!(pintle.logged("clients of several networks report that no pin matched", 1).len(), 1);
}

#[test]
fn ramps_that_are_none() {
    let bed = Bed::new();
    let config = bed.folder.path().join("check.toml");
    let cases = [
        ("ramp = [\"5m\", \"1m\"]", "each step must be longer than the one before"),
        ("ramp = []", "must have between 1 and 100 steps"),
        ("ramp = [\"1h\"]", "must not exceed max_age"),
        ("ramp = [\"2s\"]\nramp_every = \"0s\"", "must be at least 1s"),
        ("ramp = [\"2s\"]\nramp_every = \"500ms\"", "must be at least 1s"),
        ("ramp_every = \"1d\"", "has no effect without ramp"),
        ("ramp = [\"100ms\", \"5s\"]", "must be at least 1s"),
    ];
    for (ramp, says) in cases {
        fs::write(&config, bed.config(&pins(&bed, ramp), "")).unwrap();
        let (code, _, err) = outcome(crate::harness::pintle().args(["check", "-c"]).arg(&config));
        assert!(code == 1 && err.contains(says), "{ramp}: {err}");
    }
}

//! Every fuzz target, over its seeds and over many small mutations of them. `fuzz/run` goes on for longer.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
pub mod targets;

use targets::{TARGETS, Target};

/// Mutations of each seed.
const MUTATIONS: usize = 400;
/// The same of each seed with something very long in it.
const STRETCHED: usize = 20;

#[test]
fn every_target_has_its_file() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (folder, extension) in [("fuzz_targets", "rs"), ("seeds", "")] {
        let mut found: Vec<String> = fs::read_dir(fuzz.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        found.sort();
        let mut named: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        named.sort_unstable();
        assert_eq!(found, named, "fuzz/{folder}/*{extension}");
    }
}

#[test]
fn no_target_fails_on_its_seeds_and_their_like() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "no seeds for {name}");
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for seed in &seeds {
            try_on(name, *target, seed);
            for _ in 0..MUTATIONS {
                try_on(name, *target, &random.mutate(seed, &seeds));
            }
            for _ in 0..STRETCHED {
                let long = random.stretch(seed);
                try_on(name, *target, &random.mutate(&long, &seeds));
            }
        }
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    if name == "key_file" {
        // Private keys do not lie in repositories.
        let key = rcgen::KeyPair::generate().unwrap();
        seeds.extend([key.serialize_pem().into_bytes(), key.serialize_der()]);
    }
    seeds
}

fn try_on(name: &str, target: Target, input: &[u8]) {
    let result = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(result.is_ok(), "{name} fails on {}", input.escape_ascii());
}

/// The same numbers in every run (xorshift): a failure is there again the next time.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % n.max(1)
    }

    /// Stretches a seed: so many letters come somewhere that a length kept in few bits would be another one.
    pub fn stretch(&mut self, seed: &[u8]) -> Vec<u8> {
        const LENGTHS: [usize; 8] = [255, 256, 1024, 4096, 65_535, 65_536, 65_537, 131_072];
        let mut bytes = seed.to_vec();
        let at = self.below(bytes.len() + 1);
        bytes.splice(at..at, std::iter::repeat_n(b'x', LENGTHS[self.below(LENGTHS.len())]));
        bytes
    }

    pub fn mutate(&mut self, seed: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        const TELLING: &[u8] = b"\0\r\n\t ,;:=\"/[]@%#\\.0159afGX\x7f\x80\xff";
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = TELLING[self.below(TELLING.len())],
                2 => bytes.insert(at, TELLING[self.below(TELLING.len())]),
                3 => bytes.truncate(at),
                4 => {
                    let end = (at + self.below(16)).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => {
                    let other = &others[self.below(others.len())];
                    let from = self.below(other.len() + 1);
                    let to = (from + self.below(64)).min(other.len());
                    bytes.splice(at..at, other[from..to].iter().copied());
                }
            }
        }
        bytes
    }
}

//! Every kept input, and a short campaign of seeded damage to them, over every target. On any Rust, without a fuzzer.
//!
//! `GESPANN_FUZZ_SECONDS` (of a processor's time for each target, 5: no fewer inputs on a busy machine) and
//! `GESPANN_FUZZ_SEED` (the first one, 1) make it longer, or another one. A failure prints target, seed and input; put the
//! input into the corpus with the fix.

use gespann_fuzz::mutation::Chance;
use gespann_fuzz::{TARGETS, Target};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::Duration;

fn kept(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> = paths.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect();
    inputs.sort();
    inputs
}

fn check(target: &Target, input: &[u8], origin: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target.check(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{}: {origin}: input {hex}", target.name);
        resume_unwind(panic);
    }
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect(name))
}

/// Of this thread.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid clock of this thread, and a place for its answer.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn every_kept_input_keeps_the_promises() {
    for target in TARGETS {
        let inputs = kept(target);
        assert!(!inputs.is_empty(), "{}: no input is kept", target.name);
        for (name, input) in &inputs {
            check(target, input, name);
        }
    }
}

#[test]
fn damaged_inputs_keep_the_promises() {
    let (seconds, first) = (number("GESPANN_FUZZ_SECONDS", 5), number("GESPANN_FUZZ_SEED", 1));
    for target in TARGETS {
        let inputs: Vec<_> = kept(target).into_iter().map(|(_, input)| input).collect();
        let (began, mut seed) = (processor_time(), first);
        while processor_time() - began < Duration::from_secs(seconds) {
            let input = Chance::new(seed).input(&inputs);
            check(target, &input, &format!("seed {seed}"));
            seed += 1;
        }
        println!("{}: seeds {first} to {}", target.name, seed - 1);
    }
}

/// The campaign is worth something only if the targets can fail.
#[test]
fn a_broken_promise_is_noticed() {
    let greedy = Target { name: "greedy", run: |input| drop(vec![0_u8; input.len() * 2]), memory_bytes: |bytes| bytes };
    assert!(catch_unwind(|| greedy.check(&[0; 4096])).is_err(), "memory");
    let broken = Target { name: "broken", run: |input| assert!(!input.contains(&0x3d)), memory_bytes: |_| 1 << 20 };
    let found = (1..1000).any(|seed| {
        let input = Chance::new(seed).input(&[b"abc".to_vec()]);
        catch_unwind(|| broken.check(&input)).is_err()
    });
    assert!(found, "panics");
}

//! The model-based test: random requests and commands on a store, crashes at any call of the disk, and after each recovery
//! the comparison with everything that the store had promised.

mod explore;
mod mapped;
mod operation;
mod run;
mod scripts;
mod sectors;
mod step;
mod subject;
mod toy;
mod usage;
mod whole;
mod world;

use explore::{explore, report};
use mapped::Mapped;
use scripts::{End, run_each};
use std::sync::atomic::{AtomicU64, Ordering};
use toy::{Mistake, Toy};

fn seeds(from: u64, count: u64) -> impl Fn() -> Option<u64> + Sync {
    let next = AtomicU64::new(from);
    move || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < from + count)
}

#[test]
fn a_simple_store_without_mistakes_passes() {
    let (failures, passed, runs) = explore(&Toy(None), &seeds(0, 1000));
    assert!(failures.is_empty(), "{}", report(&Toy(None), failures));
    println!("{runs} runs, {} crashes, {} calls of the disk", passed.crashes, passed.calls);
    assert!(passed.crashes > 2 * runs);
}

#[test]
fn every_mistake_is_noticed() {
    let unnoticed: Vec<Mistake> = Mistake::ALL
        .into_iter()
        .filter(|mistake| {
            let toy = Toy(Some(*mistake));
            let (failures, _, runs) = explore(&toy, &seeds(0, 3000));
            println!("{mistake:?}: noticed after {runs} runs: {}", failures.first().map_or("never", |failed| &failed.error));
            failures.is_empty()
        })
        .collect();
    assert!(unnoticed.is_empty(), "the model does not see {unnoticed:?}");
}

#[test]
fn the_store_keeps_its_promises_over_every_crash() {
    let count = number("GESPANN_MODEL_RUNS").unwrap_or(10_000);
    let (failures, passed, runs) = explore(&Mapped, &seeds(0, count));
    assert!(failures.is_empty(), "{}", report(&Mapped, failures));
    println!("{runs} runs, {} crashes, {} calls of the disk", passed.crashes, passed.calls);
}

#[test]
fn every_call_of_the_disk_may_be_the_last_one_or_fail() {
    use gespann_store::disk::sim::Operation;
    let fails = |operation, errno| End::Error(operation, errno);
    let ends = [
        End::ProcessDeath,
        End::PowerLoss(1),
        End::PowerLoss(2),
        End::PowerLoss(3),
        fails(None, libc::EIO),
        fails(Some(Operation::Write), libc::ENOSPC),
        fails(Some(Operation::Sync), libc::EIO),
    ];
    for (name, script) in [("small", scripts::small()), ("large", scripts::large())] {
        for end in ends {
            let calls = run_each(&Mapped, &script, end).unwrap_or_else(|error| panic!("script {name}, {error}"));
            println!("script {name}: {end:?} at each of {calls} calls");
            assert!(calls > 10, "{name}: {calls}");
        }
    }
}

#[test]
fn a_seed_is_one_run() {
    let story = |seed| {
        let (config, steps) = step::plan(seed);
        let mut run = run::Run::new(&Mapped, config).unwrap();
        (0..).zip(steps).for_each(|(number, step)| run.step(number, step).unwrap());
        let calls = run.disk().calls();
        (run.story, run.crashes, calls)
    };
    (0..20).for_each(|seed| assert_eq!(story(seed), story(seed)));
}

/// `GESPANN_MODEL_SECONDS`: so long, from a seed that nobody has tried yet.
#[test]
fn open_ended() {
    let Some(seconds) = number("GESPANN_MODEL_SECONDS") else { return };
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (first, end) = (now() * 1_000_000, now() + seconds);
    println!("{seconds} seconds from seed {first} on");
    let next = AtomicU64::new(first);
    let (failures, passed, runs) = explore(&Mapped, &|| (now() < end).then(|| next.fetch_add(1, Ordering::Relaxed)));
    println!("{runs} runs, {} crashes, {} calls of the disk", passed.crashes, passed.calls);
    assert!(failures.is_empty(), "{}", report(&Mapped, failures));
}

/// `GESPANN_MODEL_SEED`: one run, with every step printed.
#[test]
fn replay() {
    let Some(seed) = number("GESPANN_MODEL_SEED") else { return };
    let subject = Mapped;
    if let Err(failed) = explore::run_seed(&subject, seed) {
        println!("{}\n{}\n", failed.error, failed.story.join("\n"));
        panic!("{}", report(&subject, vec![failed]));
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text}")))
}

//! Many runs on all cores; a failing one is shortened and printed with the command that repeats it.

use crate::run::Run;
use crate::step::{Config, Step, plan};
use crate::subject::Subject;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub struct Failed {
    pub seed: u64,
    pub error: String,
    pub story: Vec<String>,
}

/// What happened in a run that went well.
#[derive(Debug, Default)]
pub struct Passed {
    pub crashes: u64,
    pub calls: u64,
}

/// Runs the steps; a panic in the store is a failure like another.
pub fn run_steps(subject: &dyn Subject, config: Config, steps: &[(u64, Step)]) -> Result<Passed, Failed> {
    let story = Mutex::new(Vec::new());
    let failed = |error: String, story: Vec<String>| Failed { seed: config.seed, error, story };
    let attempt = || -> Result<Passed, String> {
        let mut run = Run::new(subject, config)?;
        let steps = steps.iter().map(|(number, step)| Some((*number, *step))).chain([None]);
        for step in steps {
            let outcome = catch_unwind(AssertUnwindSafe(|| match step {
                Some((number, step)) => run.step(number, step),
                None => run.finish(),
            }));
            let outcome = outcome.unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(panic.as_ref()))));
            if outcome.is_err() {
                *story.lock().unwrap() = std::mem::take(&mut run.story);
                outcome?;
            }
        }
        Ok(Passed { crashes: run.crashes.into(), calls: run.disk().calls() })
    };
    attempt().map_err(|error| failed(error, story.into_inner().unwrap()))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "no text".to_owned())
}

pub fn numbered(steps: Vec<Step>) -> Vec<(u64, Step)> {
    (0..).zip(steps).collect()
}

pub fn run_seed(subject: &dyn Subject, seed: u64) -> Result<Passed, Failed> {
    let (config, steps) = plan(seed);
    run_steps(subject, config, &numbered(steps))
}

/// The words of an error without names and numbers.
fn kind(error: &str) -> Vec<&str> {
    error.split(|letter: char| !letter.is_lowercase()).filter(|word| word.len() > 2).take(4).collect()
}

/// Leaves out steps as long as the run still fails with the same words.
pub fn shorten(subject: &dyn Subject, failed: Failed) -> Failed {
    let (config, steps) = plan(failed.seed);
    let (mut steps, mut shortest) = (numbered(steps), failed);
    let mut piece = steps.len() / 2;
    while piece > 0 {
        let mut start = 0;
        while start < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(start..(start + piece).min(steps.len()));
            match run_steps(subject, config, &fewer) {
                Err(failed) if kind(&failed.error) == kind(&shortest.error) => (steps, shortest) = (fewer, failed),
                _ => start += piece,
            }
        }
        piece /= 2;
    }
    shortest
}

/// Runs seeds from `next` on until it says that there are enough; the failures, and what the others did.
pub fn explore(subject: &dyn Subject, next: &(dyn Fn() -> Option<u64> + Sync)) -> (Vec<Failed>, Passed, u64) {
    let failures = Mutex::new(Vec::new());
    let (crashes, calls, runs) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failures.lock().unwrap().len() < 3 {
                    let Some(seed) = next() else { break };
                    runs.fetch_add(1, Ordering::Relaxed);
                    match run_seed(subject, seed) {
                        Ok(passed) => {
                            crashes.fetch_add(passed.crashes, Ordering::Relaxed);
                            calls.fetch_add(passed.calls, Ordering::Relaxed);
                        }
                        Err(failed) => failures.lock().unwrap().push(failed),
                    }
                }
            });
        }
    });
    let passed = Passed { crashes: crashes.into_inner(), calls: calls.into_inner() };
    (failures.into_inner().unwrap(), passed, runs.into_inner())
}

pub fn report(subject: &dyn Subject, failures: Vec<Failed>) -> String {
    let one = |failed: Failed| {
        let seed = failed.seed;
        let short = shorten(subject, failed);
        let command = format!(
            "GESPANN_MODEL_SEED={seed} cargo test --manifest-path engine/Cargo.toml -p gespann-store --test model replay -- --nocapture"
        );
        format!("seed {seed}: {}\n{}\nto repeat it: {command}\n", short.error, short.story.join("\n"))
    };
    failures.into_iter().map(one).collect::<Vec<_>>().join("\n")
}

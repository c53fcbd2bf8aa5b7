//! Short fixed scripts, in which every single call of the disk is once the last one, by death of the process and by loss of
//! power, and once fails.

use crate::operation::{Operation, Range};
use crate::run::Run;
use crate::sectors::SECTOR;
use crate::step::Config;
use crate::subject::{Options, Subject};
use crate::world::id_of;
use gespann_store::disk::sim;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const CHUNK_BYTES: u64 = 16 << 10;
const CHUNK: u64 = CHUNK_BYTES / SECTOR;

fn range(letter: char, from: u64, sectors: u64) -> Range {
    Range { id: id_of(letter), from, to: from + sectors }
}

fn write(letter: char, from: u64, sectors: u64, step: u64) -> Operation {
    Operation::Write { range: range(letter, from, sectors), step }
}

fn snapshot(pairs: &[(char, char)]) -> Operation {
    Operation::Snapshot { pairs: pairs.iter().map(|(source, id)| (id_of(*source), id_of(*id))).collect() }
}

fn background() -> Operation {
    Operation::Background { pieces: 60 }
}

/// The life of a small volume with snapshots.
pub fn small() -> Vec<Operation> {
    let (a, b, c) = (id_of('A'), id_of('B'), id_of('C'));
    vec![
        Operation::Create { id: a, size_bytes: 4 * CHUNK_BYTES - 1024, thick: false },
        write('A', 0, 2 * CHUNK, 1),
        Operation::Flush { id: a },
        write('A', 5, 3, 2),
        snapshot(&[('A', 'B')]),
        write('A', CHUNK - 2, 4, 3),
        Operation::Settle { id: a },
        Operation::Clone { source: a, id: c, thick: false },
        write('C', 0, CHUNK, 4),
        Operation::Flush { id: c },
        Operation::WriteAtomic { range: range('A', CHUNK / 2, 2 * CHUNK), step: 7 },
        Operation::Usage,
        Operation::Zero { range: range('A', 3, CHUNK) },
        background(),
        Operation::RollBack { id: a, from: b },
        write('A', 2 * CHUNK, CHUNK + 7, 5),
        background(),
        Operation::Delete { id: b },
        Operation::Usage,
        background(),
        Operation::Resize { id: a, size_bytes: CHUNK_BYTES + 512 },
        Operation::Resize { id: a, size_bytes: 6 * CHUNK_BYTES },
        write('A', 5 * CHUNK + 1, 8, 6),
        Operation::WriteAtomic { range: range('A', 4 * CHUNK + 3, 2 * CHUNK - 3), step: 8 },
        Operation::Flush { id: a },
        background(),
    ]
}

/// A large volume at the borders of the map's nodes, a thick one, both shared at one instant, ranges copied.
pub fn large() -> Vec<Operation> {
    let (a, t) = (id_of('A'), id_of('T'));
    let (page, region) = (512 * CHUNK, 512 * 512 * CHUNK);
    vec![
        Operation::Create { id: a, size_bytes: 40 << 30, thick: false },
        Operation::Create { id: t, size_bytes: 3 * CHUNK_BYTES, thick: true },
        write('A', page - 9, 20, 1),
        write('A', region - CHUNK, 2 * CHUNK, 2),
        write('T', 0, 3 * CHUNK, 3),
        snapshot(&[('A', 'X'), ('T', 'Y')]),
        write('A', region - 1, 2, 4),
        write('T', CHUNK, 1, 5),
        Operation::Flush { id: t },
        Operation::CopyRange { source: range('T', 0, 2 * CHUNK), target: a, at: page },
        Operation::Flush { id: a },
        background(),
        Operation::Zero { range: range('A', page / 2, region) },
        Operation::SetThick { id: t, thick: false },
        Operation::Flush { id: a },
        Operation::Delete { id: id_of('X') },
        background(),
        Operation::RollBack { id: t, from: id_of('Y') },
        Operation::Delete { id: a },
        background(),
    ]
}

/// How one call ends.
#[derive(Debug, Clone, Copy)]
pub enum End {
    ProcessDeath,
    PowerLoss(u64),
    Error(Option<sim::Operation>, i32),
}

/// One run of the script in which the call after `calls` others ends so; false if there is no such call.
fn run_once(subject: &dyn Subject, script: &[Operation], calls: u64, end: End) -> Result<bool, String> {
    let options = Options { chunk_bytes: CHUNK_BYTES, log_bytes: 512 };
    let config = Config { seed: calls, options, chunks: 0, sparse: true, faults: true, full: false };
    let mut run = Run::new(subject, config)?;
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        match end {
            End::ProcessDeath => run.arm(calls, None),
            End::PowerLoss(seed) => run.arm(calls, Some(seed)),
            End::Error(operation, errno) => run.fault(sim::Fault { operation, after: calls, errno }),
        }
        for operation in script {
            if operation.fits(run.world()) {
                run.perform(operation)?;
            }
        }
        let struck = run.crashes > 0 || !run.disk().fired().is_empty();
        run.finish().map(|()| struck)
    }));
    let outcome = attempt.unwrap_or_else(|panic| Err(format!("panic: {:?}", panic.downcast_ref::<String>())));
    outcome.map_err(|error| format!("call {calls}, {end:?}: {error}\n{}", run.story.join("\n")))
}

/// Every call, one after the other; how many there were.
pub fn run_each(subject: &dyn Subject, script: &[Operation], end: End) -> Result<u64, String> {
    let (next, stop) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let calls = next.fetch_add(1, Ordering::Relaxed);
                    if calls >= stop.load(Ordering::Relaxed) {
                        break;
                    }
                    match run_once(subject, script, calls, end) {
                        Ok(true) => {}
                        Ok(false) => drop(stop.fetch_min(calls, Ordering::Relaxed)),
                        Err(error) => {
                            failure.lock().unwrap().get_or_insert(error);
                            stop.store(0, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap().map_or(Ok(stop.into_inner()), Err)
}

//! SANITIZE under way: on a thread of its own, behind a closed gate, over resets, sessions and restarts.
//!
//! ```text
//!           SANITIZE            done
//!   ready ───────────► running ─────► ready
//!     ▲                   │ failed
//!     └── EXIT FAILURE ── ▼
//!         MODE, SANITIZE  failed
//! ```
//! What is to be done is on disk before the command is answered, and gone from there only after the last flush: an
//! engine that starts in between begins it again, and until it is done nobody reads what is half erased.

use crate::gate::{Closing, Gate, Refused};
use crate::log;
use crate::persistent;
use crate::sessions::SessionEntry;
use gespann_scsi::persistent::Class;
use gespann_scsi::sanitize::{Overwrite, Sanitize};
use gespann_scsi::{Lun, Sense};
use gespann_store::{BlockError, Store, Volume, VolumeId};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Leaves the other volumes of the same disks their share.
const OVERWRITE_BYTES_PER_S: u64 = 256 << 20;
const OVERWRITE_PIECE_BYTES: u64 = 4 << 20;
const ERASE_PIECE_BYTES: u64 = 1 << 30;

/// What is to be done; kept on disk until it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// None: erase.
    overwrite: Option<Overwrite>,
    block_size: u32,
    /// EXIT FAILURE MODE is allowed, should it fail.
    allow_leaving: bool,
    failed: bool,
}

impl Job {
    pub fn encode(&self) -> Value {
        let overwrite = self.overwrite.as_ref();
        let overwrite = overwrite.map(|it| json!({"passes": it.passes, "invert": it.invert, "pattern": it.pattern}));
        json!({
            "overwrite": overwrite,
            "block_size": self.block_size,
            "allow_leaving": self.allow_leaving,
            "failed": self.failed,
        })
    }

    /// What cannot be read has failed: nobody knows which blocks were erased.
    pub fn decode(value: &Value) -> Self {
        Self::read(value).unwrap_or(Self { overwrite: None, block_size: 512, allow_leaving: true, failed: true })
    }

    fn read(value: &Value) -> Option<Self> {
        let flag = |value: &Value, key: &str| value.get(key)?.as_bool();
        let byte = |value: &Value| u8::try_from(value.as_u64()?).ok();
        let overwrite = match value.get("overwrite")? {
            Value::Null => None,
            it => Some(Overwrite {
                passes: byte(it.get("passes")?)?,
                invert: flag(it, "invert")?,
                pattern: it.get("pattern")?.as_array()?.iter().map(byte).collect::<Option<_>>()?,
            }),
        };
        let block_size = u32::try_from(value.get("block_size")?.as_u64()?).ok()?;
        Some(Self { overwrite, block_size, allow_leaving: flag(value, "allow_leaving")?, failed: flag(value, "failed")? })
    }
}

/// How one run ended: none, or why it failed. Whoever waits for the answer looks here.
pub type Outcome = OnceLock<Option<Sense>>;

/// One volume's state, beside its gate.
#[derive(Debug, Default)]
pub struct Sanitizing {
    job: Mutex<Option<Job>>,
    /// In 65,536ths.
    progress: AtomicU32,
    stopping: AtomicBool,
}

impl Sanitizing {
    fn lock(&self) -> MutexGuard<'_, Option<Job>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn job(&self) -> Option<Job> {
        self.lock().clone()
    }

    /// The engine ends: the next one goes on.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Why commands are refused now; none if the volume is ready.
    pub fn sense(&self) -> Option<Sense> {
        let failed = self.lock().as_ref()?.failed;
        let progress = self.progress.load(Ordering::Relaxed).min(0xffff) as u16;
        Some(if failed { Sense::SANITIZE_FAILED } else { Sense::SANITIZING.with_progress(progress) })
    }
}

/// A gate as the engine before this one left it: reservations, and a sanitizing that goes on.
pub fn gate_as_kept(store: &Arc<dyn Store>, volume: VolumeId) -> Arc<Gate> {
    let (reservations, job) = persistent::load(store.as_ref(), volume);
    let gate = Arc::new(Gate::new(0, reservations));
    let Some(job) = job else { return gate };
    gate.keep_closed();
    let failed = job.failed;
    *gate.sanitizing.lock() = Some(job);
    if !failed {
        match (gate.close_again(), store.open(volume)) {
            (Some(closing), Ok(opened)) => {
                log!(Info, "volume {volume}: its sanitizing goes on");
                run(store.clone(), gate.clone(), closing, volume, opened, Arc::default());
            }
            (_, opened) => log!(Error, "volume {volume}: its sanitizing cannot go on: {:?}", opened.err()),
        }
    }
    gate
}

/// Begins what was asked for. Ok: under way, or (EXIT FAILURE MODE) done; the outcome is there when it is over.
pub fn start(
    store: &Arc<dyn Store>,
    entry: &SessionEntry,
    resets: u64,
    wanted: Sanitize,
    lun: &Lun,
    data: &[u8],
) -> Result<Result<Arc<Outcome>, Sense>, Refused> {
    let (gate, id) = (&entry.export.gate, entry.export.id);
    let (overwrite, allow_leaving) = match wanted {
        Sanitize::Leave => return leave(store, entry, resets),
        Sanitize::Erase { allow_leaving, .. } => (None, allow_leaving),
        Sanitize::Overwrite { allow_leaving, parameter_bytes, .. } => match Overwrite::parse(data, parameter_bytes, lun) {
            Ok(overwrite) => (Some(overwrite), allow_leaving),
            Err(sense) => return Ok(Err(sense)),
        },
    };
    let job = Job { overwrite, block_size: lun.block_size, allow_leaving, failed: false };
    let closing = gate.close(&entry.ticket, resets)?;
    let before = gate.sanitizing.job();
    gate.sanitizing.progress.store(0, Ordering::Relaxed);
    if let Err(sense) = put(store.as_ref(), gate, id, Some(job)) {
        if before.is_none() {
            gate.open();
        }
        return Ok(Err(sense));
    }
    log!(Info, "volume {id}: sanitizing, asked for by session {} of {}", entry.ticket.session, entry.initiator);
    let outcome = Arc::new(Outcome::new());
    run(store.clone(), gate.clone(), closing, id, entry.export.volume.clone(), outcome.clone());
    Ok(Ok(outcome))
}

/// EXIT FAILURE MODE: the volume may be used as it is. Where nothing has failed there is nothing to leave.
fn leave(store: &Arc<dyn Store>, entry: &SessionEntry, resets: u64) -> Result<Result<Arc<Outcome>, Sense>, Refused> {
    let gate = &entry.export.gate;
    let done = || Arc::new(Outcome::from(None));
    if gate.sanitizing.job().is_none() {
        return gate.admit(&entry.ticket, resets, Class::Write).map(|_permit| Ok(done()));
    }
    let _closing = gate.close(&entry.ticket, resets)?;
    if gate.sanitizing.job().is_some_and(|job| !job.allow_leaving) {
        return Ok(Err(Sense::INVALID_FIELD_IN_CDB.in_byte(1)));
    }
    let result = put(store.as_ref(), gate, entry.export.id, None);
    if result.is_ok() {
        gate.open();
    }
    Ok(result.map(|()| done()))
}

/// On disk, then in force.
fn put(store: &dyn Store, gate: &Gate, id: VolumeId, job: Option<Job>) -> Result<(), Sense> {
    let _alone = gate.reserving.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = persistent::keep(store, id, &gate.persistent(), job.as_ref()) {
        log!(Error, "volume {id}: the state of its sanitizing cannot be kept: {error}");
        return Err(Sense::INTERNAL_FAILURE);
    }
    *gate.sanitizing.lock() = job;
    Ok(())
}

fn run(store: Arc<dyn Store>, gate: Arc<Gate>, closing: Closing, id: VolumeId, volume: Arc<dyn Volume>, outcome: Arc<Outcome>) {
    let body = move || {
        closing.wait_for_others();
        let Some(mut job) = gate.sanitizing.job() else { return };
        let result = carry_out(volume.as_ref(), &job, &gate.sanitizing);
        let failed = match result {
            Ok(true) => put(store.as_ref(), &gate, id, None).err(),
            Ok(false) => return, // the engine ends; the next one begins again
            Err(error) => {
                log!(Error, "volume {id}: sanitizing failed: {error}");
                Some(Sense::SANITIZE_FAILED)
            }
        };
        if failed.is_some() {
            job.failed = true;
            if put(store.as_ref(), &gate, id, Some(job.clone())).is_err() {
                *gate.sanitizing.lock() = Some(job); // on disk it still says that it goes on, which is safe
            }
        } else {
            log!(Info, "volume {id}: sanitized");
            gate.open();
        }
        drop(closing);
        let _ = outcome.set(failed);
    };
    // Without a thread the volume stays closed, and the next engine begins again.
    if let Err(error) = thread::Builder::new().name("sanitize".to_owned()).spawn(body) {
        log!(Error, "volume {id}: cannot start the thread of its sanitizing: {error}");
    }
}

/// False: stopped before its end.
fn carry_out(volume: &dyn Volume, job: &Job, state: &Sanitizing) -> Result<bool, BlockError> {
    let size = volume.size_bytes();
    let passes = job.overwrite.as_ref().map_or(1, |overwrite| overwrite.passes);
    let step = if job.overwrite.is_some() { OVERWRITE_PIECE_BYTES } else { ERASE_PIECE_BYTES };
    let started = Instant::now();
    let mut written = 0;
    for pass in 0..passes {
        let block = job.overwrite.as_ref().map(|overwrite| overwrite.block(pass, job.block_size as usize));
        let piece = block.map(|block| block.repeat(step as usize / job.block_size as usize));
        let mut offset = 0;
        while offset < size {
            if state.stopping.load(Ordering::Acquire) {
                return Ok(false);
            }
            let length = step.min(size - offset);
            match &piece {
                Some(piece) => {
                    volume.write_at(&piece[..length as usize], offset)?;
                    written += length;
                    let due = Duration::from_millis(written * 1000 / OVERWRITE_BYTES_PER_S);
                    thread::sleep(due.saturating_sub(started.elapsed()));
                }
                None => volume.zero(offset, length)?,
            }
            offset += length;
            let part = (u128::from(pass) * u128::from(size) + u128::from(offset)) * 65_535;
            state.progress.store((part / (u128::from(passes) * u128::from(size))) as u32, Ordering::Relaxed);
        }
        volume.flush()?;
    }
    Ok(true)
}

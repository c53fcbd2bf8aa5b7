//! The log of the map's changes.
//!
//! ```text
//! DATA/map/log-<n>          changes after checkpoint n, in order
//! DATA/map/checkpoint-<n>   the whole state when log n was begun, see `checkpoint`
//! ```
//! A change is *written* before it is acknowledged: then it survives the death of this process, as what is in the page
//! cache does. It is *durable* when a commit that covers it has been synced, after the data it refers to. The kernel may
//! write the log out before the data, so after a loss of power, which a log's incarnation tells, records that no commit
//! covers do not count.

pub mod frame;
pub mod read;
pub mod record;

use crate::disk::{Disk, DiskFile};
use record::Record;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub const VERSION: u32 = 3;
/// A log of this version has no `Record::Reserving`, and one before version 3 no `Record::Put`.
pub const OLDEST: u32 = 1;
/// Space of the log is taken ahead in steps of this.
const STEP_BYTES: u64 = 1 << 20;
/// What ordinary changes leave free, so that a deletion can be told when nothing else can.
const SPARE_BYTES: u64 = 256 << 10;
/// No record of an ordinary change is longer.
const CHANGE_BYTES: u64 = 64 << 10;

pub fn log_path(number: u64) -> String {
    format!("map/log-{number}")
}

#[derive(Debug)]
pub struct Journal {
    state: Mutex<State>,
    /// Held while syncing, so that one sync serves all who wait.
    syncing: Mutex<()>,
    written: AtomicU64,
    durable: AtomicU64,
    /// Bytes of the present log.
    length: AtomicU64,
}

#[derive(Debug)]
struct State {
    file: Arc<dyn DiskFile>,
    /// A log before this one that has yet to be synced.
    previous: Option<Arc<dyn DiskFile>>,
    next: u64,
    /// Where the bytes that are not yet written begin.
    offset: u64,
    waiting: Vec<u8>,
    reserved: u64,
    failed: Option<String>,
}

fn failure(words: &str) -> io::Error {
    io::Error::other(format!("the log of the volumes' maps failed earlier: {words}; restart the engine to go on"))
}

impl Journal {
    /// Begins log `number`, to go on from record `latest`.
    pub fn begin(disk: &dyn Disk, number: u64, latest: u64) -> io::Result<Self> {
        let file = Self::prepare(disk, number)?;
        let offset = Self::head(disk)?.len() as u64;
        let (next, waiting) = (latest + 1, Vec::new());
        let state = State { file, previous: None, next, offset, waiting, reserved: STEP_BYTES, failed: None };
        Ok(Self {
            state: Mutex::new(state),
            syncing: Mutex::default(),
            written: AtomicU64::new(latest),
            durable: AtomicU64::new(latest),
            length: AtomicU64::new(offset),
        })
    }

    fn head(disk: &dyn Disk) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, 0, &Record::Begin { version: VERSION, incarnation: disk.incarnation()? });
        Ok(bytes)
    }

    /// Makes log `number`, to be switched to. What it costs is paid here.
    pub fn prepare(disk: &dyn Disk, number: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = disk.create(&log_path(number))?;
        file.reserve(STEP_BYTES)?;
        file.write_at(&Self::head(disk)?, 0)?;
        file.sync()?;
        disk.sync_folder("map")?;
        Ok(file)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more ordinary change, or the error that its writer is to get. A change that has begun cannot fail.
    pub fn make_room(&self) -> io::Result<()> {
        self.room_for(CHANGE_BYTES + SPARE_BYTES)
    }

    /// Room for a record that must be possible when nothing else is.
    pub fn make_spare_room(&self) -> io::Result<()> {
        self.room_for(CHANGE_BYTES)
    }

    fn room_for(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        if let Some(words) = &state.failed {
            return Err(failure(words));
        }
        let needed = state.offset + state.waiting.len() as u64 + bytes;
        if needed > state.reserved {
            let reserved = needed.next_multiple_of(STEP_BYTES);
            state.file.reserve(reserved)?;
            state.reserved = reserved;
        }
        Ok(())
    }

    /// Adds a record and tells its number. Order of calls is order of records.
    pub fn append(&self, record: &Record) -> u64 {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        frame::put(&mut state.waiting, number, record);
        self.length.store(state.offset + state.waiting.len() as u64, Ordering::Relaxed);
        number
    }

    fn write_out(&self, state: &mut State) -> io::Result<u64> {
        if let Some(words) = &state.failed {
            return Err(failure(words));
        }
        if !state.waiting.is_empty() {
            if let Err(error) = state.file.write_at(&state.waiting, state.offset) {
                state.failed = Some(error.to_string());
                return Err(error);
            }
            state.offset += state.waiting.len() as u64;
            state.waiting.clear();
            state.waiting.shrink_to(1 << 20);
        }
        self.written.store(state.next - 1, Ordering::Release);
        Ok(state.next - 1)
    }

    /// From here on the record survives the death of this process.
    pub fn write(&self, number: u64) -> io::Result<()> {
        if self.written.load(Ordering::Acquire) >= number {
            return Ok(());
        }
        self.write_out(&mut self.state()).map(drop)
    }

    /// From here on everything appended before the call survives a loss of power (as far as commits say so).
    pub fn sync(&self, number: u64) -> io::Result<()> {
        if self.durable.load(Ordering::Acquire) >= number {
            return Ok(());
        }
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.durable.load(Ordering::Acquire) >= number {
            return Ok(());
        }
        let (file, previous, upto) = {
            let mut state = self.state();
            let upto = self.write_out(&mut state)?;
            (state.file.clone(), state.previous.take(), upto)
        };
        let result = previous.map_or(Ok(()), |previous| previous.sync()).and_then(|()| file.sync());
        if let Err(error) = result {
            // The kernel may have dropped what it could not write: nobody may believe a later sync.
            self.state().failed = Some(error.to_string());
            return Err(error);
        }
        self.durable.fetch_max(upto, Ordering::AcqRel);
        Ok(())
    }

    /// Every record up to this one is durable.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    /// The number of the latest record.
    pub fn latest(&self) -> u64 {
        self.state().next - 1
    }

    /// From now on records go to `file`, which was prepared for this. Nobody may be appending. The number of the latest
    /// record of the old log.
    pub fn switch(&self, disk: &dyn Disk, file: Arc<dyn DiskFile>) -> io::Result<u64> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        let latest = self.write_out(&mut state)?;
        let first_bytes = Self::head(disk)?.len() as u64;
        let old = std::mem::replace(&mut state.file, file);
        state.previous = Some(old);
        (state.offset, state.reserved) = (first_bytes, STEP_BYTES);
        self.length.store(first_bytes, Ordering::Relaxed);
        Ok(latest)
    }
}

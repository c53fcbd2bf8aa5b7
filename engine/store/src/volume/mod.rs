//! One volume: its blocks through its map.
//!
//! Reads, and writes to what is the volume's own already, go on side by side under the shared lock. What changes the map
//! takes the lock alone: the first write to a chunk that is shared or not there. The data is written before the map is
//! changed, the change is in the log before the write is answered (`settle`), and both are durable after `flush`.

mod blocks;
pub mod read;
mod spill;
mod write;
mod zero;

use crate::data_files::DataFile;
use crate::journal::record::{Record, VolumeNumber};
use crate::map::walk::Dropped;
use crate::map::{Slot, Top};
use crate::shared::Shared;
use crate::state::VolumeState;
use crate::{BlockError, VolumeId, lock};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A chunk's blocks, of which some may be in one slot and the others in another.
pub const BLOCK_BYTES: u64 = 4096;

#[derive(Debug)]
pub struct MappedVolume {
    pub id: VolumeId,
    pub number: VolumeNumber,
    pub shared: Arc<Shared>,
    size_bytes: AtomicU64,
    thick: AtomicBool,
    /// Thin, and its base file may hold space that was reserved for a thick one.
    reserving: AtomicBool,
    map: RwLock<VolumeMap>,
    /// The latest record that changed the map; all records up to `committed` are durable, with their data.
    latest: AtomicU64,
    committed: AtomicU64,
    lost_writes: AtomicBool,
    /// Let go by records that are not yet durable.
    deferred: Mutex<Vec<(u64, Dropped)>>,
    /// Files of others whose data the map refers to since chunks were shared with a range of this volume, and how often.
    also_sync: Mutex<BTreeMap<u32, (Arc<DataFile>, u64)>>,
    /// The volume's own limit is reached.
    pub held: AtomicBool,
    /// Its storage pool has no space left.
    pub pool_full: AtomicBool,
    pub max_in_use_bytes: AtomicU64,
    pub facts: Mutex<Facts>,
    /// The latest record when the background last looked, and how often it has found a later one since.
    pub looked_at: Mutex<(u64, u32)>,
    /// What the volume refers to, and the state in which that was counted.
    pub mapped: Mutex<Option<(Counted, u64)>>,
}

/// As long as this is the same a volume refers to as much: by its latest record, its map's tenure, what its own files occupy, and
/// how often some of that was given back.
pub type Counted = (u64, u64, u64, u64);

/// What only control requests ask for.
#[derive(Debug, Clone)]
pub struct Facts {
    pub origin: Option<VolumeId>,
    pub reservations: Option<String>,
}

#[derive(Debug)]
pub struct VolumeMap {
    pub top: Arc<Top>,
    /// All of it is in the base file, and nobody else's.
    pub raw: bool,
    pub tenure: u64,
    pub base: Option<Arc<DataFile>>,
    /// New slots are taken from the last one.
    pub spills: Vec<Arc<DataFile>>,
    /// Files of volumes that are gone, of which some slots are this volume's own by now.
    pub adopted: Vec<Arc<DataFile>>,
}

impl VolumeMap {
    pub fn owns(&self, slot: Slot) -> bool {
        self.files().any(|file| file.number == slot.file)
    }

    pub fn own_files(&self) -> Vec<Arc<DataFile>> {
        self.base.iter().chain(&self.spills).cloned().collect()
    }

    /// All that may be written in place.
    pub fn files(&self) -> impl Iterator<Item = &Arc<DataFile>> {
        self.base.iter().chain(&self.spills).chain(&self.adopted)
    }

    /// What the volume's own files occupy.
    pub fn allocated_bytes(&self) -> io::Result<u64> {
        self.files().map(|file| file.allocated_bytes()).sum()
    }
}

impl MappedVolume {
    pub fn new(shared: Arc<Shared>, state: VolumeState, latest: u64) -> Self {
        let file = |number: Option<u32>| number.and_then(|number| shared.files.get(number));
        let map = VolumeMap {
            top: state.top,
            raw: state.raw,
            tenure: shared.new_tenure(),
            base: file(state.base),
            spills: state.spills.into_iter().filter_map(|number| file(Some(number))).collect(),
            adopted: Vec::new(),
        };
        if let Some(base) = map.base.as_ref().filter(|_| state.thick) {
            base.keep_reserved(state.size_bytes.div_ceil(shared.chunk_bytes));
        }
        Self {
            id: state.id,
            number: state.number,
            shared,
            size_bytes: AtomicU64::new(state.size_bytes),
            thick: AtomicBool::new(state.thick),
            reserving: AtomicBool::new(state.reserving),
            map: RwLock::new(map),
            latest: AtomicU64::new(latest),
            committed: AtomicU64::new(latest),
            lost_writes: AtomicBool::new(false),
            deferred: Mutex::default(),
            also_sync: Mutex::default(),
            held: AtomicBool::new(false),
            pool_full: AtomicBool::new(false),
            max_in_use_bytes: AtomicU64::new(u64::MAX),
            looked_at: Mutex::default(),
            mapped: Mutex::default(),
            facts: Mutex::new(Facts { origin: state.origin, reservations: state.reservations }),
        }
    }

    /// As a checkpoint keeps it. Nobody may be changing maps.
    pub fn state(&self) -> VolumeState {
        let map = self.map();
        let facts = lock(&self.facts);
        VolumeState {
            number: self.number,
            id: self.id,
            size_bytes: self.size(),
            thick: self.is_thick(),
            reserving: self.is_reserving(),
            raw: map.raw,
            origin: facts.origin,
            reservations: facts.reservations.clone(),
            base: map.base.as_ref().map(|file| file.number),
            spills: map.spills.iter().map(|file| file.number).collect(),
            top: map.top.clone(),
        }
    }

    pub fn map(&self) -> RwLockReadGuard<'_, VolumeMap> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn map_alone(&self) -> RwLockWriteGuard<'_, VolumeMap> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn size(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    pub fn is_thick(&self) -> bool {
        self.thick.load(Ordering::Acquire)
    }

    pub fn is_reserving(&self) -> bool {
        self.reserving.load(Ordering::Acquire)
    }

    /// Tells the log that what is reserved in the base file is to be given back, unless the volume becomes thick; or that
    /// it has been. The number of the record. `changing` is held.
    pub fn set_reserving(&self, under_way: bool) -> u64 {
        self.reserving.store(under_way, Ordering::Release);
        self.shared.journal.append(&Record::Reserving { volume: self.number, under_way })
    }

    pub fn chunks(&self) -> u64 {
        self.size().div_ceil(self.shared.chunk_bytes)
    }

    pub fn set_size(&self, size_bytes: u64) {
        self.size_bytes.store(size_bytes, Ordering::Release);
    }

    pub fn set_thick(&self, map: &VolumeMap, thick: bool) {
        self.thick.store(thick, Ordering::Release);
        self.reserving.store(!thick, Ordering::Release);
        if let Some(base) = &map.base {
            base.keep_reserved(if thick { self.chunks() } else { 0 });
        }
    }

    /// Adds a record that changed this volume's map, with what it let go. The map's lock is held alone.
    pub fn log(&self, record: &Record, dropped: Vec<Dropped>) -> u64 {
        let number = self.shared.journal.append(record);
        self.note(number, dropped);
        number
    }

    /// The same for a record that was added already.
    pub fn note(&self, number: u64, dropped: Vec<Dropped>) {
        self.latest.store(number, Ordering::Release);
        if !dropped.is_empty() {
            lock(&self.deferred).extend(dropped.into_iter().map(|one| (number, one)));
            self.shared.will_give_back();
        }
    }

    pub fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    /// Records up to this one are durable, with their data.
    pub fn durable_upto(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    pub fn depends_on(&self, file: Arc<DataFile>) {
        lock(&self.also_sync).entry(file.number).or_insert((file, 0)).1 += 1;
    }

    /// What was let go by records up to `number` goes to the background.
    pub fn committed(&self, number: u64) {
        self.committed.fetch_max(number, Ordering::AcqRel);
        let committed = self.committed.load(Ordering::Acquire);
        let mut deferred = lock(&self.deferred);
        if deferred.is_empty() {
            return;
        }
        let (ripe, rest): (Vec<_>, Vec<_>) = deferred.drain(..).partition(|(number, _)| *number <= committed);
        *deferred = rest;
        self.shared.release(ripe.into_iter().map(|(_, dropped)| dropped));
    }

    pub fn waits_for_commit(&self) -> bool {
        !lock(&self.deferred).is_empty()
    }

    /// All that was let go, whether or not its records are durable: the volume itself is gone, durably.
    pub fn take_deferred(&self) -> Vec<Dropped> {
        lock(&self.deferred).drain(..).map(|(_, dropped)| dropped).collect()
    }

    /// The kernel tells of a lost write once, and forgets it. A chunk that was copied when it was first changed has its
    /// neighbours' bytes from before only there: what it reads as from now on may be wrong.
    pub fn check_lost(&self) -> Result<(), BlockError> {
        if self.lost_writes.load(Ordering::Relaxed) {
            return Err(BlockError::Io(io::Error::other(
                "an earlier write to this volume was lost; restart the engine to go on",
            )));
        }
        Ok(())
    }

    /// Everything written so far is on stable storage; the map's changes up to the number told need a commit.
    pub fn sync_data(&self) -> Result<u64, BlockError> {
        self.check_lost()?;
        let latest = self.latest();
        let files: Vec<_> = self.map().files().cloned().collect();
        self.sync_files(files)?;
        Ok(latest)
    }

    /// Everything written so far to these files of the volume, and to those of others that it depends on, is on stable
    /// storage.
    pub fn sync_files(&self, mut files: Vec<Arc<DataFile>>) -> Result<(), BlockError> {
        self.check_lost()?;
        let others: Vec<_> = lock(&self.also_sync).values().cloned().collect();
        files.extend(others.iter().map(|(file, _)| file.clone()));
        for file in files {
            if let Err(error) = file.sync() {
                self.lost_writes.store(true, Ordering::Release);
                // If this cannot be written either, the log itself has failed, and says so from now on.
                let number = self.shared.journal.append(&Record::LostWrites);
                let _ = self.shared.journal.sync(number);
                return Err(error.into());
            }
        }
        // Not before: another flush that came meanwhile had to wait for the same files.
        let mut also_sync = lock(&self.also_sync);
        for (file, times) in others {
            if also_sync.get(&file.number).is_some_and(|(_, now)| *now == times) {
                also_sync.remove(&file.number);
            }
        }
        Ok(())
    }

    /// Before a sync that no writer waits for: most of what it would write is on its way to the disk afterwards.
    pub fn write_out(&self, files: &[Arc<DataFile>]) {
        let others: Vec<_> = lock(&self.also_sync).values().map(|(file, _)| file.clone()).collect();
        files.iter().chain(&others).for_each(|file| file.write_out());
    }

    /// The same as `flush_all`, for the background.
    pub fn flush_gently(&self) -> Result<(), BlockError> {
        let files: Vec<_> = self.map().files().cloned().collect();
        self.write_out(&files);
        self.flush_all()
    }

    pub fn flush_all(&self) -> Result<(), BlockError> {
        let latest = self.sync_data()?;
        if latest > self.committed.load(Ordering::Acquire) {
            let journal = &self.shared.journal;
            let confirmed = journal.durable();
            let number = journal.append(&Record::Commit { volumes: vec![(self.number, latest)], confirmed });
            journal.sync(number)?;
            self.committed(latest);
        }
        Ok(())
    }

    /// The answers that are about to leave survive the death of this process.
    pub fn settle_all(&self) -> Result<(), BlockError> {
        Ok(self.shared.journal.write(self.latest())?)
    }
}

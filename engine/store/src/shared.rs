//! What all volumes of a store have in common.

use crate::data_files::{self, DataFile, FileTable};
use crate::disk::Disk;
use crate::journal::Journal;
use crate::journal::record::{FileAdded, FileKind, Record, VolumeNumber};
use crate::map::walk::Dropped;
use crate::{VolumeId, lock};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[derive(Debug)]
pub struct Shared {
    pub disk: Arc<dyn Disk>,
    pub journal: Journal,
    pub files: FileTable,
    pub chunk_bytes: u64,
    /// Held by everybody who changes a map or adds a record that belongs to the change; taken whole for the instant at
    /// which a checkpoint begins. Before any volume's lock.
    changes: RwLock<()>,
    tenures: AtomicU64,
    /// No map on stable storage refers to it any more; the background gives it back.
    released: Mutex<VecDeque<Dropped>>,
    /// Somebody has read or written since the background last asked.
    in_use: AtomicBool,
    /// The pool's limit is reached: no write may take more space.
    pub full: AtomicBool,
    /// Space is short: what is on its way back should come sooner, at the cost of readers and writers.
    pub short: AtomicBool,
    /// Somebody waits for space that is on its way back.
    wanted: AtomicBool,
    /// Something was let go, and not all of it has been given back.
    giving_back: AtomicBool,
}

impl Shared {
    pub fn new(disk: Arc<dyn Disk>, journal: Journal, files: FileTable, chunk_bytes: u64) -> Self {
        Self {
            disk,
            journal,
            files,
            chunk_bytes,
            changes: RwLock::default(),
            tenures: AtomicU64::new(1),
            released: Mutex::default(),
            in_use: AtomicBool::new(false),
            full: AtomicBool::new(false),
            short: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            giving_back: AtomicBool::new(true),
        }
    }

    /// Called by every read and write. The line of memory is only read, as long as the background has not asked.
    pub fn note_use(&self) {
        if !self.in_use.load(Ordering::Relaxed) {
            self.in_use.store(true, Ordering::Relaxed);
        }
    }

    /// Has anybody read or written since this was asked last?
    pub fn was_used(&self) -> bool {
        self.in_use.swap(false, Ordering::Relaxed)
    }

    /// Called by who has been refused a write for lack of space: it will be asked for again if some is on its way back.
    pub fn space_is_coming(&self) -> bool {
        let coming = self.giving_back.load(Ordering::Acquire);
        if coming {
            self.wanted.store(true, Ordering::Release);
        }
        coming
    }

    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    pub fn will_give_back(&self) {
        self.giving_back.store(true, Ordering::Release);
    }

    /// The background has found nothing more to do. `waiting`: is there anything that it cannot do yet? Asked afterwards, so that
    /// what is let go meanwhile is not missed.
    pub fn has_given_back(&self, waiting: impl FnOnce() -> bool) {
        self.giving_back.store(false, Ordering::Release);
        self.wanted.store(false, Ordering::Release);
        if waiting() {
            self.will_give_back();
        }
    }

    pub fn changing(&self) -> RwLockReadGuard<'_, ()> {
        self.changes.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stand_still(&self) -> RwLockWriteGuard<'_, ()> {
        self.changes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tenure that no volume has had.
    pub fn new_tenure(&self) -> u64 {
        self.tenures.fetch_add(1, Ordering::AcqRel)
    }

    pub fn release(&self, dropped: impl IntoIterator<Item = Dropped>) {
        lock(&self.released).extend(dropped);
        self.will_give_back();
    }

    pub fn next_released(&self) -> Option<Dropped> {
        lock(&self.released).pop_front()
    }

    /// In front of the others: nodes before slots, so that there are never many waiting.
    pub fn release_first(&self, dropped: Vec<Dropped>) {
        let mut released = lock(&self.released);
        dropped.into_iter().rev().for_each(|one| released.push_front(one));
    }

    pub fn released_slots(&self) -> Vec<(u32, Range<u64>)> {
        let slots = |one: &Dropped| match one {
            Dropped::Slots(file, slots) => Some((*file, slots.clone())),
            _ => None,
        };
        lock(&self.released).iter().filter_map(slots).collect()
    }

    pub fn anything_released(&self) -> bool {
        !lock(&self.released).is_empty()
    }

    /// A new data file, durable but not yet known to the maps. `prepare` fills it or reserves its space.
    pub fn make_file(
        &self,
        volume: VolumeNumber,
        id: VolumeId,
        kind: FileKind,
        prepare: impl FnOnce(&DataFile) -> io::Result<()>,
    ) -> io::Result<Arc<DataFile>> {
        let number = self.files.next_number()?;
        let added = FileAdded { number, volume, kind, name: data_files::name_of(id, number, kind) };
        let path = data_files::path(&added.name);
        let make = || {
            let file = self.disk.create(&path)?;
            let made = DataFile::new(&added, file, self.chunk_bytes, true);
            prepare(&made)?;
            made.sync()?;
            self.disk.sync_folder(data_files::FOLDER)?;
            Ok(Arc::new(made))
        };
        make().inspect_err(|_| {
            // What cannot be removed now is removed at the next start, which knows no such file.
            let _ = self.disk.remove(&path);
        })
    }

    /// Makes a file known to the maps.
    pub fn add_file(&self, file: &Arc<DataFile>) {
        self.files.insert(file.clone());
        self.journal.append(&Record::FileAdd(file.added()));
    }
}

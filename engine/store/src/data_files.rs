//! The data files of all volumes, and who has which slot of them.

use crate::dirty::Dirty;
use crate::disk::DiskFile;
use crate::journal::record::{FileAdded, FileKind, VolumeNumber};
use crate::map::nodes::{Counts, MAX_FILE, MAX_INDEX};
use crate::map::{Slot, SlotRefs};
use crate::{VolumeId, lock};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

pub const FOLDER: &str = "volumes";

pub fn path(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

pub fn name_of(id: VolumeId, number: u32, kind: FileKind) -> String {
    match kind {
        FileKind::Base => format!("{id}.{number}.raw"),
        FileKind::Spill => format!("{id}.{number}.more"),
    }
}

/// The number in a name that `name_of` gave.
pub fn number_in(name: &str) -> Option<u32> {
    let mut parts = name.split('.');
    let (id, number, kind) = (parts.next()?, parts.next()?, parts.next()?);
    let known = matches!(kind, "raw" | "more") && parts.next().is_none() && id.parse::<VolumeId>().is_ok();
    number.parse().ok().filter(|_| known)
}

#[derive(Debug)]
pub struct DataFile {
    pub number: u32,
    pub volume: VolumeNumber,
    pub kind: FileKind,
    pub name: String,
    file: Arc<dyn DiskFile>,
    pub chunk_bytes: u64,
    /// Slots before this one keep their space when they are emptied: the base file of a thick volume. Held while slots are emptied:
    /// whoever sets it knows that afterwards nothing is given back by what it said before.
    reserved_slots: RwLock<u64>,
    /// Its volume is deleted: nothing new comes into it.
    pub ownerless: AtomicBool,
    /// Its volume may have been thick, and what was reserved for it is still being given back: no other may write in place.
    pub holds_reserve: AtomicBool,
    /// Slots that nobody refers to are known to be empty.
    pub swept: AtomicBool,
    /// Something may have been written since the last sync began.
    unsynced: AtomicBool,
    /// What has been written, but for what `write_out` has sent on.
    dirty: Dirty,
    times_shrunk: AtomicU64,
    /// Held while syncing: who finds nothing left to sync has waited for whoever was at it. True: a sync has failed, and
    /// the kernel tells that once only.
    syncing: Mutex<bool>,
    /// How many snapshots are making it durable just now: what is new should go elsewhere, see `MappedVolume::new_slot`.
    resting: AtomicU32,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    refs: SlotRefs,
    /// Of a spill file: slots from here on were never used, and used ones that are free again.
    next: u64,
    free: Vec<u64>,
}

impl DataFile {
    pub fn new(added: &FileAdded, file: Arc<dyn DiskFile>, chunk_bytes: u64, swept: bool) -> Self {
        Self {
            number: added.number,
            volume: added.volume,
            kind: added.kind,
            name: added.name.clone(),
            file,
            chunk_bytes,
            reserved_slots: RwLock::default(),
            ownerless: AtomicBool::new(false),
            holds_reserve: AtomicBool::new(false),
            swept: AtomicBool::new(swept),
            unsynced: AtomicBool::new(true),
            dirty: Dirty::default(),
            times_shrunk: AtomicU64::new(0),
            syncing: Mutex::default(),
            resting: AtomicU32::new(0),
            slots: Mutex::default(),
        }
    }

    pub fn added(&self) -> FileAdded {
        FileAdded { number: self.number, volume: self.volume, kind: self.kind, name: self.name.clone() }
    }

    pub fn offset(&self, index: u64) -> u64 {
        index * self.chunk_bytes
    }

    pub fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    pub fn is_empty(&self) -> io::Result<bool> {
        self.file.is_empty()
    }

    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    pub fn next_data(&self, offset: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
        self.file.next_data(offset, end)
    }

    pub fn allocated_bytes(&self) -> io::Result<u64> {
        self.file.allocated_bytes()
    }

    /// The file itself, for whoever hands its pages to the kernel. Not to be written: that would not be synced.
    pub fn system_file(&self) -> Option<&File> {
        self.file.system_file()
    }

    /// Whatever came of it, the file is to be synced: the note is made afterwards, so that a sync that begins meanwhile
    /// does not take it away.
    fn changed<T>(&self, result: io::Result<T>) -> io::Result<T> {
        self.unsynced.store(true, Ordering::Release);
        result
    }

    pub fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let result = self.changed(self.file.write_at(data, offset));
        self.dirty.note(offset, data.len() as u64);
        result
    }

    pub fn set_len(&self, length: u64) -> io::Result<()> {
        self.changed(self.shrunk(self.file.set_len(length)))
    }

    pub fn reserve(&self, length: u64) -> io::Result<()> {
        self.changed(self.file.reserve(length))
    }

    /// Gives back what is allocated but was never written, durably: nobody may say so before. Nobody may write meanwhile.
    pub fn dig_holes(&self) -> io::Result<()> {
        self.sync()?;
        self.dig_some(0..self.len()?.div_ceil(self.chunk_bytes))?;
        self.sync()
    }

    /// The same for some slots, and not durably.
    pub fn dig_some(&self, slots: Range<u64>) -> io::Result<()> {
        self.changed(self.shrunk(self.file.dig_holes(self.offset(slots.start)..self.offset(slots.end))))
    }

    /// Everything written so far survives a loss of power. Costs nothing if it does already.
    pub fn sync(&self) -> io::Result<()> {
        let mut failed = lock(&self.syncing);
        if *failed {
            return Err(io::Error::other("an earlier write to this file was lost"));
        }
        if self.unsynced.swap(false, Ordering::AcqRel) {
            self.dirty.forget();
            self.file.sync().inspect_err(|_| *failed = true)?;
        }
        Ok(())
    }

    /// Sends most of what a sync would write to the disk, little by little: a sync that has much to write keeps a processor
    /// for tens of milliseconds, and who was about to be served by it waits. Promises nothing, so it cannot fail.
    pub fn write_out(&self) {
        self.file.write_out(&self.dirty.take());
    }

    /// Is there nothing that a sync would write, nor one under way?
    pub fn is_clean(&self) -> bool {
        self.syncing.try_lock().is_ok_and(|failed| !*failed) && !self.unsynced.load(Ordering::Acquire)
    }

    /// Until what this gives is dropped the file rests.
    pub fn rest(self: &Arc<Self>) -> Resting {
        self.resting.fetch_add(1, Ordering::AcqRel);
        Resting(self.clone())
    }

    pub fn is_resting(&self) -> bool {
        self.resting.load(Ordering::Acquire) > 0
    }

    /// Zeroes a range of bytes; its space is given back unless the volume is thick.
    pub fn clear(&self, offset: u64, length: u64) -> io::Result<()> {
        let reserved = self.reserved();
        self.changed(match *reserved {
            0 => self.shrunk(self.file.punch(offset, length)),
            _ => self.file.zero_reserved(offset, length),
        })
    }

    /// Zeroes a range of slots that nobody refers to; only those that are reserved keep their space. This need not be durable: they
    /// are emptied again after a start.
    pub fn empty(&self, offset: u64, length: u64) -> io::Result<()> {
        let reserved = self.reserved();
        let end = offset + length;
        let kept = self.offset(*reserved).clamp(offset, end);
        if offset < kept {
            self.file.zero_reserved(offset, kept - offset)?;
        }
        if kept < end { self.shrunk(self.file.punch(kept, end - kept)) } else { Ok(()) }
    }

    fn reserved(&self) -> RwLockReadGuard<'_, u64> {
        self.reserved_slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn reserved_slots(&self) -> u64 {
        *self.reserved()
    }

    /// Says how many slots keep their space from now on, and tells how many did before. To be said before their space is reserved:
    /// what the background gives back meanwhile would be missing.
    pub fn keep_reserved(&self, slots: u64) -> u64 {
        std::mem::replace(&mut *self.reserved_slots.write().unwrap_or_else(PoisonError::into_inner), slots)
    }

    /// Afterwards: who counted meanwhile counts again.
    fn shrunk<T>(&self, result: io::Result<T>) -> io::Result<T> {
        self.times_shrunk.fetch_add(1, Ordering::AcqRel);
        result
    }

    /// How often space of the file was given back: as long as this and what it occupies are the same, it occupies the same places.
    pub fn times_shrunk(&self) -> u64 {
        self.times_shrunk.load(Ordering::Acquire)
    }

    pub fn add_refs(&self, slots: Range<u64>, delta: i32) {
        lock(&self.slots).refs.add(slots, delta);
    }

    pub fn refs(&self, index: u64) -> u32 {
        lock(&self.slots).refs.get(index)
    }

    pub fn referred_to(&self) -> bool {
        lock(&self.slots).refs.any()
    }

    /// Slots of a range with the same number of references, run by run.
    pub fn runs(&self, slots: Range<u64>) -> Vec<(Range<u64>, u32)> {
        lock(&self.slots).refs.runs(slots).collect()
    }

    /// One past the last slot that is referred to.
    pub fn end(&self) -> u64 {
        lock(&self.slots).refs.end()
    }

    pub fn held_bytes(&self) -> u64 {
        lock(&self.slots).refs.held_bytes()
    }

    /// After the counts were made: which slots of a spill file may be given out.
    pub fn find_free(&self) {
        if self.kind == FileKind::Spill {
            let mut slots = lock(&self.slots);
            slots.next = slots.refs.end();
            let empty = slots.refs.runs(0..slots.next).filter(|(_, count)| *count == 0);
            slots.free = empty.flat_map(|(range, _)| range).collect();
        }
    }

    /// The slot at this place, if nobody has it; it is counted, and empty.
    fn take_at(&self, index: u64) -> io::Result<Option<Slot>> {
        {
            let mut slots = lock(&self.slots);
            if slots.refs.get(index) > 0 {
                return Ok(None);
            }
            slots.refs.add(index..index + 1, 1);
        }
        self.emptied(index).map(Some)
    }

    /// Any slot that nobody has.
    fn take_any(&self) -> io::Result<Option<Slot>> {
        let index = {
            let mut slots = lock(&self.slots);
            let index = slots.free.pop().unwrap_or(slots.next);
            if index >= MAX_INDEX {
                return Ok(None);
            }
            slots.next = slots.next.max(index + 1);
            slots.refs.add(index..index + 1, 1);
            index
        };
        self.emptied(index).map(Some)
    }

    fn emptied(&self, index: u64) -> io::Result<Slot> {
        if !self.swept.load(Ordering::Acquire) {
            if let Err(error) = self.empty(self.offset(index), self.chunk_bytes) {
                self.give_up(index);
                return Err(error);
            }
        }
        Ok(Slot { file: self.number, index })
    }

    pub fn take(&self, chunk: u64) -> io::Result<Option<Slot>> {
        match self.kind {
            FileKind::Base => self.take_at(chunk),
            FileKind::Spill => self.take_any(),
        }
    }

    /// Takes back a slot that was given out and not used. It may hold something, so it is emptied first.
    pub fn give_back(&self, index: u64) {
        // A slot that cannot be emptied stays taken until the next start, which tries again.
        if self.empty(self.offset(index), self.chunk_bytes).is_ok() {
            self.give_up(index);
        }
    }

    fn give_up(&self, index: u64) {
        let mut slots = lock(&self.slots);
        slots.refs.add(index..index + 1, -1);
        if self.kind == FileKind::Spill && slots.refs.get(index) == 0 {
            slots.free.push(index);
        }
    }

    /// One reference fewer to each slot of the range; what nobody refers to any more has been emptied before.
    pub fn let_go(&self, slots: Range<u64>) {
        let mut state = lock(&self.slots);
        state.refs.add(slots.clone(), -1);
        if self.kind == FileKind::Spill {
            let freed: Vec<u64> =
                state.refs.runs(slots).filter(|(_, count)| *count == 0).flat_map(|(range, _)| range).collect();
            state.free.extend(freed);
        }
    }

    /// Empties the slots of a range that nobody refers to; nobody can take one meanwhile.
    pub fn sweep(&self, slots: Range<u64>) -> io::Result<()> {
        let state = lock(&self.slots);
        for (run, count) in state.refs.runs(slots) {
            if count == 0 {
                self.empty(self.offset(run.start), (run.end - run.start) * self.chunk_bytes)?;
            }
        }
        Ok(())
    }
}

/// Held by a snapshot while it makes a file durable.
#[derive(Debug)]
pub struct Resting(Arc<DataFile>);

impl Resting {
    pub fn file(&self) -> Arc<DataFile> {
        self.0.clone()
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        self.0.resting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All data files by number.
#[derive(Debug, Default)]
pub struct FileTable {
    files: RwLock<Vec<Option<Arc<DataFile>>>>,
    next: AtomicU32,
}

impl FileTable {
    pub fn new(next: u32) -> Self {
        Self { files: RwLock::default(), next: AtomicU32::new(next) }
    }

    pub fn next_number(&self) -> io::Result<u32> {
        let number = self.next.fetch_add(1, Ordering::AcqRel);
        if number >= MAX_FILE {
            return Err(io::Error::other("this store has had as many data files as it can number"));
        }
        Ok(number)
    }

    pub fn next(&self) -> u32 {
        self.next.load(Ordering::Acquire)
    }

    pub fn get(&self, number: u32) -> Option<Arc<DataFile>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(number as usize).and_then(Clone::clone)
    }

    pub fn insert(&self, file: Arc<DataFile>) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let index = file.number as usize;
        if files.len() <= index {
            files.resize(index + 1, None);
        }
        files[index] = Some(file);
    }

    pub fn remove(&self, number: u32) {
        if let Some(place) = self.files.write().unwrap_or_else(PoisonError::into_inner).get_mut(number as usize) {
            *place = None;
        }
    }

    /// Does only one map, in one place, refer to the slot?
    pub fn is_alone(&self, slot: Slot) -> bool {
        self.get(slot.file).is_some_and(|file| file.refs(slot.index) == 1)
    }

    pub fn all(&self) -> Vec<Arc<DataFile>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).iter().flatten().cloned().collect()
    }
}

impl Counts for FileTable {
    fn add(&self, file: u32, slots: Range<u64>, delta: i32) {
        if let Some(file) = self.get(file) {
            file.add_refs(slots, delta);
        }
    }
}

//! Volumes: where the blocks are. No sockets, no SCSI, no clock.
//!
//! Two traits with three implementations:
//! * [`Store`] makes, deletes, resizes, clones and lists volumes: control requests, slow and durable.
//! * [`Volume`] reads and writes blocks of one of them: the hot path, called by many sessions at once.
//!
//! [`store::MappedStore`] keeps them in sparse files under a shared map, [`memory`] is for tests and for measuring,
//! [`faulty`] wraps any volume and stalls or fails it. Below the store is [`disk`], which can be simulated.
//! What a `Store` method has answered is on stable storage; what `Volume::write_at` has answered is so only after
//! `Volume::flush` has been answered (a write-back cache, as the caching mode page says).

pub mod added;
pub mod check;
pub mod checkpoint;
pub mod data_files;
mod dirty;
pub mod disk;
pub mod error;
pub mod export;
pub mod faulty;
pub mod identity;
pub mod journal;
pub mod map;
pub mod memory;
pub mod metadata;
pub mod shared;
pub mod sparse;
pub mod state;
pub mod store;
pub mod volume;

pub use error::{BlockError, StoreError};
pub use identity::VolumeId;

pub use store::{MappedStore, Options};

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A panic of another thread does not make what the mutex guards any worse.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a store says of one volume. Bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    pub volume: VolumeId,
    pub size_bytes: u64,
    /// What of it is mapped now, shared or its own; of a thick volume also what is reserved.
    pub allocated_bytes: u64,
    pub thick: bool,
    /// The volume that it was made from by a snapshot or a clone, which may be gone since. Rolling back leaves it.
    pub origin: Option<VolumeId>,
}

/// Size of the file system with the data, and what of it an ordinary user could still take. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    pub free_bytes: u64,
    /// What the volumes occupy; shared blocks count once.
    pub used_bytes: u64,
    /// As set by `set_limit`.
    pub limit_bytes: Option<u64>,
    /// Of deleted or rolled-back volumes: still in `used_bytes`, being given back in the background. Of much it is an estimate.
    pub reclaiming_bytes: u64,
}

/// How much all volumes together may occupy, and from which part of it on initiators are warned and space is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// None: as much as the file system has.
    pub limit_bytes: Option<u64>,
    /// 1 to 100; 100 warns nobody.
    pub warn_percent: u8,
}

/// A set of volumes that has space of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub name: String,
    /// So much is set aside for its volumes, and they may occupy no more. None: it shares what the others leave.
    pub capacity_bytes: Option<u64>,
    /// They need not be there yet.
    pub volumes: Vec<VolumeId>,
}

/// What a pool's volumes occupy. What volumes share counts once: in the pool of the one in whose file it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUse {
    pub name: String,
    pub capacity_bytes: Option<u64>,
    pub used_bytes: u64,
}

/// A volume to be made with the contents of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub source: VolumeId,
    pub id: VolumeId,
    pub thick: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// In the order of the request.
    pub volumes: Vec<VolumeInfo>,
    /// How long writes to the sources had to wait; zero if all was so already.
    pub pause: Duration,
}

/// Where two volumes may differ: (offset, length) in bytes, ascending, none empty, none touching the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differences {
    pub ranges: Vec<(u64, u64)>,
    /// Where to go on; none when everything up to the end of the newer one has been said.
    pub next: Option<u64>,
}

/// Bytes, to the store's granularity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What the volume references, shared or not.
    pub mapped_bytes: u64,
    /// What deleting it alone would give back; chunks copied inside the volume, which share their place, are left out.
    pub exclusive_bytes: u64,
}

/// A run of equal state that begins at the offset asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub mapped: bool,
    pub length_bytes: u64,
}

/// The volumes there are. Every method may be repeated: what is so already succeeds, what differs is `Exists`.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Makes a volume of zeroes. Thick: its space is reserved before the answer, or `NoSpace`.
    fn create(&self, id: VolumeId, size_bytes: u64, thick: bool) -> Result<VolumeInfo, StoreError>;
    /// A volume that is gone already is deleted successfully. Nobody may be writing to it.
    fn delete(&self, id: VolumeId) -> Result<(), StoreError>;
    fn resize(&self, id: VolumeId, size_bytes: u64) -> Result<VolumeInfo, StoreError>;
    /// A new volume with the contents of `source` at one instant within this call. Atomic over crashes.
    fn clone_volume(&self, source: VolumeId, id: VolumeId, thick: bool) -> Result<VolumeInfo, StoreError>;
    fn set_thick(&self, id: VolumeId, thick: bool) -> Result<VolumeInfo, StoreError>;
    fn list(&self) -> Result<Vec<VolumeInfo>, StoreError>;
    fn info(&self, id: VolumeId) -> Result<VolumeInfo, StoreError>;
    fn space(&self) -> Result<Space, StoreError>;
    fn open(&self, id: VolumeId) -> Result<Arc<dyn Volume>, StoreError>;
    /// Makes all of the volumes, with the contents that all of the sources have at one instant within this call: no write
    /// that was answered before it is missing, and of one source nothing newer than of another. Each is independent of
    /// its source at once. If all are there with these origins it succeeds, if only some it is `Exists`. Atomic over
    /// crashes. The caller has seen to it that no volume is named twice.
    fn snapshot(&self, pairs: &[Share]) -> Result<Shared, StoreError> {
        let _ = pairs;
        Err(unsupported())
    }
    /// `id` gets the contents and the size that `from` has now. Nobody may be writing to `id`.
    fn roll_back(&self, id: VolumeId, from: VolumeId) -> Result<VolumeInfo, StoreError> {
        let _ = (id, from);
        Err(unsupported())
    }
    /// Ranges that may differ, from `offset` on, up to the end of `newer`; what `older` lacks counts as zeroes. At most
    /// `most` of them.
    fn differences(&self, older: VolumeId, newer: VolumeId, offset: u64, most: usize) -> Result<Differences, StoreError> {
        let _ = (older, newer, offset, most);
        Err(unsupported())
    }
    fn usage(&self, id: VolumeId) -> Result<Usage, StoreError> {
        let _ = id;
        Err(unsupported())
    }
    /// What `id` has mapped that none of `than` has in the same place with the same contents.
    fn added_bytes(&self, id: VolumeId, than: &[VolumeId]) -> Result<u64, StoreError> {
        added::added_bytes(self, id, than)
    }
    /// In force until the store is closed.
    fn set_limit(&self, limit: Limit) -> Result<(), StoreError> {
        let _ = limit;
        Err(unsupported())
    }
    /// How much a thin volume may have mapped: a write that needs more is `BlockError::NoSpace`. In force until the
    /// store is closed.
    fn set_volume_limit(&self, id: VolumeId, max_in_use_bytes: Option<u64>) -> Result<(), StoreError> {
        let _ = (id, max_in_use_bytes);
        Err(unsupported())
    }
    /// These are all the pools from now on. Volumes that are not named stay in theirs, or in none if it is gone; one that is
    /// made from another is in that one's. In force until the store is closed.
    fn set_pools(&self, pools: &[Pool]) -> Result<(), StoreError> {
        let _ = pools;
        Err(unsupported())
    }
    /// Looks whether the limit of all volumes or that of a pool is reached: to be called often, whatever else goes on.
    fn watch_space(&self) -> Result<(), StoreError> {
        Ok(())
    }
    fn pools(&self) -> Result<Vec<PoolUse>, StoreError> {
        Ok(Vec::new())
    }
    /// Copies a range, which may lie in one volume and overlap itself. Whole chunks are shared where both ranges lie alike
    /// within their chunks: then no byte moves. Not atomic: what fails half-way has copied a part.
    fn copy_range(
        &self,
        source: VolumeId,
        source_offset: u64,
        target: VolumeId,
        target_offset: u64,
        length: u64,
    ) -> Result<(), BlockError> {
        let _ = (source, source_offset, target, target_offset, length);
        Err(BlockError::Io(std::io::Error::other("not supported by this store")))
    }
    /// One bounded piece of work that nobody waits for, such as giving back what was deleted; false if there is nothing
    /// to do for now. Called again and again by one thread.
    fn background(&self) -> bool {
        false
    }
    /// Has anybody read or written a volume since this was asked last? Then the background leaves them room.
    fn was_used(&self) -> bool {
        true
    }
    /// Is there so little space left, or does a writer wait for some, that the background should rest little, whoever reads and
    /// writes? As it was when limits were last looked at.
    fn space_is_short(&self) -> bool {
        false
    }
    /// What the background last failed at.
    fn background_failure(&self) -> Option<String> {
        None
    }
    /// Persistent reservations and a sanitizing under way, as they were set: a text that means nothing to the store.
    fn reservations(&self, id: VolumeId) -> Result<Option<String>, StoreError>;
    fn set_reservations(&self, id: VolumeId, reservations: Option<String>) -> Result<(), StoreError>;
}

fn unsupported() -> StoreError {
    StoreError::Io("not supported by this store".to_owned())
}

/// The blocks of one volume. Offsets and lengths are bytes; a range that leaves the volume is `OutOfRange` and
/// changes nothing. All methods may be called from many threads; overlapping writes land in some order, never mixed
/// with half of a `compare_and_write`.
pub trait Volume: Send + Sync + std::fmt::Debug {
    fn size_bytes(&self) -> u64;
    fn thick(&self) -> bool;
    /// Fills `buffer`; what was never written reads as zeroes.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), BlockError>;
    fn write_at(&self, data: &[u8], offset: u64) -> Result<(), BlockError>;
    /// To be asked when a write was `NoSpace`: is space on its way back, so that the same may succeed a little later? Whoever is
    /// told so is expected to try again, and the background hurries for him.
    fn space_is_coming(&self) -> bool {
        false
    }
    /// The range reads as zeroes afterwards. A thin volume gives the space back, a thick one keeps it reserved.
    fn zero(&self, offset: u64, length: u64) -> Result<(), BlockError>;
    /// Everything answered before this call survives a crash. After one failure every later flush fails too: the
    /// kernel reports a lost write only once, and nobody may believe the next answer.
    fn flush(&self) -> Result<(), BlockError>;
    /// State of the blocks from `offset` on, up to the end of the volume.
    fn extent(&self, offset: u64) -> Result<Extent, BlockError>;
    /// Sets every bit that is set in `data`, with no other write in between.
    fn or_write(&self, data: &[u8], offset: u64) -> Result<(), BlockError>;
    /// Writes `new` if the range holds `expected`, with no other write in between; else the first differing byte.
    fn compare_and_write(&self, offset: u64, expected: &[u8], new: &[u8]) -> Result<Option<usize>, BlockError>;
    /// Called once before answers leave, so that what they acknowledge survives the death of this process. (Of a crash of
    /// the machine only `flush` speaks.) After a failure nothing may be answered.
    fn settle(&self) -> Result<(), BlockError> {
        Ok(())
    }
    /// Calls `use_it` with the file, and the offset in it, where the whole range lies in one piece, and says whether there
    /// is such a place; if not, the range has to be read. For the length of the call the place belongs to this range. Its
    /// pages may be shown for some time after it (they are in a pipe or a socket then): with the range's data as it is
    /// now or will be, so a place is punched out before it is given to any other range.
    fn with_place(&self, offset: u64, length: u64, use_it: UsePlace<'_>) -> Result<bool, BlockError> {
        let _ = (offset, length, use_it);
        Ok(false)
    }
    /// Longest `write_atomic`, at any offset; 0 if there is no such thing here. Bytes.
    fn atomic_bytes(&self) -> u32 {
        0
    }
    /// All of the data is written or none, over every crash; no reader sees a part of it.
    fn write_atomic(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        let _ = (data, offset);
        Err(BlockError::Io(std::io::Error::other("this volume cannot write atomically")))
    }
}

/// What `Volume::with_place` calls.
pub type UsePlace<'a> = &'a mut dyn FnMut(BorrowedFd<'_>, u64) -> io::Result<()>;

/// Sizes must be whole 512-byte blocks, at least one.
pub fn check_size(size_bytes: u64) -> Result<(), StoreError> {
    if size_bytes == 0 || size_bytes % 512 != 0 || size_bytes > i64::MAX as u64 {
        return Err(StoreError::BadSize(format!("a volume's size must be a positive multiple of 512 bytes, not {size_bytes}")));
    }
    Ok(())
}

/// Is the range inside a volume of this size?
pub fn check_range(offset: u64, length: u64, size_bytes: u64) -> Result<(), BlockError> {
    match offset.checked_add(length) {
        Some(end) if end <= size_bytes => Ok(()),
        _ => Err(BlockError::OutOfRange),
    }
}

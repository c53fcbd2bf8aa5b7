//! Volumes: where the blocks are. No sockets, no SCSI, no clock.
//!
//! Two traits with three implementations:
//! * [`Store`] makes, deletes, resizes, clones and lists volumes: control requests, slow and durable.
//! * [`Volume`] reads and writes blocks of one of them: the hot path, called by many sessions at once.
//!
//! [`files`] keeps a sparse file a volume, [`memory`] is for tests, [`faulty`] wraps any volume and stalls or fails it.
//! What a `Store` method has answered is on stable storage; what `Volume::write_at` has answered is so only after
//! `Volume::flush` has been answered (a write-back cache, as the caching mode page says).

pub mod clone_job;
pub mod disk;
pub mod error;
pub mod faulty;
pub mod files;
pub mod identity;
pub mod memory;
pub mod metadata;
pub mod sparse;
pub mod volume_file;

pub use error::{BlockError, StoreError};
pub use identity::VolumeId;

use std::sync::Arc;

/// What a store says of one volume. Bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    pub volume: VolumeId,
    pub size_bytes: u64,
    pub allocated_bytes: u64,
    pub thick: bool,
}

/// Size of the file system with the data, and what of it an ordinary user could still take. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    pub free_bytes: u64,
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
    /// Persistent reservations as they were set: a text that means nothing to the store.
    fn reservations(&self, id: VolumeId) -> Result<Option<String>, StoreError>;
    fn set_reservations(&self, id: VolumeId, reservations: Option<String>) -> Result<(), StoreError>;
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
}

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

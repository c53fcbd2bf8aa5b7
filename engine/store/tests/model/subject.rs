//! What is put to the test: a store that is opened on a simulated disk.

use crate::usage::Figures;
use gespann_store::disk::SimDisk;
use gespann_store::{BlockError, Store, StoreError, VolumeId};

/// How a store is kept in one run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub chunk_bytes: u64,
    /// How long the log grows before a checkpoint.
    pub log_bytes: u64,
}

/// A store that runs.
pub trait Running {
    fn store(&self) -> &dyn Store;
    /// Every write answered before this survives the death of the process.
    fn settle(&self, id: VolumeId) -> Result<(), BlockError>;
    /// One piece of background work; false when there is none.
    fn background(&self) -> bool;
    /// Makes a range of `target` hold what a range of `source` holds: (volume, offset), both in bytes.
    fn copy_range(&self, source: (VolumeId, u64), target: (VolumeId, u64), length: u64) -> Result<(), BlockError>;
    /// What the running store believes and a count from nothing does not confirm.
    fn verify(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A kind of store.
pub trait Subject: Sync {
    fn open(&self, disk: &SimDisk, options: Options) -> Result<Box<dyn Running>, StoreError>;
    /// What an offline check finds wrong. Changes nothing.
    fn check(&self, disk: &SimDisk) -> Vec<String>;
    /// What the data of the volumes occupies on the disk; an error if there are files that should not be there.
    fn occupied(&self, disk: &SimDisk) -> Result<u64, String>;
    /// What the store says that it occupies, with all background work done: does the disk say the same?
    fn counts_right(&self, disk: &SimDisk, figures: &Figures) -> Result<(), String> {
        let _ = (disk, figures);
        Ok(())
    }
    /// What it may occupy, with all background work done, for volumes that need so much.
    fn allowance(&self, need: Need, options: Options) -> u64;
    /// Does it keep room for deleting on a full disk?
    fn deletes_when_full(&self) -> bool;
    /// Does it know a limit of what all volumes may occupy?
    fn has_limits(&self) -> bool {
        false
    }
}

/// Bytes that the volumes must have for their data.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Chunks that were written; those of one origin and never changed since count once. And what is reserved: thick volumes whole.
    pub shared_bytes: u64,
    /// The same with nothing shared.
    pub separate_bytes: u64,
    pub volumes: u64,
}

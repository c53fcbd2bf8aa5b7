//! The store of the product.

use crate::subject::{self, Need, Running, Subject};
use crate::usage::Figures;
use gespann_store::check::check;
use gespann_store::disk::SimDisk;
use gespann_store::{BlockError, MappedStore, Options, Store, StoreError, VolumeId};
use std::sync::Arc;

pub struct Mapped;

impl Subject for Mapped {
    fn open(&self, disk: &SimDisk, options: subject::Options) -> Result<Box<dyn Running>, StoreError> {
        let options = Options { chunk_bytes: options.chunk_bytes, log_bytes: options.log_bytes };
        Ok(Box::new(MappedStore::open(Arc::new(disk.clone()), options)?))
    }

    fn check(&self, disk: &SimDisk) -> Vec<String> {
        match check(disk) {
            Ok(report) => report.errors,
            Err(error) => vec![error.to_string()],
        }
    }

    /// Besides the data there are two checkpoints and the logs since the older one, of a length allocated beforehand.
    fn occupied(&self, disk: &SimDisk) -> Result<u64, String> {
        let (data, maps): (Vec<_>, Vec<_>) = disk.files().into_iter().partition(|(name, ..)| name.starts_with("volumes/"));
        if maps.iter().filter(|(_, _, used_bytes)| *used_bytes > 0).count() > 8 {
            return Err(format!("too many files of maps: {maps:?}"));
        }
        Ok(data.into_iter().map(|(_, _, used_bytes)| used_bytes).sum())
    }

    fn counts_right(&self, disk: &SimDisk, figures: &Figures) -> Result<(), String> {
        let used = self.occupied(disk)?;
        if used == figures.used_bytes { Ok(()) } else { Err(format!("{used} bytes are used on the disk: {figures:?}")) }
    }

    /// Without volumes nothing at all. A chunk may be in several slots, one that a volume's end cuts takes one, and zeroes are
    /// written at the two ends of a range that is zeroed.
    fn allowance(&self, need: Need, options: subject::Options) -> u64 {
        match need {
            Need { volumes: 0, .. } => 0,
            _ => need.shared_bytes + need.separate_bytes + need.volumes * 2 * options.chunk_bytes,
        }
    }

    fn deletes_when_full(&self) -> bool {
        true
    }

    fn has_limits(&self) -> bool {
        true
    }
}

impl Running for MappedStore {
    fn store(&self) -> &dyn Store {
        self
    }

    fn settle(&self, id: VolumeId) -> Result<(), BlockError> {
        self.open(id).map_err(|error| BlockError::Io(std::io::Error::other(error.to_string())))?.settle()
    }

    fn background(&self) -> bool {
        Store::background(self)
    }

    fn verify(&self) -> Vec<String> {
        // While the background fails there is something that it could not give back.
        if self.background_failure().is_some() { Vec::new() } else { MappedStore::verify(self) }
    }

    fn copy_range(&self, source: (VolumeId, u64), target: (VolumeId, u64), length: u64) -> Result<(), BlockError> {
        Store::copy_range(self, source.0, source.1, target.0, target.1, length)
    }
}

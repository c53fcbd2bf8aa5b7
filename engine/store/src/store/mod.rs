//! The store of mapped volumes.
//!
//! ```text
//! DATA/lock                      held by the one process that uses the directory
//! DATA/volumes/<naa>.<n>.raw     data file number n: a volume's blocks at their own places
//! DATA/volumes/<naa>.<n>.more    the same volume's chunks whose own place was taken
//! DATA/map/checkpoint-<m>        all volumes, files and maps as they were when log m was begun
//! DATA/map/log-<m>               what has changed since
//! ```
//! The format is written down in `docs/reference/engine-store.md`.

mod background;
mod behind_end;
mod control;
mod emptying;
mod figures;
mod open;
mod pools;
mod sharing;

use crate::data_files::DataFile;
use crate::disk::Disk;
use crate::journal::record::VolumeNumber;
use crate::map::walk;
use crate::shared::Shared;
use crate::volume::MappedVolume;
use crate::{
    BlockError, Differences, Limit, Pool, PoolUse, Share, Shared as SharedVolumes, Space, Store, StoreError, Usage, Volume,
    VolumeId, VolumeInfo, lock,
};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

pub use open::{Found, read_state, read_state_before};

/// How a store is kept. The chunk size counts only when the store is made: later it is what it was then.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A power of two from 16 KiB to 256 KiB.
    pub chunk_bytes: u64,
    /// A checkpoint begins when the log is longer than this, and than half of the last checkpoint.
    pub log_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { chunk_bytes: 64 << 10, log_bytes: 32 << 20 }
    }
}

#[derive(Debug)]
pub struct MappedStore {
    shared: Arc<Shared>,
    options: Options,
    volumes: RwLock<BTreeMap<VolumeId, Arc<MappedVolume>>>,
    next_volume: AtomicU32,
    claimed: Mutex<HashSet<VolumeId>>,
    unclaimed: Condvar,
    background: background::Background,
    limit_bytes: AtomicU64,
    /// Space is short from so much of it in use on: of the limit, of a pool's capacity, of the file system.
    short_percent: AtomicU8,
    pools: Mutex<pools::Pools>,
    /// What the start found and repaired, for the log.
    pub notes: Vec<String>,
}

/// However late anybody is warned, from so much of the space in use on it is short.
const SHORT_PERCENT: u8 = 90;

/// One control request at a time a volume; released when dropped.
struct Claim<'a> {
    store: &'a MappedStore,
    ids: Vec<VolumeId>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claimed = lock(&self.store.claimed);
        self.ids.iter().for_each(|id| {
            claimed.remove(id);
        });
        self.store.unclaimed.notify_all();
    }
}

impl MappedStore {
    fn claim(&self, ids: impl IntoIterator<Item = VolumeId>) -> Claim<'_> {
        let ids: HashSet<VolumeId> = ids.into_iter().collect();
        let mut claimed = lock(&self.claimed);
        while ids.iter().any(|id| claimed.contains(id)) {
            claimed = self.unclaimed.wait(claimed).unwrap_or_else(PoisonError::into_inner);
        }
        claimed.extend(&ids);
        Claim { store: self, ids: ids.into_iter().collect() }
    }

    fn find(&self, id: VolumeId) -> Result<Arc<MappedVolume>, StoreError> {
        self.volumes().get(&id).cloned().ok_or(StoreError::NotFound(id))
    }

    fn volumes(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<VolumeId, Arc<MappedVolume>>> {
        self.volumes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_volumes(&self) -> Vec<Arc<MappedVolume>> {
        self.volumes().values().cloned().collect()
    }

    fn insert(&self, volume: Arc<MappedVolume>) {
        self.volumes.write().unwrap_or_else(PoisonError::into_inner).insert(volume.id, volume);
    }

    fn remove(&self, id: VolumeId) {
        self.volumes.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn new_number(&self) -> VolumeNumber {
        self.next_volume.fetch_add(1, Ordering::AcqRel)
    }

    fn disk(&self) -> &dyn Disk {
        self.shared.disk.as_ref()
    }

    /// A request repeated: what the first one did may have failed at its last step, making it durable.
    fn settle(&self) -> Result<(), StoreError> {
        let journal = &self.shared.journal;
        journal.sync(journal.latest()).map_err(|error| StoreError::from_io("cannot make the volumes' maps durable", &error))
    }
}

impl MappedStore {
    /// Compares what the running store believes with a count made from nothing: tells what is wrong. After all work in the
    /// background, and while nobody writes.
    pub fn verify(&self) -> Vec<String> {
        let tally = crate::check::Tally::default();
        let volumes = self.all_volumes();
        let maps: Vec<_> = volumes.iter().map(|volume| volume.map()).collect();
        // The counts of the nodes' holders are made anew as well; they have to come out the same.
        let holders = walk::holders(maps.iter().map(|map| &map.top));
        walk::count_all(maps.iter().map(|map| &map.top), &tally);
        let mut wrong: Vec<String> = walk::holders(maps.iter().map(|map| &map.top))
            .into_iter()
            .filter(|(node, count)| holders.get(node) != Some(count))
            .map(|(node, count)| format!("a node is said to have {:?} holders and has {count}", holders.get(&node)))
            .collect();
        for file in self.shared.files.all() {
            let all = 0..crate::map::MIDDLE_SLOTS.max(file.end());
            let (counted, found) = (file.runs(all.clone()), tally.runs(file.number, all));
            if let Some((one, other)) = counted.iter().zip(&found).find(|(one, other)| one != other) {
                wrong.push(format!("references to slots of {} are counted as {one:?} and are {other:?}", file.name));
            }
        }
        for (volume, map) in volumes.iter().zip(&maps) {
            let counted = |file: u32, slot: u64| self.shared.files.get(file).map_or(0, |file| file.refs(slot));
            wrong.extend(volume.owned_wrongly(map, &counted));
        }
        wrong
    }
}

/// Words for whoever asked.
fn failed(doing: &str, id: VolumeId) -> impl FnOnce(std::io::Error) -> StoreError {
    let text = format!("cannot {doing} volume {id}");
    move |error| StoreError::from_io(&text, &error)
}

fn failed_blocks(doing: &str, id: VolumeId) -> impl FnOnce(BlockError) -> StoreError {
    let text = format!("cannot {doing} volume {id}");
    move |error| match error {
        BlockError::NoSpace => StoreError::NoSpace(format!("{text}: no space left")),
        BlockError::Io(error) => StoreError::from_io(&text, &error),
        other => StoreError::Io(format!("{text}: {other}")),
    }
}

impl Store for MappedStore {
    fn create(&self, id: VolumeId, size_bytes: u64, thick: bool) -> Result<VolumeInfo, StoreError> {
        self.create_volume(id, size_bytes, thick)
    }

    fn delete(&self, id: VolumeId) -> Result<(), StoreError> {
        self.delete_volume(id)?;
        self.leave_pool(id);
        Ok(())
    }

    fn resize(&self, id: VolumeId, size_bytes: u64) -> Result<VolumeInfo, StoreError> {
        self.resize_volume(id, size_bytes)
    }

    fn clone_volume(&self, source: VolumeId, id: VolumeId, thick: bool) -> Result<VolumeInfo, StoreError> {
        let mut made = self.snapshot(&[Share { source, id, thick }])?;
        made.volumes.pop().ok_or(StoreError::NotFound(id))
    }

    fn set_thick(&self, id: VolumeId, thick: bool) -> Result<VolumeInfo, StoreError> {
        self.change_thick(id, thick)
    }

    fn list(&self) -> Result<Vec<VolumeInfo>, StoreError> {
        self.all_volumes().iter().map(|volume| self.describe(volume)).collect()
    }

    fn info(&self, id: VolumeId) -> Result<VolumeInfo, StoreError> {
        self.describe(&*self.find(id)?)
    }

    fn space(&self) -> Result<Space, StoreError> {
        self.space_now()
    }

    fn open(&self, id: VolumeId) -> Result<Arc<dyn Volume>, StoreError> {
        Ok(self.find(id)?)
    }

    fn snapshot(&self, pairs: &[Share]) -> Result<SharedVolumes, StoreError> {
        let made = self.share_volumes(pairs)?;
        self.join_pools_of_sources(pairs);
        Ok(made)
    }

    fn roll_back(&self, id: VolumeId, from: VolumeId) -> Result<VolumeInfo, StoreError> {
        self.roll_back_volume(id, from)
    }

    fn differences(&self, older: VolumeId, newer: VolumeId, offset: u64, most: usize) -> Result<Differences, StoreError> {
        self.compare(older, newer, offset, most)
    }

    fn usage(&self, id: VolumeId) -> Result<Usage, StoreError> {
        self.usage_of(&*self.find(id)?)
    }

    fn set_limit(&self, limit: Limit) -> Result<(), StoreError> {
        self.limit_bytes.store(limit.limit_bytes.unwrap_or(u64::MAX), Ordering::Release);
        self.short_percent.store(limit.warn_percent.min(SHORT_PERCENT), Ordering::Release);
        self.watch_limits()
    }

    fn set_volume_limit(&self, id: VolumeId, max_in_use_bytes: Option<u64>) -> Result<(), StoreError> {
        let volume = self.find(id)?;
        volume.max_in_use_bytes.store(max_in_use_bytes.unwrap_or(u64::MAX), Ordering::Release);
        self.watch_limits()
    }

    fn set_pools(&self, pools: &[Pool]) -> Result<(), StoreError> {
        self.replace_pools(pools)
    }

    fn watch_space(&self) -> Result<(), StoreError> {
        self.watch_all_space()
    }

    fn pools(&self) -> Result<Vec<PoolUse>, StoreError> {
        self.pools_now()
    }

    fn reservations(&self, id: VolumeId) -> Result<Option<String>, StoreError> {
        Ok(self.find(id).ok().and_then(|volume| lock(&volume.facts).reservations.clone()))
    }

    fn set_reservations(&self, id: VolumeId, reservations: Option<String>) -> Result<(), StoreError> {
        self.keep_reservations(id, reservations)
    }

    fn copy_range(
        &self,
        source: VolumeId,
        source_offset: u64,
        target: VolumeId,
        target_offset: u64,
        length: u64,
    ) -> Result<(), BlockError> {
        self.copy_between(source, source_offset, target, target_offset, length)
    }

    fn background(&self) -> bool {
        self.background_step()
    }

    fn was_used(&self) -> bool {
        self.shared.was_used()
    }

    fn space_is_short(&self) -> bool {
        self.shared.short.load(Ordering::Acquire) || self.shared.is_wanted()
    }

    fn background_failure(&self) -> Option<String> {
        lock(&self.background.failure).clone()
    }
}

/// Is the volume's file no more than its image?
fn is_whole_image(volume: &MappedVolume) -> Option<Arc<DataFile>> {
    let map = volume.map();
    map.base.clone().filter(|_| map.raw)
}

//! Storage pools: sets of volumes with space of their own. What is told of them lives in memory, like every limit.
//!
//! Each byte counts in one pool: that of the volume whose file it is in. The file of a deleted volume counts in the pool of
//! a volume that refers to it still; while it is only being given back, where it last did.

use super::MappedStore;
use crate::journal::record::VolumeNumber;
use crate::map::nodes::{Node, Reference, Top};
use crate::{Pool, PoolUse, Share, StoreError, VolumeId, lock};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Debug, Default)]
pub(super) struct Pools {
    capacities: BTreeMap<String, Option<u64>>,
    of_volumes: HashMap<VolumeId, String>,
    /// Where each data file counted when it was last looked at.
    of_files: HashMap<u32, String>,
    /// Of files of deleted volumes: one that refers to it. None: nobody does, and nobody ever will again.
    holders: HashMap<u32, Option<VolumeId>>,
}

impl Pools {
    /// Writers of a volume in `pool` have to wait. `left_bytes`: what could be taken of the file system and its limit.
    fn is_full(&self, pool: Option<&String>, used: &BTreeMap<String, u64>, left_bytes: u64) -> bool {
        let used_by = |name: &String| used.get(name).copied().unwrap_or(0);
        match pool.and_then(|name| Some((name, (*self.capacities.get(name)?)?))) {
            Some((name, capacity_bytes)) => used_by(name) >= capacity_bytes,
            None => {
                let unused = |(name, capacity): (&String, &Option<u64>)| Some((*capacity)?.saturating_sub(used_by(name)));
                let set_aside: u64 = self.capacities.iter().filter_map(unused).sum();
                set_aside > 0 && left_bytes <= set_aside
            }
        }
    }
}

impl MappedStore {
    pub(super) fn replace_pools(&self, pools: &[Pool]) -> Result<(), StoreError> {
        let mut known = lock(&self.pools);
        known.capacities = pools.iter().map(|pool| (pool.name.clone(), pool.capacity_bytes)).collect();
        let Pools { capacities, of_volumes, of_files, .. } = &mut *known;
        of_volumes.retain(|_, name| capacities.contains_key(name));
        of_files.retain(|_, name| capacities.contains_key(name));
        for pool in pools {
            of_volumes.extend(pool.volumes.iter().map(|volume| (*volume, pool.name.clone())));
        }
        self.watch_pools(&mut known).map(drop)
    }

    pub(super) fn pools_now(&self) -> Result<Vec<PoolUse>, StoreError> {
        let mut known = lock(&self.pools);
        let used = self.count_pools(&mut known).map_err(uncounted)?;
        let figures = |(name, capacity_bytes): (&String, &Option<u64>)| PoolUse {
            name: name.clone(),
            capacity_bytes: *capacity_bytes,
            used_bytes: used.get(name).copied().unwrap_or(0),
        };
        Ok(known.capacities.iter().map(figures).collect())
    }

    /// What was made from a volume is in its pool from the beginning.
    pub(super) fn join_pools_of_sources(&self, pairs: &[Share]) {
        let mut known = lock(&self.pools);
        for pair in pairs {
            if let Some(pool) = known.of_volumes.get(&pair.source).cloned() {
                known.of_volumes.entry(pair.id).or_insert(pool);
            }
            if let (Ok(source), Ok(made)) = (self.find(pair.source), self.find(pair.id)) {
                made.pool_full.store(source.pool_full.load(Ordering::Acquire), Ordering::Release);
            }
        }
    }

    pub(super) fn leave_pool(&self, id: VolumeId) {
        lock(&self.pools).of_volumes.remove(&id);
    }

    /// Sets and lifts the brakes of all volumes together and of the pools. One at a time: who has begun before a limit was
    /// changed does not have the last word.
    pub(super) fn watch_all_space(&self) -> Result<(), StoreError> {
        let mut known = lock(&self.pools);
        let limit = self.limit_bytes.load(Ordering::Acquire);
        let used_bytes = if limit == u64::MAX { 0 } else { self.used_bytes().map_err(uncounted)? };
        self.shared.full.store(used_bytes >= limit, Ordering::Release);
        let disk = self.disk().space(); // if it cannot be asked, it is not known to be short
        let full_soon = disk.is_ok_and(|disk| self.is_much(disk.total_bytes.saturating_sub(disk.free_bytes), disk.total_bytes));
        let pool_short = self.watch_pools(&mut known)?;
        self.shared.short.store(full_soon || pool_short || self.is_much(used_bytes, limit), Ordering::Release);
        Ok(())
    }

    /// Is so much in use of so much that space is short?
    fn is_much(&self, used_bytes: u64, bytes: u64) -> bool {
        u128::from(used_bytes) * 100 >= u128::from(bytes) * u128::from(self.short_percent.load(Ordering::Acquire))
    }

    /// Is the space of a pool short?
    fn watch_pools(&self, known: &mut Pools) -> Result<bool, StoreError> {
        if known.capacities.values().all(Option::is_none) {
            self.all_volumes().iter().for_each(|volume| volume.pool_full.store(false, Ordering::Release));
            return Ok(false);
        }
        let used = self.count_pools(known).map_err(uncounted)?;
        let left_bytes = self.left_bytes().map_err(uncounted)?;
        for volume in self.all_volumes() {
            let full = known.is_full(known.of_volumes.get(&volume.id), &used, left_bytes);
            volume.pool_full.store(full, Ordering::Release);
        }
        let short = |(name, bytes): (&String, u64)| self.is_much(used.get(name).copied().unwrap_or(0), bytes);
        Ok(known.capacities.iter().any(|(name, capacity)| capacity.is_some_and(|bytes| short((name, bytes)))))
    }

    /// What all volumes together could still take.
    fn left_bytes(&self) -> io::Result<u64> {
        let limit = self.limit_bytes.load(Ordering::Acquire);
        let free_bytes = self.disk().space()?.free_bytes;
        Ok(if limit == u64::MAX { free_bytes } else { free_bytes.min(limit.saturating_sub(self.used_bytes()?)) })
    }

    /// Bytes by pool; those of volumes in no pool are in none of them.
    fn count_pools(&self, known: &mut Pools) -> io::Result<BTreeMap<String, u64>> {
        let owners: HashMap<VolumeNumber, VolumeId> =
            self.all_volumes().iter().map(|volume| (volume.number, volume.id)).collect();
        let files = self.shared.files.all();
        self.find_holders(known, files.iter().filter(|file| !owners.contains_key(&file.volume)).map(|file| file.number));
        let mut used = BTreeMap::new();
        let mut counted = HashMap::new();
        for file in files {
            let holder = owners.get(&file.volume).or_else(|| known.holders.get(&file.number)?.as_ref());
            let pool = match holder {
                Some(volume) => known.of_volumes.get(volume),
                None => known.of_files.get(&file.number),
            };
            if let Some(pool) = pool {
                *used.entry(pool.clone()).or_default() += file.allocated_bytes()?;
                counted.insert(file.number, pool.clone());
            }
        }
        known.of_files = counted;
        Ok(used)
    }

    /// Finds for each of the deleted volumes' files one that refers to it, unless that is known. Volumes are asked in the
    /// order of their identities, so that the answer is the same after a restart.
    fn find_holders(&self, known: &mut Pools, files: impl Iterator<Item = u32>) {
        let there: HashSet<VolumeId> = self.volumes().keys().copied().collect();
        let mut holders = HashMap::new();
        let mut wanted = HashSet::new();
        for file in files {
            match known.holders.get(&file) {
                Some(holder) if holder.is_none_or(|id| there.contains(&id)) => drop(holders.insert(file, *holder)),
                _ => drop(wanted.insert(file)),
            }
        }
        known.holders = holders;
        if wanted.is_empty() {
            return;
        }
        // Held until all have been seen: a node's place in memory is not another's meanwhile.
        let tops: Vec<(VolumeId, Arc<Top>)> =
            self.all_volumes().iter().map(|volume| (volume.id, volume.map().top.clone())).collect();
        let mut seen = HashSet::new();
        for (id, top) in &tops {
            let holders = &mut known.holders;
            visit_files(top, 0, &mut seen, &mut |file| {
                if wanted.remove(&file) {
                    holders.insert(file, Some(*id));
                }
            });
        }
        known.holders.extend(wanted.into_iter().map(|file| (file, None)));
    }
}

/// Every file that the nodes below refer to; nodes that were seen before are passed over.
fn visit_files<N: Node>(node: &Arc<N>, at: u64, seen: &mut HashSet<usize>, visit: &mut dyn FnMut(u32)) {
    if !seen.insert(Arc::as_ptr(node) as usize) {
        return;
    }
    node.refer(at, &mut |reference| match reference {
        Reference::Middle(middle, at) => visit_files(middle, at, seen, visit),
        Reference::Leaf(leaf, at) => visit_files(leaf, at, seen, visit),
        Reference::Slots(file, _) => visit(file),
    });
}

fn uncounted(error: io::Error) -> StoreError {
    StoreError::from_io("cannot count what volumes occupy", &error)
}

//! What a store says that its volumes occupy, each and together.

use crate::operation::Failure;
use crate::sectors::SECTOR;
use crate::world::{World, letter};
use gespann_store::{Store, StoreError, Usage, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

const PAGE_SECTORS: u64 = 4096 / SECTOR;

#[derive(Debug)]
pub struct Figures {
    pub volumes: BTreeMap<VolumeId, Usage>,
    pub used_bytes: u64,
    pub reclaiming_bytes: u64,
}

impl Figures {
    pub fn of(store: &dyn Store, world: &World) -> Result<Self, StoreError> {
        let volumes = world.volumes.keys().map(|id| Ok((*id, store.usage(*id)?))).collect::<Result<_, StoreError>>()?;
        let space = store.space()?;
        Ok(Self { volumes, used_bytes: space.used_bytes, reclaiming_bytes: space.reclaiming_bytes })
    }

    fn exclusive_bytes(&self) -> u64 {
        self.volumes.values().map(|usage| usage.exclusive_bytes).sum()
    }

    /// At any time, whatever is still to be given back.
    fn hold(&self, world: &World) -> Result<(), String> {
        for (id, usage) in &self.volumes {
            let sectors = &world.volumes[id].sectors;
            let pages: BTreeSet<u64> =
                sectors.touched().filter(|sector| sectors.now(*sector) != 0).map(|sector| sector / PAGE_SECTORS).collect();
            let least = pages.len() as u64 * PAGE_SECTORS * SECTOR;
            // The volume's end may cut its last page.
            if usage.mapped_bytes + PAGE_SECTORS * SECTOR < least || usage.exclusive_bytes > usage.mapped_bytes {
                return Err(format!("volume {} holds {least} bytes that are not zero; it is said: {usage:?}", letter(*id)));
            }
        }
        if self.exclusive_bytes() > self.used_bytes {
            return Err(format!("more is exclusive than used: {self:?}"));
        }
        Ok(())
    }

    /// When all work in the background is done.
    pub fn hold_at_rest(&self, world: &World, chunk_bytes: u64) -> Result<(), String> {
        self.hold(world)?;
        if world.ever_thick {
            return Ok(()); // reserved space is in `used_bytes` and nobody's
        }
        let mapped_bytes: u64 = self.volumes.values().map(|usage| usage.mapped_bytes).sum();
        let alone = self.volumes.len() == 1 && !world.ever_copied && self.exclusive_bytes() != self.used_bytes;
        if self.reclaiming_bytes > 0 || mapped_bytes < self.used_bytes || alone {
            return Err(format!("not all is accounted for: {self:?}"));
        }
        for (id, usage) in &self.volumes {
            let most = (world.volumes[id].chunks.len() as u64 + 1) * 2 * chunk_bytes;
            if usage.mapped_bytes > most {
                return Err(format!("volume {} can have mapped {most} bytes; it is said: {usage:?}", letter(*id)));
            }
        }
        Ok(())
    }

    /// `self` was before the volume was deleted: as much as was said has come back.
    pub fn came_back(&self, id: VolumeId, after: &Self, world: &World) -> Result<(), String> {
        // Emptied slots of a thick volume's file stay reserved.
        match !world.ever_thick && after.used_bytes + self.volumes[&id].exclusive_bytes > self.used_bytes {
            true => Err(format!("deleting {} gave back less than was said: {self:?}, then {after:?}", letter(id))),
            false => Ok(()),
        }
    }
}

pub fn compare(store: &dyn Store, world: &World) -> Result<(), Failure> {
    let figures = Figures::of(store, world)?;
    for info in store.list()? {
        if figures.volumes.get(&info.volume).is_none_or(|usage| usage.mapped_bytes != info.allocated_bytes) {
            return Err(Failure::Wrong(format!("{info:?}, and {figures:?}")));
        }
    }
    figures.hold(world).map_err(Failure::Wrong)
}

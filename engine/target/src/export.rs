//! One volume as a target: what the group has said of it, its gate, its blocks.

use crate::gate::Gate;
use gespann_control::messages::Target;
use gespann_scsi::Lun;
use gespann_store::{Volume, VolumeId};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

#[derive(Debug)]
pub struct Export {
    pub id: VolumeId,
    pub gate: Arc<Gate>,
    pub volume: Arc<dyn Volume>,
    target: RwLock<Arc<Target>>,
    lun: RwLock<Arc<Lun>>,
    write_protected: AtomicBool,
    /// Counts changes of `lun`: a session looks again only when it has moved.
    version: AtomicU64,
}

impl Export {
    pub fn new(id: VolumeId, gate: Arc<Gate>, volume: Arc<dyn Volume>, target: Target) -> Self {
        let lun = RwLock::new(Arc::new(lun_of(id, &target, volume.as_ref(), false)));
        let (version, write_protected) = (AtomicU64::new(1), AtomicBool::new(false));
        Self { id, gate, volume, target: RwLock::new(Arc::new(target)), lun, write_protected, version }
    }

    pub fn target(&self) -> Arc<Target> {
        self.target.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn lun(&self) -> Arc<Lun> {
        self.lun.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn set_target(&self, target: Target) {
        *self.target.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(target);
        self.refresh();
    }

    /// Software write protect, for all sessions. True if it has changed.
    pub fn write_protect(&self, on: bool) -> bool {
        let changed = self.write_protected.swap(on, Ordering::AcqRel) != on;
        if changed {
            self.refresh();
        }
        changed
    }

    /// The volume's size or provisioning may have changed.
    pub fn refresh(&self) {
        let mut lun = self.lun.write().unwrap_or_else(PoisonError::into_inner);
        let write_protected = self.write_protected.load(Ordering::Acquire);
        *lun = Arc::new(lun_of(self.id, &self.target(), self.volume.as_ref(), write_protected));
        drop(lun);
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}

fn lun_of(id: VolumeId, target: &Target, volume: &dyn Volume, write_protected: bool) -> Lun {
    Lun {
        block_size: target.block_size,
        blocks: volume.size_bytes() / u64::from(target.block_size),
        read_only: target.read_only,
        write_protected,
        thick: volume.thick(),
        vendor: target.vendor.clone(),
        product: target.product.clone(),
        revision: target.revision.clone(),
        naa: target.naa.parse().unwrap_or(id).0,
        target_name: target.name.clone(),
    }
}

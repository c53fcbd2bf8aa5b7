//! One volume as a target: what the group has said of it, its gate, its blocks.

use crate::gate::Gate;
use crate::patience::Patience;
use gespann_control::messages::Target;
use gespann_scsi::Lun;
use gespann_scsi::mode::Settings;
use gespann_store::{Volume, VolumeId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

#[derive(Debug)]
pub struct Export {
    pub id: VolumeId,
    pub gate: Arc<Gate>,
    pub volume: Arc<dyn Volume>,
    target: RwLock<Arc<Target>>,
    lun: RwLock<Arc<Lun>>,
    settings: Mutex<Settings>,
    /// Counts changes of `lun`: a session looks again only when it has moved.
    version: AtomicU64,
    pub patience: Patience,
}

impl Export {
    pub fn new(id: VolumeId, gate: Arc<Gate>, volume: Arc<dyn Volume>, target: Target) -> Self {
        let settings = Settings::default();
        let lun = RwLock::new(Arc::new(lun_of(id, &target, volume.as_ref(), settings)));
        let (target, version) = (RwLock::new(Arc::new(target)), AtomicU64::new(1));
        Self { id, gate, volume, target, lun, settings: Mutex::new(settings), version, patience: Patience::default() }
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

    /// What an initiator sets by MODE SELECT, for all sessions. True if it has changed.
    pub fn set_settings(&self, wanted: Settings) -> bool {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *settings != wanted;
        *settings = wanted;
        drop(settings);
        if changed {
            self.refresh();
        }
        changed
    }

    /// The volume's size or provisioning may have changed.
    pub fn refresh(&self) {
        let mut lun = self.lun.write().unwrap_or_else(PoisonError::into_inner);
        let settings = *self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        *lun = Arc::new(lun_of(self.id, &self.target(), self.volume.as_ref(), settings));
        drop(lun);
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}

fn lun_of(id: VolumeId, target: &Target, volume: &dyn Volume, settings: Settings) -> Lun {
    Lun {
        block_size: target.block_size,
        blocks: volume.size_bytes() / u64::from(target.block_size),
        physical_block_size: if target.physical_block_size == 0 { target.block_size } else { target.physical_block_size },
        read_only: target.read_only,
        settings,
        atomic_bytes: volume.atomic_bytes(),
        thick: volume.thick(),
        vendor: target.vendor.clone(),
        product: target.product.clone(),
        revision: target.revision.clone(),
        naa: target.naa.parse().unwrap_or(id).0,
        target_name: target.name.clone(),
    }
}

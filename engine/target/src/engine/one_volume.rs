//! A store for tests, of one volume that can stand still.

use gespann_store::faulty::FaultyVolume;
use gespann_store::{Space, Store, StoreError, Volume, VolumeId, VolumeInfo};
use std::sync::Arc;

pub const A: VolumeId = VolumeId([0x6a; 16]);

/// One volume, with switches.
#[derive(Debug)]
pub struct OneVolume {
    pub volume: Arc<FaultyVolume>,
}

impl Store for OneVolume {
    fn create(&self, id: VolumeId, _: u64, _: bool) -> Result<VolumeInfo, StoreError> {
        self.info(id)
    }
    fn delete(&self, _: VolumeId) -> Result<(), StoreError> {
        Ok(())
    }
    fn resize(&self, id: VolumeId, _: u64) -> Result<VolumeInfo, StoreError> {
        self.info(id)
    }
    fn clone_volume(&self, id: VolumeId, _: VolumeId, _: bool) -> Result<VolumeInfo, StoreError> {
        self.info(id)
    }
    fn set_thick(&self, id: VolumeId, _: bool) -> Result<VolumeInfo, StoreError> {
        self.info(id)
    }
    fn list(&self) -> Result<Vec<VolumeInfo>, StoreError> {
        Ok(Vec::new())
    }
    fn info(&self, id: VolumeId) -> Result<VolumeInfo, StoreError> {
        let size_bytes = self.volume.size_bytes();
        Ok(VolumeInfo { volume: id, size_bytes, allocated_bytes: size_bytes, thick: true, origin: None })
    }
    fn reservations(&self, _: VolumeId) -> Result<Option<String>, StoreError> {
        Ok(None)
    }
    fn set_reservations(&self, _: VolumeId, _: Option<String>) -> Result<(), StoreError> {
        Ok(())
    }
    fn space(&self) -> Result<Space, StoreError> {
        Ok(Space { total_bytes: 0, free_bytes: 0, used_bytes: 0, limit_bytes: None, reclaiming_bytes: 0 })
    }
    fn open(&self, _: VolumeId) -> Result<Arc<dyn Volume>, StoreError> {
        Ok(self.volume.clone())
    }
}

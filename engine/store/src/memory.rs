//! A volume in memory, for tests.

use crate::{BlockError, Extent, Volume, check_range};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

#[derive(Debug)]
pub struct MemoryVolume {
    bytes: RwLock<Vec<u8>>,
}

impl MemoryVolume {
    pub fn new(size_bytes: usize) -> Self {
        Self { bytes: RwLock::new(vec![0; size_bytes]) }
    }

    fn change(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.bytes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Volume for MemoryVolume {
    fn size_bytes(&self) -> u64 {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    fn thick(&self) -> bool {
        true
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), BlockError> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        check_range(offset, buffer.len() as u64, bytes.len() as u64)?;
        buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        let mut bytes = self.change();
        check_range(offset, data.len() as u64, bytes.len() as u64)?;
        bytes[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn zero(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        let mut bytes = self.change();
        check_range(offset, length, bytes.len() as u64)?;
        bytes[offset as usize..][..length as usize].fill(0);
        Ok(())
    }

    fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }

    fn extent(&self, offset: u64) -> Result<Extent, BlockError> {
        check_range(offset, 1, self.size_bytes())?;
        Ok(Extent { mapped: true, length_bytes: self.size_bytes() - offset })
    }

    fn or_write(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        let mut bytes = self.change();
        check_range(offset, data.len() as u64, bytes.len() as u64)?;
        bytes[offset as usize..].iter_mut().zip(data).for_each(|(byte, more)| *byte |= more);
        Ok(())
    }

    fn atomic_bytes(&self) -> u32 {
        1 << 20
    }

    /// One change under the lock.
    fn write_atomic(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        self.write_at(data, offset)
    }

    fn compare_and_write(&self, offset: u64, expected: &[u8], new: &[u8]) -> Result<Option<usize>, BlockError> {
        let mut bytes = self.change();
        check_range(offset, expected.len().max(new.len()) as u64, bytes.len() as u64)?;
        let present = &mut bytes[offset as usize..];
        if let Some(position) = present.iter().zip(expected).position(|(a, b)| a != b) {
            return Ok(Some(position));
        }
        present[..new.len()].copy_from_slice(new);
        Ok(None)
    }
}

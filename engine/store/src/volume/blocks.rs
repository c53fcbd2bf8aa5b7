//! The block side of a volume: the `Volume` trait.

use super::{MappedVolume, VolumeMap};
use crate::{BlockError, Extent, UsePlace, Volume, check_range};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

/// One record enters so many chunks into the map: 17 of the smallest.
const ATOMIC_BYTES: u32 = 256 << 10;

impl MappedVolume {
    pub fn limited(&self) -> bool {
        let held = self.held.load(Ordering::Relaxed) || self.pool_full.load(Ordering::Relaxed);
        held || self.shared.full.load(Ordering::Relaxed)
    }

    /// While a limit is reached only what takes no more space is written. What is written within a thick volume's reservation
    /// takes none: it was counted when it was reserved.
    fn check_space(&self, map: &mut VolumeMap, offset: u64, length: u64) -> Result<(), BlockError> {
        if !self.limited() || (map.raw && self.is_thick()) {
            return Ok(());
        }
        let chunk_bytes = self.shared.chunk_bytes;
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let (chunk, within) = (at / chunk_bytes, at % chunk_bytes);
            let step = (chunk_bytes - within).min(end - at);
            self.adopt(map, chunk);
            if self.needs_space(map, chunk, within, step)? && !self.bring_home(map, chunk)? {
                return Err(BlockError::NoSpace);
            }
            at += step;
        }
        Ok(())
    }

    /// Writes chunk by chunk, in place or anew. The lock is held alone, and `changing` too.
    pub fn write_alone(&self, map: &mut VolumeMap, data: &[u8], offset: u64) -> Result<(), BlockError> {
        let chunk_bytes = self.shared.chunk_bytes;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let step = (data.len() - done).min((chunk_bytes - at % chunk_bytes) as usize);
            self.write_chunk(map, &data[done..done + step], at)?;
            done += step;
        }
        Ok(())
    }
}

impl Volume for MappedVolume {
    fn size_bytes(&self) -> u64 {
        self.size()
    }

    fn thick(&self) -> bool {
        self.is_thick()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), BlockError> {
        self.shared.note_use();
        let map = self.map();
        check_range(offset, buffer.len() as u64, self.size())?;
        if !map.raw {
            self.check_lost()?;
        }
        Ok(self.read_mapped(&map, buffer, offset)?)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        self.shared.note_use();
        let done = {
            let map = self.map();
            check_range(offset, data.len() as u64, self.size())?;
            match if self.limited() { Ok(0) } else { self.write_own(&map, data, offset) } {
                // A chunk that is away from its own place goes back there, if it can.
                Err(error) if self.is_thick() && matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => 0,
                done => done?,
            }
        };
        if done == data.len() {
            return Ok(());
        }
        let _changing = self.shared.changing();
        let mut map = self.map_alone();
        check_range(offset, data.len() as u64, self.size())?; // the size may be another one by now
        self.check_space(&mut map, offset + done as u64, (data.len() - done) as u64)?;
        self.write_alone(&mut map, &data[done..], offset + done as u64)
    }

    fn zero(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        {
            let map = self.map();
            check_range(offset, length, self.size())?;
            if length == 0 {
                return Ok(());
            }
            if let (true, Some(base)) = (map.raw, &map.base) {
                return Ok(base.clear(offset, length)?);
            }
        }
        let _changing = self.shared.changing();
        let mut map = self.map_alone();
        check_range(offset, length, self.size())?;
        self.zero_mapped(&mut map, offset, length)
    }

    fn space_is_coming(&self) -> bool {
        self.shared.space_is_coming()
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.flush_all()
    }

    fn settle(&self) -> Result<(), BlockError> {
        self.settle_all()
    }

    fn extent(&self, offset: u64) -> Result<Extent, BlockError> {
        self.extent_at(&self.map(), offset)
    }

    fn or_write(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        let _changing = self.shared.changing();
        let mut map = self.map_alone();
        check_range(offset, data.len() as u64, self.size())?;
        self.check_space(&mut map, offset, data.len() as u64)?;
        let mut merged = vec![0; data.len()];
        self.read_mapped(&map, &mut merged, offset)?;
        merged.iter_mut().zip(data).for_each(|(byte, more)| *byte |= more);
        self.write_alone(&mut map, &merged, offset)
    }

    fn compare_and_write(&self, offset: u64, expected: &[u8], new: &[u8]) -> Result<Option<usize>, BlockError> {
        let _changing = self.shared.changing();
        let mut map = self.map_alone();
        check_range(offset, expected.len().max(new.len()) as u64, self.size())?;
        let mut present = vec![0; expected.len()];
        self.read_mapped(&map, &mut present, offset)?;
        if let Some(position) = present.iter().zip(expected).position(|(a, b)| a != b) {
            return Ok(Some(position));
        }
        self.check_space(&mut map, offset, new.len() as u64)?;
        self.write_alone(&mut map, new, offset)?;
        Ok(None)
    }

    fn with_place(&self, offset: u64, length: u64, use_it: UsePlace<'_>) -> Result<bool, BlockError> {
        self.shared.note_use();
        let map = self.map();
        check_range(offset, length, self.size())?;
        if !map.raw {
            self.check_lost()?;
        }
        self.with_piece(&map, offset, length, |place| match place {
            Some((file, position)) => use_it(file.as_fd(), position).map(|()| true),
            None => Ok(false),
        })
        .map_err(BlockError::from)
    }

    fn write_atomic(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        let _changing = self.shared.changing();
        let mut map = self.map_alone();
        check_range(offset, data.len() as u64, self.size())?;
        self.check_space(&mut map, offset, data.len() as u64)?;
        self.write_whole(&mut map, data, offset)
    }

    fn atomic_bytes(&self) -> u32 {
        ATOMIC_BYTES
    }
}

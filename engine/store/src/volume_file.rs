//! One volume as one sparse file: the block side.

use crate::clone_job::CloneJob;
use crate::{BlockError, Extent, UsePlace, Volume, VolumeId, check_range, sparse};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// One system call writes no more than this. Linux keeps what one call writes in page cache folios of up to that size,
/// and ext4 walks over every block of a folio to overwrite one of them: after 1 MiB writes a 4 KiB write took 24 us of
/// CPU, after pieces of 64 KiB 4 us (`bench/results/engine.md`).
const WRITE_PIECE_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct VolumeFile {
    pub id: VolumeId,
    pub file: Arc<File>,
    size_bytes: AtomicU64,
    thick: AtomicBool,
    lost_writes: AtomicBool,
    /// Shared by writers for the length of one write; exclusive for what must see no write half done.
    writers: RwLock<Vec<Arc<CloneJob>>>,
}

impl VolumeFile {
    pub fn new(id: VolumeId, file: File, thick: bool) -> io::Result<Self> {
        let size_bytes = file.metadata()?.len();
        Ok(Self {
            id,
            file: Arc::new(file),
            size_bytes: AtomicU64::new(size_bytes),
            thick: AtomicBool::new(thick),
            lost_writes: AtomicBool::new(false),
            writers: RwLock::default(),
        })
    }

    pub fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    pub fn mark_thick(&self, thick: bool) {
        self.thick.store(thick, Ordering::Release);
    }

    pub fn mark_size(&self, size_bytes: u64) {
        self.size_bytes.store(size_bytes, Ordering::Release);
    }

    fn share(&self) -> RwLockReadGuard<'_, Vec<Arc<CloneJob>>> {
        self.writers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the writes under way and holds off new ones until the guard is dropped.
    pub fn exclude_writers(&self) -> RwLockWriteGuard<'_, Vec<Arc<CloneJob>>> {
        self.writers.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn remove_job(&self, job: &Arc<CloneJob>) {
        self.exclude_writers().retain(|other| !Arc::ptr_eq(other, job));
    }

    fn zero_range(&self, offset: u64, length: u64) -> io::Result<()> {
        if self.thick() { sparse::zero_reserved(&self.file, offset, length) } else { sparse::punch(&self.file, offset, length) }
    }
}

impl Volume for VolumeFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn thick(&self) -> bool {
        self.thick.load(Ordering::Acquire)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), BlockError> {
        check_range(offset, buffer.len() as u64, self.size_bytes())?;
        Ok(self.file.read_exact_at(buffer, offset)?)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        let jobs = self.share();
        check_range(offset, data.len() as u64, self.size_bytes())?;
        jobs.iter().for_each(|job| job.before_change(offset, data.len() as u64));
        for (index, piece) in data.chunks(WRITE_PIECE_BYTES).enumerate() {
            self.file.write_all_at(piece, offset + (index * WRITE_PIECE_BYTES) as u64)?;
        }
        Ok(())
    }

    fn zero(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        let jobs = self.share();
        check_range(offset, length, self.size_bytes())?;
        if length == 0 {
            return Ok(());
        }
        jobs.iter().for_each(|job| job.before_change(offset, length));
        Ok(self.zero_range(offset, length)?)
    }

    fn flush(&self) -> Result<(), BlockError> {
        if self.lost_writes.load(Ordering::Acquire) {
            return Err(BlockError::Io(io::Error::other(
                "an earlier write to this volume was lost; restart the engine to go on",
            )));
        }
        self.file.sync_data().map_err(|error| {
            self.lost_writes.store(true, Ordering::Release);
            BlockError::from(error)
        })
    }

    fn extent(&self, offset: u64) -> Result<Extent, BlockError> {
        let size_bytes = self.size_bytes();
        check_range(offset, 1, size_bytes)?;
        let (data_start, data_end) = sparse::next_data(&self.file, offset, size_bytes)?.unwrap_or((size_bytes, size_bytes));
        Ok(match data_start <= offset {
            true => Extent { mapped: true, length_bytes: data_end - offset },
            false => Extent { mapped: false, length_bytes: data_start - offset },
        })
    }

    fn or_write(&self, data: &[u8], offset: u64) -> Result<(), BlockError> {
        let jobs = self.exclude_writers();
        check_range(offset, data.len() as u64, self.size_bytes())?;
        let mut merged = vec![0; data.len()];
        self.file.read_exact_at(&mut merged, offset)?;
        merged.iter_mut().zip(data).for_each(|(byte, more)| *byte |= more);
        jobs.iter().for_each(|job| job.before_change(offset, data.len() as u64));
        Ok(self.file.write_all_at(&merged, offset)?)
    }

    fn compare_and_write(&self, offset: u64, expected: &[u8], new: &[u8]) -> Result<Option<usize>, BlockError> {
        let jobs = self.exclude_writers();
        check_range(offset, expected.len().max(new.len()) as u64, self.size_bytes())?;
        let mut present = vec![0; expected.len()];
        self.file.read_exact_at(&mut present, offset)?;
        if let Some(position) = present.iter().zip(expected).position(|(a, b)| a != b) {
            return Ok(Some(position));
        }
        jobs.iter().for_each(|job| job.before_change(offset, new.len() as u64));
        self.file.write_all_at(new, offset)?;
        Ok(None)
    }

    fn with_place(&self, offset: u64, length: u64, use_it: UsePlace<'_>) -> Result<bool, BlockError> {
        check_range(offset, length, self.size_bytes())?;
        use_it(self.file.as_fd(), offset)?;
        Ok(true)
    }
}

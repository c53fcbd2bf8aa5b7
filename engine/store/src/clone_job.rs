//! A clone by copying, while the source stays writable.
//!
//! The clone has the source's contents at the instant the job was installed. The copier goes through the source from
//! front to back; a writer that is about to change a chunk not yet copied copies that chunk first. So a write waits for
//! one or two chunks at most, never for the whole clone. A copy that fails spoils the clone, not the write.

use crate::sparse;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

const CHUNK_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub struct CloneJob {
    source: Arc<File>,
    target: File,
    size_bytes: u64,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    copied: Vec<bool>,
    failed: Option<io::Error>,
    buffer: Vec<u8>,
}

impl CloneJob {
    pub fn new(source: Arc<File>, target: File, size_bytes: u64) -> Self {
        let chunks = size_bytes.div_ceil(CHUNK_BYTES) as usize;
        let progress = Progress { copied: vec![false; chunks], failed: None, buffer: Vec::new() };
        Self { source, target, size_bytes, progress: Mutex::new(progress) }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn copy_chunk(&self, progress: &mut Progress, chunk: usize) {
        if progress.copied[chunk] || progress.failed.is_some() {
            return;
        }
        let start = chunk as u64 * CHUNK_BYTES;
        let end = (start + CHUNK_BYTES).min(self.size_bytes);
        match sparse::copy_data(&self.source, &self.target, start, end, &mut progress.buffer) {
            Ok(()) => progress.copied[chunk] = true,
            Err(error) => progress.failed = Some(error),
        }
    }

    /// Called with the writers' lock of the volume held, before a change of `offset..offset + length`.
    pub fn before_change(&self, offset: u64, length: u64) {
        let end = (offset + length).min(self.size_bytes);
        if length == 0 || offset >= end {
            return;
        }
        for chunk in offset / CHUNK_BYTES..end.div_ceil(CHUNK_BYTES) {
            self.copy_chunk(&mut self.progress(), chunk as usize);
        }
    }

    /// Copies what is left. Returns when all is copied, or with the first failure.
    pub fn run(&self) -> io::Result<()> {
        let mut chunk = 0;
        loop {
            let mut progress = self.progress();
            if let Some(error) = progress.failed.take() {
                progress.failed = Some(io::Error::new(error.kind(), error.to_string()));
                return Err(error);
            }
            if chunk >= progress.copied.len() {
                return Ok(());
            }
            self.copy_chunk(&mut progress, chunk);
            if progress.copied[chunk] {
                chunk += 1;
            }
        }
    }
}

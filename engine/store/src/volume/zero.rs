//! Zeroing: gives back what is the volume's own, lets go of what is shared.

use super::read::{blocks_of, chunk_in};
use super::{MappedVolume, VolumeMap};
use crate::BlockError;
use crate::data_files::DataFile;
use crate::journal::record::Record;
use crate::map::change;
use crate::map::nodes::Found;
use crate::map::walk::Dropped;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// One record tells of no more runs than this.
const MOST_RUNS: usize = 1000;

/// What is to be cleared in place: neighbours in one file are cleared at once.
#[derive(Debug, Default)]
struct Clearing {
    file: Option<Arc<DataFile>>,
    range: Range<u64>,
}

impl Clearing {
    fn add(&mut self, file: Arc<DataFile>, range: Range<u64>) -> io::Result<()> {
        if self.file.as_ref().is_some_and(|last| last.number == file.number) && self.range.end == range.start {
            self.range.end = range.end;
            return Ok(());
        }
        self.flush()?;
        (self.file, self.range) = (Some(file), range);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.file.take() {
            Some(file) => file.clear(self.range.start, self.range.end - self.range.start),
            None => Ok(()),
        }
    }
}

/// Chunks that have become holes and are not in the log yet.
#[derive(Debug, Default)]
struct Holes {
    runs: Vec<(u64, u64)>,
    dropped: Vec<Dropped>,
}

impl MappedVolume {
    /// The range reads as zeroes afterwards. The lock is held alone.
    pub fn zero_mapped(&self, map: &mut VolumeMap, offset: u64, length: u64) -> Result<(), BlockError> {
        self.shared.journal.make_room()?;
        let mut holes = Holes::default();
        let mut clearing = Clearing::default();
        let result = self.zero_chunks(map, offset, length, &mut holes, &mut clearing);
        // What has become a hole is told, also when a later part failed.
        self.log_holes(map, &mut holes);
        clearing.flush()?;
        result
    }

    fn log_holes(&self, map: &mut VolumeMap, holes: &mut Holes) {
        if !holes.runs.is_empty() {
            map.raw = false;
            let runs = std::mem::take(&mut holes.runs);
            self.log(&Record::Holes { volume: self.number, runs }, std::mem::take(&mut holes.dropped));
        }
    }

    fn zero_chunks(
        &self,
        map: &mut VolumeMap,
        offset: u64,
        length: u64,
        holes: &mut Holes,
        clearing: &mut Clearing,
    ) -> Result<(), BlockError> {
        let chunk_bytes = self.shared.chunk_bytes;
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let (chunk, within) = (at / chunk_bytes, at % chunk_bytes);
            if let Found::Hole(next) = map.top.find(chunk) {
                at = next.saturating_mul(chunk_bytes).min(end);
                continue;
            }
            let step = (chunk_bytes - within).min(end - at);
            let found = chunk_in(map, chunk);
            let whole = within == 0 && (step == chunk_bytes || at + step == self.size());
            match found.slot {
                None => {}
                Some(slot) if found.own && found.part.is_none() => {
                    let file = self.file(slot.file)?;
                    let start = file.offset(slot.index) + within;
                    clearing.add(file, start..start + step)?;
                }
                Some(slot) if whole && found.own && self.is_in_reserve(map, slot) => {
                    // It stays there: the place would not be free for what is written next, until it was given up and emptied.
                    self.log_holes(map, holes);
                    self.shared.journal.make_room()?;
                    let file = self.file(slot.file)?;
                    file.clear(file.offset(slot.index), chunk_bytes)?;
                    self.put_chunks(map, vec![(chunk, slot, None)]);
                }
                Some(_) if whole => {
                    let count = self.unmapped_run(map, chunk, end / chunk_bytes);
                    let files = &self.shared.files;
                    holes.dropped.extend(change::make_holes(&mut map.top, map.tenure, files, chunk..chunk + count));
                    holes.runs.push((chunk, count));
                    if holes.runs.len() == MOST_RUNS {
                        self.log_holes(map, holes);
                        self.shared.journal.make_room()?;
                    }
                    at = ((chunk + count) * chunk_bytes).min(end);
                    continue;
                }
                Some(slot) => {
                    if blocks_of(within, step) & !found.own_blocks(self.all_blocks()) == 0 {
                        let file = self.file(slot.file)?;
                        let start = file.offset(slot.index) + within;
                        clearing.add(file, start..start + step)?;
                    } else {
                        self.log_holes(map, holes);
                        self.write_chunk(map, &vec![0; step as usize], at)?;
                    }
                }
            }
            at += step;
        }
        Ok(())
    }

    /// How many chunks from this one on, before `end`, are to be let go of together: shared ones, as one range.
    fn unmapped_run(&self, map: &VolumeMap, chunk: u64, end: u64) -> u64 {
        let mut count = 1;
        while chunk + count < end {
            let found = chunk_in(map, chunk + count);
            let stays = found.part.is_none() || found.slot.is_some_and(|slot| self.is_in_reserve(map, slot));
            if found.slot.is_none() || (found.own && stays) {
                break;
            }
            count += 1;
        }
        count
    }
}

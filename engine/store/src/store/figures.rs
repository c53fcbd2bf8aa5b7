//! What volumes occupy, share and differ in.

use super::MappedStore;
use crate::data_files::DataFile;
use crate::disk::DiskSpace;
use crate::map::nodes::{Found, Node, Reference, Top};
use crate::map::{LEAF_SLOTS, walk};
use crate::volume::{BLOCK_BYTES, MappedVolume};
use crate::{Differences, Space, StoreError, Usage, VolumeId, VolumeInfo, lock};
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

fn unreadable(error: io::Error) -> StoreError {
    StoreError::from_io("cannot read what a volume occupies", &error)
}

/// Runs of data that one question about what is being given back looks at: two system calls each.
const MOST_RUNS_LOOKED_AT: u64 = 4096;

/// A count of what slots occupy that looks at so many runs of data only, and takes the rest to be like them.
#[derive(Debug, Default)]
struct Estimate {
    runs_left: u64,
    looked_at_bytes: u64,
    found_bytes: u64,
    passed_over_bytes: u64,
}

impl Estimate {
    fn add(&mut self, file: &DataFile, slots: Range<u64>) -> io::Result<()> {
        let (start, end) = (file.offset(slots.start), file.offset(slots.end));
        let mut at = start;
        while at < end && self.runs_left > 0 {
            self.runs_left -= 1;
            let Some((from, upto)) = file.next_data(at, end)? else {
                at = end;
                break;
            };
            // The file's end may cut its last block, which is occupied whole.
            self.found_bytes += upto.next_multiple_of(BLOCK_BYTES) - from.max(at);
            at = upto;
        }
        self.looked_at_bytes += at - start;
        self.passed_over_bytes += end - at;
        Ok(())
    }

    /// Nothing only if there is nothing.
    fn bytes(&self) -> u64 {
        if self.passed_over_bytes == 0 {
            return self.found_bytes;
        }
        let like_them =
            u128::from(self.passed_over_bytes) * u128::from(self.found_bytes) / u128::from(self.looked_at_bytes.max(1));
        (self.found_bytes.saturating_add(u64::try_from(like_them).unwrap_or(u64::MAX))).max(BLOCK_BYTES)
    }
}

impl MappedStore {
    pub(super) fn describe(&self, volume: &MappedVolume) -> Result<VolumeInfo, StoreError> {
        Ok(VolumeInfo {
            volume: volume.id,
            size_bytes: volume.size(),
            allocated_bytes: self.mapped_bytes(volume).map_err(unreadable)?,
            thick: volume.is_thick(),
            origin: lock(&volume.facts).origin,
        })
    }

    /// The same right after sharing, at no cost: what the source refers to as it was last counted.
    pub(super) fn describe_shared(&self, volume: &MappedVolume, source: &MappedVolume) -> Result<VolumeInfo, StoreError> {
        let counted = lock(&source.mapped).map(|(_, bytes)| bytes);
        Ok(VolumeInfo {
            volume: volume.id,
            size_bytes: volume.size(),
            allocated_bytes: counted.map_or_else(|| source.map().allocated_bytes().map_err(unreadable), Ok)?,
            thick: volume.is_thick(),
            origin: lock(&volume.facts).origin,
        })
    }

    /// What a volume refers to, shared or not. Counted anew only if the map or the volume's own files have changed.
    fn mapped_bytes(&self, volume: &MappedVolume) -> io::Result<u64> {
        let bytes = self.counted_bytes(volume)?;
        Ok(if volume.is_thick() { bytes.max(volume.size().next_multiple_of(BLOCK_BYTES)) } else { bytes })
    }

    fn counted_bytes(&self, volume: &MappedVolume) -> io::Result<u64> {
        let (top, chunks, key) = {
            let map = volume.map();
            let times_shrunk = map.files().map(|file| file.times_shrunk()).sum();
            let own_bytes = map.allocated_bytes()?;
            if map.raw {
                return Ok(own_bytes);
            }
            (map.top.clone(), volume.chunks(), (volume.latest(), map.tenure, own_bytes, times_shrunk))
        };
        if let Some((known, bytes)) = *lock(&volume.mapped) {
            if known == key {
                return Ok(bytes);
            }
        }
        let mut bytes = 0;
        let mut failure = None;
        let mut count = |file, slots| match self.occupied(file, slots) {
            Ok(more) => more,
            Err(error) => {
                failure = Some(error);
                0
            }
        };
        let mut chunk = 0;
        while chunk < chunks {
            match top.find(chunk) {
                Found::Hole(end) => chunk = end,
                Found::Identity(file, end) => {
                    bytes += count(file, chunk..end.min(chunks));
                    chunk = end;
                }
                Found::Leaf(leaf, _) => {
                    bytes += leaf.occupied_bytes(key.1, &mut count);
                    chunk += LEAF_SLOTS;
                }
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        *lock(&volume.mapped) = Some((key, bytes));
        Ok(bytes)
    }

    /// What of these slots is not a hole.
    fn occupied(&self, file: u32, slots: Range<u64>) -> io::Result<u64> {
        let Some(file) = self.shared.files.get(file) else { return Ok(0) };
        let (mut at, end) = (file.offset(slots.start), file.offset(slots.end));
        let mut bytes = 0;
        while let Some((start, stop)) = file.next_data(at, end)? {
            // The file's end may cut its last block, which is occupied whole.
            bytes += stop.next_multiple_of(BLOCK_BYTES) - start.max(at);
            at = stop;
            if at >= end {
                break;
            }
        }
        Ok(bytes)
    }

    pub(super) fn usage_of(&self, volume: &MappedVolume) -> Result<Usage, StoreError> {
        let mapped_bytes = self.mapped_bytes(volume).map_err(unreadable)?;
        let top = volume.map().top.clone();
        let exclusive_bytes = self.exclusive(&*top, 0).map_err(unreadable)?;
        // A thick volume that has become shorter may hold more in its last chunk, behind its end.
        Ok(Usage { mapped_bytes, exclusive_bytes: exclusive_bytes.min(mapped_bytes) })
    }

    /// What only this node refers to, and nobody but its one holder to it.
    fn exclusive<N: Node>(&self, node: &N, at: u64) -> io::Result<u64> {
        if node.refs().load(Ordering::Acquire) > 1 {
            return Ok(0);
        }
        let mut bytes = Ok(0);
        node.refer(at, &mut |reference| {
            let more = match reference {
                Reference::Middle(middle, at) => self.exclusive(middle.as_ref(), at),
                Reference::Leaf(leaf, at) => self.exclusive(leaf.as_ref(), at),
                Reference::Slots(file, slots) => self.exclusive_slots(file, slots),
            };
            bytes = match (&bytes, more) {
                (Ok(sum), Ok(more)) => Ok(sum + more),
                (Ok(_), Err(error)) => Err(error),
                (Err(_), _) => return,
            };
        });
        bytes
    }

    fn exclusive_slots(&self, number: u32, slots: Range<u64>) -> io::Result<u64> {
        let Some(file) = self.shared.files.get(number) else { return Ok(0) };
        let alone = file.runs(slots).into_iter().filter(|(_, count)| *count == 1);
        alone.map(|(run, _)| self.occupied(number, run)).sum()
    }

    pub(super) fn compare(
        &self,
        older: VolumeId,
        newer: VolumeId,
        offset: u64,
        most: usize,
    ) -> Result<Differences, StoreError> {
        let (older, newer) = (self.find(older)?, self.find(newer)?);
        let (chunk_bytes, size_bytes) = (self.shared.chunk_bytes, newer.size());
        // A node that is read may not change: the maps are held while they are compared, not the volumes.
        let tops: (std::sync::Arc<Top>, std::sync::Arc<Top>) = (older.map().top.clone(), newer.map().top.clone());
        let chunks = offset / chunk_bytes..newer.chunks();
        let cut = self.written_behind_end(&older, &newer).map_err(unreadable)?;
        let sides = [(&tops.0, &older), (&tops.1, &newer)];
        let [one, other] = sides.map(|(top, volume)| walk::Side { top, chunks: volume.chunks() });
        let mut known = (0, 0..0, false);
        let data_from = &mut |file, slots| self.data_from(file, slots, &mut known);
        let (runs, next) = walk::differences(one, other, chunks, cut, most, data_from);
        let clip = |run: Range<u64>| {
            let (start, end) = ((run.start * chunk_bytes).max(offset), (run.end * chunk_bytes).min(size_bytes));
            (start, end.saturating_sub(start))
        };
        let ranges = runs.into_iter().map(clip).filter(|(_, length)| *length > 0).collect();
        Ok(Differences { ranges, next: next.map(|chunk| chunk * chunk_bytes) })
    }

    /// The chunk that the end of the older one cuts, if the newer one holds something in it behind that. Both may refer to the
    /// same slot.
    fn written_behind_end(&self, older: &MappedVolume, newer: &MappedVolume) -> io::Result<Option<u64>> {
        let (chunk_bytes, end) = (self.shared.chunk_bytes, older.size());
        let upto = end.next_multiple_of(chunk_bytes).min(newer.size());
        let map = newer.map();
        let mut at = end;
        while at < upto {
            let extent = newer.extent_at(&map, at).map_err(|error| io::Error::other(error.to_string()))?;
            if extent.mapped {
                return Ok(Some(end / chunk_bytes));
            }
            at += extent.length_bytes;
        }
        Ok(None)
    }

    /// The first slot of a range that may hold data, or its end: one that cannot be looked at may. `known`: the file and the run
    /// of bytes that were asked for last, and whether there is data.
    fn data_from(&self, file: u32, slots: Range<u64>, known: &mut (u32, Range<u64>, bool)) -> u64 {
        let Some(file) = self.shared.files.get(file) else { return slots.start };
        let from = file.offset(slots.start);
        if known.0 != file.number || !known.1.contains(&from) {
            *known = match file.next_data(from, i64::MAX as u64) {
                Ok(Some((start, stop))) if start <= from => (file.number, start..stop, true),
                Ok(Some((start, _))) => (file.number, from..start, false),
                Ok(None) => (file.number, from..u64::MAX, false),
                Err(_) => return slots.start,
            };
        }
        if known.2 { slots.start } else { slots.end.min(known.1.end / file.chunk_bytes) }
    }

    pub(super) fn space_now(&self) -> Result<Space, StoreError> {
        let failed = |error: io::Error| StoreError::from_io("cannot read the size of the file system", &error);
        let limit = self.limit_bytes.load(Ordering::Acquire);
        let used_bytes = self.used_bytes().map_err(failed)?;
        let DiskSpace { total_bytes, free_bytes } = self.disk().space().map_err(failed)?;
        Ok(Space {
            total_bytes,
            free_bytes,
            used_bytes,
            limit_bytes: (limit != u64::MAX).then_some(limit),
            reclaiming_bytes: self.reclaiming_bytes().map_err(failed)?,
        })
    }

    pub(super) fn used_bytes(&self) -> io::Result<u64> {
        self.shared.files.all().iter().map(|file| file.allocated_bytes()).sum()
    }

    /// Of what is known to be on its way back: nodes that wait to be looked at hold more. Of much it is an estimate: whoever
    /// asks often must not take away from those who read and write, or from the background, which is what makes it less.
    fn reclaiming_bytes(&self) -> io::Result<u64> {
        let mut estimate = Estimate { runs_left: MOST_RUNS_LOOKED_AT, ..Estimate::default() };
        for file in self.shared.files.all() {
            if file.ownerless.load(Ordering::Acquire) {
                let end = file.len()?.div_ceil(file.chunk_bytes);
                let free = file.runs(0..end).into_iter().filter(|(_, count)| *count == 0);
                free.map(|(run, _)| estimate.add(&file, run)).collect::<io::Result<()>>()?;
            }
        }
        let letting_go = lock(&self.background.letting_go).runs();
        for (number, slots) in letting_go {
            self.shared.files.get(number).map_or(Ok(()), |file| estimate.add(&file, slots))?;
        }
        for (number, slots) in self.shared.released_slots() {
            let Some(file) = self.shared.files.get(number) else { continue };
            let alone = file.runs(slots).into_iter().filter(|(_, count)| *count == 1);
            alone.map(|(run, _)| estimate.add(&file, run)).collect::<io::Result<()>>()?;
        }
        Ok(estimate.bytes())
    }

    /// Sets and lifts the brakes of all volumes, of storage pools and of single volumes.
    pub(super) fn watch_limits(&self) -> Result<(), StoreError> {
        self.watch_all_space()?;
        for volume in self.all_volumes() {
            let most = volume.max_in_use_bytes.load(Ordering::Acquire);
            let held = most != u64::MAX && self.mapped_bytes(&volume).map_err(unreadable)? >= most;
            volume.held.store(held, Ordering::Release);
        }
        Ok(())
    }

    /// Memory that maps and counts hold. Bytes: for measuring.
    pub fn held_bytes(&self) -> u64 {
        let counts: u64 = self.shared.files.all().iter().map(|file| file.held_bytes()).sum();
        let tops: Vec<_> = self.all_volumes().iter().map(|volume| volume.map().top.clone()).collect();
        counts + walk::held_bytes(tops.iter())
    }
}

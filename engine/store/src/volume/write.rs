//! Writing: in place what is the volume's own, anew what is shared.

use super::read::{Chunk, blocks_of, chunk_in};
use super::{BLOCK_BYTES, MappedVolume, VolumeMap};
use crate::data_files::DataFile;
use crate::journal::record::{FileKind, Placed, Record};
use crate::map::nodes::leaf_of;
use crate::map::{LEAF_SLOTS, Part, Piece, Slot, change};
use crate::{BlockError, Extent};
use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A chunk is in no more slots than this after a write. More would mean less to copy, but more memory for the map, and more
/// places to read a chunk from.
const MOST_SLOTS: usize = 6;

impl MappedVolume {
    /// Writes as much from the front as may be written in place; how many bytes that was. The lock is shared.
    pub fn write_own(&self, map: &VolumeMap, data: &[u8], offset: u64) -> io::Result<usize> {
        if let (true, Some(base)) = (map.raw, &map.base) {
            return base.write_at(data, offset).map(|()| data.len());
        }
        let chunk_bytes = self.shared.chunk_bytes;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let Some((slot, mut length)) = self.own_from(map, at, (data.len() - done) as u64) else { break };
            // Neighbours that lie side by side are written at once.
            let mut next = Slot { index: slot.index + 1, ..slot };
            while done + (length as usize) < data.len() {
                match self.own_from(map, at + length, (data.len() - done) as u64 - length) {
                    Some((slot, more)) if slot == next => {
                        length += more;
                        next.index += 1;
                    }
                    _ => break,
                }
            }
            let file = self.file(slot.file)?;
            file.write_at(&data[done..done + length as usize], file.offset(slot.index) + at % chunk_bytes)?;
            done += length as usize;
        }
        Ok(done)
    }

    /// The own slot of the chunk at `offset`, and how much of the range it takes; none if it is not to be written in place.
    fn own_from(&self, map: &VolumeMap, offset: u64, length: u64) -> Option<(Slot, u64)> {
        let within = offset % self.shared.chunk_bytes;
        let length = length.min(self.shared.chunk_bytes - within);
        let chunk = chunk_in(map, offset / self.shared.chunk_bytes);
        let whole = blocks_of(within, length) & !chunk.own_blocks(self.all_blocks()) == 0;
        chunk.slot.filter(|_| chunk.own && whole).map(|slot| (slot, length))
    }

    /// Writes to one chunk, whatever it is now. The lock is held alone.
    pub fn write_chunk(&self, map: &mut VolumeMap, data: &[u8], offset: u64) -> Result<(), BlockError> {
        match self.try_chunk(map, data, offset) {
            Err(BlockError::NoSpace) if self.bring_home(map, offset / self.shared.chunk_bytes)? => {
                self.try_chunk(map, data, offset)
            }
            other => other,
        }
    }

    fn try_chunk(&self, map: &mut VolumeMap, data: &[u8], offset: u64) -> Result<(), BlockError> {
        let chunk_bytes = self.shared.chunk_bytes;
        let (chunk, within) = (offset / chunk_bytes, offset % chunk_bytes);
        self.adopt(map, chunk);
        if self.write_own(map, data, offset)? == data.len() {
            return Ok(());
        }
        self.shared.journal.make_room()?;
        let before = chunk_in(map, chunk);
        let (slot, part) = match (before.slot, &before.part) {
            (Some(slot), Some(part)) if before.own => (slot, self.fill_part(map, chunk, slot, part, data, within)?),
            _ => self.write_anew(map, chunk, &before, data, within)?,
        };
        self.put_chunks(map, vec![(chunk, slot, part)]);
        Ok(())
    }

    /// Enters chunks that have been written into the map and the log.
    pub fn put_chunks(&self, map: &mut VolumeMap, chunks: Vec<(u64, Slot, Option<Part>)>) {
        let placed = chunks.iter().map(|(chunk, slot, part)| Placed::new(*chunk, *slot, part.as_ref())).collect();
        let mut dropped = Vec::new();
        for (chunk, slot, part) in chunks {
            dropped.extend(change::map_chunk(&mut map.top, map.tenure, &self.shared.files, chunk, slot, part));
        }
        map.raw = false;
        self.log(&Record::Put { volume: self.number, chunks: placed }, dropped);
    }

    /// A chunk to which nobody else refers any more becomes the volume's own again, if it is in one of its own files or in
    /// that of a volume that is gone.
    pub fn adopt(&self, map: &mut VolumeMap, chunk: u64) {
        let before = chunk_in(map, chunk);
        let Some(slot) = before.slot.filter(|_| !before.own) else { return };
        let Some(file) = self.shared.files.get(slot.file) else { return };
        let orphan = file.ownerless.load(Ordering::Acquire) && !file.holds_reserve.load(Ordering::Acquire);
        if !(orphan || map.owns(slot)) || file.refs(slot.index) != 1 {
            return;
        }
        // The nodes above may be shared while the slot is counted once; then the copy counts it twice.
        let leaf = leaf_of(&mut map.top, chunk, map.tenure, &self.shared.files);
        if file.refs(slot.index) == 1 {
            let index = (chunk % LEAF_SLOTS) as usize;
            leaf.entries[index] = leaf.entries[index].with_own(true);
            if orphan && !map.owns(slot) {
                map.adopted.push(file);
            }
        }
    }

    /// A chunk of a thick volume that a snapshot had driven out goes back to its own place, where its space is reserved. False: it
    /// is there, or is shared, or its place is not free.
    pub fn bring_home(&self, map: &mut VolumeMap, chunk: u64) -> Result<bool, BlockError> {
        let found = chunk_in(map, chunk);
        let away = found.own && found.slot.is_some_and(|slot| !self.is_in_reserve(map, slot));
        let Some(base) = self.reserve(map, chunk).filter(|_| away).cloned() else { return Ok(false) };
        self.shared.journal.make_room()?;
        let Some(slot) = base.take(chunk)? else { return Ok(false) };
        if let Err(error) = self.copy_blocks(map, chunk, self.all_blocks(), &base, slot) {
            base.give_back(slot.index);
            return Err(error);
        }
        self.put_chunks(map, vec![(chunk, slot, None)]);
        Ok(true)
    }

    /// The blocks of a whole chunk.
    pub fn all_blocks(&self) -> u64 {
        blocks_of(0, self.shared.chunk_bytes)
    }

    /// Writes to a slot of its own that holds some of the chunk's blocks; what is elsewhere afterwards.
    fn fill_part(
        &self,
        map: &VolumeMap,
        chunk: u64,
        slot: Slot,
        part: &Part,
        data: &[u8],
        within: u64,
    ) -> Result<Option<Part>, BlockError> {
        let (bytes, start) = self.with_edges(map, chunk, data, within, part.blocks)?;
        let file = self.file(slot.file)?;
        file.write_at(&bytes, file.offset(slot.index) + start)?;
        let written = blocks_of(start, bytes.len() as u64);
        Ok(Part::over(part.blocks | written, part.others.iter().copied()))
    }

    /// Copies blocks of a chunk, as it reads now, into a slot. Where the chunk has no data the slot has none afterwards: it takes
    /// no more space than the data do.
    fn copy_blocks(&self, map: &VolumeMap, chunk: u64, blocks: u64, file: &DataFile, slot: Slot) -> Result<(), BlockError> {
        let (from, to) = (chunk * self.shared.chunk_bytes, file.offset(slot.index));
        with_buffer(self.shared.chunk_bytes, |buffer| {
            for run in runs_of(blocks) {
                let (mut at, end) = (run.start * BLOCK_BYTES, run.end * BLOCK_BYTES);
                while at < end {
                    let inside = from + at < self.size();
                    let found =
                        if inside { self.extent_at(map, from + at)? } else { Extent { mapped: false, length_bytes: end - at } };
                    let length = found.length_bytes.min(end - at);
                    if found.mapped {
                        let bytes = &mut buffer[..length as usize];
                        self.read_mapped(map, bytes, from + at)?;
                        file.write_at(bytes, to + at)?;
                    } else {
                        // Not only left out: a write that failed may have left something there.
                        file.clear(to + at, length)?;
                    }
                    at += length;
                }
            }
            Ok(())
        })
    }

    /// The data, made longer to whole blocks with what is there now where a block is not in the own slot yet; and where in
    /// the chunk it begins.
    fn with_edges<'a>(
        &self,
        map: &VolumeMap,
        chunk: u64,
        data: &'a [u8],
        within: u64,
        there: u64,
    ) -> io::Result<(Cow<'a, [u8]>, u64)> {
        let end = within + data.len() as u64;
        let missing = |block: u64| there >> block & 1 == 0;
        let start = if missing(within / BLOCK_BYTES) { within - within % BLOCK_BYTES } else { within };
        let whole_end = end.next_multiple_of(BLOCK_BYTES);
        let stop = if end < whole_end && missing(end / BLOCK_BYTES) { whole_end } else { end };
        if (start, stop) == (within, end) {
            return Ok((Cow::Borrowed(data), within));
        }
        let mut bytes = vec![0; (stop - start) as usize];
        let at = chunk * self.shared.chunk_bytes;
        let front = (within - start) as usize;
        self.read_mapped(map, &mut bytes[..front], at + start)?;
        let back = front + data.len();
        bytes[front..back].copy_from_slice(data);
        self.read_mapped(map, &mut bytes[back..], at + end)?;
        Ok((Cow::Owned(bytes), start))
    }

    /// Writes to a chunk that is shared, or is not there: into a new slot. What is there already stays where it is, unless
    /// the chunk would be scattered too much.
    fn write_anew(
        &self,
        map: &mut VolumeMap,
        chunk: u64,
        before: &Chunk,
        data: &[u8],
        within: u64,
    ) -> Result<(Slot, Option<Part>), BlockError> {
        let (bytes, start) = match before.slot {
            None => (Cow::Borrowed(data), within),
            Some(_) => self.with_edges(map, chunk, data, within, 0)?,
        };
        let written = blocks_of(start, bytes.len() as u64);
        let others = Part::over(written, before.pieces(self.all_blocks()));
        let (copied, kept) = gathered(written, others.as_ref().map_or(&[], |part| &part.others));
        let (file, slot) = self.new_slot(map, chunk)?;
        if let Err(error) = self.write_with(map, chunk, &bytes, start, copied, &file, slot) {
            file.give_back(slot.index);
            return Err(error.into());
        }
        Ok((slot, Part::over(written | copied, kept)))
    }

    /// Writes data from `start` of a chunk on into a slot, and with it other blocks of the chunk as it reads now.
    #[allow(clippy::too_many_arguments)]
    fn write_with(
        &self,
        map: &VolumeMap,
        chunk: u64,
        data: &[u8],
        start: u64,
        blocks: u64,
        file: &DataFile,
        slot: Slot,
    ) -> io::Result<()> {
        let at = file.offset(slot.index);
        if blocks == 0 {
            return file.write_at(data, at + start);
        }
        with_buffer(self.shared.chunk_bytes, |buffer| {
            let within = |run: &Range<u64>| (run.start * BLOCK_BYTES) as usize..(run.end * BLOCK_BYTES) as usize;
            for run in runs_of(blocks) {
                let from = chunk * self.shared.chunk_bytes + run.start * BLOCK_BYTES;
                self.read_mapped(map, &mut buffer[within(&run)], from)?;
            }
            buffer[start as usize..start as usize + data.len()].copy_from_slice(data);
            for run in runs_of(blocks | blocks_of(start, data.len() as u64)) {
                file.write_at(&buffer[within(&run)], at + run.start * BLOCK_BYTES)?;
            }
            Ok(())
        })
    }

    /// An empty slot for a chunk: its own place in the base file if nobody has it, or one of the spill file. A base file
    /// that is being synced for a snapshot is left alone: the file system lets a write wait for what it has locked of it.
    pub fn new_slot(&self, map: &mut VolumeMap, chunk: u64) -> io::Result<(Arc<DataFile>, Slot)> {
        let base = self.own_file(map, FileKind::Base)?;
        if self.is_thick() || !base.is_resting() {
            if let Some(slot) = base.take(chunk)? {
                return Ok((base, slot));
            }
        }
        let spill = self.own_file(map, FileKind::Spill)?;
        let slot = spill.take(chunk)?.ok_or_else(|| io::Error::other("a data file has no slot left"))?;
        Ok((spill, slot))
    }

    /// The volume's file of a kind, made if there is none yet.
    pub fn own_file(&self, map: &mut VolumeMap, kind: FileKind) -> io::Result<Arc<DataFile>> {
        let present = if kind == FileKind::Base { map.base.as_ref() } else { map.spills.last() };
        if let Some(file) = present {
            return Ok(file.clone());
        }
        let file = self.shared.make_file(self.number, self.id, kind, |_| Ok(()))?;
        if kind == FileKind::Base && self.is_thick() {
            file.keep_reserved(self.chunks());
        }
        self.shared.add_file(&file);
        match kind {
            FileKind::Base => map.base = Some(file.clone()),
            FileKind::Spill => map.spills.push(file.clone()),
        }
        Ok(file)
    }

    /// All of it or nothing, over a loss of power as well: into new slots, which one record enters into the map.
    pub fn write_whole(&self, map: &mut VolumeMap, data: &[u8], offset: u64) -> Result<(), BlockError> {
        let chunk_bytes = self.shared.chunk_bytes;
        self.shared.journal.make_room()?;
        let mut taken: Vec<(Arc<DataFile>, Slot, u64)> = Vec::new();
        let mut write = |map: &mut VolumeMap| -> Result<(), BlockError> {
            let mut done = 0;
            while done < data.len() {
                let at = offset + done as u64;
                let (chunk, within) = (at / chunk_bytes, at % chunk_bytes);
                let step = (data.len() - done).min((chunk_bytes - within) as usize);
                let mut bytes = self.read_chunk(map, chunk)?;
                bytes[within as usize..within as usize + step].copy_from_slice(&data[done..done + step]);
                let (file, slot) = self.new_slot(map, chunk)?;
                taken.push((file.clone(), slot, chunk));
                file.write_at(&bytes, file.offset(slot.index))?;
                done += step;
            }
            Ok(())
        };
        if let Err(error) = write(map) {
            taken.iter().for_each(|(file, slot, _)| file.give_back(slot.index));
            return Err(error);
        }
        self.put_chunks(map, taken.iter().map(|(_, slot, chunk)| (*chunk, *slot, None)).collect());
        Ok(())
    }

    /// Copies into a chunk's own slot what is in slots that nobody else refers to, so that these can go. What is in others'
    /// slots stays there: a copy would take more space than it gives back. False: there was nothing to do.
    pub fn complete(&self, chunk: u64) -> Result<bool, BlockError> {
        let _changing = self.shared.changing();
        let mut map = self.map_alone();
        self.adopt(&mut map, chunk);
        let found = chunk_in(&map, chunk);
        let (Some(slot), Some(part), true) = (found.slot, found.part, found.own) else { return Ok(false) };
        let alone = |piece: &&Piece| self.shared.files.is_alone(piece.slot());
        let copied = part.others.iter().filter(alone).fold(0, |blocks, piece| blocks | piece.blocks);
        if copied == 0 {
            return Ok(false);
        }
        self.shared.journal.make_room()?;
        let file = self.file(slot.file)?;
        self.copy_blocks(&map, chunk, copied, &file, slot)?;
        let part = Part::over(part.blocks | copied, part.others.iter().copied());
        self.put_chunks(&mut map, vec![(chunk, slot, part)]);
        Ok(true)
    }
}

/// Which blocks of a chunk's other pieces are copied along when some are written to a new slot, and which pieces stay where
/// they are. As long as there are few pieces nothing is copied; of too many the largest stays. If even that is less than
/// half of the chunk all of it is copied.
fn gathered(written: u64, others: &[Piece]) -> (u64, Vec<Piece>) {
    let count = |blocks: u64| blocks.count_ones();
    let all = others.iter().fold(written, |blocks, piece| blocks | piece.blocks);
    let largest = others.iter().copied().max_by_key(|piece| count(piece.blocks));
    let most = largest.map_or(0, |piece| count(piece.blocks)).max(count(written));
    if most * 2 < count(all) {
        return (all & !written, Vec::new());
    }
    if others.len() < MOST_SLOTS {
        return (0, others.to_vec());
    }
    let kept = largest.map_or(0, |piece| piece.blocks);
    (all & !written & !kept, largest.into_iter().collect())
}

/// Calls with a buffer of at least so many bytes, in which anything may be. It is kept from one use to the next: a fresh
/// one of that length is a mapping of its own, to be cleared by the kernel.
fn with_buffer<T>(bytes: u64, then: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < bytes as usize {
            buffer.resize(bytes as usize, 0);
        }
        then(buffer)
    })
}

/// The runs of bits that are set.
fn runs_of(mut blocks: u64) -> impl Iterator<Item = Range<u64>> {
    std::iter::from_fn(move || {
        if blocks == 0 {
            return None;
        }
        let start = u64::from(blocks.trailing_zeros());
        let length = u64::from((blocks >> start).trailing_ones());
        let upto = start + length;
        blocks &= if upto >= 64 { 0 } else { u64::MAX << upto };
        Some(start..upto)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_along_with_a_write() {
        let at = |index, blocks| Piece::new(Slot { file: 1, index }, blocks);
        let few = [at(1, 0b10), at(2, 0xfffc)];
        assert_eq!(gathered(0b1, &few), (0, few.to_vec()), "few pieces stay");
        assert_eq!(gathered(0xffff, &[]), (0, vec![]));
        assert_eq!(gathered(0xffe0, &[at(1, 0x1f)]), (0, vec![at(1, 0x1f)]), "however little is in the older slot");
        let many = [at(1, 0x2), at(2, 0x4), at(3, 0xff00), at(4, 0x8), at(5, 0x70), at(6, 0x80)];
        assert_eq!(gathered(0b1, &many), (0xfe, vec![at(3, 0xff00)]), "of many the largest stays");
        let small = [at(1, 0x00fe), at(2, 0xff00 & !0x100), at(3, 0x100)];
        assert_eq!(gathered(0b1, &small), (0xfffe, vec![]), "less than half is not worth being kept");
    }

    #[test]
    fn runs_of_bits() {
        assert_eq!(runs_of(0).count(), 0);
        assert_eq!(runs_of(0b1_0110).collect::<Vec<_>>(), [1..3, 4..5]);
        assert_eq!(runs_of(u64::MAX).collect::<Vec<_>>(), [0..64]);
        assert_eq!(runs_of(1 << 63 | 1).collect::<Vec<_>>(), [0..1, 63..64]);
    }
}

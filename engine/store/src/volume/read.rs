//! Reading through the map, and where things are.

use super::{BLOCK_BYTES, MappedVolume, VolumeMap};
use crate::data_files::DataFile;
use crate::map::nodes::Found;
use crate::map::{Part, Piece, Slot};
use crate::{BlockError, Extent, check_range};
use std::fs::File;
use std::io;
use std::sync::Arc;

/// A range that is in one piece.
#[derive(Debug)]
pub enum Span {
    Hole,
    In(Arc<DataFile>, u64),
}

/// What the map says of a chunk, with whether it may be written in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub slot: Option<Slot>,
    pub part: Option<Part>,
    pub own: bool,
}

impl Chunk {
    /// In which slots it is. `all`: the blocks of a chunk.
    pub fn pieces(&self, all: u64) -> impl Iterator<Item = Piece> + '_ {
        let blocks = self.part.as_ref().map_or(all, |part| part.blocks);
        let others = self.part.iter().flat_map(|part| part.others.iter().copied());
        self.slot.map(|slot| Piece::new(slot, blocks)).into_iter().chain(others)
    }

    /// Blocks that may be written in place.
    pub fn own_blocks(&self, all: u64) -> u64 {
        if self.own { self.part.as_ref().map_or(all, |part| part.blocks) } else { 0 }
    }
}

pub fn chunk_in(map: &VolumeMap, chunk: u64) -> Chunk {
    match map.top.find(chunk) {
        Found::Hole(_) => Chunk { slot: None, part: None, own: false },
        Found::Identity(file, _) => Chunk { slot: Some(Slot { file, index: chunk }), part: None, own: map.raw },
        Found::Leaf(leaf, index) => {
            let entry = leaf.entries[index];
            Chunk { slot: entry.slot(), part: leaf.part(index).cloned(), own: entry.own() && leaf.tenure == map.tenure }
        }
    }
}

pub fn blocks_of(within: u64, length: u64) -> u64 {
    let (first, end) = (within / BLOCK_BYTES, (within + length).div_ceil(BLOCK_BYTES));
    let upto = |end: u64| if end >= 64 { u64::MAX } else { (1 << end) - 1 };
    upto(end) & !upto(first)
}

impl MappedVolume {
    pub fn file(&self, number: u32) -> io::Result<Arc<DataFile>> {
        let missing = || io::Error::other(format!("volume {}: data file {number} is missing", self.id));
        self.shared.files.get(number).ok_or_else(missing)
    }

    /// The piece that begins at `offset`, and its length, at most `length`.
    fn piece(&self, map: &VolumeMap, offset: u64, length: u64) -> io::Result<(Span, u64)> {
        let chunk_bytes = self.shared.chunk_bytes;
        let (chunk, within) = (offset / chunk_bytes, offset % chunk_bytes);
        let upto = |end: u64| (end.saturating_mul(chunk_bytes) - offset).min(length);
        match map.top.find(chunk) {
            Found::Hole(end) => Ok((Span::Hole, upto(end))),
            Found::Identity(file, end) => Ok((Span::In(self.file(file)?, offset), upto(end))),
            Found::Leaf(leaf, index) => match leaf.entries[index].slot() {
                None => Ok((Span::Hole, upto(chunk + 1))),
                Some(slot) if leaf.entries[index].is_part() => {
                    let part = leaf.part(index).expect("marked so");
                    let (slot, end) = block_run(slot, part, within);
                    Ok((self.place(slot, within)?, (end - within).min(length)))
                }
                Some(slot) => {
                    let mut end = chunk + 1;
                    let rest = &leaf.entries[index + 1..];
                    for (next, entry) in (slot.index + 1..).zip(rest) {
                        if upto(end) == length || entry.is_part() || entry.slot() != Some(Slot { index: next, ..slot }) {
                            break;
                        }
                        end += 1;
                    }
                    Ok((self.place(slot, within)?, upto(end)))
                }
            },
        }
    }

    fn place(&self, slot: Slot, within: u64) -> io::Result<Span> {
        let file = self.file(slot.file)?;
        let offset = file.offset(slot.index) + within;
        Ok(Span::In(file, offset))
    }

    pub fn read_mapped(&self, map: &VolumeMap, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        if let (true, Some(base)) = (map.raw, &map.base) {
            return base.read_at(buffer, offset);
        }
        while !buffer.is_empty() {
            let (piece, length) = self.piece(map, offset, buffer.len() as u64)?;
            let (now, rest) = buffer.split_at_mut(length as usize);
            match piece {
                Span::Hole => now.fill(0),
                Span::In(file, position) => file.read_at(now, position)?,
            }
            offset += length;
            buffer = rest;
        }
        Ok(())
    }

    /// The whole chunk as it reads now.
    pub fn read_chunk(&self, map: &VolumeMap, chunk: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.shared.chunk_bytes as usize];
        self.read_mapped(map, &mut bytes, chunk * self.shared.chunk_bytes)?;
        Ok(bytes)
    }

    pub fn extent_at(&self, map: &VolumeMap, offset: u64) -> Result<Extent, BlockError> {
        let size_bytes = self.size();
        check_range(offset, 1, size_bytes)?;
        let (piece, length) = self.piece(map, offset, size_bytes - offset)?;
        let Span::In(file, position) = piece else { return Ok(Extent { mapped: false, length_bytes: length }) };
        let end = position + length;
        let (data_start, data_end) = file.next_data(position, end)?.unwrap_or((end, end));
        Ok(match data_start <= position {
            true => Extent { mapped: true, length_bytes: data_end - position },
            false => Extent { mapped: false, length_bytes: data_start - position },
        })
    }

    /// Calls back with the file and place of a range that is one piece of one file, or with none. The piece stays what it
    /// is until the call ends.
    pub fn with_piece<R>(&self, map: &VolumeMap, offset: u64, length: u64, then: impl FnOnce(Option<(&File, u64)>) -> R) -> R {
        if let (true, Some(base)) = (map.raw, &map.base) {
            return then(base.system_file().map(|file| (file, offset)));
        }
        match self.piece(map, offset, length) {
            Ok((Span::In(file, position), found)) if found == length => then(file.system_file().map(|file| (file, position))),
            _ => then(None),
        }
    }

    /// Chunks that would be written in place although others refer to them, too.
    pub fn owned_wrongly(&self, map: &VolumeMap, counted: &dyn Fn(u32, u64) -> u32) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut chunk = 0;
        while chunk < self.chunks() {
            if let Found::Hole(end) = map.top.find(chunk) {
                chunk = end;
                continue;
            }
            let found = chunk_in(map, chunk);
            if let (Some(slot), true) = (found.slot, found.own) {
                if counted(slot.file, slot.index) != 1 || !map.owns(slot) {
                    wrong.push(format!("volume {}: chunk {chunk} is not its own alone", self.id));
                }
            }
            chunk += 1;
        }
        wrong
    }

    /// Would a write of `length` bytes, from `within` the chunk on and not beyond it, take space that the volume does not have yet?
    pub fn needs_space(&self, map: &VolumeMap, chunk: u64, within: u64, length: u64) -> io::Result<bool> {
        let found = chunk_in(map, chunk);
        if self.is_reserved(map, chunk, &found) {
            return Ok(false);
        }
        let (Some(slot), true) = (found.slot, found.own) else { return Ok(true) };
        if blocks_of(within, length) & !found.own_blocks(self.all_blocks()) != 0 {
            return Ok(true);
        }
        let file = self.file(slot.file)?;
        let (start, stop) = (file.offset(slot.index) + within, file.offset(slot.index) + within + length);
        Ok(file.next_data(start, stop)?.is_none_or(|(from, to)| from > start || to < stop))
    }

    /// Does whatever is written to the chunk find its space in what is reserved for a thick volume? What is there already is
    /// overwritten, or the chunk's own place is free.
    fn is_reserved(&self, map: &VolumeMap, chunk: u64, found: &Chunk) -> bool {
        match found.slot.filter(|_| found.own) {
            Some(slot) => self.is_in_reserve(map, slot),
            None => self.reserve(map, chunk).is_some_and(|base| base.refs(chunk) == 0),
        }
    }

    /// Does the slot keep its space whatever is zeroed?
    pub fn is_in_reserve(&self, map: &VolumeMap, slot: Slot) -> bool {
        self.reserve(map, slot.index).is_some_and(|base| base.number == slot.file)
    }

    /// The base file, if space is reserved for this slot of it.
    pub fn reserve<'a>(&self, map: &'a VolumeMap, index: u64) -> Option<&'a Arc<DataFile>> {
        map.base.as_ref().filter(|base| self.is_thick() && index < base.reserved_slots())
    }
}

/// Blocks from `within` on that are in the same slot: that slot, and where in the chunk they end.
fn block_run(slot: Slot, part: &Part, within: u64) -> (Slot, u64) {
    let first = within / BLOCK_BYTES;
    let other = part.others.iter().find(|piece| piece.blocks >> first & 1 == 1);
    let (slot, blocks) = other.map_or((slot, part.blocks), |piece| (piece.slot(), piece.blocks));
    let count = u64::from((blocks >> first).trailing_ones()).max(1);
    (slot, (first + count) * BLOCK_BYTES)
}

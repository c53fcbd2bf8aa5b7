//! A volume as a raw file, without an engine: from what the maps say, as far as they can be read.

use crate::data_files;
use crate::disk::{Disk, DiskFile};
use crate::map::Slot;
use crate::map::nodes::Found;
use crate::state::{State, VolumeState};
use crate::store::{read_state, read_state_before};
use crate::volume::BLOCK_BYTES;
use crate::{Options, StoreError, VolumeId};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

struct Reader<'a> {
    disk: &'a dyn Disk,
    state: &'a State,
    files: HashMap<u32, Arc<dyn DiskFile>>,
}

impl Reader<'_> {
    fn file(&mut self, number: u32) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.files.get(&number) {
            return Ok(file.clone());
        }
        let missing = || io::Error::other(format!("data file number {number} is not known"));
        let added = self.state.files.get(&number).ok_or_else(missing)?;
        let file = self.disk.open(&data_files::path(&added.name))?;
        self.files.insert(number, file.clone());
        Ok(file)
    }

    /// False: the chunk is a hole.
    fn read_chunk(&mut self, volume: &VolumeState, chunk: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let (slot, part) = match volume.top.find(chunk) {
            Found::Hole(_) => return Ok(false),
            Found::Identity(file, _) => (Slot { file, index: chunk }, None),
            Found::Leaf(leaf, index) => match leaf.entries[index].slot() {
                None => return Ok(false),
                Some(slot) => (slot, leaf.part(index).cloned()),
            },
        };
        let file = self.file(slot.file)?;
        let start = slot.index * self.state.chunk_bytes;
        let end = start + self.state.chunk_bytes;
        if part.is_none() && file.next_data(start, end)?.is_none() {
            return Ok(false);
        }
        file.read_at(buffer, start)?;
        for piece in part.iter().flat_map(|part| part.others.iter()) {
            let slot = piece.slot();
            let file = self.file(slot.file)?;
            for (block, bytes) in buffer.chunks_mut(BLOCK_BYTES as usize).enumerate() {
                if piece.blocks >> block & 1 == 1 {
                    file.read_at(bytes, slot.index * self.state.chunk_bytes + block as u64 * BLOCK_BYTES)?;
                }
            }
        }
        Ok(true)
    }
}

/// Writes the volume's blocks to `out`, which gets its length; holes and zeroes stay holes. Tells what had to be worked
/// around: with damaged maps it is the volume as the newest sound ones say.
pub fn export(disk: &dyn Disk, id: VolumeId, out: &File) -> Result<Vec<String>, StoreError> {
    let mut notes = Vec::new();
    let found = match read_state(disk, Options::default()) {
        Err(StoreError::Io(words)) => {
            notes.push(words);
            read_state_before(disk, &mut notes)?
        }
        other => other?,
    };
    let state = &found.state;
    let volume = state.volumes.values().find(|volume| volume.id == id).ok_or(StoreError::NotFound(id))?;
    let failed = |error: io::Error| StoreError::from_io(&format!("cannot export volume {id}"), &error);
    out.set_len(0).and_then(|()| out.set_len(volume.size_bytes)).map_err(failed)?;
    let mut reader = Reader { disk, state, files: HashMap::new() };
    let mut buffer = vec![0; state.chunk_bytes as usize];
    for chunk in 0..volume.size_bytes.div_ceil(state.chunk_bytes) {
        if reader.read_chunk(volume, chunk, &mut buffer).map_err(failed)? {
            let start = chunk * state.chunk_bytes;
            let length = state.chunk_bytes.min(volume.size_bytes - start) as usize;
            if buffer[..length].iter().any(|byte| *byte != 0) {
                out.write_all_at(&buffer[..length], start).map_err(failed)?;
            }
        }
    }
    out.sync_all().map_err(failed)?;
    Ok(notes)
}

//! The reference: which volumes there are and what each may hold.

use crate::operation::Operation;
use crate::sectors::{SECTOR, Sectors, Since, value_of};
use crate::subject::{Need, Running};
use crate::whole::Whole;
use gespann_store::{Volume, VolumeId, VolumeInfo};
use std::collections::{BTreeMap, BTreeSet};

/// Volumes up to this size are read whole.
const SMALL_BYTES: u64 = 4 << 20;

#[derive(Debug, Clone)]
pub struct Expected {
    pub size_bytes: u64,
    pub thick: bool,
    /// Made by a snapshot: nobody writes to it, so it must stay as it is for ever.
    pub frozen: bool,
    /// A flush failed: every later one must, until the store is opened anew.
    pub poisoned: bool,
    pub sectors: Sectors,
    /// Of this only all or nothing may be there.
    pub whole: Whole,
    /// Of its data files. It may refer to slots in these of others, and to a slot more than once.
    files: u64,
    refers: BTreeSet<u64>,
    tangled: bool,
    /// What had been let go in its files has been given back.
    settled: bool,
    /// Chunk to a number that two volumes share as long as neither has changed the chunk since they were one.
    pub chunks: BTreeMap<u64, u64>,
}

#[derive(Debug, Clone, Default)]
pub struct World {
    pub volumes: BTreeMap<VolumeId, Expected>,
    next_chunk: u64,
    next_files: u64,
    /// There was a thick volume, whose reserved space a copy of it may still hold.
    pub ever_thick: bool,
    /// A volume may refer to a slot twice, which then counts twice and as nobody's own.
    pub ever_copied: bool,
}

/// What a store says it holds.
pub struct Observation {
    volumes: BTreeMap<VolumeId, Seen>,
}

struct Seen {
    info: VolumeInfo,
    /// Sectors that are not zero, and the runs of sectors that were read.
    values: BTreeMap<u64, u64>,
    looked_at: Vec<(u64, u64)>,
    /// Chunks that hold something, be it zeroes; asked for only where that can be a surprise.
    mapped: BTreeSet<u64>,
}

impl World {
    pub fn insert(&mut self, id: VolumeId, size_bytes: u64, thick: bool) {
        let (sectors, chunks, whole) = Default::default();
        let files = self.new_files();
        let (refers, frozen, poisoned, tangled, settled) = (BTreeSet::from([files]), false, false, false, true);
        let new = Expected { size_bytes, thick, frozen, poisoned, sectors, whole, files, refers, tangled, settled, chunks };
        self.volumes.insert(id, new);
        self.ever_thick |= thick;
    }

    fn new_files(&mut self) -> u64 {
        self.next_files += 1;
        self.next_files
    }

    pub fn delete(&mut self, id: VolumeId) {
        if let Some(volume) = self.volumes.remove(&id) {
            self.let_go_of(&volume.refers);
        }
    }

    /// Slots in these files are about to be given back.
    fn let_go_of(&mut self, files: &BTreeSet<u64>) {
        self.volumes.values_mut().filter(|volume| files.contains(&volume.files)).for_each(|volume| volume.settled = false);
    }

    /// Everything that was let go has been given back.
    pub fn settled(&mut self) {
        self.volumes.values_mut().for_each(|volume| volume.settled = true);
    }

    /// A copy inside the array: chunks of one volume are in slots of another, or in others of its own.
    pub fn copied(&mut self, source: VolumeId, target: VolumeId) {
        self.ever_copied = true;
        let refers = self.volumes[&source].refers.clone();
        self.volume(target).refers.extend(refers);
        for id in [source, target] {
            (self.volume(id).tangled, self.volume(id).settled) = (true, false);
        }
    }

    /// Is there space for whatever is written to the volume? It is thick, and nobody else is in the places that are reserved for it.
    pub fn is_sure(&self, id: VolumeId) -> bool {
        let volume = &self.volumes[&id];
        let alone = self.volumes.iter().all(|(other, holder)| *other == id || !holder.refers.contains(&volume.files));
        volume.thick && volume.settled && !volume.tangled && alone
    }

    /// What it was in before waits to be given up.
    pub fn moved(&mut self, id: VolumeId) {
        self.volume(id).settled = false;
    }

    pub fn set_thick(&mut self, id: VolumeId, thick: bool) {
        self.ever_thick |= thick;
        self.volume(id).thick = thick;
    }

    pub fn share(&mut self, source: VolumeId, id: VolumeId, thick: bool, frozen: bool) {
        self.ever_thick |= thick;
        let files = self.new_files();
        let from = &self.volumes[&source];
        let (sectors, chunks, whole) = (from.sectors.shared(), from.chunks.clone(), Whole::default());
        let (size_bytes, tangled, mut refers) = (from.size_bytes, from.tangled, from.refers.clone());
        refers.insert(files);
        let (poisoned, settled) = (false, true);
        let new = Expected { size_bytes, thick, frozen, poisoned, sectors, whole, files, refers, tangled, settled, chunks };
        self.volumes.insert(id, new);
    }

    pub fn volume(&mut self, id: VolumeId) -> &mut Expected {
        self.volumes.get_mut(&id).expect("operations name volumes that are there")
    }

    /// `values` to the sectors from `first` on.
    pub fn write(&mut self, id: VolumeId, first: u64, values: Vec<u64>, chunk_bytes: u64) {
        let sectors_in_chunk = chunk_bytes / SECTOR;
        for chunk in first / sectors_in_chunk..(first + values.len() as u64).div_ceil(sectors_in_chunk) {
            self.next_chunk += 1;
            let number = self.next_chunk;
            self.volume(id).chunks.insert(chunk, number);
        }
        let end = first + values.len() as u64;
        let volume = self.volume(id);
        volume.whole.changed(first, end);
        volume.sectors.write(first, values);
    }

    pub fn zero(&mut self, id: VolumeId, from: u64, to: u64, chunk_bytes: u64) {
        let sectors_in_chunk = chunk_bytes / SECTOR;
        let volume = self.volume(id);
        volume.whole.changed(from, to);
        volume.sectors.zero(from, to);
        let end_of_volume = to * SECTOR == volume.size_bytes;
        let whole = from.div_ceil(sectors_in_chunk)..if end_of_volume { u64::MAX } else { to / sectors_in_chunk };
        if whole.start < whole.end {
            volume.chunks.retain(|chunk, _| !whole.contains(chunk));
        }
        // The chunks at the ends are changed, if they are there: no longer shared.
        for chunk in [from, to].into_iter().filter(|at| at % sectors_in_chunk != 0).map(|at| at / sectors_in_chunk) {
            if self.volumes[&id].chunks.contains_key(&chunk) {
                self.next_chunk += 1;
                let number = self.next_chunk;
                self.volume(id).chunks.insert(chunk, number);
            }
        }
    }

    pub fn resize(&mut self, id: VolumeId, size_bytes: u64, chunk_bytes: u64) {
        let volume = self.volume(id);
        // A chunk that the old end cut is cleared behind it, which may take a slot.
        let cut = volume.size_bytes / chunk_bytes;
        if size_bytes > volume.size_bytes && volume.size_bytes % chunk_bytes != 0 && !volume.chunks.contains_key(&cut) {
            volume.chunks.insert(cut, u64::MAX - cut - (u64::from(id.0[0]) << 40));
        }
        volume.settled &= size_bytes >= volume.size_bytes;
        volume.size_bytes = size_bytes;
        volume.whole.changed(size_bytes / SECTOR, u64::MAX);
        volume.sectors.cut(size_bytes / SECTOR);
        volume.chunks.split_off(&size_bytes.div_ceil(chunk_bytes));
    }

    pub fn roll_back(&mut self, id: VolumeId, from: VolumeId) {
        let source = &self.volumes[&from];
        let (size_bytes, sectors, chunks) = (source.size_bytes, source.sectors.shared(), source.chunks.clone());
        let (tangled, mut refers) = (source.tangled, source.refers.clone());
        refers.insert(self.volumes[&id].files);
        let volume = self.volume(id);
        volume.tangled |= tangled;
        let before = std::mem::replace(&mut volume.refers, refers);
        self.let_go_of(&before);
        let volume = self.volume(id);
        (volume.size_bytes, volume.sectors, volume.chunks) = (size_bytes, sectors, chunks);
        volume.whole = Whole::default();
    }

    pub fn need(&self, chunk_bytes: u64) -> Need {
        let whole = |volume: &Expected| volume.size_bytes.next_multiple_of(chunk_bytes);
        let mut shared: BTreeSet<u64> = BTreeSet::new();
        let (mut thick_bytes, mut separate_bytes) = (0, 0);
        for volume in self.volumes.values() {
            shared.extend(volume.chunks.values().copied());
            separate_bytes += volume.chunks.len() as u64 * chunk_bytes;
            if volume.thick {
                thick_bytes += whole(volume);
            }
        }
        let shared_bytes = shared.len() as u64 * chunk_bytes + thick_bytes;
        Need { shared_bytes, separate_bytes: separate_bytes + thick_bytes, volumes: self.volumes.len() as u64 }
    }

    /// Reads all that matters: small volumes whole, of large ones what was ever written and what the store says is mapped.
    pub fn observe(&self, running: &dyn Running, since: Since, chunk_bytes: u64) -> Result<Observation, String> {
        let store = running.store();
        let mut volumes = BTreeMap::new();
        for info in store.list().map_err(|error| format!("list: {error}"))? {
            let id = info.volume;
            let seen = self
                .observe_one(running, info, since, chunk_bytes)
                .map_err(|error| format!("volume {}: {error}", letter(id)))?;
            if volumes.insert(id, seen).is_some() {
                return Err(format!("volume {} is listed twice", letter(id)));
            }
        }
        Ok(Observation { volumes })
    }

    fn observe_one(&self, running: &dyn Running, info: VolumeInfo, since: Since, chunk_bytes: u64) -> Result<Seen, String> {
        let volume = running.store().open(info.volume).map_err(|error| format!("open: {error}"))?;
        if volume.size_bytes() != info.size_bytes || volume.thick() != info.thick {
            return Err(format!("the open volume is of {} bytes, the list says {}", volume.size_bytes(), info.size_bytes));
        }
        let sectors = info.size_bytes / SECTOR;
        let looked_at = if info.size_bytes <= SMALL_BYTES {
            vec![(0, sectors)]
        } else {
            let around = chunk_bytes / SECTOR;
            let touched = self.volumes.get(&info.volume).into_iter().flat_map(|volume| volume.sectors.touched());
            let mut wanted: BTreeSet<u64> = touched.map(|sector| sector / around).collect();
            wanted.extend(mapped_chunks(volume.as_ref(), chunk_bytes)?);
            let near: BTreeSet<u64> = wanted.iter().flat_map(|chunk| chunk.saturating_sub(1)..=chunk + 1).collect();
            let runs = near.into_iter().map(|chunk| (chunk * around, ((chunk + 1) * around).min(sectors)));
            runs.filter(|(from, to)| from < to).collect()
        };
        let mut values = BTreeMap::new();
        for &(from, to) in &looked_at {
            read_values(volume.as_ref(), from, to, &mut values)?;
        }
        let undone = since == Since::PowerLoss;
        let mapped = if undone { mapped_chunks(volume.as_ref(), chunk_bytes)? } else { BTreeSet::new() };
        Ok(Seen { info, values, looked_at, mapped })
    }

    /// Is it what this world may look like?
    pub fn allows(&self, seen: &Observation, since: Since) -> Result<(), String> {
        let (there, here): (Vec<_>, Vec<_>) = (seen.volumes.keys().collect(), self.volumes.keys().collect());
        if there != here {
            let names = |ids: &[&VolumeId]| ids.iter().map(|id| letter(**id)).collect::<String>();
            return Err(format!("the volumes are {}, not {}", names(&there), names(&here)));
        }
        for (id, volume) in &self.volumes {
            let found = &seen.volumes[id];
            let (size, thick) = (found.info.size_bytes, found.info.thick);
            if (size, thick) != (volume.size_bytes, volume.thick) {
                let (wanted, reserved) = (volume.size_bytes, volume.thick);
                return Err(format!("volume {}: {size} bytes, thick {thick}; not {wanted}, {reserved}", letter(*id)));
            }
            let allowed = volume.sectors.allow(&found.values, &found.looked_at, since);
            let allowed = allowed.and_then(|()| volume.whole.allow(&found.values));
            allowed.map_err(|error| format!("volume {}: {error}", letter(*id)))?;
        }
        Ok(())
    }

    /// From now on what was seen is what is.
    pub fn observed(&mut self, seen: &Observation, since: Since, chunk_bytes: u64) {
        for (id, volume) in &mut self.volumes {
            let found = &seen.volumes[id];
            volume.sectors.observed(&found.values, &found.looked_at, since);
            volume.whole.observed(&found.values);
            volume.poisoned &= since == Since::Running;
            // A crash may have undone what had made a hole: there may be zeroes again that were written.
            for chunk in found.values.keys().map(|sector| sector * SECTOR / chunk_bytes).chain(found.mapped.iter().copied()) {
                self.next_chunk += 1;
                volume.chunks.entry(chunk).or_insert(self.next_chunk);
            }
        }
    }

    pub fn with(&self, operation: &Operation, chunk_bytes: u64) -> Self {
        let mut changed = self.clone();
        operation.apply(&mut changed, chunk_bytes);
        changed
    }
}

fn mapped_chunks(volume: &dyn Volume, chunk_bytes: u64) -> Result<BTreeSet<u64>, String> {
    let (mut mapped, mut offset, end) = (BTreeSet::new(), 0, volume.size_bytes());
    while offset < end {
        let extent = volume.extent(offset).map_err(|error| format!("extent at {offset}: {error}"))?;
        if extent.length_bytes == 0 || extent.length_bytes > end - offset {
            return Err(format!("extent at {offset} of {} bytes", extent.length_bytes));
        }
        if extent.mapped {
            // A thick volume is mapped from end to end; it is enough to look at some of it.
            mapped.extend((offset / chunk_bytes..(offset + extent.length_bytes).div_ceil(chunk_bytes)).take(64));
        }
        offset += extent.length_bytes;
    }
    Ok(mapped)
}

fn read_values(volume: &dyn Volume, from: u64, to: u64, values: &mut BTreeMap<u64, u64>) -> Result<(), String> {
    let mut buffer = vec![0xa5; ((to - from) * SECTOR) as usize];
    volume.read_at(&mut buffer, from * SECTOR).map_err(|error| format!("cannot read at sector {from}: {error}"))?;
    for (sector, bytes) in (from..to).zip(buffer.chunks(SECTOR as usize)) {
        match value_of(bytes).map_err(|error| format!("sector {sector} {error}"))? {
            0 => None,
            value => values.insert(sector, value),
        };
    }
    Ok(())
}

/// Volumes are called A, B, C ... in what is printed.
pub fn id_of(letter: char) -> VolumeId {
    VolumeId([letter as u8; 16])
}

pub fn letter(id: VolumeId) -> char {
    id.0[0] as char
}

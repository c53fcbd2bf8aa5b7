//! Requests by which volumes come to share what they hold: snapshots, clones, rolling back, copies inside the array.

use super::behind_end::cut_back;
use super::{MappedStore, failed, failed_blocks};
use crate::data_files::{self, DataFile, Resting};
use crate::journal::record::{FileKind, Record, Sharing, VolumeNumber};
use crate::map::nodes::{self, Counts, leaf_of};
use crate::map::walk::Dropped;
use crate::map::{LEAF_SLOTS, Slot};
use crate::state::VolumeState;
use crate::volume::read::{Chunk, chunk_in};
use crate::volume::{MappedVolume, VolumeMap};
use crate::{BlockError, Share, Shared as SharedVolumes, StoreError, Volume, VolumeId, VolumeInfo, check_range, lock};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A copy holds the volumes for no longer than this takes.
const COPY_STEP_CHUNKS: u64 = 64;

/// A volume about to be made: all that can be done before its source is asked to stand still.
struct Prepared {
    source: Arc<MappedVolume>,
    pair: Share,
    number: VolumeNumber,
    /// With its space reserved, for a thick one.
    file: Option<Arc<DataFile>>,
}

/// Volumes whose contents others have as well from record `number` on, each with its files that hold these contents and
/// are not durable yet. Nothing new of the volumes goes into them as long as this is there.
struct JustShared {
    sources: Vec<(Arc<MappedVolume>, Vec<Resting>)>,
    number: u64,
}

impl MappedStore {
    pub(super) fn share_volumes(&self, pairs: &[Share]) -> Result<SharedVolumes, StoreError> {
        let _claim = self.claim(pairs.iter().flat_map(|pair| [pair.source, pair.id]));
        if let Some(present) = self.shared_already(pairs)? {
            return Ok(present);
        }
        let mut prepared = Vec::new();
        let result = self.share_prepared(pairs, &mut prepared);
        if result.is_err() {
            let files = prepared.into_iter().filter_map(|one: Prepared| one.file);
            for file in files.filter(|file| self.shared.files.get(file.number).is_none()) {
                // Not known to any map: if this fails the next start removes it.
                let _ = self.disk().remove(&data_files::path(&file.name));
            }
        }
        result
    }

    /// All there with these origins: what the first request answered. Some there, or others: refused.
    fn shared_already(&self, pairs: &[Share]) -> Result<Option<SharedVolumes>, StoreError> {
        let mut found = Vec::new();
        for pair in pairs {
            if pair.source == pair.id {
                return Err(StoreError::Exists("a volume cannot be cloned onto itself".to_owned()));
            }
            if let Ok(volume) = self.find(pair.id) {
                if lock(&volume.facts).origin != Some(pair.source) || volume.is_thick() != pair.thick {
                    return Err(StoreError::Exists(format!(
                        "volume {} exists and is no such copy of {}",
                        pair.id, pair.source
                    )));
                }
                found.push(volume);
            } else {
                self.find(pair.source)?;
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        if let Some(present) = found.first().filter(|_| found.len() < pairs.len()) {
            return Err(StoreError::Exists(format!("volume {} exists, others of the same request do not", present.id)));
        }
        self.settle()?;
        let volumes = found.iter().map(|volume| self.describe(volume)).collect::<Result<_, _>>()?;
        Ok(Some(SharedVolumes { volumes, pause: Duration::ZERO }))
    }

    fn share_prepared(&self, pairs: &[Share], prepared: &mut Vec<Prepared>) -> Result<SharedVolumes, StoreError> {
        let mut sources: BTreeMap<u32, Arc<MappedVolume>> = BTreeMap::new();
        for pair in pairs {
            let source = self.find(pair.source)?;
            sources.insert(source.number, source.clone());
            let number = self.new_number();
            let reserve = |file: &DataFile| file.reserve(source.size());
            let file = pair.thick.then(|| self.shared.make_file(number, pair.id, FileKind::Base, reserve));
            let file = file.transpose().map_err(failed("reserve the space of", pair.id))?;
            prepared.push(Prepared { source, pair: *pair, number, file });
        }
        for source in sources.values() {
            source.prepare_next_spill();
        }
        let (volumes, shared, pause) = self.share_at_one_instant(&sources, prepared)?;
        self.commit_shared(&shared)?;
        let described = volumes.iter().zip(prepared.iter()).map(|(volume, one)| self.describe_shared(volume, &one.source));
        Ok(SharedVolumes { volumes: described.collect::<Result<_, _>>()?, pause })
    }

    /// No write to any source is under way while they are shared.
    fn share_at_one_instant(
        &self,
        sources: &BTreeMap<u32, Arc<MappedVolume>>,
        prepared: &[Prepared],
    ) -> Result<(Vec<Arc<MappedVolume>>, JustShared, Duration), StoreError> {
        let shared = &self.shared;
        let began = Instant::now();
        let _changing = shared.changing();
        shared.journal.make_room().map_err(|error| StoreError::from_io("cannot share volumes", &error))?;
        let mut maps: BTreeMap<u32, _> = sources.iter().map(|(number, source)| (*number, source.map_alone())).collect();
        let mut sharings = Vec::new();
        let mut states = Vec::new();
        for Prepared { source, pair, number, .. } in prepared {
            let map = maps.get_mut(&source.number).expect("all sources are locked");
            sharings.push(Sharing { source: source.number, number: *number, id: pair.id, thick: pair.thick });
            states.push(VolumeState {
                number: *number,
                id: pair.id,
                size_bytes: source.size(),
                thick: pair.thick,
                reserving: false,
                raw: false,
                origin: Some(source.id),
                reservations: None,
                base: None,
                spills: Vec::new(),
                top: nodes::share(&map.top),
            });
            (map.raw, map.tenure) = (false, shared.new_tenure());
        }
        let latest = shared.journal.append(&Record::Share(sharings));
        sources.values().for_each(|source| source.note(latest, Vec::new()));
        let mut volumes = Vec::new();
        for (mut state, one) in states.into_iter().zip(prepared) {
            if let Some(file) = &one.file {
                shared.add_file(file);
                state.base = Some(file.number);
            }
            let volume = Arc::new(MappedVolume::new(shared.clone(), state, latest));
            self.insert(volume.clone());
            volumes.push(volume);
        }
        let mut rest = |source: &Arc<MappedVolume>| {
            let files = maps.get_mut(&source.number).map(|map| map.rest());
            (source.clone(), files.unwrap_or_default())
        };
        let sources = sources.values().map(&mut rest).collect();
        drop(maps);
        Ok((volumes, JustShared { sources, number: latest }, began.elapsed()))
    }

    /// The contents that were shared are on stable storage, and so is the sharing.
    fn commit_shared(&self, shared: &JustShared) -> Result<(), StoreError> {
        let (journal, number) = (&self.shared.journal, shared.number);
        for (source, files) in &shared.sources {
            let files: Vec<_> = files.iter().map(Resting::file).collect();
            source.write_out(&files);
            source.sync_files(files).map_err(failed_blocks("make durable", source.id))?;
        }
        let confirmed = journal.durable();
        let volumes = shared.sources.iter().map(|(source, _)| (source.number, number)).collect();
        let commit = journal.append(&Record::Commit { volumes, confirmed });
        journal.sync(commit).map_err(|error| StoreError::from_io("cannot make the volumes' maps durable", &error))?;
        shared.sources.iter().for_each(|(source, _)| source.committed(number));
        Ok(())
    }

    pub(super) fn roll_back_volume(&self, id: VolumeId, from: VolumeId) -> Result<VolumeInfo, StoreError> {
        let _claim = self.claim([id, from]);
        let (volume, source) = (self.find(id)?, self.find(from)?);
        if id == from {
            return self.describe(&volume);
        }
        let longer = volume.is_thick() && source.size() > volume.size();
        let reserved = longer.then(|| self.reserve_for(&volume, source.size())).transpose();
        let before = reserved.map_err(failed("reserve the space of", id))?;
        source.prepare_next_spill();
        let replaced = self.replace_map(&volume, &source).inspect_err(|_| {
            before.inspect(|before| cut_back(&volume.map_alone(), *before));
            self.give_back_behind_end(&volume);
        });
        let (top, shared) = replaced.map_err(failed("roll back", id))?;
        self.commit_shared(&shared)?;
        self.shared.release(volume.take_deferred());
        self.shared.release([Dropped::Top(top)]);
        self.compact_soon();
        self.give_back_behind_end(&volume);
        self.describe(&volume)
    }

    fn replace_map(&self, volume: &MappedVolume, source: &Arc<MappedVolume>) -> io::Result<(Arc<nodes::Top>, JustShared)> {
        let shared = &self.shared;
        let _changing = shared.changing();
        shared.journal.make_room()?;
        let (mut first, mut second);
        let (map, from) = if volume.number < source.number {
            (first, second) = (volume.map_alone(), source.map_alone());
            (&mut first, &mut second)
        } else {
            (second, first) = (source.map_alone(), volume.map_alone());
            (&mut first, &mut second)
        };
        let before = std::mem::replace(&mut map.top, nodes::share(&from.top));
        (map.raw, map.tenure) = (false, shared.new_tenure());
        (from.raw, from.tenure) = (false, shared.new_tenure());
        volume.set_size(source.size());
        let number = shared.journal.append(&Record::Rollback { volume: volume.number, source: source.number });
        source.note(number, Vec::new());
        Ok((before, JustShared { sources: vec![(source.clone(), from.rest())], number }))
    }

    /// Copies a range from volume to volume, or within one, by sharing whole chunks where both lie alike within theirs.
    pub(super) fn copy_between(
        &self,
        source: VolumeId,
        source_offset: u64,
        target: VolumeId,
        target_offset: u64,
        length: u64,
    ) -> Result<(), BlockError> {
        let gone = |_| BlockError::Io(io::Error::other("the volume is gone"));
        let (from, to) = (self.find(source).map_err(gone)?, self.find(target).map_err(gone)?);
        check_range(source_offset, length, from.size())?;
        check_range(target_offset, length, to.size())?;
        let chunk_bytes = self.shared.chunk_bytes;
        let overlaps = source == target && source_offset.abs_diff(target_offset) < length;
        if source_offset % chunk_bytes != target_offset % chunk_bytes || overlaps {
            return copy_bytes(&from, source_offset, &to, target_offset, length);
        }
        let head = ((chunk_bytes - source_offset % chunk_bytes) % chunk_bytes).min(length);
        let chunks = (length - head) / chunk_bytes;
        copy_bytes(&from, source_offset, &to, target_offset, head)?;
        let (first, onto) = ((source_offset + head) / chunk_bytes, (target_offset + head) / chunk_bytes);
        for step in (0..chunks).step_by(COPY_STEP_CHUNKS as usize) {
            let count = COPY_STEP_CHUNKS.min(chunks - step);
            self.share_chunks(&from, first + step, &to, onto + step, count)?;
        }
        let done = head + chunks * chunk_bytes;
        copy_bytes(&from, source_offset + done, &to, target_offset + done, length - done)
    }

    fn share_chunks(
        &self,
        from: &MappedVolume,
        first: u64,
        to: &MappedVolume,
        onto: u64,
        count: u64,
    ) -> Result<(), BlockError> {
        let _changing = self.shared.changing();
        self.shared.journal.make_room()?;
        if from.number == to.number {
            let mut map = to.map_alone();
            let found = self.shareable(from, &mut map, first, count)?;
            return self.enter_shared(to, &mut map, onto, &found);
        }
        let (mut one, mut other);
        let (source, target) = if from.number < to.number {
            (one, other) = (from.map_alone(), to.map_alone());
            (&mut one, &mut other)
        } else {
            (other, one) = (to.map_alone(), from.map_alone());
            (&mut one, &mut other)
        };
        let found = self.shareable(from, source, first, count)?;
        self.enter_shared(to, target, onto, &found)
    }

    /// Slots of the chunks, no longer the source's own. A chunk in several slots is put together first.
    fn shareable(
        &self,
        from: &MappedVolume,
        map: &mut VolumeMap,
        first: u64,
        count: u64,
    ) -> Result<Vec<Option<Slot>>, BlockError> {
        let mut found = Vec::new();
        for chunk in first..first + count {
            let mut now = chunk_in(map, chunk);
            if let Chunk { slot: Some(_), part: Some(_), .. } = now {
                let bytes = from.read_chunk(map, chunk)?;
                from.write_whole(map, &bytes, chunk * self.shared.chunk_bytes)?;
                now = chunk_in(map, chunk);
            }
            if now.slot.is_some() && now.own {
                let leaf = leaf_of(&mut map.top, chunk, map.tenure, &self.shared.files);
                let index = (chunk % LEAF_SLOTS) as usize;
                leaf.entries[index] = leaf.entries[index].with_own(false);
                if std::mem::replace(&mut map.raw, false) {
                    self.shared.journal.append(&Record::Shareable { volume: from.number });
                }
            }
            found.push(now.slot);
        }
        Ok(found)
    }

    fn enter_shared(
        &self,
        to: &MappedVolume,
        map: &mut VolumeMap,
        onto: u64,
        found: &[Option<Slot>],
    ) -> Result<(), BlockError> {
        let mut chunks = Vec::new();
        for (chunk, slot) in (onto..).zip(found) {
            match slot {
                Some(slot) => {
                    let before = chunk_in(map, chunk);
                    if before.slot == Some(*slot) && before.part.is_none() {
                        continue;
                    }
                    // What a piece of the chunk is in already is referred to, and stays so.
                    if !before.pieces(to.all_blocks()).any(|piece| piece.slot() == *slot) {
                        self.shared.files.add(slot.file, slot.index..slot.index + 1, 1);
                    }
                    to.depends_on(to.file(slot.file)?);
                    chunks.push((chunk, *slot, None));
                }
                None => to.zero_mapped(map, chunk * self.shared.chunk_bytes, self.shared.chunk_bytes)?,
            }
        }
        if chunks.is_empty() {
            return Ok(());
        }
        let shared_chunks: Vec<u64> = chunks.iter().map(|one| one.0).collect();
        to.put_chunks(map, chunks);
        for chunk in shared_chunks {
            let leaf = leaf_of(&mut map.top, chunk, map.tenure, &self.shared.files);
            let index = (chunk % LEAF_SLOTS) as usize;
            leaf.entries[index] = leaf.entries[index].with_own(false);
        }
        Ok(())
    }
}

/// Through memory, in pieces; front to back or back to front, so that a range may overlap itself.
fn copy_bytes(
    from: &MappedVolume,
    source_offset: u64,
    to: &MappedVolume,
    target_offset: u64,
    length: u64,
) -> Result<(), BlockError> {
    const PIECE: u64 = 256 << 10;
    let mut buffer = vec![0; PIECE.min(length) as usize];
    let backwards = target_offset > source_offset;
    for step in 0..length.div_ceil(PIECE) {
        let start = if backwards { length.saturating_sub((step + 1) * PIECE) } else { step * PIECE };
        let end = if backwards { length - step * PIECE } else { (start + PIECE).min(length) };
        let piece = &mut buffer[..(end - start) as usize];
        from.read_at(piece, source_offset + start)?;
        to.write_at(piece, target_offset + start)?;
    }
    Ok(())
}

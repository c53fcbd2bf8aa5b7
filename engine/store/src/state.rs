//! The state that checkpoint and log say: volumes, data files, maps. Pure.

use crate::VolumeId;
use crate::journal::record::{FileAdded, FileKind, Record, Sharing, VolumeNumber};
use crate::map::nodes::{Top, Uncounted, share};
use crate::map::{change, walk};
use crate::volume::read::blocks_of;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct VolumeState {
    pub number: VolumeNumber,
    pub id: VolumeId,
    pub size_bytes: u64,
    pub thick: bool,
    /// Thin, and its base file may hold space that was reserved for a thick one: to be given back.
    pub reserving: bool,
    /// Never shared, never remapped: its base file is its image.
    pub raw: bool,
    pub origin: Option<VolumeId>,
    pub reservations: Option<String>,
    pub base: Option<u32>,
    /// Chunks whose own place was taken; new ones are put into the last.
    pub spills: Vec<u32>,
    pub top: Arc<Top>,
}

#[derive(Debug, Clone)]
pub struct State {
    pub chunk_bytes: u64,
    pub next_volume: VolumeNumber,
    pub next_file: u32,
    pub files: BTreeMap<u32, FileAdded>,
    pub volumes: BTreeMap<VolumeNumber, VolumeState>,
}

impl State {
    pub fn new(chunk_bytes: u64) -> Self {
        Self { chunk_bytes, next_volume: 1, next_file: 1, files: BTreeMap::new(), volumes: BTreeMap::new() }
    }

    fn volume(&mut self, number: VolumeNumber) -> Result<&mut VolumeState, String> {
        self.volumes.get_mut(&number).ok_or_else(|| format!("there is no volume number {number}"))
    }

    fn add_file(&mut self, file: &FileAdded) -> Result<(), String> {
        self.next_file = self.next_file.max(file.number + 1);
        self.files.insert(file.number, file.clone());
        let volume = self.volume(file.volume)?;
        match file.kind {
            FileKind::Base => volume.base = Some(file.number),
            FileKind::Spill => volume.spills.push(file.number),
        }
        Ok(())
    }

    /// A new volume, raw in its base file.
    pub fn add_raw(&mut self, number: VolumeNumber, id: VolumeId, size_bytes: u64, thick: bool, base: &FileAdded) {
        self.next_volume = self.next_volume.max(number + 1);
        let top = Arc::new(Top::identity(base.number, size_bytes.div_ceil(self.chunk_bytes)));
        let volume = VolumeState {
            number,
            id,
            size_bytes,
            thick,
            reserving: false,
            raw: true,
            origin: None,
            reservations: None,
            base: None,
            spills: Vec::new(),
            top,
        };
        self.volumes.insert(number, volume);
        self.add_file(base).expect("the volume was added a moment ago");
    }

    fn share(&mut self, pair: &Sharing) -> Result<(), String> {
        self.next_volume = self.next_volume.max(pair.number + 1);
        let source = self.volume(pair.source)?;
        source.raw = false;
        let volume = VolumeState {
            number: pair.number,
            id: pair.id,
            thick: pair.thick,
            reserving: false,
            origin: Some(source.id),
            reservations: None,
            base: None,
            spills: Vec::new(),
            top: share(&source.top),
            ..*source
        };
        self.volumes.insert(pair.number, volume);
        Ok(())
    }

    /// The state after one more record. Counts of holders may end too high: they are made anew when all is read.
    pub fn apply(&mut self, record: &Record) -> Result<(), String> {
        let (chunk_bytes, all) = (self.chunk_bytes, blocks_of(0, self.chunk_bytes));
        match record {
            Record::Begin { .. } | Record::Commit { .. } | Record::Settled { .. } | Record::LostWrites => {}
            Record::Create { number, id, size_bytes, thick, base } => {
                self.add_raw(*number, *id, *size_bytes, *thick, base);
            }
            Record::FileAdd(file) => self.add_file(file)?,
            Record::Share(pairs) => pairs.iter().try_for_each(|pair| self.share(pair))?,
            Record::Map { volume, chunks } => {
                let volume = self.volume(*volume)?;
                volume.raw = false;
                for one in chunks {
                    let slot = one.place.slot().ok_or("a chunk is mapped to nothing")?;
                    change::map_chunk(&mut volume.top, 0, &Uncounted, one.chunk, slot, one.part(all));
                }
            }
            Record::Put { volume, chunks } => {
                let volume = self.volume(*volume)?;
                volume.raw = false;
                for one in chunks {
                    let slot = one.place.slot().ok_or("a chunk is put into nothing")?;
                    change::map_chunk(&mut volume.top, 0, &Uncounted, one.chunk, slot, one.part(all));
                }
            }
            Record::Holes { volume, runs } => {
                let volume = self.volume(*volume)?;
                volume.raw = false;
                for (first, count) in runs {
                    change::make_holes(&mut volume.top, 0, &Uncounted, *first..first + count);
                }
            }
            Record::Rollback { volume, source } => {
                let from = self.volume(*source)?;
                from.raw = false;
                let (top, size_bytes) = (share(&from.top), from.size_bytes);
                let volume = self.volume(*volume)?;
                (volume.top, volume.size_bytes, volume.raw) = (top, size_bytes, false);
            }
            Record::Resize { volume, size_bytes } => {
                let volume = self.volume(*volume)?;
                volume.size_bytes = *size_bytes;
                let raw = volume.base.filter(|_| volume.raw);
                change::set_chunks(&mut volume.top, 0, &Uncounted, size_bytes.div_ceil(chunk_bytes), raw);
            }
            Record::Thick { volume, thick } => {
                let volume = self.volume(*volume)?;
                (volume.thick, volume.reserving) = (*thick, !*thick);
            }
            Record::Reserving { volume, under_way } => self.volume(*volume)?.reserving = *under_way,
            Record::Reservations { volume, text } => self.volume(*volume)?.reservations.clone_from(text),
            Record::Shareable { volume } => self.volume(*volume)?.raw = false,
            Record::Delete { volume } => {
                self.volumes.remove(volume);
            }
        }
        Ok(())
    }

    /// Counts of holders and slots, made anew.
    pub fn count(&self, counts: &dyn crate::map::nodes::Counts) {
        walk::count_all(self.volumes.values().map(|volume| &volume.top), counts);
    }
}

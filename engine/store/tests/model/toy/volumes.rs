//! The toy's volumes in memory.

use super::log::{Id, Record};
use gespann_store::{Extent, VolumeId, VolumeInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SECTOR: u64 = 512;

#[derive(Debug, Clone, Default)]
pub struct Volumes {
    pub all: BTreeMap<Id, ToyContent>,
    /// Deleted ones, for the mistake of keeping them.
    pub gone: Vec<ToyContent>,
    chained: Vec<(Id, Id)>,
    latest_write: Option<(Id, u64)>,
}

#[derive(Debug, Clone)]
pub struct ToyContent {
    pub size_bytes: u64,
    pub thick: bool,
    pub sectors: BTreeMap<u64, Arc<[u8; SECTOR as usize]>>,
}

impl ToyContent {
    /// In pages, as a file system counts.
    pub fn mapped_bytes(&self) -> u64 {
        let pages: BTreeSet<u64> = self.sectors.keys().map(|sector| sector * SECTOR / 4096).collect();
        pages.len() as u64 * 4096
    }
}

impl Volumes {
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Create { id, size_bytes, thick } => {
                let content = ToyContent { size_bytes: *size_bytes, thick: *thick, sectors: BTreeMap::new() };
                self.all.insert(*id, content);
            }
            Record::Delete { id } => self.gone.extend(self.all.remove(id)),
            Record::Resize { id, size_bytes, keep_tail } => {
                let content = self.content(id);
                content.size_bytes = *size_bytes;
                if !keep_tail {
                    content.sectors.split_off(&(size_bytes / SECTOR));
                }
            }
            Record::SetThick { id, thick } => self.content(id).thick = *thick,
            Record::Share { pairs } => {
                for (source, id, thick) in pairs {
                    let content = ToyContent { thick: *thick, ..self.content(source).clone() };
                    self.all.insert(*id, content);
                }
            }
            Record::RollBack { id, from } => {
                let content = ToyContent { thick: self.content(id).thick, ..self.content(from).clone() };
                self.all.insert(*id, content);
            }
            Record::Write { id, offset, data } => self.write(id, *offset, data),
            Record::Zero { id, offset, length } => {
                let (first, end) = (offset / SECTOR, offset.saturating_add(*length) / SECTOR);
                self.content(id).sectors.retain(|sector, _| *sector < first || *sector >= end);
            }
        }
    }

    fn content(&mut self, id: &Id) -> &mut ToyContent {
        self.all.get_mut(id).expect("the model names volumes that are there")
    }

    fn write(&mut self, id: &Id, offset: u64, data: &[u8]) {
        let targets: Vec<Id> = self.chained.iter().filter(|(source, _)| source == id).map(|(_, target)| *target).collect();
        for target in targets.iter().chain([id]) {
            let Some(content) = self.all.get_mut(target) else { continue };
            for (sector, bytes) in (offset / SECTOR..).zip(data.chunks(SECTOR as usize)) {
                content.sectors.insert(sector, Arc::new(bytes.try_into().expect("whole sectors")));
            }
        }
        self.latest_write = Some((*id, offset / SECTOR));
    }

    /// A mistake: from now on what is written to `source` is written to `id`.
    pub fn chain(&mut self, source: Id, id: Id) {
        self.chained.push((source, id));
    }

    /// A mistake: the first sector of the latest write is not there.
    pub fn take_back_latest_write(&mut self) {
        if let Some((id, sector)) = self.latest_write {
            if let Some(content) = self.all.get_mut(&id) {
                content.sectors.remove(&sector);
            }
        }
    }

    pub fn info(&self, id: VolumeId) -> Option<VolumeInfo> {
        let content = self.all.get(&id.0)?;
        let allocated_bytes = content.mapped_bytes();
        Some(VolumeInfo { volume: id, size_bytes: content.size_bytes, allocated_bytes, thick: content.thick, origin: None })
    }

    pub fn list(&self) -> Vec<VolumeInfo> {
        self.all.keys().filter_map(|id| self.info(VolumeId(*id))).collect()
    }

    pub fn read(&self, id: VolumeId, buffer: &mut [u8], offset: u64) {
        let content = &self.all[&id.0];
        for (sector, bytes) in (offset / SECTOR..).zip(buffer.chunks_mut(SECTOR as usize)) {
            match content.sectors.get(&sector) {
                Some(present) => bytes.copy_from_slice(&present[..]),
                None => bytes.fill(0),
            }
        }
    }

    pub fn extent(&self, id: VolumeId, offset: u64) -> Extent {
        let content = &self.all[&id.0];
        let (first, end) = (offset / SECTOR, content.size_bytes / SECTOR);
        let mapped = content.sectors.contains_key(&first);
        let stop = if mapped {
            (first..end).find(|sector| !content.sectors.contains_key(sector))
        } else {
            content.sectors.range(first..end).next().map(|(sector, _)| *sector)
        };
        Extent { mapped, length_bytes: (stop.unwrap_or(end) - first) * SECTOR }
    }

    /// One range for each sector that differs and does not follow another.
    pub fn differences(&self, older: VolumeId, newer: VolumeId, offset: u64) -> Vec<(u64, u64)> {
        let (one, other) = (&self.all[&older.0], &self.all[&newer.0]);
        let end = other.size_bytes / SECTOR;
        let bytes =
            |content: &ToyContent, sector: &u64| content.sectors.get(sector).map_or([0; SECTOR as usize], |bytes| **bytes);
        let mut sectors: Vec<u64> = one.sectors.keys().chain(other.sectors.keys()).copied().collect();
        sectors.retain(|sector| *sector >= offset / SECTOR && *sector < end && bytes(one, sector) != bytes(other, sector));
        sectors.sort_unstable();
        sectors.dedup();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for sector in sectors {
            match ranges.last_mut() {
                Some((start, length)) if *start + *length == sector * SECTOR => *length += SECTOR,
                _ => ranges.push((sector * SECTOR, SECTOR)),
            }
        }
        ranges
    }
}

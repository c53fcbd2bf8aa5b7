//! One file: what a reader sees, what a loss of power would leave for certain, and the changes in between.

use super::image::{Image, PAGE, Page, SECTOR, within};
use super::{Fate, Fates};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

const SECTORS: usize = (PAGE / SECTOR) as usize;

#[derive(Debug, Clone, Default)]
pub struct Content {
    pub now: Image,
    durable: Image,
    /// Since the last sync, in the order in which they were made.
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
struct Change {
    /// Its place among all changes of the disk.
    time: u64,
    kind: Kind,
    length_before: u64,
    length_after: u64,
}

#[derive(Debug, Clone)]
enum Kind {
    Write { offset: u64, data: Arc<[u8]> },
    Zero { from: u64, to: u64 },
    Length,
    Reserve,
}

impl Change {
    /// The bytes it touches. Shorter: all behind the new end.
    fn range(&self) -> (u64, u64) {
        match &self.kind {
            Kind::Write { offset, data } => (*offset, offset + data.len() as u64),
            Kind::Zero { from, to } => (*from, *to),
            Kind::Length if self.length_after < self.length_before => (self.length_after, self.length_before),
            Kind::Length | Kind::Reserve => (0, 0),
        }
    }

    fn shortens(&self) -> bool {
        self.length_after < self.length_before
    }

    /// Takes the page away as a whole: an extent less, not bytes overwritten.
    fn frees(&self, page: u64) -> bool {
        match self.kind {
            Kind::Zero { from, to } => from <= page * PAGE && (page + 1) * PAGE <= to,
            Kind::Length => self.shortens() && self.length_after <= page * PAGE,
            Kind::Write { .. } | Kind::Reserve => false,
        }
    }
}

impl Content {
    pub fn write(&mut self, data: &[u8], offset: u64, time: u64) {
        let length_before = self.now.length;
        self.now.write(data, offset);
        self.record(Kind::Write { offset, data: data.into() }, time, length_before);
    }

    /// `keep_reserved`: what was a hole or data is reserved afterwards.
    pub fn zero(&mut self, offset: u64, length: u64, keep_reserved: bool, time: u64) {
        // As ext4 does it: up to the end of the page that the file's end cuts.
        let end = self.now.length.next_multiple_of(PAGE);
        let (from, to) = (offset, offset.saturating_add(length).min(end));
        self.now.zero(from, to);
        if keep_reserved {
            self.now.reserve(from, to);
        }
        self.record(Kind::Zero { from, to }, time, self.now.length);
    }

    pub fn set_length(&mut self, length: u64, time: u64) {
        let length_before = self.now.length;
        self.now.set_length(length);
        self.record(Kind::Length, time, length_before);
    }

    pub fn reserve(&mut self, length: u64, time: u64) {
        let length_before = self.now.length;
        self.now.reserve(0, length);
        self.now.length = length.max(length_before);
        self.record(Kind::Reserve, time, length_before);
    }

    pub fn dig_holes(&mut self, range: Range<u64>) {
        self.now.reserved.remove(range.start.div_ceil(PAGE), range.end / PAGE);
    }

    fn record(&mut self, kind: Kind, time: u64, length_before: u64) {
        self.changes.push(Change { time, kind, length_before, length_after: self.now.length });
    }

    pub fn oldest_unsynced(&self) -> Option<u64> {
        self.changes.first().map(|change| change.time)
    }

    pub fn sync(&mut self) {
        for page in self.touched_pages() {
            match self.now.pages.get(&page) {
                Some(bytes) => drop(self.durable.pages.insert(page, bytes.clone())),
                None => drop(self.durable.pages.remove(&page)),
            }
        }
        self.durable.length = self.now.length;
        self.durable.reserved = self.now.reserved.clone();
        self.changes.clear();
    }

    /// A sync failed. Linux takes the pages as clean afterwards, whether they were written or not, and throws them out of
    /// memory when it likes; what was only in the journal is as it was.
    pub fn fail_sync(&mut self, fates: &mut Fates) {
        match fates.below(3) {
            0 => {} // nothing is lost: the next sync writes it
            1 => {
                // Lost and thrown out: the reader sees the old bytes.
                let changes = std::mem::take(&mut self.changes);
                let writes_only = |change: &Change, fates: &mut Fates| match change.kind {
                    Kind::Write { .. } => fates.of(change.time),
                    _ => Fate::Kept,
                };
                let lengths: Vec<bool> = changes.iter().map(|_| true).collect();
                let data: Vec<Fate> = changes.iter().map(|change| writes_only(change, fates)).collect();
                self.changes = changes;
                self.durable = self.image_after(&data, &lengths, fates);
                self.durable.reserved = self.now.reserved.clone();
                self.now = self.durable.clone();
                self.changes.clear();
            }
            _ => {
                // Lost, and still in memory: the reader sees the new bytes, and no sync will ever write them.
                for change in &mut self.changes {
                    if matches!(change.kind, Kind::Write { .. }) {
                        change.kind = Kind::Length;
                    }
                }
            }
        }
    }

    /// What is on the disk when the power comes back.
    pub fn after_power_loss(&self, fates: &mut Fates) -> Self {
        let data: Vec<Fate> = self.changes.iter().map(|change| fates.of(change.time)).collect();
        let lengths: Vec<bool> = data
            .iter()
            .map(|fate| match fate {
                Fate::Kept => true,
                Fate::Lost => false,
                Fate::Torn => fates.coin(),
            })
            .collect();
        let image = self.image_after(&data, &lengths, fates);
        Self { now: image.clone(), durable: image, changes: Vec::new() }
    }

    /// Each 512-byte sector holds what it held after some prefix of the changes to it: a page cache may write a page at any
    /// moment, but never an older state after a newer one. `lengths`: which changes of the length are kept, up to the last
    /// one that is.
    fn image_after(&self, data: &[Fate], lengths: &[bool], fates: &mut Fates) -> Image {
        let changes_length = |index: &usize| self.changes[*index].length_after != self.changes[*index].length_before;
        let last_length = (0..self.changes.len()).filter(changes_length).filter(|index| lengths[*index]).next_back();
        let length = last_length.map_or(self.durable.length, |index| self.changes[index].length_after);
        let mut image = self.durable.clone();
        let by_page = self.changes_by_page();
        for (page, touching) in by_page {
            let cuts = self.cuts(page, &touching, data, last_length, fates);
            match self.page_after(page, &touching, &cuts) {
                Some(bytes) => drop(image.pages.insert(page, bytes)),
                None => drop(image.pages.remove(&page)),
            }
        }
        if fates.coin() {
            image.reserved = self.now.reserved.clone();
        }
        // What lies behind the end is gone, and a page that is written is not reserved.
        image.length = u64::MAX - u64::MAX % PAGE;
        image.set_length(length);
        let pages: Vec<u64> = image.pages.keys().copied().collect();
        pages.into_iter().for_each(|page| image.reserved.remove(page, page + 1));
        image
    }

    fn touched_pages(&self) -> BTreeSet<u64> {
        let mut pages = BTreeSet::new();
        for change in &self.changes {
            let (from, to) = change.range();
            match change.kind {
                Kind::Write { .. } => pages.extend(from / PAGE..to.div_ceil(PAGE)),
                _ if from < to => pages.extend(self.durable.pages.range(from / PAGE..to.div_ceil(PAGE)).map(|(page, _)| *page)),
                _ => {}
            }
        }
        pages
    }

    /// For each page that any change touches: the indices of those changes, rising.
    fn changes_by_page(&self) -> BTreeMap<u64, Vec<usize>> {
        let mut by_page: BTreeMap<u64, Vec<usize>> = self.touched_pages().into_iter().map(|page| (page, Vec::new())).collect();
        for (index, change) in self.changes.iter().enumerate() {
            let (from, to) = change.range();
            if from < to {
                by_page.range_mut(from / PAGE..to.div_ceil(PAGE)).for_each(|(_, touching)| touching.push(index));
            }
        }
        by_page
    }

    /// For each sector of the page: how many of all changes it has seen (0: none of those listed).
    fn cuts(
        &self,
        page: u64,
        touching: &[usize],
        data: &[Fate],
        last_length: Option<usize>,
        fates: &mut Fates,
    ) -> [usize; SECTORS] {
        let mut cuts = [0; SECTORS];
        for &index in touching {
            let change = &self.changes[index];
            if change.shortens() && last_length.is_none_or(|last| last < index) {
                break; // the file was never shortened, so nothing that came later is there either
            }
            let together = change.frees(page).then(|| fates.coin());
            let (from, to) = change.range();
            let (first, last) = within(page, from, to);
            for (sector, cut) in cuts.iter_mut().enumerate() {
                let touched = sector * (SECTOR as usize) < last && (sector + 1) * (SECTOR as usize) > first;
                let applied = match data[index] {
                    _ if change.shortens() => true,
                    Fate::Kept => true,
                    Fate::Lost => false,
                    Fate::Torn => together.unwrap_or_else(|| fates.coin()),
                };
                if touched && applied {
                    *cut = index + 1;
                }
            }
        }
        // A block that was given back is so for all its sectors, before anything later can be in any of them.
        let newest = cuts.into_iter().max().unwrap_or(0);
        let freed = touching.iter().rev().find(|index| **index < newest && self.changes[**index].frees(page));
        if let Some(&freed) = freed {
            cuts.iter_mut().for_each(|cut| *cut = (*cut).max(freed + 1));
        }
        cuts
    }

    fn page_after(&self, page: u64, touching: &[usize], cuts: &[usize; SECTORS]) -> Option<Page> {
        let mut bytes: Option<Page> = self.durable.pages.get(&page).cloned();
        for &index in touching {
            let change = &self.changes[index];
            let (from, to) = change.range();
            if cuts.iter().all(|cut| *cut <= index) {
                continue;
            }
            if change.frees(page) {
                bytes = None;
                continue;
            }
            for (sector, _) in cuts.iter().enumerate().filter(|(_, cut)| **cut > index) {
                let start = page * PAGE + sector as u64 * SECTOR;
                let (first, last) = (from.max(start), to.min(start + SECTOR));
                if first >= last {
                    continue;
                }
                let place = (first - page * PAGE) as usize..(last - page * PAGE) as usize;
                match &change.kind {
                    Kind::Write { offset, data } => {
                        let present = Arc::make_mut(bytes.get_or_insert_with(|| Arc::new([0; PAGE as usize])));
                        present[place].copy_from_slice(&data[(first - offset) as usize..(last - offset) as usize]);
                    }
                    _ => {
                        if let Some(present) = &mut bytes {
                            Arc::make_mut(present)[place].fill(0);
                        }
                    }
                }
            }
        }
        bytes
    }
}

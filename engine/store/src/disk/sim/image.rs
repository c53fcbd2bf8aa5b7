//! The bytes of one file: pages that were written, pages that are only reserved, holes for the rest.

use super::runs::Runs;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const PAGE: u64 = 4096;
pub const SECTOR: u64 = 512;

pub type Page = Arc<[u8; PAGE as usize]>;

#[derive(Debug, Clone, Default)]
pub struct Image {
    pub length: u64,
    /// Shared between images until one of them changes it.
    pub pages: BTreeMap<u64, Page>,
    /// Allocated and never written; no page of `pages` is in here.
    pub reserved: Runs,
}

/// The bytes of page `page` that lie in `from..to`, as offsets within the page.
pub fn within(page: u64, from: u64, to: u64) -> (usize, usize) {
    let start = page * PAGE;
    ((from.max(start) - start) as usize, (to.min(start + PAGE) - start) as usize)
}

impl Image {
    pub fn blocks(&self) -> u64 {
        self.pages.len() as u64 + self.reserved.count()
    }

    pub fn read(&self, buffer: &mut [u8], offset: u64) {
        buffer.fill(0);
        let end = offset.saturating_add(buffer.len() as u64).min(self.length);
        if offset >= end {
            return;
        }
        for (&page, bytes) in self.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let (from, to) = within(page, offset, end);
            let position = (page * PAGE + from as u64 - offset) as usize;
            buffer[position..][..to - from].copy_from_slice(&bytes[from..to]);
        }
    }

    /// Blocks that writing this range would have to find.
    pub fn missing_blocks(&self, from: u64, to: u64) -> u64 {
        if from >= to {
            return 0;
        }
        let (first, last) = (from / PAGE, to.div_ceil(PAGE));
        last - first - self.pages.range(first..last).count() as u64 - self.reserved.count_in(first, last)
    }

    pub fn write(&mut self, data: &[u8], offset: u64) {
        let end = offset + data.len() as u64;
        for page in offset / PAGE..end.div_ceil(PAGE) {
            let (from, to) = within(page, offset, end);
            let position = (page * PAGE + from as u64 - offset) as usize;
            let bytes = &data[position..][..to - from];
            match self.pages.get_mut(&page) {
                Some(present) => Arc::make_mut(present)[from..to].copy_from_slice(bytes),
                None => {
                    let mut fresh = [0; PAGE as usize];
                    fresh[from..to].copy_from_slice(bytes);
                    self.pages.insert(page, Arc::new(fresh));
                    self.reserved.remove(page, page + 1);
                }
            }
        }
        self.length = self.length.max(end);
    }

    /// Whole pages of the range become holes, what is left of pages at its ends is overwritten.
    pub fn zero(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let touched: Vec<u64> = self.pages.range(from / PAGE..to.div_ceil(PAGE)).map(|(page, _)| *page).collect();
        for page in touched {
            match within(page, from, to) {
                (0, end) if end == PAGE as usize => drop(self.pages.remove(&page)),
                (start, end) => Arc::make_mut(self.pages.get_mut(&page).expect("it was listed"))[start..end].fill(0),
            }
        }
        self.reserved.remove(from.div_ceil(PAGE), to / PAGE);
    }

    pub fn set_length(&mut self, length: u64) {
        if length < self.length {
            self.zero(length, length.next_multiple_of(PAGE));
            self.zero(length.next_multiple_of(PAGE), u64::MAX - u64::MAX % PAGE);
        }
        self.length = length;
    }

    /// Allocates what is a hole in the range.
    pub fn reserve(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let (first, last) = (from / PAGE, to.div_ceil(PAGE));
        self.reserved.insert(first, last);
        let written: Vec<u64> = self.pages.range(first..last).map(|(page, _)| *page).collect();
        written.into_iter().for_each(|page| self.reserved.remove(page, page + 1));
    }

    /// The next run of written pages, cut to the range and to the length.
    pub fn next_data(&self, offset: u64, end: u64) -> Option<(u64, u64)> {
        let end = end.min(self.length);
        if offset >= end {
            return None;
        }
        let mut pages = self.pages.range(offset / PAGE..end.div_ceil(PAGE)).map(|(page, _)| *page);
        let first = pages.next()?;
        let mut last = first + 1;
        while pages.next() == Some(last) {
            last += 1;
        }
        Some(((first * PAGE).max(offset), (last * PAGE).min(end)))
    }
}

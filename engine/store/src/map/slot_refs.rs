//! How many map nodes refer to each slot of one data file.
//!
//! A slot is counted once for every node that names it, not for every volume: sharing a node shares its count (Rodeh,
//! "B-trees, Shadowing, and Clones", 2008). A node may refer to a whole aligned range at once, so counts are kept at three
//! heights and added up: a region (a top node's child), a page (a middle node's child, a leaf), a slot.
//! Nothing of this is on disk: the counts follow from the maps, and are made anew at each start.

use super::{LEAF_SLOTS, MIDDLE_SLOTS};
use std::ops::Range;

const PAGES: usize = (MIDDLE_SLOTS / LEAF_SLOTS) as usize;

#[derive(Debug, Default)]
pub struct SlotRefs {
    regions: Vec<Region>,
}

#[derive(Debug, Default)]
struct Region {
    all: i32,
    pages: Option<Box<[Page]>>,
}

#[derive(Debug, Default)]
struct Page {
    all: i32,
    slots: Slots,
}

/// Counts beside the page's own; a byte each as long as they fit.
#[derive(Debug, Default)]
enum Slots {
    #[default]
    Equal,
    Narrow(Box<[i8; LEAF_SLOTS as usize]>),
    Wide(Box<[i32; LEAF_SLOTS as usize]>),
}

impl Slots {
    fn get(&self, index: usize) -> i32 {
        match self {
            Self::Equal => 0,
            Self::Narrow(counts) => counts[index].into(),
            Self::Wide(counts) => counts[index],
        }
    }

    fn add(&mut self, range: Range<usize>, delta: i32) {
        if matches!(self, Self::Equal) {
            *self = Self::Narrow(Box::new([0; LEAF_SLOTS as usize]));
        }
        if let Self::Narrow(counts) = self {
            let fits = |count: i8| i8::try_from(i32::from(count) + delta).is_ok();
            if counts[range.clone()].iter().all(|count| fits(*count)) {
                counts[range].iter_mut().for_each(|count| *count = (i32::from(*count) + delta) as i8);
                return;
            }
            let wide: Vec<i32> = counts.iter().map(|count| i32::from(*count)).collect();
            *self = Self::Wide(wide.into_boxed_slice().try_into().expect("as many as before"));
        }
        if let Self::Wide(counts) = self {
            counts[range].iter_mut().for_each(|count| *count += delta);
        }
    }

    /// The one value of all, if they are equal again.
    fn equal(&self) -> Option<i32> {
        match self {
            Self::Equal => Some(0),
            Self::Narrow(counts) => counts.iter().all(|count| *count == counts[0]).then(|| counts[0].into()),
            Self::Wide(counts) => counts.iter().all(|count| *count == counts[0]).then(|| counts[0]),
        }
    }
}

impl Page {
    fn settle(&mut self) {
        if let Some(value) = self.slots.equal() {
            self.all += value;
            self.slots = Slots::Equal;
        }
    }
}

impl Region {
    fn pages(&mut self) -> &mut [Page] {
        self.pages.get_or_insert_with(|| (0..PAGES).map(|_| Page::default()).collect())
    }

    fn settle(&mut self) {
        let Some(pages) = &self.pages else { return };
        let first = pages[0].all;
        if pages.iter().all(|page| page.all == first && matches!(page.slots, Slots::Equal)) {
            self.all += first;
            self.pages = None;
        }
    }
}

impl SlotRefs {
    pub fn get(&self, slot: u64) -> u32 {
        let Some(region) = self.regions.get((slot / MIDDLE_SLOTS) as usize) else { return 0 };
        let within = slot % MIDDLE_SLOTS;
        let below = region.pages.as_ref().map_or(0, |pages| {
            let page = &pages[(within / LEAF_SLOTS) as usize];
            page.all + page.slots.get((within % LEAF_SLOTS) as usize)
        });
        (region.all + below).max(0) as u32
    }

    /// Does any node refer to any slot?
    pub fn any(&self) -> bool {
        self.runs(0..self.regions.len() as u64 * MIDDLE_SLOTS).any(|(_, count)| count > 0)
    }

    /// One past the last slot that is referred to.
    pub fn end(&self) -> u64 {
        let all = 0..self.regions.len() as u64 * MIDDLE_SLOTS;
        self.runs(all).filter(|(_, count)| *count > 0).map(|(range, _)| range.end).last().unwrap_or(0)
    }

    /// Adds to the counts of a range. They must not become negative.
    pub fn add(&mut self, range: Range<u64>, delta: i32) {
        let mut slot = range.start;
        while slot < range.end {
            let index = (slot / MIDDLE_SLOTS) as usize;
            if self.regions.len() <= index {
                self.regions.resize_with(index + 1, Region::default);
            }
            let region = &mut self.regions[index];
            let start = index as u64 * MIDDLE_SLOTS;
            let end = range.end.min(start + MIDDLE_SLOTS);
            if end - slot == MIDDLE_SLOTS {
                region.all += delta;
            } else {
                Self::add_within(region, slot - start..end - start, delta);
            }
            slot = end;
        }
    }

    fn add_within(region: &mut Region, range: Range<u64>, delta: i32) {
        let mut slot = range.start;
        while slot < range.end {
            let page = &mut region.pages()[(slot / LEAF_SLOTS) as usize];
            let start = slot - slot % LEAF_SLOTS;
            let end = range.end.min(start + LEAF_SLOTS);
            if end - slot == LEAF_SLOTS {
                page.all += delta;
            } else {
                page.slots.add((slot - start) as usize..(end - start) as usize, delta);
                page.settle();
            }
            slot = end;
        }
        region.settle();
    }

    /// Runs of equal count that cover the range, front to back.
    pub fn runs(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, u32)> + '_ {
        let mut slot = range.start;
        std::iter::from_fn(move || {
            if slot >= range.end {
                return None;
            }
            let (start, count) = (slot, self.get(slot));
            slot = self.equal_until(slot).min(range.end);
            while slot < range.end && self.get(slot) == count {
                slot = self.equal_until(slot).min(range.end);
            }
            Some((start..slot, count))
        })
    }

    /// A slot up to which the count is certainly the same as at `slot`.
    fn equal_until(&self, slot: u64) -> u64 {
        let next_region = slot - slot % MIDDLE_SLOTS + MIDDLE_SLOTS;
        let Some(region) = self.regions.get((slot / MIDDLE_SLOTS) as usize) else { return u64::MAX };
        let Some(pages) = &region.pages else { return next_region };
        match pages[((slot % MIDDLE_SLOTS) / LEAF_SLOTS) as usize].slots {
            Slots::Equal => slot - slot % LEAF_SLOTS + LEAF_SLOTS,
            _ => slot + 1,
        }
    }

    /// Memory held. Bytes.
    pub fn held_bytes(&self) -> u64 {
        let page_bytes = |page: &Page| match page.slots {
            Slots::Equal => 0,
            Slots::Narrow(_) => LEAF_SLOTS,
            Slots::Wide(_) => 4 * LEAF_SLOTS,
        };
        let region_bytes = |region: &Region| {
            region
                .pages
                .as_ref()
                .map_or(0, |pages| pages.iter().map(page_bytes).sum::<u64>() + (PAGES * size_of::<Page>()) as u64)
        };
        self.regions.iter().map(region_bytes).sum::<u64>() + (self.regions.len() * size_of::<Region>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A small pseudo-random sequence: the same each time.
    fn numbers(mut state: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    }

    #[test]
    fn counts_are_those_of_a_plain_list() {
        let mut next = numbers(7);
        let (mut refs, mut plain) = (SlotRefs::default(), BTreeMap::<u64, u32>::new());
        let mut held: Vec<Range<u64>> = Vec::new();
        for _ in 0..300 {
            if held.len() > 3 && next(2) == 0 {
                let range = held.swap_remove(next(held.len() as u64) as usize);
                refs.add(range.clone(), -1);
                range.for_each(|slot| *plain.get_mut(&slot).unwrap() -= 1);
            } else {
                let range = match next(3) {
                    0 => 0..MIDDLE_SLOTS,
                    1 => (next(6) * LEAF_SLOTS)..(7 * LEAF_SLOTS),
                    _ => next(3000)..3000 + next(100),
                };
                refs.add(range.clone(), 1);
                range.clone().for_each(|slot| *plain.entry(slot).or_default() += 1);
                held.push(range);
            }
            for _ in 0..50 {
                let slot = next(8 * LEAF_SLOTS);
                assert_eq!(refs.get(slot), plain.get(&slot).copied().unwrap_or(0));
            }
        }
        let spread: Vec<_> = refs.runs(5..4000).flat_map(|(range, count)| range.map(move |slot| (slot, count))).collect();
        let wanted: Vec<_> = (5..4000).map(|slot| (slot, plain.get(&slot).copied().unwrap_or(0))).collect();
        assert_eq!(spread, wanted);
        held.into_iter().for_each(|range| refs.add(range, -1));
        assert!(!refs.any());
        assert_eq!(refs.end(), 0);
        assert!(refs.held_bytes() < 4096, "equal counts take no room: {}", refs.held_bytes());
    }

    #[test]
    fn many_references_to_one_slot() {
        let mut refs = SlotRefs::default();
        (0..1000).for_each(|_| refs.add(17..18, 1));
        assert_eq!((refs.get(16), refs.get(17), refs.get(18)), (0, 1000, 0));
        assert_eq!(refs.end(), 18);
    }
}

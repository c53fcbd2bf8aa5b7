//! Which parts of a file were written since they were last sent to the disk. Only a hint, for whoever is about to sync the
//! file and wants to do it little by little: what is missing here is written by the sync itself.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// One bit stands for so much: 1.3 MB for 10 TB.
const REGION_BYTES: u64 = 1 << 20;

#[derive(Debug, Default)]
pub struct Dirty(RwLock<Vec<AtomicU64>>);

impl Dirty {
    /// Called by every write. Memory that others read is changed only if this is news.
    pub fn note(&self, offset: u64, length: u64) {
        let regions = offset / REGION_BYTES..(offset + length).div_ceil(REGION_BYTES);
        let mut words = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = regions.end.div_ceil(64) as usize;
        if words.len() < wanted {
            drop(words);
            let mut longer = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if longer.len() < wanted {
                longer.resize_with(wanted, AtomicU64::default);
            }
            drop(longer);
            words = self.0.read().unwrap_or_else(PoisonError::into_inner);
        }
        for region in regions {
            let (word, bit) = (&words[(region / 64) as usize], 1 << (region % 64));
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// Everything is about to be synced.
    pub fn forget(&self) {
        let words = self.0.read().unwrap_or_else(PoisonError::into_inner);
        words.iter().filter(|word| word.load(Ordering::Relaxed) != 0).for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// These parts, in bytes; they are no longer noted.
    pub fn take(&self) -> Vec<Range<u64>> {
        let words = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<Range<u64>> = Vec::new();
        for (index, word) in words.iter().enumerate() {
            let mut bits = if word.load(Ordering::Relaxed) == 0 { 0 } else { word.swap(0, Ordering::Relaxed) };
            while bits != 0 {
                let start = (index as u64 * 64 + u64::from(bits.trailing_zeros())) * REGION_BYTES;
                bits &= bits - 1;
                match found.last_mut() {
                    Some(last) if last.end == start => last.end += REGION_BYTES,
                    _ => found.push(start..start + REGION_BYTES),
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_told_once() {
        let dirty = Dirty::default();
        assert_eq!(dirty.take(), []);
        dirty.note((200 << 20) - 1, 2);
        dirty.note(5 << 20, 1 << 20);
        dirty.note((6 << 20) + 4096, 4096);
        dirty.note(63 << 20, 2 << 20);
        dirty.note(63 << 20, 0);
        assert_eq!(dirty.take(), [5 << 20..7 << 20, 63 << 20..65 << 20, 199 << 20..201 << 20]);
        assert_eq!(dirty.take(), []);
        dirty.note(1 << 20, 1);
        dirty.forget();
        dirty.note(1 << 43, 1);
        assert_eq!(dirty.take(), [1 << 43..(1 << 43) + REGION_BYTES]);
    }
}

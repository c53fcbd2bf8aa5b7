//! Slots that wait to be emptied, put in order first: what one snapshot had alone lies side by side in its file, but comes
//! back in the order of the volume's chunks. One run of thousands of slots costs the file system as little as a single one.

use std::collections::BTreeMap;
use std::ops::Range;

/// Runs of slots by file and first slot; none touches the next.
#[derive(Debug, Default)]
pub struct Emptying(BTreeMap<(u32, u64), u64>);

impl Emptying {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Slots that are not in it yet.
    pub fn add(&mut self, file: u32, slots: Range<u64>) {
        let Range { mut start, mut end } = slots;
        if let Some((&(before, from), &upto)) = self.0.range(..(file, start)).next_back() {
            if before == file && upto == start {
                start = from;
            }
        }
        if let Some(upto) = self.0.remove(&(file, end)) {
            end = upto;
        }
        self.0.insert((file, start), end);
    }

    /// The first run.
    pub fn take(&mut self) -> Option<(u32, Range<u64>)> {
        self.0.pop_first().map(|((file, start), end)| (file, start..end))
    }

    /// The file is gone, and these slots with it.
    pub fn forget(&mut self, file: u32) {
        self.0.retain(|(other, _), _| *other != file);
    }

    pub fn runs(&self) -> Vec<(u32, Range<u64>)> {
        self.0.iter().map(|((file, start), end)| (*file, *start..*end)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_run() {
        let mut emptying = Emptying::default();
        for (file, slots) in [(1, 5..6), (1, 7..9), (2, 6..7), (1, 4..5), (1, 6..7), (1, 20..21), (2, 9..10)] {
            emptying.add(file, slots);
        }
        assert_eq!(emptying.runs(), [(1, 4..9), (1, 20..21), (2, 6..7), (2, 9..10)]);
        assert_eq!(emptying.take(), Some((1, 4..9)));
        emptying.forget(1);
        assert_eq!(emptying.len(), 2);
        assert_eq!(emptying.take(), Some((2, 6..7)));
        assert_eq!(emptying.take(), Some((2, 9..10)));
        assert_eq!(emptying.take(), None);
    }
}

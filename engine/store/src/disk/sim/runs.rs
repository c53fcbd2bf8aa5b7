//! A set of block numbers, kept as runs: what is reserved of a file may be large and holds no bytes.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    /// Start to end (exclusive); neither overlapping nor touching.
    runs: BTreeMap<u64, u64>,
    count: u64,
}

impl Runs {
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many of `from..to` are in the set.
    pub fn count_in(&self, from: u64, to: u64) -> u64 {
        self.overlapping(from, to).iter().map(|&(start, end)| end.min(to) - start.max(from)).sum()
    }

    pub fn remove(&mut self, from: u64, to: u64) {
        for (start, end) in self.overlapping(from, to) {
            self.runs.remove(&start);
            self.count -= end - start;
            for (left, right) in [(start, from.min(end)), (to.max(start), end)] {
                if left < right {
                    self.runs.insert(left, right);
                    self.count += right - left;
                }
            }
        }
    }

    pub fn insert(&mut self, from: u64, to: u64) {
        if from < to {
            self.remove(from, to);
            self.runs.insert(from, to);
            self.count += to - from;
        }
    }

    fn overlapping(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        if from >= to {
            return Vec::new();
        }
        let before = self.runs.range(..from).next_back().filter(|(_, end)| **end > from);
        before.into_iter().chain(self.runs.range(from..to)).map(|(start, end)| (*start, *end)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_runs_are_a_set() {
        let mut chance = fastrand::Rng::with_seed(1);
        let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
        for _ in 0..3000 {
            let from = chance.u64(0..60);
            let to = from + chance.u64(0..12);
            if chance.bool() {
                runs.insert(from, to);
                set.extend(from..to);
            } else {
                runs.remove(from, to);
                set.retain(|block| !(from..to).contains(block));
            }
            assert_eq!(runs.count(), set.len() as u64);
            assert_eq!(runs.count_in(from, from + 20), set.range(from..from + 20).count() as u64);
            assert!((0..80).all(|block| (runs.count_in(block, block + 1) == 1) == set.contains(&block)));
        }
    }
}

//! Seeded damage, for machines without a coverage-guided fuzzer: a seed gives the same inputs everywhere.

/// xorshift64*: small, and the same everywhere.
#[derive(Debug)]
pub struct Chance(u64);

const LONGEST_INPUT: usize = 4096;

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit.max(1)
    }

    /// One of the kept inputs, or two of them joined, with up to eight wounds.
    pub fn input(&mut self, kept: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = kept.get(self.below(kept.len())).cloned().unwrap_or_default();
        if self.below(4) == 0 {
            let other = kept.get(self.below(kept.len())).map_or(&[][..], Vec::as_slice);
            let (cut, from) = (self.below(bytes.len() + 1), self.below(other.len() + 1));
            bytes.truncate(cut);
            bytes.extend(&other[from..]);
        }
        for _ in 0..1 + self.below(8) {
            self.wound(&mut bytes);
        }
        bytes.truncate(LONGEST_INPUT);
        bytes
    }

    fn wound(&mut self, bytes: &mut Vec<u8>) {
        const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x40, 0xc0, 0x3d];
        let at = self.below(bytes.len() + 1);
        let count = 1 + self.below(8);
        let end = (at + count).min(bytes.len());
        match self.below(6) {
            0 => bytes.insert(at, self.next() as u8),
            1 => drop(bytes.drain(at..end)),
            2 => bytes[at..end].fill(EDGES[self.below(EDGES.len())]),
            3 => {
                let copy = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            4 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            _ if at < bytes.len() => bytes[at] = self.next() as u8,
            _ => bytes.push(self.next() as u8),
        }
    }
}

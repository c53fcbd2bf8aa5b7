//! An input, eaten from the front; what is not there reads as zero.

#[derive(Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.take(N);
        let mut bytes = [0; N];
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn be16(&mut self) -> usize {
        u16::from_be_bytes(self.array()).into()
    }

    /// Bytes with their count, of two bytes, in front.
    pub fn counted(&mut self) -> &'a [u8] {
        let count = self.be16();
        self.take(count)
    }
}

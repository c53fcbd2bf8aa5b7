//! Bytes on their way to the initiator: PDUs are laid into one buffer, so that many leave with one write.

use crate::pdu::Bhs;

/// The buffer only grows, and only bytes in front of `length` count: nothing is cleared between two uses.
#[derive(Debug, Default)]
pub struct Out {
    buffer: Vec<u8>,
    length: usize,
    pub header_digest: bool,
    pub data_digest: bool,
}

impl Out {
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets what was sent; a buffer that one large burst made big is let go.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    pub fn shrink(&mut self, keep_bytes: usize) {
        if self.length == 0 && self.buffer.len() > keep_bytes {
            self.buffer = Vec::new();
        }
    }

    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    fn grow(&mut self, count: usize) -> &mut [u8] {
        let end = self.length + count;
        if self.buffer.len() < end {
            self.buffer.resize(end.next_power_of_two().max(4096), 0);
        }
        let start = std::mem::replace(&mut self.length, end);
        &mut self.buffer[start..end]
    }

    fn append(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    fn append_header(&mut self, bhs: &Bhs, data_bytes: usize) {
        let mut bhs = *bhs;
        bhs[5..8].copy_from_slice(&(data_bytes as u32).to_be_bytes()[1..]);
        self.append(&bhs);
        if self.header_digest {
            self.append(&crc32c::crc32c(&bhs).to_le_bytes());
        }
    }

    fn append_data_digest(&mut self, start: usize) {
        if self.data_digest && self.length > start {
            let digest = crc32c::crc32c(&self.buffer[start..self.length]);
            self.append(&digest.to_le_bytes());
        }
    }

    pub fn pdu(&mut self, bhs: &Bhs, data: &[u8]) {
        self.append_header(bhs, data.len());
        let start = self.length;
        self.append(data);
        self.grow(padding(data.len())).fill(0);
        self.append_data_digest(start);
    }

    /// A header whose data is sent from somewhere else.
    pub fn header_alone(&mut self, bhs: &Bhs, data_bytes: usize) {
        self.append_header(bhs, data_bytes);
    }

    /// A PDU whose data `fill` puts in place; if that fails nothing of the PDU is left.
    pub fn pdu_filled<E>(
        &mut self,
        bhs: &Bhs,
        data_bytes: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let begin = self.length;
        self.append_header(bhs, data_bytes);
        let start = self.length;
        if let Err(error) = fill(self.grow(data_bytes)) {
            self.length = begin;
            return Err(error);
        }
        self.grow(padding(data_bytes)).fill(0);
        self.append_data_digest(start);
        Ok(())
    }
}

pub fn padding(data_bytes: usize) -> usize {
    data_bytes.wrapping_neg() & 3
}

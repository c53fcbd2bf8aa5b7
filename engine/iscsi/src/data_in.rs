//! Data-In: read data on its way to the initiator, in PDUs of a length it takes (RFC 7143 11.7).

use crate::out::Out;
use crate::pdu::{Bhs, RESERVED_TAG, header, opcode, put};
use crate::session::{Residual, Session};

/// Read data on its way: how much of it has been laid into PDUs.
#[derive(Debug)]
pub struct ReadAnswer {
    pub initiator_task_tag: u32,
    pub total_bytes: u32,
    pub residual: Residual,
    pub sent_bytes: u32,
    data_sn: u32,
}

impl ReadAnswer {
    pub fn new(initiator_task_tag: u32, total_bytes: u32, residual: Residual) -> Self {
        Self { initiator_task_tag, total_bytes, residual, sent_bytes: 0, data_sn: 0 }
    }

    pub fn complete(&self) -> bool {
        self.sent_bytes == self.total_bytes
    }
}

impl<T> Session<T> {
    /// Bytes of data in the next PDU of this answer, at most `most_bytes`.
    pub fn next_data_bytes(&self, read: &ReadAnswer, most_bytes: u32) -> u32 {
        let burst_left = self.parameters.max_burst_bytes - read.sent_bytes % self.parameters.max_burst_bytes;
        let left = read.total_bytes - read.sent_bytes;
        left.min(self.parameters.initiator_max_recv_bytes).min(burst_left).min(most_bytes)
    }

    fn data_header(&mut self, read: &ReadAnswer, length: u32) -> Bhs {
        let end = read.sent_bytes + length;
        let last = end == read.total_bytes;
        let ends_burst = last || end % self.parameters.max_burst_bytes == 0;
        let mut bhs = header(opcode::DATA_IN, if ends_burst { 0x80 } else { 0 }, read.initiator_task_tag);
        put(&mut bhs, 20, RESERVED_TAG);
        self.number(&mut bhs, last);
        if last {
            bhs[1] |= 0x01 | read.residual.flag;
            put(&mut bhs, 44, read.residual.count);
        } else {
            put(&mut bhs, 24, 0);
        }
        put(&mut bhs, 36, read.data_sn);
        put(&mut bhs, 40, read.sent_bytes);
        bhs
    }

    /// Lays the next PDU into `out`, with at most `most_bytes`; the last one carries GOOD status. `fill(buffer, offset)`
    /// puts the data in place; if it fails nothing of the PDU is left.
    pub fn send_data<E>(
        &mut self,
        out: &mut Out,
        read: &mut ReadAnswer,
        most_bytes: u32,
        fill: impl FnOnce(&mut [u8], u32) -> Result<(), E>,
    ) -> Result<(), E> {
        let (length, offset, stat_sn) = (self.next_data_bytes(read, most_bytes), read.sent_bytes, self.stat_sn);
        let bhs = self.data_header(read, length);
        if let Err(error) = out.pdu_filled(&bhs, length as usize, |buffer| fill(buffer, offset)) {
            self.stat_sn = stat_sn;
            return Err(error);
        }
        read.data_sn += 1;
        read.sent_bytes += length;
        Ok(())
    }

    /// Lays only the header of the next PDU into `out`: exactly `length` bytes (as `next_data_bytes` has said, a multiple
    /// of four) must follow it on the wire. Without data digests.
    pub fn announce_data(&mut self, out: &mut Out, read: &mut ReadAnswer, length: u32) {
        debug_assert!(!out.data_digest && length % 4 == 0);
        let bhs = self.data_header(read, length);
        out.header_alone(&bhs, length as usize);
        read.data_sn += 1;
        read.sent_bytes += length;
    }
}

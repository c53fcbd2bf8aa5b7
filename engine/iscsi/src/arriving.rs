//! Long Data-Outs: their data goes from the socket to its place in the write's buffer, without a stop in the decoder.
//!
//! [`Decoder::begun`] shows a PDU whose header is here and whose data is not, [`Session::arrive`] takes it on if it is data
//! that is expected. From then on the next bytes of the stream go to [`Session::place`], until [`Session::placed`] has got
//! them all and answers what [`Session::receive`] would have answered to the whole PDU.

use crate::decoder::Decoder;
use crate::out::Out;
use crate::pdu::{Bhs, Pdu, opcode};
use crate::session::{Session, Step};

/// Less than this is not worth a system call of its own.
const LEAST_MISSING_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Arriving {
    bhs: Bhs,
    data_bytes: usize,
    missing_bytes: usize,
}

impl<T> Session<T> {
    /// Takes on the PDU that has begun to arrive, with what is here of it, if it is a long Data-Out that fits.
    pub fn arrive(&mut self, decoder: &mut Decoder) -> bool {
        let Some((begun, data_bytes)) = decoder.begun() else { return false };
        let missing_bytes = data_bytes - begun.data.len();
        if begun.opcode() != opcode::DATA_OUT || missing_bytes < LEAST_MISSING_BYTES || data_bytes % 4 != 0 {
            return false;
        }
        let tag = begun.initiator_task_tag();
        let first_burst_bytes = self.parameters.first_burst_bytes;
        let Some(index) = self.waiting.iter().position(|transfer| transfer.initiator_task_tag == tag) else { return false };
        let transfer = &mut self.waiting[index];
        if !transfer.expects(&begun, data_bytes as u32, first_burst_bytes) {
            return false; // refused when it is all here, like any other
        }
        self.lend_buffer(index);
        self.waiting[index].keep(begun.data);
        self.arriving = Some(Arriving { bhs: *begun.bhs, data_bytes, missing_bytes });
        decoder.take_begun();
        true
    }

    /// Where the next bytes of the stream go, if not to the decoder. Never empty.
    pub fn place(&mut self) -> Option<&mut [u8]> {
        let arriving = self.arriving.as_ref()?;
        let tag = crate::pdu::word(&arriving.bhs, 16);
        let transfer = self.waiting.iter_mut().find(|transfer| transfer.initiator_task_tag == tag)?;
        Some(transfer.room(arriving.missing_bytes))
    }

    /// `count` bytes have been put at the place.
    pub fn placed<'a>(&mut self, count: usize, out: &mut Out) -> Step<'a, T> {
        let Some(mut arriving) = self.arriving.take() else { return Step::Nothing };
        let tag = crate::pdu::word(&arriving.bhs, 16);
        let Some(index) = self.waiting.iter().position(|transfer| transfer.initiator_task_tag == tag) else {
            return Step::Close("a write went away while its data came"); // its place in the stream is lost
        };
        self.waiting[index].filled(count);
        arriving.missing_bytes -= count;
        if arriving.missing_bytes > 0 {
            self.arriving = Some(arriving);
            return Step::Nothing;
        }
        let pdu = Pdu { bhs: &arriving.bhs, ahs: &[], data: &[] };
        let received = self.waiting[index].account(&pdu, arriving.data_bytes as u32, self.parameters.first_burst_bytes);
        self.after_data_out(index, received, &arriving.bhs, out)
    }
}

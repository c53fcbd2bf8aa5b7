//! Write commands whose data is still coming: unsolicited data, R2Ts, and the order both must keep.
//!
//! DataPDUInOrder and DataSequenceInOrder are Yes, so data arrives front to back and a growing buffer is all there is.

use crate::budget::Share;
use crate::parameters::Parameters;
use crate::pdu::{Pdu, RESERVED_TAG};

/// One R2T that is not yet answered in full.
#[derive(Debug)]
struct Solicited {
    tag: u32,
    offset: u32,
    length: u32,
    received: u32,
    next_data_sn: u32,
}

/// A command waiting for its data. `context` is the caller's.
#[derive(Debug)]
pub struct Transfer<T> {
    pub initiator_task_tag: u32,
    pub lun: u64,
    pub context: T,
    pub expected_bytes: u32,
    /// What of it the command needs; the rest is never asked for.
    pub wanted_bytes: u32,
    /// Longer than what is here of the data: nothing is cleared that will be written to anyway.
    buffer: Vec<u8>,
    received_bytes: usize,
    /// May its data be taken while more of it comes?
    pub(crate) in_parts: bool,
    /// What of it has been taken: the buffer holds what came behind it.
    taken_bytes: usize,
    /// Room for the data that is here or asked for.
    share: Share,
    unsolicited_open: bool,
    unsolicited_bytes: u32,
    next_data_sn: u32,
    solicited: Vec<Solicited>,
    asked_bytes: u32,
    next_r2t_sn: u32,
    pub started: bool,
}

/// An R2T to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Ask {
    pub tag: u32,
    pub r2t_sn: u32,
    pub offset: u32,
    pub length: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// The sequence has a gap or a wrong length: the command fails, the connection goes on.
    Command,
    /// The initiator breaks the rules of the connection.
    Protocol(&'static str),
}

impl<T> Transfer<T> {
    /// `share` has room for what comes unasked. What came with the command is not kept yet.
    pub fn new(command: &crate::Command<'_>, wanted_bytes: u32, context: T, share: Share) -> Self {
        Self {
            initiator_task_tag: command.initiator_task_tag,
            lun: command.lun,
            context,
            expected_bytes: command.expected_bytes,
            wanted_bytes,
            buffer: Vec::new(),
            received_bytes: 0,
            in_parts: false,
            taken_bytes: 0,
            share,
            unsolicited_open: !command.last,
            unsolicited_bytes: command.immediate.len() as u32,
            next_data_sn: 0,
            solicited: Vec::new(),
            asked_bytes: 0,
            next_r2t_sn: 0,
            started: false,
        }
    }

    /// What is here of the data, from behind what was taken.
    pub fn data(&self) -> &[u8] {
        &self.buffer[..self.here()]
    }

    pub(crate) fn context_and_data(&mut self) -> (&mut T, &[u8]) {
        let here = self.here();
        (&mut self.context, &self.buffer[..here])
    }

    fn here(&self) -> usize {
        self.received_bytes - self.taken_bytes
    }

    pub fn taken_bytes(&self) -> u32 {
        self.taken_bytes as u32
    }

    /// The first `count` bytes of the command's own data have been taken from where they came in.
    pub(crate) fn taken_elsewhere(&mut self, count: u32) {
        (self.received_bytes, self.taken_bytes) = (count as usize, count as usize);
    }

    /// The first `count` bytes of `data` have been taken.
    pub(crate) fn take(&mut self, count: usize) {
        let here = self.here();
        self.buffer.copy_within(count..here, 0);
        self.taken_bytes += count;
    }

    /// Memory to collect in, if it has none; what is in it does not matter.
    pub(crate) fn lend(&mut self, buffer: impl FnOnce() -> Option<Vec<u8>>) {
        if self.buffer.is_empty() {
            self.buffer = buffer().unwrap_or_default();
        }
    }

    /// Its memory, while there is nothing in it.
    pub(crate) fn give_buffer(&mut self) -> Option<Vec<u8>> {
        (self.here() == 0 && !self.buffer.is_empty()).then(|| std::mem::take(&mut self.buffer))
    }

    /// The memory of a transfer that is over.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    pub fn complete(&self) -> bool {
        !self.unsolicited_open && self.received_bytes >= self.wanted_bytes as usize
    }

    pub fn takes_room(&self) -> bool {
        self.started || self.unsolicited_open || self.received_bytes > 0
    }

    /// Is there room for all of it? Asked before the first R2T.
    pub fn has_room(&mut self) -> bool {
        self.started || self.unsolicited_open || self.share.grow_to(self.wanted_bytes.into())
    }

    /// The next R2T, if one may and need be sent now.
    pub fn ask(&mut self, parameters: &Parameters, tag: u32) -> Option<Ask> {
        if self.unsolicited_open || self.solicited.len() >= parameters.max_outstanding_r2t as usize {
            return None;
        }
        if !self.started {
            self.started = true;
            self.asked_bytes = self.received_bytes as u32;
            if !self.in_parts {
                self.grow(self.wanted_bytes as usize);
            }
        }
        let (offset, length) = (self.asked_bytes, (self.wanted_bytes - self.asked_bytes).min(parameters.max_burst_bytes));
        if length == 0 {
            return None;
        }
        self.asked_bytes += length;
        self.solicited.push(Solicited { tag, offset, length, received: 0, next_data_sn: 0 });
        self.next_r2t_sn += 1;
        Some(Ask { tag, r2t_sn: self.next_r2t_sn - 1, offset, length })
    }

    pub fn receive(&mut self, pdu: &Pdu<'_>, first_burst_bytes: u32) -> Result<(), Fault> {
        self.account(pdu, pdu.data.len() as u32, first_burst_bytes)?;
        self.keep(pdu.data);
        Ok(())
    }

    /// Is it the next piece, and does all of it go into the buffer? The rest of its data is `data_bytes` in all.
    pub fn expects(&mut self, begun: &Pdu<'_>, data_bytes: u32, first_burst_bytes: u32) -> bool {
        let fits = self.received_bytes as u64 + u64::from(data_bytes) <= u64::from(self.wanted_bytes);
        fits && begun.word(40) as usize == self.received_bytes && self.check(begun, data_bytes, first_burst_bytes).is_ok()
    }

    fn check(&self, pdu: &Pdu<'_>, data_bytes: u32, first_burst_bytes: u32) -> Result<(), Fault> {
        if pdu.target_transfer_tag() == RESERVED_TAG {
            self.check_unsolicited(pdu, data_bytes, first_burst_bytes)
        } else {
            self.check_solicited(pdu, data_bytes)
        }
    }

    /// Takes note of a Data-Out with this many bytes; putting them in place is the caller's.
    pub fn account(&mut self, pdu: &Pdu<'_>, data_bytes: u32, first_burst_bytes: u32) -> Result<(), Fault> {
        self.check(pdu, data_bytes, first_burst_bytes)?;
        if pdu.target_transfer_tag() == RESERVED_TAG {
            self.next_data_sn += 1;
            self.unsolicited_bytes += data_bytes;
            self.unsolicited_open = !pdu.last();
        } else if let Some(burst) = self.solicited.first_mut() {
            burst.next_data_sn += 1;
            burst.received += data_bytes;
            if burst.received == burst.length {
                self.solicited.remove(0);
            }
        }
        Ok(())
    }

    fn check_unsolicited(&self, pdu: &Pdu<'_>, data_bytes: u32, first_burst_bytes: u32) -> Result<(), Fault> {
        if !self.unsolicited_open {
            return Err(Fault::Protocol("unsolicited data that was not announced"));
        }
        if self.unsolicited_bytes.saturating_add(data_bytes) > first_burst_bytes.min(self.expected_bytes) {
            return Err(Fault::Protocol("more unsolicited data than agreed"));
        }
        if pdu.word(36) != self.next_data_sn || pdu.word(40) != self.unsolicited_bytes {
            return Err(Fault::Command);
        }
        Ok(())
    }

    fn check_solicited(&self, pdu: &Pdu<'_>, data_bytes: u32) -> Result<(), Fault> {
        let Some(burst) = self.solicited.first().filter(|burst| burst.tag == pdu.target_transfer_tag()) else {
            return Err(Fault::Protocol("data for an R2T that is not the next"));
        };
        let left = burst.length - burst.received;
        if data_bytes > left {
            return Err(Fault::Protocol("more data than the R2T asked for"));
        }
        if pdu.word(36) != burst.next_data_sn || pdu.word(40) != burst.offset + burst.received {
            return Err(Fault::Command);
        }
        if data_bytes < left && pdu.last() {
            return Err(Fault::Command); // the burst ends too early
        }
        Ok(())
    }

    fn grow(&mut self, bytes: usize) {
        if self.buffer.len() < bytes {
            // New memory that is zero by itself: what is only announced takes up none.
            let mut longer = vec![0; bytes.max((2 * self.buffer.len()).min(self.wanted_bytes as usize))];
            let here = self.here();
            longer[..here].copy_from_slice(&self.buffer[..here]);
            self.buffer = longer;
        }
    }

    /// The next `bytes` of the buffer, to be filled.
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        let here = self.here();
        self.grow(here + bytes);
        &mut self.buffer[here..][..bytes]
    }

    pub fn filled(&mut self, bytes: usize) {
        self.received_bytes += bytes;
    }

    pub fn keep(&mut self, data: &[u8]) {
        let kept = data.len().min(self.wanted_bytes as usize - self.received_bytes);
        self.room(kept).copy_from_slice(&data[..kept]);
        self.filled(kept);
    }
}

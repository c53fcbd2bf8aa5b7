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
    pub data: Vec<u8>,
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
    /// `buffer` is used for the data; what is in it does not matter. `share` has room for what comes unasked.
    pub fn new(command: &crate::Command<'_>, wanted_bytes: u32, context: T, buffer: Vec<u8>, share: Share) -> Self {
        let kept = command.immediate.len().min(wanted_bytes as usize);
        let mut data = buffer;
        data.clear();
        data.extend_from_slice(&command.immediate[..kept]);
        Self {
            initiator_task_tag: command.initiator_task_tag,
            lun: command.lun,
            context,
            expected_bytes: command.expected_bytes,
            wanted_bytes,
            data,
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

    pub fn complete(&self) -> bool {
        !self.unsolicited_open && self.data.len() >= self.wanted_bytes as usize
    }

    pub fn takes_room(&self) -> bool {
        self.started || self.unsolicited_open || !self.data.is_empty()
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
            self.asked_bytes = self.data.len() as u32;
            self.data.reserve_exact((self.wanted_bytes - self.asked_bytes) as usize);
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
        let (data_sn, offset) = (pdu.word(36), pdu.word(40));
        if pdu.target_transfer_tag() == RESERVED_TAG {
            self.receive_unsolicited(pdu, data_sn, offset, first_burst_bytes)
        } else {
            self.receive_solicited(pdu, data_sn, offset)
        }
    }

    fn receive_unsolicited(&mut self, pdu: &Pdu<'_>, data_sn: u32, offset: u32, first_burst_bytes: u32) -> Result<(), Fault> {
        if !self.unsolicited_open {
            return Err(Fault::Protocol("unsolicited data that was not announced"));
        }
        let total = self.unsolicited_bytes.saturating_add(pdu.data.len() as u32);
        if total > first_burst_bytes.min(self.expected_bytes) {
            return Err(Fault::Protocol("more unsolicited data than agreed"));
        }
        if data_sn != self.next_data_sn || offset != self.unsolicited_bytes {
            return Err(Fault::Command);
        }
        self.next_data_sn += 1;
        self.unsolicited_bytes = total;
        self.unsolicited_open = !pdu.last();
        self.keep(pdu.data);
        Ok(())
    }

    fn receive_solicited(&mut self, pdu: &Pdu<'_>, data_sn: u32, offset: u32) -> Result<(), Fault> {
        let Some(burst) = self.solicited.first_mut().filter(|burst| burst.tag == pdu.target_transfer_tag()) else {
            return Err(Fault::Protocol("data for an R2T that is not the next"));
        };
        let length = pdu.data.len() as u32;
        if length > burst.length - burst.received {
            return Err(Fault::Protocol("more data than the R2T asked for"));
        }
        if data_sn != burst.next_data_sn || offset != burst.offset + burst.received {
            return Err(Fault::Command);
        }
        burst.next_data_sn += 1;
        burst.received += length;
        if burst.received == burst.length {
            self.solicited.remove(0);
        } else if pdu.last() {
            return Err(Fault::Command);
        }
        self.keep(pdu.data);
        Ok(())
    }

    fn keep(&mut self, data: &[u8]) {
        let room = self.wanted_bytes as usize - self.data.len();
        self.data.extend_from_slice(&data[..data.len().min(room)]);
    }
}

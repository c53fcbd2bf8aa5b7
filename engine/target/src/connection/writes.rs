//! Commands with data from the initiator: from their beginning until all of it is here.
//!
//! A long WRITE goes to the volume in parts, each as it arrives and each admitted anew, as the pieces of a long read are. What
//! a write that is cut short leaves in its range is then a front of it, in whole blocks; before, it was nothing. SCSI promises
//! neither: whoever needs all or nothing has WRITE ATOMIC.

use super::End;
use super::full_feature::{Disk, FullFeature, Pending};
use crate::execute::{Outcome, carry_out_part};
use crate::gate::Refused;
use gespann_iscsi::Command;
use gespann_iscsi::parts::PART_BYTES;
use gespann_iscsi::session::{Begun, Residual};
use gespann_iscsi::transfer::Transfer;
use gespann_scsi::{Plan, Range, Sense, status};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Parts end at multiples of this in the volume, as far as they can: where the store cuts what it writes, too.
const PART_BOUND_BYTES: u64 = 32 * 1024;

/// The range of a command whose data is written in parts.
fn range_in_parts(plan: &Plan) -> Option<Range> {
    match plan {
        Plan::Write { range, .. } if range.length > PART_BYTES as u64 => Some(*range),
        _ => None,
    }
}

/// How much of `present` bytes at `offset` is a part.
fn part_of(offset: u64, present: usize) -> usize {
    let end = offset + present as u64;
    ((end - end % PART_BOUND_BYTES).saturating_sub(offset)) as usize
}

impl FullFeature<'_> {
    pub fn begin_write(&mut self, command: &Command<'_>, pending: Pending) -> Result<(), End> {
        let wanted = if command.writes { u32::try_from(pending.command_bytes).unwrap_or(u32::MAX) } else { 0 };
        let (tag, expected) = (command.initiator_task_tag, if command.writes { command.expected_bytes } else { 0 });
        if command.immediate.len() >= wanted.min(expected) as usize && command.last {
            // All is here: not even a copy is made.
            self.session.check_immediate(command).map_err(|reason| Some(reason.to_owned()))?;
            let data = &command.immediate[..wanted.min(expected) as usize];
            return self.finish(tag, expected, &pending, data);
        }
        let in_parts = range_in_parts(&pending.plan);
        let pending = Pending { begun: Some(Instant::now()), ..pending };
        let out = &mut self.wire.out;
        let (begun, part) = match in_parts {
            None => (self.session.begin_write(command, wanted, pending, out), &[][..]),
            Some(range) => {
                let part = &command.immediate[..part_of(range.offset, command.immediate.len().min(wanted as usize))];
                (self.session.begin_write_in_parts(command, wanted, part.len() as u32, pending, out), part)
            }
        };
        match begun {
            Begun::Waiting if part.is_empty() => Ok(()),
            Begun::Waiting => self.write_immediate(tag, part),
            Begun::Full => {
                // SAM-5 5.3.1: TASK SET FULL is for a task set that has a task.
                let full = if self.session.waiting() > 0 { status::TASK_SET_FULL } else { status::BUSY };
                self.session.respond(&mut self.wire.out, tag, full, &[], Residual::of(expected, 0));
                Ok(())
            }
            Begun::Ready(_) => Err(Some("internal: data was complete after all".to_owned())),
            Begun::Close(reason) => Err(Some(reason.to_owned())),
        }
    }

    /// The part that came with the command, from where it is.
    fn write_immediate(&mut self, tag: u32, part: &[u8]) -> Result<(), End> {
        self.flush()?; // the initiator sends what it is asked for while this is written
        let Some(disk) = &self.disk else { return Ok(()) };
        let Some((pending, _, _)) = self.session.part(tag) else { return Ok(()) };
        let written = pending.write(disk, 0, part);
        self.after_part(tag, written)
    }

    /// A part that has been collected.
    pub fn write_part(&mut self, tag: u32) -> Result<(), End> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let Some((pending, at, data)) = self.session.part(tag) else { return Ok(()) };
        let offset = range_in_parts(&pending.plan).map_or(0, |range| range.offset) + u64::from(at);
        let taken = part_of(offset, data.len());
        let written = pending.write(disk, at, &data[..taken]);
        self.session.part_taken(tag, taken);
        self.after_part(tag, written)
    }

    fn after_part(&mut self, tag: u32, written: Result<(), Refused>) -> Result<(), End> {
        match written {
            Err(Refused::Revoked) => self.refused(Refused::Revoked, tag, 0),
            Err(Refused::Aborted) => {
                self.session.abort(tag, &mut self.wire.out); // and what comes of its data is ignored
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub fn data_complete(&mut self, mut transfer: Transfer<Pending>) -> Result<(), End> {
        let Some(disk) = &self.disk else { return Ok(()) };
        disk.entry.in_flight.store(self.session.waiting() as u32 + 1, Ordering::Relaxed);
        let (tag, expected) = (transfer.initiator_task_tag, transfer.expected_bytes);
        if transfer.context.plan.changes() && disk.entry.export.lun().refuses_writes() {
            // Made read-only while its data was on the way.
            self.check(tag, expected, Sense::WRITE_PROTECTED);
            return Ok(());
        }
        let result = match transfer.context.ended.take() {
            Some(ended) => self.conclude(tag, expected, &transfer.context, ended, 0),
            None => {
                let taken_bytes = u64::from(transfer.taken_bytes());
                if let Plan::Write { range, .. } = &mut transfer.context.plan {
                    *range = Range { offset: range.offset + taken_bytes, length: range.length - taken_bytes };
                    disk.entry.written_bytes.fetch_add(taken_bytes, Ordering::Relaxed);
                }
                self.finish(tag, expected, &transfer.context, transfer.data())
            }
        };
        self.session.recycle(transfer.into_buffer());
        if self.session.held_back() {
            self.session.ask_for_data(&mut self.wire.out);
        }
        if let Some(disk) = &self.disk {
            disk.entry.in_flight.store(self.session.waiting() as u32, Ordering::Relaxed);
        }
        result
    }
}

impl Pending {
    /// Writes a part that begins `at` bytes from the front of the command's data. What refuses the command from now on, or
    /// fails it, is kept for its answer; the error is what ends it at once.
    fn write(&mut self, disk: &Disk, at: u32, part: &[u8]) -> Result<(), Refused> {
        let Plan::Write { range, .. } = &self.plan else { return Ok(()) };
        if self.ended.is_some() || part.is_empty() {
            return Ok(());
        }
        if disk.entry.export.lun().refuses_writes() {
            self.ended = Some(Ok(Outcome::Check(Sense::WRITE_PROTECTED)));
            return Ok(());
        }
        match carry_out_part(&disk.entry, self.resets, self.class, range.offset + u64::from(at), part) {
            Ok(Ok(())) => {}
            Ok(Err(sense)) => self.ended = Some(Ok(Outcome::Check(sense))),
            Err(refused @ (Refused::Revoked | Refused::Aborted)) => return Err(refused),
            Err(refused) => self.ended = Some(Err(refused)),
        }
        Ok(())
    }
}

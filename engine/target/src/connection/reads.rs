//! READ: from the volume to the wire, by the way that costs least.
//!
//! Short reads, and all that carry data digests, are read into the bytes to be sent, so that many answers leave with one
//! system call. Long ones go as pages of the file through a pipe: not copied at all.

use super::End;
use super::full_feature::FullFeature;
use super::pipe::Pipe;
use crate::execute::read_sense;
use crate::log;
use crate::sessions::SessionEntry;
use gespann_iscsi::Command;
use gespann_iscsi::data_in::ReadAnswer;
use gespann_iscsi::session::Residual;
use gespann_scsi::persistent::Class;
use gespann_scsi::{Range, status};
use gespann_store::BlockError;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

/// A long read is admitted anew for each piece of this size, so that it never holds up a drain.
const READ_PIECE_BYTES: u32 = 256 * 1024;
/// Below this a copy costs less than the system calls that save it.
const LEAST_PAGES_BYTES: u32 = 32 * 1024;

impl FullFeature<'_> {
    pub fn read(&mut self, command: &Command<'_>, range: Range, resets: u64, class: Class) -> Result<(), End> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let entry = disk.entry.clone();
        let (tag, expected) = (command.initiator_task_tag, if command.reads { command.expected_bytes } else { 0 });
        let residual = Residual::of(expected, range.length);
        let total = range.length.min(expected.into()) as u32;
        let mut answer = ReadAnswer::new(tag, total, residual);
        loop {
            let permit = match entry.export.gate.admit(&entry.ticket, resets, class) {
                Ok(permit) => permit,
                Err(refused) => return self.refused(refused, tag, command.expected_bytes),
            };
            if total == 0 {
                self.session.respond(&mut self.wire.out, tag, status::GOOD, &[], residual);
                return Ok(());
            }
            let piece = self.session.next_data_bytes(&answer, READ_PIECE_BYTES);
            let at = range.offset + u64::from(answer.sent_bytes);
            // What needs a digest or padding passes through here.
            let as_pages = !self.wire.out.data_digest && piece >= LEAST_PAGES_BYTES && piece % 4 == 0;
            if let Some(mut pipe) = as_pages.then(|| self.pages(&entry, at, piece)).flatten() {
                drop(permit);
                self.session.announce_data(&mut self.wire.out, &mut answer, piece);
                let sent = self.wire.flush_with(&mut pipe);
                sent.map_err(|error| Some(format!("the connection was lost: {error}")))?;
                self.engine.pipes.give_back(pipe);
            } else {
                let fill = |buffer: &mut [u8], _| entry.export.volume.read_at(buffer, at);
                let filled = self.session.send_data(&mut self.wire.out, &mut answer, READ_PIECE_BYTES, fill);
                drop(permit);
                if let Err(error) = filled {
                    self.cannot_read(&entry, range, &error, tag, command.expected_bytes);
                    return Ok(());
                }
            }
            if answer.complete() {
                break;
            }
            self.flush_if_full()?;
        }
        entry.read_bytes.fetch_add(total.into(), Ordering::Relaxed);
        Ok(())
    }

    fn cannot_read(&mut self, entry: &SessionEntry, range: Range, error: &BlockError, tag: u32, expected: u32) {
        log!(Error, "volume {}: cannot read at {}: {error}", entry.export.id, range.offset);
        self.check(tag, expected, read_sense(error));
    }

    /// A pipe with a range of the volume in it. None if that is not to be had: then it has to be read, which also tells
    /// why it cannot be.
    fn pages(&self, entry: &SessionEntry, offset: u64, length: u32) -> Option<Pipe> {
        let mut pipe = self.engine.pipes.take().ok().filter(|pipe| pipe.fits_bytes >= length as usize)?;
        let mut fill = |file: BorrowedFd<'_>, at| pipe.fill(file, at, length as usize);
        let filled = entry.export.volume.with_place(offset, length.into(), &mut fill);
        if let Ok(false) = filled {
            self.engine.pipes.give_back(pipe);
            return None;
        }
        filled.is_ok().then_some(pipe)
    }
}

//! Writes of which the caller takes parts while more is on the way: a megabyte then passes through a buffer that stays in the
//! processor's cache, and never lies in memory as a whole.

use crate::out::Out;
use crate::session::{Begun, Command, Session, Step};

/// A part is offered when so much is there, or more. The rest comes with the end of the data.
pub const PART_BYTES: usize = 128 * 1024;

impl<T> Session<T> {
    /// As [`Session::begin_write`], for a command whose data the caller takes in parts. It takes the first `taken_bytes` of
    /// what came with the command itself, from there, once this has answered that it is waiting.
    pub fn begin_write_in_parts<'a>(
        &mut self,
        command: &Command<'a>,
        wanted_bytes: u32,
        taken_bytes: u32,
        context: T,
        out: &mut Out,
    ) -> Begun<'a> {
        let taken_bytes = taken_bytes.min(command.immediate.len() as u32).min(wanted_bytes);
        self.begin(command, wanted_bytes, Some(taken_bytes), context, out)
    }

    pub(crate) fn part_is_there<'a>(&self, index: usize) -> Step<'a, T> {
        let transfer = &self.waiting[index];
        if transfer.in_parts && transfer.data().len() >= PART_BYTES {
            return Step::Part { initiator_task_tag: transfer.initiator_task_tag };
        }
        Step::Nothing
    }

    /// The caller's context of a waiting command, where in the command's data the part begins, and the part.
    pub fn part(&mut self, initiator_task_tag: u32) -> Option<(&mut T, u32, &[u8])> {
        let transfer = self.waiting.iter_mut().find(|transfer| transfer.initiator_task_tag == initiator_task_tag)?;
        let at = transfer.taken_bytes();
        let (context, data) = transfer.context_and_data();
        Some((context, at, data))
    }

    /// The first `count` bytes of the part have been taken.
    pub fn part_taken(&mut self, initiator_task_tag: u32, count: usize) {
        let waiting = &mut self.waiting;
        let Some(transfer) = waiting.iter_mut().find(|transfer| transfer.initiator_task_tag == initiator_task_tag) else {
            return;
        };
        transfer.take(count);
        if let Some(buffer) = transfer.give_buffer() {
            self.recycle(buffer); // the next part of any command comes into the same memory
        }
    }
}

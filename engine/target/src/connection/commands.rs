//! SCSI commands of a session: from the request to the answer.

use super::End;
use super::full_feature::{Deferred, FullFeature, Pending};
use crate::execute::{Outcome, carry_out};
use crate::gate::Refused;
use crate::persistent;
use crate::sanitize;
use crate::sessions::attention;
use crate::third_party_copy;
use gespann_iscsi::Command;
use gespann_iscsi::data_in::ReadAnswer;
use gespann_iscsi::session::Residual;
use gespann_scsi::persistent::class_of;
use gespann_scsi::sanitize::Sanitize;
use gespann_scsi::{Plan, Sense, plan, plan_for_absent_lun, status};
use std::sync::atomic::Ordering;

impl FullFeature<'_> {
    pub fn check(&mut self, initiator_task_tag: u32, expected_bytes: u32, sense: Sense) {
        let residual = Residual::of(expected_bytes, 0);
        self.session.respond(&mut self.wire.out, initiator_task_tag, status::CHECK_CONDITION, &sense.encode(), residual);
    }

    /// The unit attention to report in place of this command, if one is waiting (SPC-4 5.14).
    fn attention(&self, cdb: &[u8; 16]) -> Option<Sense> {
        const TOLD_ANYWAY: [u8; 3] = [0x03, 0x12, 0xa0]; // REQUEST SENSE, INQUIRY, REPORT LUNS
        let entry = &self.disk.as_ref()?.entry;
        if entry.attentions.load(Ordering::Acquire) == 0 || TOLD_ANYWAY.contains(&cdb[0]) {
            return None;
        }
        entry.take_attention()
    }

    pub fn command(&mut self, command: &Command<'_>) -> Result<(), End> {
        self.catch_up();
        let Some(disk) = &self.disk else { return Err(Some("a SCSI command in a discovery session".to_owned())) };
        let (lun, resets) = (disk.lun.clone(), disk.resets);
        let (tag, expected) = (command.initiator_task_tag, command.expected_bytes);
        let plan = if command.extended || (command.reads && command.writes) {
            Plan::Refuse(Sense::INVALID_OPCODE)
        } else if command.lun != 0 {
            plan_for_absent_lun(&command.cdb, &lun)
        } else if let Some(sense) = self.attention(&command.cdb) {
            Plan::Refuse(sense)
        } else {
            plan(&command.cdb, &lun)
        };
        let class = class_of(&command.cdb);
        disk.entry.in_flight.store(self.session.waiting() as u32 + 1, Ordering::Relaxed);
        let result = match plan {
            Plan::Refuse(sense) => {
                self.check(tag, expected, sense);
                Ok(())
            }
            plan if plan.refuses_length(if command.writes { expected } else { 0 }, lun.block_size) => {
                self.check(tag, expected, Sense::INVALID_FIELD_IN_CDB);
                Ok(())
            }
            Plan::Read(range) => self.read(command, range, resets, class),
            plan => {
                let command_bytes = plan.data_out_bytes(lun.block_size) as u64;
                let pending = Pending { plan, class, lun, resets, command_bytes, begun: None, ended: None };
                if command_bytes == 0 { self.finish(tag, expected, &pending, &[]) } else { self.begin_write(command, pending) }
            }
        };
        if let Some(disk) = &self.disk {
            disk.entry.in_flight.store(self.session.waiting() as u32, Ordering::Relaxed);
        }
        result
    }

    /// Runs a command all of whose data is here, and answers it.
    pub fn finish(&mut self, tag: u32, expected: u32, pending: &Pending, data: &[u8]) -> Result<(), End> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let entry = disk.entry.clone();
        let result = match &pending.plan {
            Plan::PersistentOut { cdb, .. } => persistent::reserve_out(self.engine, &entry, pending.resets, cdb, data),
            Plan::Sanitize(wanted) => {
                let started = sanitize::start(&self.engine.store, &entry, pending.resets, *wanted, &pending.lun, data);
                started.map(|started| started.map_or_else(Outcome::Check, Outcome::Later))
            }
            Plan::Copy { parameter_bytes } => {
                third_party_copy::extended_copy(self.engine, &entry, pending.resets, *parameter_bytes, data)
            }
            Plan::CopyResults { list_id, failed, allocation_length } => {
                Ok(third_party_copy::copy_results(&entry, *list_id, *failed, *allocation_length))
            }
            plan => carry_out(&entry, pending.resets, pending.class, plan, &pending.lun, data),
        };
        self.conclude(tag, expected, pending, result, data.len())
    }

    /// Answers a command that has come to this end.
    pub fn conclude(
        &mut self,
        tag: u32,
        expected: u32,
        pending: &Pending,
        result: Result<Outcome, Refused>,
        data_bytes: usize,
    ) -> Result<(), End> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let entry = disk.entry.clone();
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(refused) => return self.refused(refused, tag, expected),
        };
        match outcome {
            Outcome::Check(sense) => self.check(tag, expected, sense),
            Outcome::Data(bytes) => return self.answer(tag, expected, &bytes),
            Outcome::Later(ends) => {
                let residual = Residual::of(expected, pending.command_bytes);
                let waits = matches!(
                    pending.plan,
                    Plan::Sanitize(Sanitize::Overwrite { immediate: false, .. } | Sanitize::Erase { immediate: false, .. })
                );
                if waits {
                    self.deferred.push(Deferred { initiator_task_tag: tag, expected_bytes: expected, residual, ends });
                } else {
                    self.session.respond(&mut self.wire.out, tag, status::GOOD, &[], residual);
                }
            }
            Outcome::Settings(wanted) => {
                if entry.export.set_settings(wanted) {
                    self.engine.attend(entry.export.id, attention::MODE, Some(entry.ticket.session));
                }
                self.session.respond(&mut self.wire.out, tag, status::GOOD, &[], Residual::of(expected, pending.command_bytes));
            }
            Outcome::Good => match &pending.plan {
                Plan::Answer(bytes) => return self.answer(tag, expected, bytes),
                Plan::TellSense { allocation_length } => {
                    let state = || entry.export.gate.sanitizing.sense().unwrap_or(Sense::NO_SENSE);
                    let sense = entry.take_attention().unwrap_or_else(state).encode();
                    return self.answer(tag, expected, &sense[..sense.len().min(*allocation_length)]);
                }
                _ => {
                    let wrote = |plan: &Plan| !matches!(plan, Plan::WriteSame { .. } | Plan::Unmap { .. }) && plan.changes();
                    if wrote(&pending.plan) {
                        entry.written_bytes.fetch_add(data_bytes as u64, Ordering::Relaxed);
                    }
                    let residual = Residual::of(expected, pending.command_bytes);
                    self.session.respond(&mut self.wire.out, tag, status::GOOD, &[], residual);
                }
            },
        }
        Ok(())
    }

    pub fn refused(&mut self, refused: Refused, tag: u32, expected: u32) -> Result<(), End> {
        match refused {
            Refused::Revoked => return Err(Some("its lease is over".to_owned())),
            Refused::Closed => {
                let state = self.disk.as_ref().and_then(|disk| disk.entry.export.gate.sanitizing.sense());
                self.check(tag, expected, state.unwrap_or(Sense::SANITIZING));
            }
            Refused::Aborted => {} // no answer: a reset has aborted it
            Refused::Reserved => {
                let residual = Residual::of(expected, 0);
                self.session.respond(&mut self.wire.out, tag, status::RESERVATION_CONFLICT, &[], residual);
            }
            Refused::Moving => {
                let residual = Residual::of(expected, 0);
                self.session.respond(&mut self.wire.out, tag, status::BUSY, &[], residual);
            }
        }
        Ok(())
    }

    /// Answers what has ended of the commands that take long.
    pub fn answer_deferred(&mut self) {
        let ended = |deferred: &Deferred| deferred.ends.get().is_some();
        while let Some(index) = self.deferred.iter().position(ended) {
            let Deferred { initiator_task_tag, expected_bytes, residual, ends } = self.deferred.remove(index);
            match ends.get().copied().flatten() {
                Some(sense) => self.check(initiator_task_tag, expected_bytes, sense),
                None => self.session.respond(&mut self.wire.out, initiator_task_tag, status::GOOD, &[], residual),
            }
        }
    }

    fn answer(&mut self, tag: u32, expected: u32, bytes: &[u8]) -> Result<(), End> {
        let residual = Residual::of(expected, bytes.len() as u64);
        let total = (bytes.len() as u32).min(expected);
        if total == 0 {
            self.session.respond(&mut self.wire.out, tag, status::GOOD, &[], residual);
            return Ok(());
        }
        let mut answer = ReadAnswer::new(tag, total, residual);
        while !answer.complete() {
            let copy = |buffer: &mut [u8], offset: u32| {
                buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
                Ok::<(), ()>(())
            };
            let _ = self.session.send_data(&mut self.wire.out, &mut answer, u32::MAX, copy);
        }
        Ok(())
    }
}

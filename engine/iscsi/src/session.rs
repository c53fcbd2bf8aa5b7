//! The full feature phase of one connection: command window, tasks waiting for data, answers.
//!
//! [`Session::receive`] takes a PDU and says in one [`Step`] what the caller has to do; answers are laid into an
//! [`Out`]. The session knows nothing of SCSI but where CDB, status and sense go.

use crate::Established;
use crate::arriving::Arriving;
use crate::budget::{Budget, HeldBack, Share};
use crate::out::Out;
use crate::parameters::Parameters;
use crate::pdu::{self, Pdu, RESERVED_TAG, before, header, opcode, put, reject};
use crate::text::{self, TEXT_LIMIT_BYTES};
use crate::transfer::{Fault, Transfer};
use std::sync::Arc;

/// Commands an initiator may have under way.
pub const COMMAND_WINDOW: u32 = 128;
/// Beyond the window: immediate commands that wait for data.
const MAX_TASKS: usize = COMMAND_WINDOW as usize + 8;
/// Bytes of write data asked for at a time, over all tasks; one task may always ask.
const SOLICITED_BUDGET_BYTES: u64 = 16 << 20;
const SPARE_BUFFERS: usize = 8;
const SPARE_BUFFER_BYTES: usize = 1 << 20;

#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    pub initiator_task_tag: u32,
    pub lun: u64,
    pub cdb: [u8; 16],
    /// An additional header segment with a longer CDB or a second length: not supported by any command here.
    pub extended: bool,
    pub reads: bool,
    pub writes: bool,
    pub expected_bytes: u32,
    pub immediate: &'a [u8],
    /// No unsolicited data follows.
    pub last: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct TaskManagement {
    pub initiator_task_tag: u32,
    pub function: u8,
    pub lun: u64,
    pub referenced_task_tag: u32,
}

/// Task management functions and answers (11.5.1, 11.6.1).
pub mod task {
    pub const ABORT_TASK: u8 = 1;
    pub const ABORT_TASK_SET: u8 = 2;
    pub const CLEAR_TASK_SET: u8 = 4;
    pub const LUN_RESET: u8 = 5;
    pub const TARGET_WARM_RESET: u8 = 6;
    pub const TARGET_COLD_RESET: u8 = 7;
    pub const COMPLETE: u8 = 0;
    pub const NO_SUCH_TASK: u8 = 1;
    pub const NO_SUCH_LUN: u8 = 2;
    pub const NOT_SUPPORTED: u8 = 5;
}

#[derive(Debug)]
pub enum Step<'a, T> {
    /// Done, or nothing to do.
    Nothing,
    Command(Command<'a>),
    /// All data of a command begun with [`Session::begin_write`] is there.
    DataComplete(Transfer<T>),
    /// Much of the data of a command begun with [`Session::begin_write_in_parts`] is there: see [`Session::part`].
    Part {
        initiator_task_tag: u32,
    },
    /// The data of a command is unusable; it is forgotten and wants CHECK CONDITION.
    DataBad(Transfer<T>),
    TaskManagement(TaskManagement),
    /// `SendTargets=<value>`; answer with [`Session::send_text`].
    SendTargets {
        initiator_task_tag: u32,
        value: String,
    },
    /// The answer is in `out`: send it and close.
    Logout,
    /// Send what is in `out`, then close: the initiator broke the rules.
    Close(&'static str),
}

/// What a write command does next.
#[derive(Debug)]
pub enum Begun<'a> {
    Ready(&'a [u8]),
    Waiting,
    /// No room for it: wants TASK SET FULL, or BUSY if nothing else is under way. Its data will be ignored.
    Full,
    Close(&'static str),
}

#[derive(Debug)]
pub struct Session<T> {
    pub parameters: Parameters,
    discovery: bool,
    exp_cmd_sn: u32,
    granted_cmd_sn: u32,
    pub(crate) stat_sn: u32,
    next_tag: u32,
    pub(crate) waiting: Vec<Transfer<T>>,
    /// Buffers of writes that are over: fresh memory costs more than copying into it.
    spare: Vec<(Vec<u8>, Share)>,
    budget: Arc<Budget>,
    held_back: Option<HeldBack>,
    /// A Data-Out whose data goes straight to its place.
    pub(crate) arriving: Option<Arriving>,
    text_in: Vec<u8>,
    text_out: Option<(Vec<u8>, u32)>,
}

impl<T> Session<T> {
    pub fn new(established: &Established, budget: Arc<Budget>) -> Self {
        Self {
            parameters: established.parameters.clone(),
            discovery: established.identity.target.is_none(),
            exp_cmd_sn: established.exp_cmd_sn,
            granted_cmd_sn: established.exp_cmd_sn.wrapping_add(COMMAND_WINDOW - 1),
            stat_sn: established.stat_sn,
            next_tag: 0,
            waiting: Vec::new(),
            spare: Vec::new(),
            budget,
            held_back: None,
            arriving: None,
            text_in: Vec::new(),
            text_out: None,
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn receive<'a>(&mut self, pdu: Pdu<'a>, out: &mut Out) -> Step<'a, T> {
        let code = pdu.opcode();
        if code == opcode::DATA_OUT {
            return self.data_out(&pdu, out);
        }
        if code == opcode::SNACK {
            return self.refuse(&pdu, reject::SNACK, out);
        }
        if !pdu.immediate() {
            if before(pdu.cmd_sn(), self.exp_cmd_sn) || before(self.max_cmd_sn(), pdu.cmd_sn()) {
                return Step::Nothing; // outside the window: silently ignored (4.2.2.1)
            }
            if pdu.cmd_sn() != self.exp_cmd_sn {
                return Step::Close("a command number was left out"); // on one connection it can only be lost
            }
            self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        }
        match code {
            opcode::SCSI_COMMAND if !self.discovery => self.scsi_command(pdu, out),
            opcode::TASK_MANAGEMENT if !self.discovery => Step::TaskManagement(TaskManagement {
                initiator_task_tag: pdu.initiator_task_tag(),
                function: pdu.flags() & 0x7f,
                lun: pdu.lun(),
                referenced_task_tag: pdu.word(20),
            }),
            opcode::NOP_OUT => self.nop_out(&pdu, out),
            opcode::TEXT => self.text(&pdu, out),
            opcode::LOGOUT => self.logout(&pdu, out),
            opcode::SCSI_COMMAND | opcode::TASK_MANAGEMENT | opcode::LOGIN => self.refuse(&pdu, reject::PROTOCOL_ERROR, out),
            _ => self.refuse(&pdu, reject::NOT_SUPPORTED, out),
        }
    }

    /// Waiting commands narrow the window, but what was granted once is never taken back.
    fn max_cmd_sn(&mut self) -> u32 {
        let waiting = self.waiting.len().min(COMMAND_WINDOW as usize) as u32;
        let open = self.exp_cmd_sn.wrapping_add(COMMAND_WINDOW - 1).wrapping_sub(waiting);
        if before(self.granted_cmd_sn, open) {
            self.granted_cmd_sn = open;
        }
        self.granted_cmd_sn
    }

    /// StatSN (advanced if `counts`), ExpCmdSN, MaxCmdSN.
    pub(crate) fn number(&mut self, bhs: &mut pdu::Bhs, counts: bool) {
        put(bhs, 24, self.stat_sn);
        if counts {
            self.stat_sn = self.stat_sn.wrapping_add(1);
        }
        put(bhs, 28, self.exp_cmd_sn);
        put(bhs, 32, self.max_cmd_sn());
    }

    fn refuse<'a>(&mut self, pdu: &Pdu<'_>, reason: u8, out: &mut Out) -> Step<'a, T> {
        self.reject(pdu.bhs, reason, out);
        Step::Nothing
    }

    pub fn reject(&mut self, bad: &pdu::Bhs, reason: u8, out: &mut Out) {
        let mut bhs = header(opcode::REJECT, 0x80, RESERVED_TAG);
        bhs[2] = reason;
        self.number(&mut bhs, true);
        out.pdu(&bhs, bad);
    }

    fn scsi_command<'a>(&mut self, pdu: Pdu<'a>, out: &mut Out) -> Step<'a, T> {
        let tag = pdu.initiator_task_tag();
        if self.waiting.iter().any(|transfer| transfer.initiator_task_tag == tag) {
            return self.refuse(&pdu, reject::TASK_IN_PROGRESS, out);
        }
        if pdu.immediate() && self.waiting.len() >= MAX_TASKS {
            return self.refuse(&pdu, reject::TOO_MANY_IMMEDIATE, out);
        }
        Step::Command(Command {
            initiator_task_tag: tag,
            lun: pdu.lun(),
            cdb: pdu.bhs[32..48].try_into().expect("16 bytes"),
            extended: !pdu.ahs.is_empty(),
            reads: pdu.flags() & 0x40 != 0,
            writes: pdu.flags() & 0x20 != 0,
            expected_bytes: pdu.word(20),
            immediate: pdu.data,
            last: pdu.last(),
        })
    }

    /// Was this much data with the command agreed on?
    pub fn check_immediate(&self, command: &Command<'_>) -> Result<(), &'static str> {
        let bytes = command.immediate.len() as u64;
        if bytes > 0 && !self.parameters.immediate_data {
            return Err("immediate data that was not agreed");
        }
        if bytes > u64::from(self.parameters.first_burst_bytes.min(command.expected_bytes)) {
            return Err("more immediate data than agreed");
        }
        Ok(())
    }

    /// Collects `wanted_bytes` of write data; `context` comes back with it.
    pub fn begin_write<'a>(&mut self, command: &Command<'a>, wanted_bytes: u32, context: T, out: &mut Out) -> Begun<'a> {
        self.begin(command, wanted_bytes, None, context, out)
    }

    /// `taken_bytes`: it may be taken in parts, and so much of what came with the command is the caller's already.
    pub(crate) fn begin<'a>(
        &mut self,
        command: &Command<'a>,
        wanted_bytes: u32,
        taken_bytes: Option<u32>,
        context: T,
        out: &mut Out,
    ) -> Begun<'a> {
        let wanted_bytes = wanted_bytes.min(command.expected_bytes);
        let immediate_bytes = command.immediate.len() as u64;
        if let Err(reason) = self.check_immediate(command) {
            return Begun::Close(reason);
        }
        if !command.last && self.parameters.initial_r2t {
            return Begun::Close("unsolicited data that was not agreed");
        }
        if command.last && immediate_bytes >= u64::from(wanted_bytes) {
            return Begun::Ready(&command.immediate[..wanted_bytes as usize]);
        }
        // What comes unasked cannot be held back, only refused.
        let unasked = if command.last { immediate_bytes } else { u64::from(self.parameters.first_burst_bytes) };
        let share = self.budget.take(unasked.min(wanted_bytes.into()));
        let Some(share) = share.filter(|_| self.waiting.len() < MAX_TASKS) else { return Begun::Full };
        let mut transfer = Transfer::new(command, wanted_bytes, context, share);
        if let Some(taken_bytes) = taken_bytes {
            transfer.in_parts = true;
            transfer.taken_elsewhere(taken_bytes);
        }
        let kept = &command.immediate[taken_bytes.unwrap_or(0) as usize..command.immediate.len().min(wanted_bytes as usize)];
        if !kept.is_empty() || !transfer.in_parts {
            transfer.lend(|| self.spare.pop().map(|(buffer, _)| buffer));
            transfer.keep(kept);
        }
        self.waiting.push(transfer);
        self.ask_for_data(out);
        Begun::Waiting
    }

    /// Takes back the buffer of a transfer that is over.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS && buffer.capacity() <= SPARE_BUFFER_BYTES {
            self.spare.extend(self.budget.take_spare(buffer.capacity() as u64).map(|share| (buffer, share)));
        }
    }

    /// Lets go of memory that is kept for speed only.
    pub fn shrink(&mut self) {
        self.spare = Vec::new();
    }

    /// Does it wait for room that other sessions hold? Then [`Session::ask_for_data`] wants to be called now and then.
    pub fn held_back(&self) -> bool {
        self.held_back.is_some()
    }

    /// The caller's context of the oldest command that takes room.
    pub fn oldest(&self) -> Option<&T> {
        self.waiting.iter().find(|transfer| transfer.takes_room()).map(|transfer| &transfer.context)
    }

    /// Sends R2Ts in the order of the commands, as far as there is room for what they bring.
    pub fn ask_for_data(&mut self, out: &mut Out) {
        let was_held_back = self.held_back.take();
        let started = self.waiting.iter().filter(|transfer| transfer.started);
        let mut asked_bytes: u64 = started.map(|transfer| u64::from(transfer.wanted_bytes)).sum();
        for index in 0..self.waiting.len() {
            let wanted = u64::from(self.waiting[index].wanted_bytes);
            if !self.waiting[index].started && asked_bytes > 0 && asked_bytes + wanted > SOLICITED_BUDGET_BYTES {
                break;
            }
            if !self.waiting[index].has_room() {
                self.spare.clear();
                self.held_back = was_held_back.or_else(|| Some(self.budget.hold_back()));
                break;
            }
            let was_started = self.waiting[index].started;
            while let Some(ask) = self.waiting[index].ask(&self.parameters, self.next_tag) {
                self.next_tag = self.next_tag.wrapping_add(1) & 0x7fff_ffff;
                let transfer = &self.waiting[index];
                let mut bhs = header(opcode::R2T, 0x80, transfer.initiator_task_tag);
                bhs[8..16].copy_from_slice(&transfer.lun.to_be_bytes());
                put(&mut bhs, 20, ask.tag);
                self.number(&mut bhs, false);
                put(&mut bhs, 36, ask.r2t_sn);
                put(&mut bhs, 40, ask.offset);
                put(&mut bhs, 44, ask.length);
                out.pdu(&bhs, &[]);
            }
            if self.waiting[index].started && !was_started {
                asked_bytes += wanted;
            }
        }
    }

    fn data_out<'a>(&mut self, pdu: &Pdu<'_>, out: &mut Out) -> Step<'a, T> {
        let tag = pdu.initiator_task_tag();
        let Some(index) = self.waiting.iter().position(|transfer| transfer.initiator_task_tag == tag) else {
            return Step::Nothing; // the command was refused or aborted while its data was on the way
        };
        self.lend_buffer(index);
        let received = self.waiting[index].receive(pdu, self.parameters.first_burst_bytes);
        self.after_data_out(index, received, pdu.bhs, out)
    }

    pub(crate) fn after_data_out<'a>(
        &mut self,
        index: usize,
        received: Result<(), Fault>,
        bhs: &pdu::Bhs,
        out: &mut Out,
    ) -> Step<'a, T> {
        match received {
            Err(Fault::Protocol(reason)) => {
                self.reject(bhs, reject::PROTOCOL_ERROR, out);
                Step::Close(reason)
            }
            Err(Fault::Command) => {
                let transfer = self.waiting.remove(index);
                self.ask_for_data(out);
                Step::DataBad(transfer)
            }
            Ok(()) if self.waiting[index].complete() => {
                let transfer = self.waiting.remove(index);
                self.ask_for_data(out);
                Step::DataComplete(transfer)
            }
            Ok(()) => {
                self.ask_for_data(out);
                self.part_is_there(index)
            }
        }
    }

    pub(crate) fn lend_buffer(&mut self, index: usize) {
        self.waiting[index].lend(|| self.spare.pop().map(|(buffer, _)| buffer));
    }

    /// Forgets one waiting task; false if there is none of this tag.
    pub fn abort(&mut self, initiator_task_tag: u32, out: &mut Out) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|transfer| transfer.initiator_task_tag != initiator_task_tag);
        self.ask_for_data(out);
        before != self.waiting.len()
    }

    pub fn abort_all(&mut self) {
        self.waiting.clear();
        self.held_back = None;
    }

    /// A SCSI Response. `moved_bytes`: what the command transfers or would have transferred in full.
    pub fn respond(&mut self, out: &mut Out, initiator_task_tag: u32, status: u8, sense: &[u8], residual: Residual) {
        let mut bhs = header(opcode::SCSI_RESPONSE, 0x80 | residual.flag, initiator_task_tag);
        bhs[3] = status;
        self.number(&mut bhs, true);
        put(&mut bhs, 44, residual.count);
        if sense.is_empty() {
            out.pdu(&bhs, &[]);
        } else {
            let mut data = (sense.len() as u16).to_be_bytes().to_vec();
            data.extend(sense);
            out.pdu(&bhs, &data);
        }
    }

    pub fn answer_task_management(&mut self, out: &mut Out, initiator_task_tag: u32, answer: u8) {
        let mut bhs = header(opcode::TASK_MANAGEMENT_RESPONSE, 0x80, initiator_task_tag);
        bhs[2] = answer;
        self.number(&mut bhs, true);
        out.pdu(&bhs, &[]);
    }

    /// Asks the initiator for a sign of life.
    pub fn ping(&mut self, out: &mut Out) {
        let mut bhs = header(opcode::NOP_IN, 0x80, RESERVED_TAG);
        put(&mut bhs, 20, self.next_tag);
        self.next_tag = self.next_tag.wrapping_add(1) & 0x7fff_ffff;
        self.number(&mut bhs, false);
        out.pdu(&bhs, &[]);
    }

    fn nop_out<'a>(&mut self, pdu: &Pdu<'_>, out: &mut Out) -> Step<'a, T> {
        if pdu.initiator_task_tag() != RESERVED_TAG {
            let mut bhs = header(opcode::NOP_IN, 0x80, pdu.initiator_task_tag());
            bhs[8..16].copy_from_slice(&pdu.bhs[8..16]);
            put(&mut bhs, 20, RESERVED_TAG);
            self.number(&mut bhs, true);
            let echoed = pdu.data.len().min(self.parameters.initiator_max_recv_bytes as usize);
            out.pdu(&bhs, &pdu.data[..echoed]);
        }
        Step::Nothing
    }

    fn logout<'a>(&mut self, pdu: &Pdu<'_>, out: &mut Out) -> Step<'a, T> {
        const RECOVERY_NOT_SUPPORTED: u8 = 2;
        let for_recovery = pdu.flags() & 0x7f == 2;
        let mut bhs = header(opcode::LOGOUT_RESPONSE, 0x80, pdu.initiator_task_tag());
        bhs[2] = if for_recovery { RECOVERY_NOT_SUPPORTED } else { 0 };
        self.number(&mut bhs, true);
        out.pdu(&bhs, &[]);
        if for_recovery { Step::Nothing } else { Step::Logout }
    }

    fn text<'a>(&mut self, pdu: &Pdu<'_>, out: &mut Out) -> Step<'a, T> {
        let tag = pdu.initiator_task_tag();
        if pdu.target_transfer_tag() != RESERVED_TAG && pdu.data.is_empty() && self.text_out.is_some() {
            self.send_text_part(tag, out);
            return Step::Nothing;
        }
        if self.text_in.len() + pdu.data.len() > TEXT_LIMIT_BYTES {
            self.text_in.clear();
            return self.refuse(pdu, reject::INVALID_FIELD, out);
        }
        self.text_in.extend(pdu.data);
        if pdu.continues() || !pdu.last() {
            let mut bhs = header(opcode::TEXT_RESPONSE, 0, tag);
            put(&mut bhs, 20, 1);
            self.number(&mut bhs, true);
            out.pdu(&bhs, &[]);
            return Step::Nothing;
        }
        let Ok(pairs) = text::parse(&std::mem::take(&mut self.text_in)) else {
            return self.refuse(pdu, reject::INVALID_FIELD, out);
        };
        let mut reply = Vec::new();
        for (key, value) in &pairs {
            match key.as_str() {
                "SendTargets" => return Step::SendTargets { initiator_task_tag: tag, value: value.clone() },
                "MaxRecvDataSegmentLength" => match text::number(value).filter(|n| (512..=0xff_ffff).contains(n)) {
                    Some(bytes) => self.parameters.initiator_max_recv_bytes = bytes,
                    None => return self.refuse(pdu, reject::INVALID_FIELD, out),
                },
                _ => text::add(&mut reply, key, "NotUnderstood"),
            }
        }
        self.send_text(tag, reply, out);
        Step::Nothing
    }

    /// Sends text, in as many answers as the initiator's segment length needs; it asks for each further one.
    pub fn send_text(&mut self, initiator_task_tag: u32, text: Vec<u8>, out: &mut Out) {
        self.text_out = Some((text, self.next_tag));
        self.next_tag = self.next_tag.wrapping_add(1) & 0x7fff_ffff;
        self.send_text_part(initiator_task_tag, out);
    }

    fn send_text_part(&mut self, initiator_task_tag: u32, out: &mut Out) {
        let Some((mut text, tag)) = self.text_out.take() else { return };
        let fits = text.len().min(self.parameters.initiator_max_recv_bytes as usize);
        let rest = text.split_off(fits);
        let more = !rest.is_empty();
        let mut bhs = header(opcode::TEXT_RESPONSE, if more { 0x40 } else { 0x80 }, initiator_task_tag);
        put(&mut bhs, 20, if more { tag } else { RESERVED_TAG });
        self.number(&mut bhs, true);
        out.pdu(&bhs, &text);
        self.text_out = more.then_some((rest, tag));
    }
}

/// What of the expected length was not moved, or would have been moved beyond it (11.4.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Residual {
    pub(crate) flag: u8,
    pub(crate) count: u32,
}

impl Residual {
    pub fn of(expected_bytes: u32, command_bytes: u64) -> Self {
        let expected = u64::from(expected_bytes);
        match command_bytes.cmp(&expected) {
            std::cmp::Ordering::Less => Self { flag: 0x02, count: (expected - command_bytes) as u32 },
            std::cmp::Ordering::Equal => Self::default(),
            std::cmp::Ordering::Greater => Self { flag: 0x04, count: (command_bytes - expected).min(u32::MAX.into()) as u32 },
        }
    }
}

//! The full feature phase from bytes to bytes: decoder, session, the commands' plans, write data, task management, text.
//!
//! Input: a byte of [`mode`], a byte for the disk, then PDUs: a byte of [`fix`], the header, counted data. In raw mode all
//! that follows the first two bytes goes to the decoder as it is.

use super::command::{check_parameters, check_plan, lun};
use super::wire::{encode, sent, word};
use crate::input::Input;
use gespann_iscsi::data_in::ReadAnswer;
use gespann_iscsi::login::Identity;
use gespann_iscsi::parts::PART_BYTES;
use gespann_iscsi::pdu::{Bhs, Pdu, RESERVED_TAG, before, header, opcode, put};
use gespann_iscsi::session::{Begun, COMMAND_WINDOW, Residual, TaskManagement, task};
use gespann_iscsi::transfer::Transfer;
use gespann_iscsi::{Budget, Command, Decoder, Established, Out, Parameters, Session, Step};
use gespann_scsi::{Lun, Plan, Sense, plan, status};
use std::collections::HashMap;
use std::sync::Arc;

const FIRST_STAT_SN: u32 = 0xffff_fff0; // soon comes round
const FIRST_CMD_SN: u32 = 0x7fff_fff8;
const SMALL_BUDGET: u64 = 64 << 10;
const BUDGET: u64 = 4 << 20;
/// The budget, the longest answer with its copies here, and the buffers of input.
pub const MEMORY_BYTES: usize = 16 << 20;
/// A read is as long as the disk, in the states of it that this target uses.
const LONGEST_READ: u64 = 1 << 20;

mod mode {
    pub const HEADER_DIGEST: u8 = 1;
    pub const DATA_DIGEST: u8 = 2;
    pub const INITIAL_R2T: u8 = 4;
    pub const IMMEDIATE_DATA: u8 = 8;
    pub const RAW: u8 = 16;
    pub const SMALL_BUDGET: u8 = 32;
    pub const IN_PIECES: u8 = 64;
    pub const DISCOVERY: u8 = 128;
}

mod fix {
    pub const CMD_SN: u8 = 1;
    /// The PDU becomes data for one of the R2Ts.
    pub const DATA_FOR_R2T: u8 = 2;
    pub const ADDITIONAL_HEADER: u8 = 4;
    pub const DAMAGED: u8 = 8;
    pub const SMALL_TAG: u8 = 16;
    pub const LUN_0: u8 = 32;
    pub const RESERVED_TRANSFER_TAG: u8 = 64;
    pub const LAST: u8 = 128;
}

/// An R2T whose data is not all sent.
struct Asked {
    tag: u32,
    transfer_tag: u32,
    offset: u32,
    left: u32,
    data_sn: u32,
}

/// What the target has said of a command that waits for data.
struct Waiting {
    wanted: u32,
    next_r2t_sn: u32,
    asked_to: u32,
}

struct Bench {
    session: Session<Plan>,
    lun: Lun,
    out: Out,
    budget: Arc<Budget>,
    limit: u64,
    asked: Vec<Asked>,
    waiting: HashMap<u32, Waiting>,
    stat_sn: u32,
    exp_cmd_sn: u32,
    max_cmd_sn: u32,
}

impl Bench {
    fn new(modes: u8, state: u8) -> Self {
        let parameters = Parameters {
            header_digest: modes & mode::HEADER_DIGEST != 0,
            data_digest: modes & mode::DATA_DIGEST != 0,
            initial_r2t: modes & mode::INITIAL_R2T != 0,
            immediate_data: modes & mode::IMMEDIATE_DATA != 0,
            max_outstanding_r2t: 1 + u32::from(state >> 6),
            target_max_recv_bytes: 64 << 10,
            ..Parameters::default()
        };
        let target = (modes & mode::DISCOVERY == 0).then(|| "iqn.2026-01.test:t".to_owned());
        let identity = Identity { target, ..Identity::default() };
        let established = Established { identity, parameters, exp_cmd_sn: FIRST_CMD_SN, stat_sn: FIRST_STAT_SN };
        let mut out = Out::default();
        (out.header_digest, out.data_digest) = (established.parameters.header_digest, established.parameters.data_digest);
        let limit = if modes & mode::SMALL_BUDGET != 0 { SMALL_BUDGET } else { BUDGET };
        let budget = Budget::new(limit);
        Self {
            session: Session::new(&established, budget.clone()),
            // Of the sizes only the two small ones: reads are carried out here.
            lun: lun(state & !4),
            out,
            budget,
            limit,
            asked: Vec::new(),
            waiting: HashMap::new(),
            stat_sn: FIRST_STAT_SN,
            exp_cmd_sn: FIRST_CMD_SN,
            max_cmd_sn: FIRST_CMD_SN.wrapping_add(COMMAND_WINDOW - 1),
        }
    }

    /// Serves one PDU as the engine does; false if the connection ends.
    fn serve(&mut self, pdu: Pdu<'_>) -> bool {
        let numbered = !pdu.immediate() && !matches!(pdu.opcode(), opcode::DATA_OUT | opcode::SNACK);
        if numbered && pdu.cmd_sn() == self.exp_cmd_sn && !before(self.max_cmd_sn, pdu.cmd_sn()) {
            self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        }
        let step = self.session.receive(pdu, &mut self.out);
        self.take(step)
    }

    fn take(&mut self, step: Step<'_, Plan>) -> bool {
        let open = match step {
            Step::Nothing => true,
            Step::Command(command) => self.command(&command),
            Step::DataComplete(transfer) => {
                self.complete(transfer);
                true
            }
            Step::Part { initiator_task_tag } => {
                self.part(initiator_task_tag);
                true
            }
            Step::DataBad(transfer) => {
                self.end(transfer.initiator_task_tag);
                self.check(transfer.initiator_task_tag, transfer.expected_bytes, Sense::DATA_LENGTH);
                true
            }
            Step::TaskManagement(request) => {
                self.manage(&request);
                true
            }
            Step::SendTargets { initiator_task_tag, value } => {
                let text = format!("TargetName=iqn.2026-01.test:{}\0", "t".repeat(value.len() % 4096));
                self.session.send_text(initiator_task_tag, text.into_bytes(), &mut self.out);
                true
            }
            Step::Logout | Step::Close(_) => false,
        };
        self.check_answers();
        assert!(self.session.waiting() <= COMMAND_WINDOW as usize + 8);
        assert!(self.budget.used_bytes() <= self.limit, "more room than there is");
        assert_eq!(self.session.held_back(), self.budget.contended());
        open
    }

    fn check(&mut self, tag: u32, expected: u32, sense: Sense) {
        self.session.respond(&mut self.out, tag, status::CHECK_CONDITION, &sense.encode(), Residual::of(expected, 0));
    }

    fn good(&mut self, tag: u32, expected: u32, command_bytes: u64) {
        self.session.respond(&mut self.out, tag, status::GOOD, &[], Residual::of(expected, command_bytes));
    }

    fn command(&mut self, command: &Command<'_>) -> bool {
        let (tag, expected) = (command.initiator_task_tag, command.expected_bytes);
        let plan = if command.extended { Plan::Refuse(Sense::INVALID_OPCODE) } else { plan(&command.cdb, &self.lun) };
        check_plan(&plan, &self.lun);
        let bytes = plan.data_out_bytes(self.lun.block_size);
        match plan {
            Plan::Refuse(sense) => self.check(tag, expected, sense),
            Plan::Read(range) => self.read(command, range.length.min(LONGEST_READ)),
            Plan::Answer(bytes) => self.read(command, bytes.len() as u64),
            _ if bytes == 0 => self.good(tag, expected, 0),
            plan => return self.begin_write(command, if command.writes { bytes as u32 } else { 0 }, plan),
        }
        true
    }

    fn read(&mut self, command: &Command<'_>, bytes: u64) {
        let expected = if command.reads { command.expected_bytes } else { 0 };
        let (total, residual) = (bytes.min(expected.into()) as u32, Residual::of(expected, bytes));
        if total == 0 {
            return self.session.respond(&mut self.out, command.initiator_task_tag, status::GOOD, &[], residual);
        }
        let mut answer = ReadAnswer::new(command.initiator_task_tag, total, residual);
        let mut calls = 0;
        while !answer.complete() {
            let fill = |buffer: &mut [u8], _: u32| {
                buffer.fill(0x5a);
                Ok::<(), ()>(())
            };
            self.session.send_data(&mut self.out, &mut answer, 256 << 10, fill).expect("nothing fails here");
            calls += 1;
            assert!(calls <= LONGEST_READ / 512, "a read that does not end");
        }
    }

    fn begin_write(&mut self, command: &Command<'_>, wanted: u32, plan: Plan) -> bool {
        let tag = command.initiator_task_tag;
        let expected = if command.writes { command.expected_bytes } else { 0 };
        if command.immediate.len() >= wanted.min(expected) as usize && command.last {
            if self.session.check_immediate(command).is_err() {
                return false;
            }
            check_parameters(&plan, &self.lun, command.immediate);
            self.good(tag, expected, wanted.into());
            return true;
        }
        let wanted = wanted.min(command.expected_bytes);
        self.waiting.insert(tag, Waiting { wanted, next_r2t_sn: 0, asked_to: 0 });
        // As many sectors of what came with the command as fit, so that some stays behind.
        let taken = command.immediate.len() as u32 / 1024 * 512;
        let begun = match plan {
            Plan::Write { .. } => self.session.begin_write_in_parts(command, wanted, taken, plan, &mut self.out),
            _ => self.session.begin_write(command, wanted, plan, &mut self.out),
        };
        match begun {
            Begun::Waiting => true,
            Begun::Ready(_) => panic!("complete after all"),
            Begun::Full => {
                self.end(tag);
                self.session.respond(&mut self.out, tag, status::TASK_SET_FULL, &[], Residual::of(expected, 0));
                true
            }
            Begun::Close(_) => false,
        }
    }

    fn complete(&mut self, transfer: Transfer<Plan>) {
        let taken = transfer.taken_bytes() as usize;
        assert_eq!(taken + transfer.data().len(), transfer.wanted_bytes as usize, "complete, with another length");
        self.end(transfer.initiator_task_tag);
        check_parameters(&transfer.context, &self.lun, transfer.data());
        self.good(transfer.initiator_task_tag, transfer.expected_bytes, transfer.wanted_bytes.into());
        self.session.recycle(transfer.into_buffer());
        if self.session.held_back() {
            self.session.ask_for_data(&mut self.out);
        }
    }

    /// Takes a part, but for an end of it.
    fn part(&mut self, tag: u32) {
        let (plan, at, data) = self.session.part(tag).expect("a part of a command that waits");
        assert!(matches!(plan, Plan::Write { .. }) && data.len() >= PART_BYTES, "a part at {at} that nobody wanted");
        let taken = data.len() - data.len() % 4096;
        self.session.part_taken(tag, taken);
        let (_, now_at, rest) = self.session.part(tag).expect("it goes on waiting");
        assert_eq!((now_at, rest.len() < 4096), (at + taken as u32, true));
    }

    fn manage(&mut self, request: &TaskManagement) {
        match request.function {
            task::ABORT_TASK => {
                let found = self.session.abort(request.referenced_task_tag, &mut self.out);
                assert_eq!(found, self.waiting.contains_key(&request.referenced_task_tag));
                self.end(request.referenced_task_tag);
            }
            _ => {
                self.session.abort_all();
                self.session.shrink(); // what is kept for speed is not the commands'
                assert_eq!(self.budget.used_bytes(), 0, "aborted, and yet there");
                (self.waiting, self.asked) = (HashMap::new(), Vec::new());
            }
        }
        self.session.answer_task_management(&mut self.out, request.initiator_task_tag, task::COMPLETE);
    }

    fn end(&mut self, tag: u32) {
        self.waiting.remove(&tag);
        self.asked.retain(|one| one.tag != tag);
    }

    fn check_answers(&mut self) {
        let mut reading: Option<(u32, u32, u32)> = None;
        for (bhs, data) in sent(&mut self.out) {
            let numbered = match bhs[0] {
                opcode::R2T => {
                    self.check_r2t(&bhs);
                    false
                }
                opcode::DATA_IN => {
                    let (tag, next_sn, offset) = reading.unwrap_or((word(&bhs, 16), 0, 0));
                    assert_eq!((word(&bhs, 16), word(&bhs, 36), word(&bhs, 40)), (tag, next_sn, offset), "data in order");
                    reading = Some((tag, next_sn + 1, offset + data.len() as u32));
                    bhs[1] & 1 != 0
                }
                opcode::NOP_IN => word(&bhs, 16) != RESERVED_TAG,
                opcode::REJECT => data.len() == 48,
                0x21..=0x26 => true,
                other => panic!("an answer with opcode {other:#04x}"),
            };
            assert!(data.len() <= self.session.parameters.initiator_max_recv_bytes as usize, "longer than it takes");
            self.check_numbers(&bhs, numbered);
        }
    }

    fn check_numbers(&mut self, bhs: &Bhs, numbered: bool) {
        let in_data = bhs[0] == opcode::DATA_IN && !numbered;
        assert_eq!(word(bhs, 24), if in_data { 0 } else { self.stat_sn }, "StatSN of {:#04x}", bhs[0]);
        self.stat_sn = self.stat_sn.wrapping_add(u32::from(numbered));
        assert_eq!(word(bhs, 28), self.exp_cmd_sn, "ExpCmdSN");
        let max_cmd_sn = word(bhs, 32);
        assert!(!before(max_cmd_sn, self.max_cmd_sn), "MaxCmdSN went back");
        assert!(max_cmd_sn.wrapping_sub(self.exp_cmd_sn).wrapping_add(1) <= COMMAND_WINDOW, "a window that is too wide");
        self.max_cmd_sn = max_cmd_sn;
    }

    fn check_r2t(&mut self, bhs: &Bhs) {
        let (tag, offset, left) = (word(bhs, 16), word(bhs, 40), word(bhs, 44));
        let waiting = self.waiting.get_mut(&tag).expect("an R2T for a command that waits");
        assert_eq!(word(bhs, 36), waiting.next_r2t_sn, "R2TSN");
        waiting.next_r2t_sn += 1;
        assert!(left > 0 && left <= self.session.parameters.max_burst_bytes);
        assert!(offset >= waiting.asked_to && offset + left <= waiting.wanted, "asked for twice, or too much");
        waiting.asked_to = offset + left;
        self.asked.push(Asked { tag, transfer_tag: word(bhs, 20), offset, left, data_sn: 0 });
        let outstanding = self.asked.iter().filter(|one| one.tag == tag).count();
        assert!(outstanding <= self.session.parameters.max_outstanding_r2t as usize);
    }

    /// Data for one of the R2Ts of a command: the first, as they are answered in order.
    fn data_for(&mut self, choice: u8, longest: usize) -> Option<(Bhs, Vec<u8>)> {
        let tag = self.asked.get(usize::from(choice) % self.asked.len().max(1))?.tag;
        let index = self.asked.iter().position(|one| one.tag == tag)?;
        let one = &mut self.asked[index];
        let count = one.left.min(1 + longest as u32 * 128).min(self.session.parameters.target_max_recv_bytes);
        let mut bhs = header(opcode::DATA_OUT, if count == one.left { 0x80 } else { 0 }, tag);
        for (at, value) in [(20, one.transfer_tag), (36, one.data_sn), (40, one.offset)] {
            put(&mut bhs, at, value);
        }
        (one.offset, one.left, one.data_sn) = (one.offset + count, one.left - count, one.data_sn + 1);
        if one.left == 0 {
            self.asked.remove(index);
        }
        Some((bhs, vec![0; count as usize]))
    }

    /// Takes bytes as a connection does, in pieces of `most`: long data goes straight to its place. False at the end.
    fn receive(&mut self, decoder: &mut Decoder, mut bytes: &[u8], most: usize) -> bool {
        while !bytes.is_empty() {
            let straight = self.session.place().map(|place| {
                let count = most.min(bytes.len()).min(place.len());
                place[..count].copy_from_slice(&bytes[..count]);
                count
            });
            let space = decoder.space();
            let count = straight.unwrap_or_else(|| {
                let count = most.min(bytes.len()).min(space.len());
                space[..count].copy_from_slice(&bytes[..count]);
                count
            });
            assert!(count > 0, "no space left although more is needed");
            bytes = &bytes[count..];
            if straight.is_some() {
                let step = self.session.placed(count, &mut self.out);
                if !self.take(step) {
                    return false;
                }
                continue;
            }
            decoder.filled(count);
            loop {
                match decoder.next() {
                    Ok(Some(pdu)) if self.serve(pdu) => {}
                    Ok(None) => break,
                    _ => return false,
                }
            }
            self.session.arrive(decoder);
        }
        true
    }

    /// The bytes of the next PDU of the input.
    fn next_pdu(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let (fixes, mut bhs) = (input.byte(), input.array::<48>());
        let mut data = input.counted().to_vec();
        if fixes & fix::DATA_FOR_R2T != 0 {
            if let Some(pdu) = self.data_for(bhs[0], data.len().max(bhs[1].into())) {
                (bhs, data) = pdu;
            }
        } else {
            if fixes & fix::CMD_SN != 0 {
                put(&mut bhs, 24, self.exp_cmd_sn);
            }
            if fixes & fix::SMALL_TAG != 0 {
                bhs[16..19].fill(0);
                bhs[19] &= 7;
            }
            if fixes & fix::LUN_0 != 0 {
                bhs[8..16].fill(0);
            }
            if fixes & fix::RESERVED_TRANSFER_TAG != 0 {
                put(&mut bhs, 20, RESERVED_TAG);
            }
            if fixes & fix::LAST != 0 {
                bhs[1] |= 0x80;
            }
        }
        let ahs: &[u8] = if fixes & fix::ADDITIONAL_HEADER != 0 { &[0, 5, 1, 0, 0, 0, 0, 0] } else { &[] };
        let mut wire = encode(&bhs, ahs, &data, self.out.header_digest, self.out.data_digest);
        if fixes & fix::DAMAGED != 0 {
            let at = usize::from(bhs[2]) * 4 % wire.len();
            wire[at] ^= bhs[3] | 1;
        }
        wire
    }
}

pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let modes = input.byte();
    let mut bench = Bench::new(modes, input.byte());
    let mut decoder = Decoder::new(bench.session.parameters.target_max_recv_bytes as usize);
    (decoder.header_digest, decoder.data_digest) = (bench.out.header_digest, bench.out.data_digest);
    let step = if modes & mode::IN_PIECES != 0 { 777 } else { usize::MAX };
    while !input.is_empty() {
        let wire = if modes & mode::RAW != 0 { input.take(usize::MAX).to_vec() } else { bench.next_pdu(&mut input) };
        if !bench.receive(&mut decoder, &wire, step) {
            break;
        }
    }
    let budget = bench.budget.clone();
    drop(bench);
    assert_eq!((budget.used_bytes(), budget.contended()), (0, false), "room that does not come back");
}

//! The commands there are, declared once: dispatch and REPORT SUPPORTED OPERATION CODES both come from this table.

use crate::commands as c;
use crate::plan::{Cdb, Lun, Plan};
use crate::sense::Sense;
use crate::{copy, inquiry, mode, sanitize};

pub type Planner = fn(&Cdb, &Lun) -> Result<Plan, Sense>;

/// One command. `usage` has a bit set where the CDB means something (SPC-4 6.27.3); its length is the CDB's.
#[derive(Debug)]
pub struct Command {
    pub name: &'static str,
    pub opcode: u8,
    pub service_action: Option<u16>,
    pub usage: &'static [u8],
    pub plan: Planner,
}

const fn op(name: &'static str, opcode: u8, usage: &'static [u8], plan: Planner) -> Command {
    Command { name, opcode, service_action: None, usage, plan }
}

const fn action(name: &'static str, opcode: u8, service_action: u16, usage: &'static [u8], plan: Planner) -> Command {
    Command { name, opcode, service_action: Some(service_action), usage, plan }
}

const LBA16: u8 = 0xff;

/// The frequent ones first: the search is linear.
pub static COMMANDS: &[Command] = &[
    op("READ(10)", 0x28, &[0x28, 0x18, 255, 255, 255, 255, 0, 255, 255, 7], c::read),
    op("WRITE(10)", 0x2a, &[0x2a, 0x18, 255, 255, 255, 255, 0, 255, 255, 7], c::write),
    op("READ(16)", 0x88, &[0x88, 0x18, LBA16, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7], c::read),
    op("WRITE(16)", 0x8a, &[0x8a, 0x18, LBA16, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7], c::write),
    op("SYNCHRONIZE CACHE(10)", 0x35, &[0x35, 0x02, 255, 255, 255, 255, 0, 255, 255, 7], c::synchronize_cache),
    op(
        "SYNCHRONIZE CACHE(16)",
        0x91,
        &[0x91, 0x02, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7],
        c::synchronize_cache,
    ),
    op("UNMAP", 0x42, &[0x42, 0x01, 0, 0, 0, 0, 0, 255, 255, 7], c::unmap),
    op("TEST UNIT READY", 0x00, &[0x00, 0, 0, 0, 0, 7], c::nothing),
    op("REQUEST SENSE", 0x03, &[0x03, 0x01, 0, 0, 255, 7], c::request_sense),
    op("READ(6)", 0x08, &[0x08, 0x1f, 255, 255, 255, 7], c::read),
    op("WRITE(6)", 0x0a, &[0x0a, 0x1f, 255, 255, 255, 7], c::write),
    op("INQUIRY", 0x12, &[0x12, 0x01, 255, 255, 255, 7], inquiry::inquiry),
    op("MODE SELECT(6)", 0x15, &[0x15, 0x11, 0, 0, 255, 7], mode::select),
    op("RESERVE(6)", 0x16, &[0x16, 0, 0, 0, 0, 7], c::reserve),
    op("RELEASE(6)", 0x17, &[0x17, 0, 0, 0, 0, 7], c::release),
    op("MODE SENSE(6)", 0x1a, &[0x1a, 0x08, 255, 255, 255, 7], mode::sense),
    op("START STOP UNIT", 0x1b, &[0x1b, 0x01, 0, 0x0f, 0xf7, 7], c::start_stop),
    op("PREVENT ALLOW MEDIUM REMOVAL", 0x1e, &[0x1e, 0, 0, 0, 0x03, 7], c::nothing),
    op("READ CAPACITY(10)", 0x25, &[0x25, 0, 255, 255, 255, 255, 0, 0, 1, 7], c::read_capacity_10),
    op("WRITE AND VERIFY(10)", 0x2e, &[0x2e, 0x12, 255, 255, 255, 255, 0, 255, 255, 7], c::write_and_verify),
    op("VERIFY(10)", 0x2f, &[0x2f, 0x16, 255, 255, 255, 255, 0, 255, 255, 7], c::verify),
    op("PRE-FETCH(10)", 0x34, &[0x34, 0x02, 255, 255, 255, 255, 0, 255, 255, 7], c::prefetch),
    op("READ DEFECT DATA(10)", 0x37, &[0x37, 0, 0x1f, 0, 0, 0, 0, 255, 255, 7], c::defect_data),
    op("WRITE SAME(10)", 0x41, &[0x41, 0x08, 255, 255, 255, 255, 0, 255, 255, 7], c::write_same),
    action("SANITIZE: overwrite", 0x48, 0x01, &[0x48, 0xa1, 0, 0, 0, 0, 0, 255, 255, 7], sanitize::sanitize),
    action("SANITIZE: block erase", 0x48, 0x02, &[0x48, 0xa2, 0, 0, 0, 0, 0, 255, 255, 7], sanitize::sanitize),
    action("SANITIZE: cryptographic erase", 0x48, 0x03, &[0x48, 0xa3, 0, 0, 0, 0, 0, 255, 255, 7], sanitize::sanitize),
    action("SANITIZE: exit failure mode", 0x48, 0x1f, &[0x48, 0x1f, 0, 0, 0, 0, 0, 255, 255, 7], sanitize::sanitize),
    op("MODE SELECT(10)", 0x55, &[0x55, 0x11, 0, 0, 0, 0, 0, 255, 255, 7], mode::select),
    op("RESERVE(10)", 0x56, &[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 7], c::reserve),
    op("RELEASE(10)", 0x57, &[0x57, 0, 0, 0, 0, 0, 0, 0, 0, 7], c::release),
    op("MODE SENSE(10)", 0x5a, &[0x5a, 0x18, 255, 255, 0, 0, 0, 255, 255, 7], mode::sense),
    action("PERSISTENT RESERVE IN: read keys", 0x5e, 0, &[0x5e, 0, 0, 0, 0, 0, 0, 255, 255, 7], c::persistent_in),
    action("PERSISTENT RESERVE IN: read reservation", 0x5e, 1, &[0x5e, 1, 0, 0, 0, 0, 0, 255, 255, 7], c::persistent_in),
    action("PERSISTENT RESERVE IN: report capabilities", 0x5e, 2, &[0x5e, 2, 0, 0, 0, 0, 0, 255, 255, 7], c::persistent_in),
    action("PERSISTENT RESERVE IN: read full status", 0x5e, 3, &[0x5e, 3, 0, 0, 0, 0, 0, 255, 255, 7], c::persistent_in),
    action("PERSISTENT RESERVE OUT: register", 0x5f, 0, &[0x5f, 0, 0, 0, 0, 255, 255, 255, 255, 7], c::persistent_out),
    action("PERSISTENT RESERVE OUT: reserve", 0x5f, 1, &[0x5f, 1, 255, 0, 0, 255, 255, 255, 255, 7], c::persistent_out),
    action("PERSISTENT RESERVE OUT: release", 0x5f, 2, &[0x5f, 2, 255, 0, 0, 255, 255, 255, 255, 7], c::persistent_out),
    action("PERSISTENT RESERVE OUT: clear", 0x5f, 3, &[0x5f, 3, 0, 0, 0, 255, 255, 255, 255, 7], c::persistent_out),
    action("PERSISTENT RESERVE OUT: preempt", 0x5f, 4, &[0x5f, 4, 255, 0, 0, 255, 255, 255, 255, 7], c::persistent_out),
    action(
        "PERSISTENT RESERVE OUT: preempt and abort",
        0x5f,
        5,
        &[0x5f, 5, 255, 0, 0, 255, 255, 255, 255, 7],
        c::persistent_out,
    ),
    action(
        "PERSISTENT RESERVE OUT: register and ignore existing key",
        0x5f,
        6,
        &[0x5f, 6, 0, 0, 0, 255, 255, 255, 255, 7],
        c::persistent_out,
    ),
    action(
        "EXTENDED COPY(LID1)",
        0x83,
        0x00,
        &[0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 7],
        copy::extended_copy,
    ),
    action(
        "RECEIVE COPY RESULTS: copy status",
        0x84,
        0x00,
        &[0x84, 0, 255, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 7],
        copy::copy_status,
    ),
    action(
        "RECEIVE COPY RESULTS: operating parameters",
        0x84,
        0x03,
        &[0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 7],
        copy::operating_parameters,
    ),
    action(
        "RECEIVE COPY RESULTS: failed segment details",
        0x84,
        0x04,
        &[0x84, 4, 255, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 7],
        copy::failed_segment,
    ),
    op(
        "COMPARE AND WRITE",
        0x89,
        &[0x89, 0x18, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 255, 0, 7],
        c::compare_and_write,
    ),
    op("ORWRITE(16)", 0x8b, &[0x8b, 0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7], c::or_write),
    op(
        "WRITE AND VERIFY(16)",
        0x8e,
        &[0x8e, 0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7],
        c::write_and_verify,
    ),
    op("VERIFY(16)", 0x8f, &[0x8f, 0x16, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7], c::verify),
    op("PRE-FETCH(16)", 0x90, &[0x90, 0x02, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7], c::prefetch),
    op("WRITE SAME(16)", 0x93, &[0x93, 0x09, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7], c::write_same),
    op("WRITE ATOMIC(16)", 0x9c, &[0x9c, 0x18, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 255, 255, 0, 7], c::write_atomic),
    action(
        "READ CAPACITY(16)",
        0x9e,
        0x10,
        &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 7],
        c::read_capacity_16,
    ),
    action(
        "GET LBA STATUS",
        0x9e,
        0x12,
        &[0x9e, 0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7],
        c::lba_status,
    ),
    op("REPORT LUNS", 0xa0, &[0xa0, 0, 255, 0, 0, 0, 255, 255, 255, 255, 0, 7], c::report_luns),
    action(
        "REPORT SUPPORTED OPERATION CODES",
        0xa3,
        0x0c,
        &[0xa3, 0x0c, 0x87, 255, 255, 255, 255, 255, 255, 255, 0, 7],
        report_supported,
    ),
    action(
        "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
        0xa3,
        0x0d,
        &[0xa3, 0x0d, 0x80, 0, 0, 0, 255, 255, 255, 255, 0, 7],
        c::task_functions,
    ),
    op("READ(12)", 0xa8, &[0xa8, 0x18, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7], c::read),
    op("WRITE(12)", 0xaa, &[0xaa, 0x18, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7], c::write),
    op("WRITE AND VERIFY(12)", 0xae, &[0xae, 0x12, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7], c::write_and_verify),
    op("VERIFY(12)", 0xaf, &[0xaf, 0x16, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7], c::verify),
    op("READ DEFECT DATA(12)", 0xb7, &[0xb7, 0x1f, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7], c::defect_data),
];

/// The command a CDB asks for: INVALID OPCODE if there is none, INVALID FIELD if only its service action is unknown.
pub fn find(cdb: &Cdb) -> Result<&'static Command, Sense> {
    let mut known = false;
    for command in COMMANDS.iter().filter(|command| command.opcode == cdb[0]) {
        known = true;
        if command.service_action.is_none_or(|wanted| wanted == u16::from(cdb[1] & 0x1f)) {
            return Ok(command);
        }
    }
    Err(if known { Sense::INVALID_FIELD_IN_CDB.in_byte(1) } else { Sense::INVALID_OPCODE })
}

/// The commands that this unit has: those which need something of the volume only where it has it.
fn present(lun: &Lun) -> impl Iterator<Item = &'static Command> {
    let atomic = lun.atomic_bytes > 0;
    COMMANDS.iter().filter(move |command| command.opcode != 0x9c || atomic)
}

/// SPC-4 6.27. RCTD (time-outs) is answered with an empty descriptor: nothing is promised.
fn report_supported(cdb: &Cdb, lun: &Lun) -> Result<Plan, Sense> {
    let with_timeouts = cdb[2] & 0x80 != 0;
    let wanted_action = u16::from_be_bytes([cdb[4], cdb[5]]);
    let bytes = match cdb[2] & 0x07 {
        0 => all_supported(lun, with_timeouts),
        options @ 1..=3 => one_supported(lun, options, cdb[3], wanted_action, with_timeouts)?,
        _ => return Err(Sense::INVALID_FIELD_IN_CDB.in_byte(2)),
    };
    Ok(c::cut(bytes, crate::fields::be32(cdb, 6) as usize))
}

const NO_TIMEOUTS: [u8; 12] = [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn all_supported(lun: &Lun, with_timeouts: bool) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for command in present(lun) {
        let action = command.service_action.unwrap_or(0).to_be_bytes();
        let flags = u8::from(command.service_action.is_some()) | if with_timeouts { 2 } else { 0 };
        bytes.extend([command.opcode, 0, action[0], action[1], 0, flags, 0, command.usage.len() as u8]);
        if with_timeouts {
            bytes.extend(NO_TIMEOUTS);
        }
    }
    let length = (bytes.len() - 4) as u32;
    crate::fields::set_be32(&mut bytes, 0, length);
    bytes
}

fn one_supported(lun: &Lun, options: u8, opcode: u8, wanted_action: u16, with_timeouts: bool) -> Result<Vec<u8>, Sense> {
    let mut same_opcode = present(lun).filter(|command| command.opcode == opcode).peekable();
    let has_actions = same_opcode.peek().is_some_and(|command| command.service_action.is_some());
    // Option 1 is for commands without service actions, option 2 for those with; option 3 takes either.
    if (options == 1 && has_actions) || (options == 2 && same_opcode.peek().is_some() && !has_actions) {
        return Err(Sense::INVALID_FIELD_IN_CDB.in_byte(2));
    }
    let found = same_opcode.find(|command| command.service_action.is_none_or(|action| action == wanted_action));
    let Some(command) = found else { return Ok(vec![0, 0x01, 0, 0]) };
    let timeouts = if with_timeouts { 0x80 } else { 0 };
    let mut bytes = vec![0, 0x03 | timeouts, 0, command.usage.len() as u8];
    bytes.extend(command.usage);
    if with_timeouts {
        bytes.extend(NO_TIMEOUTS);
    }
    Ok(bytes)
}

//! A command descriptor block with its parameter list.
//!
//! Input: a byte for the disk's state, sixteen of CDB, the rest is the list.

use crate::input::Input;
use gespann_scsi::copy::CopyList;
use gespann_scsi::plan::{MAX_TRANSFER_BYTES, MAX_UNMAP_DESCRIPTORS, MAX_WRITE_SAME_BLOCKS};
use gespann_scsi::sanitize::{Overwrite, Sanitize};
use gespann_scsi::{Lun, Plan, Range, mode, parameters, plan, plan_for_absent_lun};

/// Longer answers are cut to what a CDB can ask for; the longest are lists of commands.
const LONGEST_ANSWER: usize = 64 * 1024;

/// A disk in one of the states that commands depend on.
pub fn lun(state: u8) -> Lun {
    let block_size = if state & 1 == 0 { 512 } else { 4096 };
    Lun {
        block_size,
        blocks: [2048, 1, 1 << 32, (1 << 60) / u64::from(block_size)][usize::from(state >> 1 & 3)],
        read_only: state & 8 != 0,
        settings: mode::Settings { write_protected: state & 16 != 0, ..mode::Settings::default() },
        physical_block_size: 4096,
        atomic_bytes: if state & 32 == 0 { 256 << 10 } else { 0 },
        thick: state & 32 != 0,
        vendor: "GESPANN".to_owned(),
        product: "VOLUME".to_owned(),
        revision: "1.0".to_owned(),
        naa: [0x6a; 16],
        target_name: "iqn.2026-01.test:".to_owned() + &"t".repeat(usize::from(state >> 6) * 68),
    }
}

fn check_range(range: Range, lun: &Lun, plan: &Plan) {
    let size_bytes = lun.blocks * u64::from(lun.block_size);
    assert!(range.offset.checked_add(range.length).is_some_and(|end| end <= size_bytes), "outside the disk: {plan:?}");
    assert_eq!((range.offset | range.length) % u64::from(lun.block_size), 0, "parts of blocks: {plan:?}");
    let longest = if matches!(plan, Plan::WriteSame { .. }) {
        MAX_WRITE_SAME_BLOCKS * u64::from(lun.block_size)
    } else {
        MAX_TRANSFER_BYTES
    };
    assert!(range.length <= longest, "longer than a command may be: {plan:?}");
}

pub fn check_plan(plan: &Plan, lun: &Lun) {
    match plan {
        Plan::Read(range) | Plan::Verify { range, .. } => check_range(*range, lun, plan),
        Plan::Write { range, .. }
        | Plan::OrWrite { range, .. }
        | Plan::WriteAtomic { range, .. }
        | Plan::WriteSame { range, .. }
        | Plan::CompareAndWrite { range, .. } => {
            assert!(!lun.refuses_writes(), "a write to a disk that refuses them: {plan:?}");
            check_range(*range, lun, plan);
        }
        Plan::Unmap { .. } => assert!(!lun.refuses_writes()),
        Plan::Answer(bytes) => assert!(bytes.len() <= LONGEST_ANSWER, "an answer of {} bytes", bytes.len()),
        Plan::LbaStatus { lba, .. } => assert!(*lba < lun.blocks),
        _ => {}
    }
    assert!(plan.data_out_bytes(lun.block_size) as u64 <= MAX_TRANSFER_BYTES, "asks for too much: {plan:?}");
}

pub fn check_parameters(plan: &Plan, lun: &Lun, list: &[u8]) {
    match plan {
        Plan::Unmap { parameter_bytes } if list.len() >= *parameter_bytes => {
            let Ok(ranges) = parameters::unmap_ranges(&list[..*parameter_bytes], lun) else { return };
            assert!(ranges.len() <= MAX_UNMAP_DESCRIPTORS as usize);
            let size_bytes = lun.blocks * u64::from(lun.block_size);
            for range in ranges {
                assert!(range.offset.checked_add(range.length).is_some_and(|end| end <= size_bytes), "outside: {range:?}");
            }
        }
        Plan::ModeSelect { parameter_bytes, header_bytes } if list.len() >= *parameter_bytes => {
            let _ = mode::check_select(&list[..*parameter_bytes], *header_bytes, lun);
        }
        Plan::Sanitize(Sanitize::Overwrite { parameter_bytes, .. }) => {
            let Ok(overwrite) = Overwrite::parse(list, *parameter_bytes, lun) else { return };
            let bytes = overwrite.block(1, lun.block_size as usize).len();
            assert_eq!(bytes, lun.block_size as usize, "a pattern of another length");
        }
        Plan::Copy { parameter_bytes } => {
            let Ok(copy) = CopyList::parse(list, *parameter_bytes) else { return };
            let size_bytes = lun.blocks * u64::from(lun.block_size);
            for (from, to) in copy.segments.iter().filter_map(|segment| segment.ranges(lun, lun).ok()) {
                for range in [from, to] {
                    assert!(range.offset.checked_add(range.length).is_some_and(|end| end <= size_bytes), "outside: {range:?}");
                }
            }
        }
        _ => {}
    }
}

pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let lun = lun(input.byte());
    let cdb = input.array();
    let plan = plan(&cdb, &lun);
    check_plan(&plan, &lun);
    check_parameters(&plan, &lun, input.0);
    let absent = plan_for_absent_lun(&cdb, &lun);
    assert!(matches!(absent, Plan::Answer(_) | Plan::Refuse(_)), "done on a unit that is not there: {absent:?}");
}

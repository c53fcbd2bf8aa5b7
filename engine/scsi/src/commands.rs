//! The planners of the block commands (SBC-4) and the small primary ones (SPC-4).

use crate::fields::{be16, be32, be64, set_be32, set_be64};
use crate::plan::{Cdb, Compare, Lun, MAX_COMPARE_BLOCKS, MAX_TRANSFER_BYTES, MAX_WRITE_SAME_BLOCKS, Plan, Range};
use crate::sense::Sense;

type Planned = Result<Plan, Sense>;

/// Answer data of at most the allocation length.
pub fn cut(mut bytes: Vec<u8>, allocation_length: usize) -> Plan {
    bytes.truncate(allocation_length);
    Plan::Answer(bytes)
}

/// LBA and number of blocks, where each length of CDB has them. In a 6-byte CDB zero blocks mean 256.
fn extent(cdb: &Cdb) -> (u64, u64) {
    match cdb[0] >> 5 {
        0 => (u64::from(be32(cdb, 0) & 0x1f_ffff), if cdb[4] == 0 { 256 } else { cdb[4].into() }),
        1 | 2 => (be32(cdb, 2).into(), be16(cdb, 7).into()),
        4 => (be64(cdb, 2), be32(cdb, 10).into()),
        _ => (be32(cdb, 2).into(), be32(cdb, 6).into()),
    }
}

fn range(lun: &Lun, lba: u64, blocks: u64) -> Result<Range, Sense> {
    match lba.checked_add(blocks) {
        Some(end) if end <= lun.blocks => {
            let block_size = u64::from(lun.block_size);
            Ok(Range { offset: lba * block_size, length: blocks * block_size })
        }
        _ => Err(Sense::LBA_OUT_OF_RANGE),
    }
}

fn transfer(cdb: &Cdb, lun: &Lun) -> Result<Range, Sense> {
    let (lba, blocks) = extent(cdb);
    if blocks > MAX_TRANSFER_BYTES / u64::from(lun.block_size) {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    range(lun, lba, blocks)
}

/// RDPROTECT, WRPROTECT, VRPROTECT: this disk keeps no protection information. 6-byte CDBs have LBA bits there.
fn refuse_protection(cdb: &Cdb) -> Result<(), Sense> {
    if cdb[0] >> 5 != 0 && cdb[1] & 0xe0 != 0 { Err(Sense::INVALID_FIELD_IN_CDB) } else { Ok(()) }
}

fn refuse_read_only(lun: &Lun) -> Result<(), Sense> {
    if lun.refuses_writes() { Err(Sense::WRITE_PROTECTED) } else { Ok(()) }
}

/// Force unit access; 6-byte CDBs have none.
fn through(cdb: &Cdb) -> bool {
    cdb[0] >> 5 != 0 && cdb[1] & 0x08 != 0
}

pub fn nothing(_cdb: &Cdb, _lun: &Lun) -> Planned {
    Ok(Plan::Good)
}

pub fn read(cdb: &Cdb, lun: &Lun) -> Planned {
    refuse_protection(cdb)?;
    Ok(Plan::Read(transfer(cdb, lun)?))
}

pub fn write(cdb: &Cdb, lun: &Lun) -> Planned {
    refuse_protection(cdb)?;
    let range = transfer(cdb, lun)?;
    refuse_read_only(lun)?;
    Ok(Plan::Write { range, through: through(cdb) })
}

pub fn or_write(cdb: &Cdb, lun: &Lun) -> Planned {
    refuse_protection(cdb)?;
    let range = transfer(cdb, lun)?;
    refuse_read_only(lun)?;
    Ok(Plan::OrWrite { range, through: through(cdb) })
}

/// Written through to the medium, which is what a later read would verify. BYTCHK 2 does not exist.
pub fn write_and_verify(cdb: &Cdb, lun: &Lun) -> Planned {
    refuse_protection(cdb)?;
    if cdb[1] & 0x06 == 0x04 {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    let range = transfer(cdb, lun)?;
    refuse_read_only(lun)?;
    Ok(Plan::Write { range, through: true })
}

pub fn verify(cdb: &Cdb, lun: &Lun) -> Planned {
    refuse_protection(cdb)?;
    let compare = match cdb[1] >> 1 & 3 {
        0 => Compare::Nothing,
        1 => Compare::All,
        3 => Compare::OneBlock,
        _ => return Err(Sense::INVALID_FIELD_IN_CDB),
    };
    Ok(Plan::Verify { range: transfer(cdb, lun)?, compare })
}

pub fn synchronize_cache(cdb: &Cdb, lun: &Lun) -> Planned {
    let (lba, blocks) = extent(cdb);
    range(lun, lba, blocks)?;
    Ok(Plan::Flush)
}

/// A hint; the page cache does its own reading ahead.
pub fn prefetch(cdb: &Cdb, lun: &Lun) -> Planned {
    let (lba, blocks) = extent(cdb);
    range(lun, lba, blocks)?;
    Ok(Plan::Good)
}

pub fn unmap(cdb: &Cdb, lun: &Lun) -> Planned {
    if cdb[1] & 0x01 != 0 {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    refuse_read_only(lun)?;
    match usize::from(be16(cdb, 7)) {
        0 => Ok(Plan::Good),
        parameter_bytes => Ok(Plan::Unmap { parameter_bytes }),
    }
}

/// WRITE SAME(10) and (16); NDOB exists only in the latter. Zero blocks mean "to the end". Nothing can be anchored here
/// (ANC_SUP is 0), and the obsolete PBDATA and LBDATA would write something else than what was sent.
pub fn write_same(cdb: &Cdb, lun: &Lun) -> Planned {
    let (unmap, no_data) = (cdb[1] & 0x08 != 0, cdb[0] == 0x93 && cdb[1] & 0x01 != 0);
    let obsolete = if cdb[0] == 0x93 { 0x06 } else { 0x07 };
    refuse_protection(cdb)?;
    if cdb[1] & (0x10 | obsolete) != 0 {
        return Err(Sense::INVALID_FIELD_IN_CDB.in_byte(1));
    }
    let (lba, asked) = extent(cdb);
    let mut range = range(lun, lba, asked)?;
    if asked == 0 {
        range.length = lun.bytes() - range.offset;
    }
    let longest = MAX_WRITE_SAME_BLOCKS * u64::from(lun.block_size);
    if range.length > longest || (asked == 0 && !lun.writes_same_to_end()) {
        return Err(Sense::INVALID_FIELD_IN_CDB.in_byte(if cdb[0] == 0x93 { 10 } else { 7 }));
    }
    refuse_read_only(lun)?;
    Ok(Plan::WriteSame { range, unmap, has_data: !no_data })
}

/// WRITE ATOMIC(16), up to what the volume can switch at once. No boundaries within one command.
pub fn write_atomic(cdb: &Cdb, lun: &Lun) -> Planned {
    if lun.atomic_bytes == 0 {
        return Err(Sense::INVALID_OPCODE);
    }
    refuse_protection(cdb)?;
    if be16(cdb, 10) != 0 {
        return Err(Sense::INVALID_FIELD_IN_CDB.in_byte(10));
    }
    let range = range(lun, be64(cdb, 2), be16(cdb, 12).into())?;
    if range.length > lun.atomic_bytes.into() {
        return Err(Sense::INVALID_FIELD_IN_CDB.in_byte(12));
    }
    refuse_read_only(lun)?;
    Ok(Plan::WriteAtomic { range, through: through(cdb) })
}

/// READ DEFECT DATA(10) and (12): both lists are there and empty, in whatever format is asked for.
pub fn defect_data(cdb: &Cdb, _lun: &Lun) -> Planned {
    Ok(if cdb[0] == 0x37 {
        cut(vec![0, cdb[2] & 0x1f, 0, 0], be16(cdb, 7).into())
    } else {
        cut(vec![0, cdb[1] & 0x1f, 0, 0, 0, 0, 0, 0], be32(cdb, 6) as usize)
    })
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36): abort task and task set, clear task set, resets of unit and
/// target.
pub fn task_functions(cdb: &Cdb, _lun: &Lun) -> Planned {
    let (extended, allocation_length) = (cdb[2] & 0x80 != 0, be32(cdb, 6) as usize);
    if allocation_length < 4 {
        return Err(Sense::INVALID_FIELD_IN_CDB.in_byte(6));
    }
    let mut bytes = vec![0; if extended { 16 } else { 4 }];
    bytes[0] = 0x80 | 0x40 | 0x10 | 0x08 | 0x02;
    bytes[3] = bytes.len() as u8 - 4;
    Ok(cut(bytes, allocation_length))
}

pub fn compare_and_write(cdb: &Cdb, lun: &Lun) -> Planned {
    refuse_protection(cdb)?;
    if cdb[13] > MAX_COMPARE_BLOCKS {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    let range = range(lun, be64(cdb, 2), cdb[13].into())?;
    refuse_read_only(lun)?;
    Ok(Plan::CompareAndWrite { range, through: through(cdb) })
}

pub fn lba_status(cdb: &Cdb, lun: &Lun) -> Planned {
    let lba = be64(cdb, 2);
    if lba >= lun.blocks {
        return Err(Sense::LBA_OUT_OF_RANGE);
    }
    Ok(Plan::LbaStatus { lba, allocation_length: be32(cdb, 10) as usize })
}

pub fn request_sense(cdb: &Cdb, _lun: &Lun) -> Planned {
    if cdb[1] & 0x01 != 0 {
        return Err(Sense::INVALID_FIELD_IN_CDB); // descriptor format
    }
    Ok(Plan::TellSense { allocation_length: cdb[4].into() })
}

/// There is nothing to spin. Stopping writes the cache out first, as SBC-3 5.25 wants, unless NO_FLUSH.
pub fn start_stop(cdb: &Cdb, _lun: &Lun) -> Planned {
    let (start, no_flush) = (cdb[4] & 0x01 != 0, cdb[4] & 0x04 != 0);
    Ok(if start || no_flush { Plan::Good } else { Plan::Flush })
}

pub fn reserve(_cdb: &Cdb, _lun: &Lun) -> Planned {
    Ok(Plan::Reserve)
}

pub fn release(_cdb: &Cdb, _lun: &Lun) -> Planned {
    Ok(Plan::Release)
}

pub fn persistent_in(cdb: &Cdb, _lun: &Lun) -> Planned {
    Ok(Plan::PersistentIn { action: cdb[1] & 0x1f, allocation_length: be16(cdb, 7).into() })
}

/// One length of parameter list only: nothing is kept of one that would be refused.
pub fn persistent_out(cdb: &Cdb, _lun: &Lun) -> Planned {
    match be32(cdb, 5) {
        24 => Ok(Plan::PersistentOut { cdb: *cdb, parameter_bytes: 24 }),
        _ => Err(Sense::PARAMETER_LIST_LENGTH),
    }
}

pub fn read_capacity_10(cdb: &Cdb, lun: &Lun) -> Planned {
    if cdb[8] & 1 == 0 && be32(cdb, 2) != 0 {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    let mut bytes = vec![0; 8];
    set_be32(&mut bytes, 0, u32::try_from(lun.blocks - 1).unwrap_or(u32::MAX));
    set_be32(&mut bytes, 4, lun.block_size);
    Ok(Plan::Answer(bytes))
}

/// LBPME and LBPRZ set: unmapped blocks read as zeroes.
pub fn read_capacity_16(cdb: &Cdb, lun: &Lun) -> Planned {
    let mut bytes = vec![0; 32];
    set_be64(&mut bytes, 0, lun.blocks - 1);
    set_be32(&mut bytes, 8, lun.block_size);
    bytes[13] = (lun.physical_block_size / lun.block_size).ilog2() as u8;
    bytes[14] = 0xc0;
    Ok(cut(bytes, be32(cdb, 10) as usize))
}

pub fn report_luns(cdb: &Cdb, _lun: &Lun) -> Planned {
    let allocation_length = be32(cdb, 6) as usize;
    if allocation_length < 16 {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    let mut bytes = vec![0; 8];
    match cdb[2] {
        0 | 2 => {
            set_be32(&mut bytes, 0, 8);
            bytes.extend([0; 8]);
        }
        1 => {} // well-known logical units: none
        _ => return Err(Sense::INVALID_FIELD_IN_CDB),
    }
    Ok(cut(bytes, allocation_length))
}

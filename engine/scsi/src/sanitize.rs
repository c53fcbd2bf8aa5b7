//! SANITIZE (SBC-4 5.34): what is asked for, and the pattern an overwrite leaves.

use crate::fields::be16;
use crate::plan::{Cdb, Lun, Plan};
use crate::sense::Sense;

/// `allow_leaving` (AUSE): should it fail, EXIT FAILURE MODE may end that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sanitize {
    Overwrite {
        immediate: bool,
        allow_leaving: bool,
        parameter_bytes: usize,
    },
    /// Block erase and cryptographic erase: no block holds anything afterwards, and the space is given back.
    Erase {
        immediate: bool,
        allow_leaving: bool,
    },
    /// EXIT FAILURE MODE.
    Leave,
}

/// What an overwrite writes: `passes` times the pattern in each block, each pass inverting the last one if `invert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overwrite {
    pub passes: u8,
    pub invert: bool,
    pub pattern: Vec<u8>,
}

impl Overwrite {
    /// The parameter list of OVERWRITE (SBC-4 5.34.2.2): a pattern of one block at most.
    pub fn parse(parameters: &[u8], parameter_bytes: usize, lun: &Lun) -> Result<Self, Sense> {
        if parameters.len() < parameter_bytes || parameter_bytes <= 4 {
            return Err(Sense::PARAMETER_LIST_LENGTH);
        }
        let (flags, pattern_bytes) = (parameters[0], usize::from(be16(parameters, 2)));
        if flags & 0x60 != 0 || flags & 0x1f == 0 || parameters[1] != 0 {
            return Err(Sense::INVALID_FIELD_IN_PARAMETERS.in_parameter(0));
        }
        if pattern_bytes == 0 || pattern_bytes > lun.block_size as usize || 4 + pattern_bytes > parameter_bytes {
            return Err(Sense::INVALID_FIELD_IN_PARAMETERS.in_parameter(2));
        }
        Ok(Self { passes: flags & 0x1f, invert: flags & 0x80 != 0, pattern: parameters[4..4 + pattern_bytes].to_vec() })
    }

    /// One block as pass number `pass`, counted from 0, leaves it: the pattern repeated and cut at the block's end.
    pub fn block(&self, pass: u8, block_size: usize) -> Vec<u8> {
        let mask = if self.invert && pass % 2 == 1 { 0xff } else { 0 };
        self.pattern.iter().cycle().take(block_size).map(|byte| byte ^ mask).collect()
    }
}

pub fn sanitize(cdb: &Cdb, lun: &Lun) -> Result<Plan, Sense> {
    let (immediate, allow_leaving, parameter_bytes) = (cdb[1] & 0x80 != 0, cdb[1] & 0x20 != 0, usize::from(be16(cdb, 7)));
    if cdb[1] & 0x40 != 0 {
        return Err(Sense::INVALID_FIELD_IN_CDB.in_byte(1)); // ZNR is for zoned disks
    }
    if let Some(at) = (2..7).find(|at| cdb[*at] != 0) {
        return Err(Sense::INVALID_FIELD_IN_CDB.in_byte(at as u16));
    }
    let wanted = match cdb[1] & 0x1f {
        1 if (5..=lun.block_size as usize + 4).contains(&parameter_bytes) => {
            Sanitize::Overwrite { immediate, allow_leaving, parameter_bytes }
        }
        2 | 3 if parameter_bytes == 0 => Sanitize::Erase { immediate, allow_leaving },
        0x1f if parameter_bytes == 0 => Sanitize::Leave,
        _ => return Err(Sense::INVALID_FIELD_IN_CDB.in_byte(7)),
    };
    if lun.refuses_writes() {
        return Err(Sense::WRITE_PROTECTED);
    }
    Ok(Plan::Sanitize(wanted))
}

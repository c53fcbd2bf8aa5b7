//! Parameter lists that arrive as data, and answers that need the store.

use crate::fields::{be16, be32, be64, set_be32, set_be64};
use crate::plan::{Lun, MAX_UNMAP_DESCRIPTORS, Range};
use crate::sense::Sense;

/// The ranges of an UNMAP parameter list (SBC-3 5.28.2), all checked before any is touched.
pub fn unmap_ranges(parameters: &[u8], lun: &Lun) -> Result<Vec<Range>, Sense> {
    if parameters.len() < 8 {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    let announced = usize::from(be16(parameters, 2));
    let descriptors = &parameters[8..parameters.len().min(8 + announced)];
    if descriptors.len() / 16 > MAX_UNMAP_DESCRIPTORS as usize {
        return Err(Sense::INVALID_FIELD_IN_PARAMETERS);
    }
    let block_size = u64::from(lun.block_size);
    let to_range = |descriptor: &[u8]| {
        let (lba, blocks) = (be64(descriptor, 0), u64::from(be32(descriptor, 8)));
        match lba.checked_add(blocks) {
            Some(end) if end <= lun.blocks => Ok(Range { offset: lba * block_size, length: blocks * block_size }),
            _ => Err(Sense::LBA_OUT_OF_RANGE),
        }
    };
    descriptors.chunks_exact(16).map(to_range).collect()
}

/// Blocks that are all mapped, or none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LbaRun {
    pub lba: u64,
    pub blocks: u64,
    pub mapped: bool,
}

/// Runs that fit into an answer to GET LBA STATUS; one is always sent.
pub fn most_lba_runs(allocation_length: usize) -> usize {
    (allocation_length.saturating_sub(8) / 16).clamp(1, 256)
}

/// The answer to GET LBA STATUS (SBC-3 5.6.2).
pub fn lba_status(runs: &[LbaRun], allocation_length: usize) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    set_be32(&mut bytes, 0, 4 + 16 * runs.len() as u32);
    for run in runs {
        let mut descriptor = [0; 16];
        set_be64(&mut descriptor, 0, run.lba);
        set_be32(&mut descriptor, 8, u32::try_from(run.blocks).unwrap_or(u32::MAX));
        descriptor[12] = u8::from(!run.mapped);
        bytes.extend(descriptor);
    }
    bytes.truncate(allocation_length);
    bytes
}

//! Parameter lists that arrive as data, and answers that need the store.

use crate::commands::cut;
use crate::fields::{be16, be32, be64, set_be32, set_be64};
use crate::plan::{Lun, MAX_UNMAP_DESCRIPTORS, Plan, Range};
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

/// The answer to GET LBA STATUS with one descriptor (SBC-3 5.6.2).
pub fn lba_status(lba: u64, blocks: u64, mapped: bool, allocation_length: usize) -> Plan {
    let mut bytes = vec![0; 24];
    set_be32(&mut bytes, 0, 20);
    set_be64(&mut bytes, 8, lba);
    set_be32(&mut bytes, 16, u32::try_from(blocks).unwrap_or(u32::MAX));
    bytes[20] = u8::from(!mapped);
    cut(bytes, allocation_length)
}

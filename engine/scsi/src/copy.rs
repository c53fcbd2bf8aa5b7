//! EXTENDED COPY with one-byte list identifiers, and RECEIVE COPY RESULTS (SPC-4 6.4, 6.19; VPD page 0x8F, 7.8.17).
//!
//! Volumes are named by their NAA identifiers (descriptor 0xE4), segments copy blocks to blocks (descriptor 0x02).
//! A segment is checked when its turn comes, as the standard wants: those before it have been done.

use crate::commands::cut;
use crate::fields::{be16, be32, be64, set_be16, set_be32};
use crate::plan::{Cdb, Lun, Plan, Range};
use crate::sense::Sense;

pub const MAX_CSCDS: usize = 8;
pub const MAX_SEGMENTS: usize = 64;
const CSCD_BYTES: usize = 32;
const SEGMENT_BYTES: usize = 28;
const HEADER_BYTES: usize = 16;
const MAX_DESCRIPTOR_BYTES: usize = MAX_CSCDS * CSCD_BYTES + MAX_SEGMENTS * SEGMENT_BYTES;
/// 65,535 blocks of 4096 bytes: what the segment's own field can say.
const MAX_SEGMENT_BYTES: u32 = 65_535 * 4096;
/// Copies that one session may ask about afterwards.
pub const MAX_KEPT_RESULTS: usize = 16;

const IDENTIFICATION_CSCD: u8 = 0xe4;
const BLOCK_TO_BLOCK: u8 = 0x02;

/// A copy source or destination (CSCD) as the list names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cscd {
    /// None: named in a way that fits no volume, or not there on purpose (NUL).
    pub naa: Option<[u8; 16]>,
    pub block_size: u32,
}

/// Blocks to blocks. `from` and `to` count the CSCDs of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub from: usize,
    pub to: usize,
    /// The number of blocks counts the destination's blocks, not the source's (DC).
    counts_destination: bool,
    blocks: u16,
    from_lba: u64,
    to_lba: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyList {
    /// None: its outcome is not to be kept.
    pub list_id: Option<u8>,
    pub cscds: Vec<Cscd>,
    pub segments: Vec<Segment>,
}

/// How a copy went, for RECEIVE COPY RESULTS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyResult {
    pub list_id: u8,
    pub segments: u16,
    pub bytes: u64,
    pub failed: Option<Sense>,
}

/// Only the one-byte form; a list of no bytes asks for nothing.
pub fn extended_copy(cdb: &Cdb, _lun: &Lun) -> Result<Plan, Sense> {
    match be32(cdb, 10) as usize {
        0 => Ok(Plan::Good),
        bytes if bytes < HEADER_BYTES || bytes > HEADER_BYTES + MAX_DESCRIPTOR_BYTES => Err(Sense::PARAMETER_LIST_LENGTH),
        parameter_bytes => Ok(Plan::Copy { parameter_bytes }),
    }
}

pub fn copy_status(cdb: &Cdb, _lun: &Lun) -> Result<Plan, Sense> {
    Ok(Plan::CopyResults { list_id: cdb[2], failed: false, allocation_length: be32(cdb, 10) as usize })
}

pub fn failed_segment(cdb: &Cdb, _lun: &Lun) -> Result<Plan, Sense> {
    Ok(Plan::CopyResults { list_id: cdb[2], failed: true, allocation_length: be32(cdb, 10) as usize })
}

/// SPC-4 table 222.
pub fn operating_parameters(cdb: &Cdb, _lun: &Lun) -> Result<Plan, Sense> {
    let mut bytes = vec![0; 44];
    bytes[4] = 1; // SNLID: a list may go without an identifier
    set_be16(&mut bytes, 8, MAX_CSCDS as u16);
    set_be16(&mut bytes, 10, MAX_SEGMENTS as u16);
    set_be32(&mut bytes, 12, MAX_DESCRIPTOR_BYTES as u32);
    set_be32(&mut bytes, 16, MAX_SEGMENT_BYTES);
    set_be16(&mut bytes, 34, 1); // a session copies one list at a time
    bytes[36] = 1;
    bytes[37] = 9; // segments are counted in blocks of 512 bytes or more
    bytes[43] = 2;
    bytes.extend([BLOCK_TO_BLOCK, IDENTIFICATION_CSCD]);
    let available = bytes.len() as u32 - 4;
    set_be32(&mut bytes, 0, available);
    Ok(cut(bytes, be32(cdb, 10) as usize))
}

/// The answer of COPY STATUS, or of FAILED SEGMENT DETAILS.
pub fn report(result: &CopyResult, failed: bool) -> Vec<u8> {
    if failed {
        let mut bytes = vec![0; 60];
        if let Some(sense) = &result.failed {
            let sense = sense.encode();
            bytes[56] = crate::status::CHECK_CONDITION;
            set_be16(&mut bytes, 58, sense.len() as u16);
            bytes.extend(sense);
        } else {
            bytes.truncate(4);
        }
        let available = bytes.len() as u32 - 4;
        set_be32(&mut bytes, 0, available);
        return bytes;
    }
    const BYTES: u8 = 0;
    const KIB: u8 = 1;
    let mut bytes = vec![0; 12];
    set_be32(&mut bytes, 0, 8);
    bytes[4] = if result.failed.is_some() { 2 } else { 1 };
    set_be16(&mut bytes, 5, result.segments);
    let (unit, count) = match u32::try_from(result.bytes) {
        Ok(count) => (BYTES, count),
        Err(_) => (KIB, u32::try_from(result.bytes >> 10).unwrap_or(u32::MAX)),
    };
    bytes[7] = unit;
    set_be32(&mut bytes, 8, count);
    bytes
}

impl CopyList {
    /// Checks the whole list's form; whether the volumes are there is asked segment by segment.
    pub fn parse(parameters: &[u8], parameter_bytes: usize) -> Result<Self, Sense> {
        if parameters.len() < parameter_bytes || parameters.len() < HEADER_BYTES {
            return Err(Sense::PARAMETER_LIST_LENGTH);
        }
        let (cscd_bytes, segment_bytes) = (usize::from(be16(parameters, 2)), be32(parameters, 8) as usize);
        let body = &parameters[HEADER_BYTES..parameter_bytes];
        if be32(parameters, 12) != 0 {
            return Err(Sense::INLINE_DATA_LENGTH.in_parameter(12));
        }
        let end = cscd_bytes.checked_add(segment_bytes).filter(|end| *end <= body.len());
        let (cscds, segments) = match end {
            Some(end) => (&body[..cscd_bytes], &body[cscd_bytes..end]),
            None => return Err(Sense::PARAMETER_LIST_LENGTH),
        };
        let list_id = match parameters[1] >> 3 & 3 {
            0 | 2 => Some(parameters[0]),
            3 if parameters[0] == 0 => None,
            _ => return Err(Sense::INVALID_FIELD_IN_PARAMETERS.in_parameter(1)),
        };
        Ok(Self { list_id, cscds: parse_cscds(cscds)?, segments: parse_segments(segments, HEADER_BYTES + cscd_bytes)? })
    }
}

fn parse_cscds(bytes: &[u8]) -> Result<Vec<Cscd>, Sense> {
    if bytes.len() > MAX_CSCDS * CSCD_BYTES {
        return Err(Sense::TOO_MANY_CSCDS);
    }
    let mut cscds = Vec::new();
    for (index, one) in bytes.chunks(CSCD_BYTES).enumerate() {
        let at = |byte: usize| (HEADER_BYTES + index * CSCD_BYTES + byte) as u16;
        if one[0] != IDENTIFICATION_CSCD {
            return Err(Sense::UNSUPPORTED_CSCD.in_parameter(at(0)));
        }
        if one.len() < CSCD_BYTES {
            return Err(Sense::PARAMETER_LIST_LENGTH);
        }
        let absent = one[1] & 0x20 != 0 || one[1] & 0x1f != 0; // NUL, or no disk
        let is_naa = one[4] & 0x0f == 1 && one[5] & 0x3f == 3 && one[7] == 16;
        let naa = (!absent && is_naa).then(|| one[8..24].try_into().expect("16 bytes"));
        cscds.push(Cscd { naa, block_size: be32(one, 28) & 0xff_ffff });
    }
    Ok(cscds)
}

fn parse_segments(mut bytes: &[u8], mut at: usize) -> Result<Vec<Segment>, Sense> {
    let mut segments = Vec::new();
    while !bytes.is_empty() {
        if segments.len() == MAX_SEGMENTS {
            return Err(Sense::TOO_MANY_SEGMENTS);
        }
        if bytes[0] != BLOCK_TO_BLOCK {
            return Err(Sense::UNSUPPORTED_SEGMENT.in_parameter(at as u16));
        }
        let one = bytes.get(..SEGMENT_BYTES).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
        if usize::from(be16(one, 2)) != SEGMENT_BYTES - 4 {
            return Err(Sense::INVALID_FIELD_IN_PARAMETERS.in_parameter(at as u16 + 2));
        }
        segments.push(Segment {
            from: be16(one, 4).into(),
            to: be16(one, 6).into(),
            counts_destination: one[1] & 0x02 != 0,
            blocks: be16(one, 10),
            from_lba: be64(one, 12),
            to_lba: be64(one, 20),
        });
        bytes = &bytes[SEGMENT_BYTES..];
        at += SEGMENT_BYTES;
    }
    Ok(segments)
}

impl Segment {
    /// What is read and what is written, both checked to lie inside their volumes.
    pub fn ranges(&self, source: &Lun, target: &Lun) -> Result<(Range, Range), Sense> {
        let counted = if self.counts_destination { target } else { source };
        let length = u64::from(self.blocks) * u64::from(counted.block_size);
        let range = |lun: &Lun, lba: u64| {
            if length % u64::from(lun.block_size) != 0 {
                return Err(Sense::COPY_INEXACT);
            }
            let end = lba.checked_add(length / u64::from(lun.block_size)).filter(|end| *end <= lun.blocks);
            end.map(|_| Range { offset: lba * u64::from(lun.block_size), length }).ok_or(Sense::COPY_OUT_OF_RANGE)
        };
        Ok((range(source, self.from_lba)?, range(target, self.to_lba)?))
    }
}

/// VPD page 0x8F: third-party copy descriptors, each with its type and its length in front.
pub fn third_party_copy_page(_lun: &Lun) -> Vec<u8> {
    let mut page = Vec::new();
    let mut descriptor = |kind: u16, mut body: Vec<u8>| {
        body.resize(body.len().next_multiple_of(4), 0);
        page.extend(kind.to_be_bytes());
        page.extend((body.len() as u16).to_be_bytes());
        page.extend(body);
    };
    // Commands, each with its service actions.
    descriptor(0x0001, vec![8, 0x83, 1, 0x00, 0x84, 3, 0x00, 0x03, 0x04]);
    let mut parameters = vec![0; 28];
    set_be16(&mut parameters, 4, MAX_CSCDS as u16);
    set_be16(&mut parameters, 6, MAX_SEGMENTS as u16);
    set_be32(&mut parameters, 8, MAX_DESCRIPTOR_BYTES as u32);
    descriptor(0x0004, parameters);
    descriptor(0x0008, vec![2, BLOCK_TO_BLOCK, IDENTIFICATION_CSCD]);
    descriptor(0x000c, vec![0, 0]); // no CSCD has an identifier of its own
    let mut general = vec![0; 32];
    set_be32(&mut general, 0, 1);
    set_be32(&mut general, 4, 1);
    set_be32(&mut general, 8, MAX_SEGMENT_BYTES);
    general[12] = 9;
    descriptor(0x8001, general);
    page
}

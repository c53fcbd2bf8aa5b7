//! From a command to what has to be done.

use crate::sanitize::Sanitize;
use crate::sense::Sense;
use crate::{commands, inquiry, mode, opcodes};

pub type Cdb = [u8; 16];

/// Longest READ or WRITE, as the block limits page says. Bounds the memory of one command.
pub const MAX_TRANSFER_BYTES: u64 = 8 << 20;
/// Longest WRITE SAME, in blocks: it bounds how long one command holds up its session, and a drain.
pub const MAX_WRITE_SAME_BLOCKS: u64 = 32_768;
pub const MAX_COMPARE_BLOCKS: u8 = 128;
pub const MAX_UNMAP_DESCRIPTORS: u32 = 256;

/// State of the logical unit that commands depend on.
#[derive(Debug, Clone)]
pub struct Lun {
    pub block_size: u32,
    pub blocks: u64,
    /// As READ CAPACITY(16) tells it; a multiple of `block_size`.
    pub physical_block_size: u32,
    pub read_only: bool,
    /// What initiators have set.
    pub settings: mode::Settings,
    /// Longest WRITE ATOMIC; 0: the volume cannot do it, and the command is not there.
    pub atomic_bytes: u32,
    pub thick: bool,
    pub vendor: String,
    pub product: String,
    pub revision: String,
    /// As VPD page 0x83 shows it.
    pub naa: [u8; 16],
    /// Name of the iSCSI target, for the port's designators.
    pub target_name: String,
}

impl Lun {
    pub fn refuses_writes(&self) -> bool {
        self.read_only || self.settings.write_protected
    }

    /// WRITE SAME of zero blocks, "to the end". On a longer disk it would be too long at most addresses: there it is
    /// refused at all of them, and WSNZ says so.
    pub fn writes_same_to_end(&self) -> bool {
        self.blocks <= 2 * MAX_WRITE_SAME_BLOCKS
    }

    pub fn bytes(&self) -> u64 {
        self.blocks * u64::from(self.block_size)
    }
}

/// Bytes of the volume, checked to lie inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub offset: u64,
    pub length: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Only that the blocks can be read.
    Nothing,
    /// With data of the same length.
    All,
    /// Each block with the one block sent.
    OneBlock,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    Good,
    Refuse(Sense),
    /// Answer data, already cut to the allocation length.
    Answer(Vec<u8>),
    /// The pending unit attention, or NO SENSE, as data.
    TellSense {
        allocation_length: usize,
    },
    Read(Range),
    Write {
        range: Range,
        through: bool,
    },
    /// Sets bits; the rest of the range stays as it is.
    OrWrite {
        range: Range,
        through: bool,
    },
    /// All of the range or nothing of it, over a power failure too.
    WriteAtomic {
        range: Range,
        through: bool,
    },
    Flush,
    Unmap {
        parameter_bytes: usize,
    },
    WriteSame {
        range: Range,
        unmap: bool,
        has_data: bool,
    },
    Verify {
        range: Range,
        compare: Compare,
    },
    /// `range` is what is written; twice its length is sent.
    CompareAndWrite {
        range: Range,
        through: bool,
    },
    LbaStatus {
        lba: u64,
        allocation_length: usize,
    },
    /// Starts, or with [`Sanitize::Leave`] ends what a failed one left.
    Sanitize(Sanitize),
    /// EXTENDED COPY; the parameter list says from where to where.
    Copy {
        parameter_bytes: usize,
    },
    /// RECEIVE COPY RESULTS of one list identifier.
    CopyResults {
        list_id: u8,
        failed: bool,
        allocation_length: usize,
    },
    ModeSelect {
        parameter_bytes: usize,
        header_bytes: usize,
    },
    Reserve,
    Release,
    PersistentIn {
        action: u8,
        allocation_length: usize,
    },
    PersistentOut {
        cdb: Cdb,
        parameter_bytes: usize,
    },
}

impl Plan {
    /// May it change blocks of the volume that it was sent to?
    pub fn changes(&self) -> bool {
        match self {
            Self::Write { .. } | Self::OrWrite { .. } | Self::WriteAtomic { .. } | Self::CompareAndWrite { .. } => true,
            Self::Unmap { .. } | Self::WriteSame { .. } | Self::Sanitize(_) => true,
            _ => false,
        }
    }

    /// Bytes the initiator has to send.
    pub fn data_out_bytes(&self, block_size: u32) -> usize {
        let bytes = match self {
            Self::Write { range, .. } | Self::OrWrite { range, .. } | Self::WriteAtomic { range, .. } => range.length,
            Self::CompareAndWrite { range, .. } => range.length * 2,
            Self::WriteSame { has_data: true, .. } => block_size.into(),
            Self::Verify { range, compare: Compare::All } => range.length,
            Self::Verify { range, compare: Compare::OneBlock } if range.length > 0 => block_size.into(),
            Self::Unmap { parameter_bytes }
            | Self::ModeSelect { parameter_bytes, .. }
            | Self::Copy { parameter_bytes }
            | Self::PersistentOut { parameter_bytes, .. } => *parameter_bytes as u64,
            Self::Sanitize(Sanitize::Overwrite { parameter_bytes, .. }) => *parameter_bytes as u64,
            _ => 0,
        };
        bytes as usize
    }

    /// Would carrying out half of it be worse than refusing it? Then what is sent must be exactly what the CDB says.
    pub fn refuses_length(&self, announced_bytes: u32, block_size: u32) -> bool {
        let exact = matches!(self, Self::CompareAndWrite { .. } | Self::WriteSame { .. } | Self::WriteAtomic { .. });
        exact && announced_bytes as usize != self.data_out_bytes(block_size)
    }
}

pub fn plan(cdb: &Cdb, lun: &Lun) -> Plan {
    match opcodes::find(cdb) {
        Ok(command) => (command.plan)(cdb, lun).unwrap_or_else(Plan::Refuse),
        Err(sense) => Plan::Refuse(sense),
    }
}

/// There is only LUN 0; of any other a target still answers these (SPC-4 6.6.2, SAM-5 5.13).
pub fn plan_for_absent_lun(cdb: &Cdb, lun: &Lun) -> Plan {
    match cdb[0] {
        0x03 => commands::cut(Sense::NO_SUCH_LUN.encode().to_vec(), usize::from(cdb[4])),
        0x12 => inquiry::absent(cdb),
        0xa0 => plan(cdb, lun),
        _ => Plan::Refuse(Sense::NO_SUCH_LUN),
    }
}

//! The basic header segment: opcodes, flags, field positions (RFC 7143 section 11).

pub const BHS_BYTES: usize = 48;
pub type Bhs = [u8; BHS_BYTES];

pub const RESERVED_TAG: u32 = 0xffff_ffff;

pub mod opcode {
    pub const NOP_OUT: u8 = 0x00;
    pub const SCSI_COMMAND: u8 = 0x01;
    pub const TASK_MANAGEMENT: u8 = 0x02;
    pub const LOGIN: u8 = 0x03;
    pub const TEXT: u8 = 0x04;
    pub const DATA_OUT: u8 = 0x05;
    pub const LOGOUT: u8 = 0x06;
    pub const SNACK: u8 = 0x10;
    pub const NOP_IN: u8 = 0x20;
    pub const SCSI_RESPONSE: u8 = 0x21;
    pub const TASK_MANAGEMENT_RESPONSE: u8 = 0x22;
    pub const LOGIN_RESPONSE: u8 = 0x23;
    pub const TEXT_RESPONSE: u8 = 0x24;
    pub const DATA_IN: u8 = 0x25;
    pub const LOGOUT_RESPONSE: u8 = 0x26;
    pub const R2T: u8 = 0x31;
    pub const REJECT: u8 = 0x3f;
}

/// Reject reasons (11.17.1).
pub mod reject {
    pub const DATA_DIGEST: u8 = 0x02;
    pub const SNACK: u8 = 0x03;
    pub const PROTOCOL_ERROR: u8 = 0x04;
    pub const NOT_SUPPORTED: u8 = 0x05;
    pub const TOO_MANY_IMMEDIATE: u8 = 0x06;
    pub const TASK_IN_PROGRESS: u8 = 0x07;
    pub const INVALID_FIELD: u8 = 0x09;
}

/// One received PDU. `data` is without its padding.
#[derive(Debug, Clone, Copy)]
pub struct Pdu<'a> {
    pub bhs: &'a Bhs,
    pub ahs: &'a [u8],
    pub data: &'a [u8],
}

impl Pdu<'_> {
    pub fn opcode(&self) -> u8 {
        self.bhs[0] & 0x3f
    }

    pub fn immediate(&self) -> bool {
        self.bhs[0] & 0x40 != 0
    }

    pub fn flags(&self) -> u8 {
        self.bhs[1]
    }

    /// The F or T bit.
    pub fn last(&self) -> bool {
        self.bhs[1] & 0x80 != 0
    }

    /// The C bit of login and text requests.
    pub fn continues(&self) -> bool {
        self.bhs[1] & 0x40 != 0
    }

    pub fn word(&self, at: usize) -> u32 {
        word(self.bhs, at)
    }

    pub fn initiator_task_tag(&self) -> u32 {
        self.word(16)
    }

    pub fn target_transfer_tag(&self) -> u32 {
        self.word(20)
    }

    pub fn lun(&self) -> u64 {
        u64::from(self.word(8)) << 32 | u64::from(self.word(12))
    }

    pub fn cmd_sn(&self) -> u32 {
        self.word(24)
    }
}

pub fn word(bhs: &Bhs, at: usize) -> u32 {
    u32::from_be_bytes([bhs[at], bhs[at + 1], bhs[at + 2], bhs[at + 3]])
}

/// A header to send; data length is filled in by [`crate::out::Out`].
pub fn header(opcode: u8, flags: u8, initiator_task_tag: u32) -> Bhs {
    let mut bhs = [0; BHS_BYTES];
    bhs[0] = opcode;
    bhs[1] = flags;
    put(&mut bhs, 16, initiator_task_tag);
    bhs
}

pub fn put(bhs: &mut Bhs, at: usize, value: u32) {
    bhs[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// Serial number arithmetic of RFC 1982: is `a` before `b`?
pub fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

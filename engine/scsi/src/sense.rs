//! Sense data, fixed format (SPC-4 4.5.3).

/// What the three sense-key specific bytes say (SPC-4 4.5.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Specific {
    /// The byte of the CDB that is wrong.
    CdbByte(u16),
    /// The byte of the parameter list that is wrong.
    ParameterByte(u16),
    /// How much of a long operation is done, in 65,536ths.
    Progress(u16),
}

/// Why a command was refused. `information` is the field of that name: an offset for MISCOMPARE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    pub key: u8,
    pub code: u8,
    pub qualifier: u8,
    pub information: Option<u32>,
    pub specific: Option<Specific>,
}

const fn sense(key: u8, code: u8, qualifier: u8) -> Sense {
    Sense { key, code, qualifier, information: None, specific: None }
}

impl Sense {
    pub const NO_SENSE: Self = sense(0x0, 0x00, 0x00);
    pub const NOT_READY: Self = sense(0x2, 0x04, 0x00);
    pub const SANITIZING: Self = sense(0x2, 0x04, 0x1b);
    pub const SANITIZE_FAILED: Self = sense(0x3, 0x31, 0x03);
    pub const READ_ERROR: Self = sense(0x3, 0x11, 0x00);
    pub const WRITE_ERROR: Self = sense(0x3, 0x0c, 0x00);
    pub const INTERNAL_FAILURE: Self = sense(0x4, 0x44, 0x00);
    pub const PARAMETER_LIST_LENGTH: Self = sense(0x5, 0x1a, 0x00);
    pub const INVALID_OPCODE: Self = sense(0x5, 0x20, 0x00);
    pub const LBA_OUT_OF_RANGE: Self = sense(0x5, 0x21, 0x00);
    pub const INVALID_FIELD_IN_CDB: Self = sense(0x5, 0x24, 0x00);
    pub const NO_SUCH_LUN: Self = sense(0x5, 0x25, 0x00);
    pub const INVALID_FIELD_IN_PARAMETERS: Self = sense(0x5, 0x26, 0x00);
    pub const TOO_MANY_CSCDS: Self = sense(0x5, 0x26, 0x06);
    pub const UNSUPPORTED_CSCD: Self = sense(0x5, 0x26, 0x07);
    pub const TOO_MANY_SEGMENTS: Self = sense(0x5, 0x26, 0x08);
    pub const UNSUPPORTED_SEGMENT: Self = sense(0x5, 0x26, 0x09);
    pub const INLINE_DATA_LENGTH: Self = sense(0x5, 0x26, 0x0b);
    pub const INVALID_RELEASE: Self = sense(0x5, 0x26, 0x04);
    pub const REGISTRATION_RESOURCES: Self = sense(0x5, 0x55, 0x04);
    pub const SAVING_NOT_SUPPORTED: Self = sense(0x5, 0x39, 0x00);
    pub const POWER_ON: Self = sense(0x6, 0x29, 0x00);
    pub const RESET: Self = sense(0x6, 0x29, 0x03);
    pub const MODE_CHANGED: Self = sense(0x6, 0x2a, 0x01);
    pub const PARAMETERS_CHANGED: Self = sense(0x6, 0x2a, 0x00);
    pub const RESERVATIONS_PREEMPTED: Self = sense(0x6, 0x2a, 0x03);
    pub const RESERVATIONS_RELEASED: Self = sense(0x6, 0x2a, 0x04);
    pub const REGISTRATIONS_PREEMPTED: Self = sense(0x6, 0x2a, 0x05);
    pub const CAPACITY_CHANGED: Self = sense(0x6, 0x2a, 0x09);
    pub const COMMANDS_CLEARED: Self = sense(0x6, 0x2f, 0x00);
    pub const THRESHOLD_REACHED: Self = sense(0x6, 0x38, 0x07);
    pub const WRITE_PROTECTED: Self = sense(0x7, 0x27, 0x00);
    /// SPACE ALLOCATION FAILED WRITE PROTECT: QEMU takes it as ENOSPC and pauses the machine.
    pub const NO_SPACE: Self = sense(0x7, 0x27, 0x07);
    /// COPY ABORTED: a segment names no volume that this initiator may use.
    pub const COPY_UNREACHABLE: Self = sense(0xa, 0x08, 0x04);
    /// COPY ABORTED: the range leaves the volume, or is not what its blocks can hold.
    pub const COPY_OUT_OF_RANGE: Self = sense(0xa, 0x00, 0x00);
    pub const COPY_INEXACT: Self = sense(0xa, 0x26, 0x0a);
    /// COPY ABORTED: the volume refused to be read or written.
    pub const COPY_DEVICE_FAILED: Self = sense(0xa, 0x0d, 0x01);
    pub const ABORTED: Self = sense(0xb, 0x00, 0x00);
    pub const DATA_LENGTH: Self = sense(0xb, 0x0c, 0x0d);
    pub const MISCOMPARE: Self = sense(0xe, 0x1d, 0x00);

    pub fn at(self, information: u32) -> Self {
        Self { information: Some(information), ..self }
    }

    /// The byte of the CDB that is to blame.
    pub const fn in_byte(self, byte: u16) -> Self {
        Self { specific: Some(Specific::CdbByte(byte)), ..self }
    }

    /// The byte of the parameter list that is to blame.
    pub const fn in_parameter(self, byte: u16) -> Self {
        Self { specific: Some(Specific::ParameterByte(byte)), ..self }
    }

    pub const fn with_progress(self, part: u16) -> Self {
        Self { specific: Some(Specific::Progress(part)), ..self }
    }

    /// Key, code and qualifier: what an initiator decides by.
    pub fn same_kind(&self, other: &Self) -> bool {
        (self.key, self.code, self.qualifier) == (other.key, other.code, other.qualifier)
    }

    pub fn encode(&self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[0] = 0x70 | if self.information.is_some() { 0x80 } else { 0 };
        bytes[2] = self.key;
        bytes[3..7].copy_from_slice(&self.information.unwrap_or(0).to_be_bytes());
        bytes[7] = 10;
        bytes[12] = self.code;
        bytes[13] = self.qualifier;
        let (flags, value) = match self.specific {
            None => (0, 0),
            Some(Specific::CdbByte(at)) => (0xc0, at),
            Some(Specific::ParameterByte(at)) => (0x80, at),
            Some(Specific::Progress(part)) => (0x80, part),
        };
        bytes[15] = flags;
        bytes[16..18].copy_from_slice(&value.to_be_bytes());
        bytes
    }
}

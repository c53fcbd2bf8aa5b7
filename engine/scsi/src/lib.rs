//! What a SCSI disk answers: CDB in, plan or refusal out. No sockets, no clock, no files.
//!
//! [`plan::plan`] decides from the command descriptor block and the logical unit's state what is to be done: an answer
//! that is ready, a refusal with sense data, or a [`plan::Plan`] that names byte ranges which somebody else then reads
//! or writes. Parameter lists that arrive as data are checked by [`parameters`]. Sources: SPC-4, SBC-4.

pub mod commands;
pub mod copy;
pub mod fields;
pub mod inquiry;
pub mod mode;
pub mod opcodes;
pub mod parameters;
pub mod persistent;
pub mod plan;
pub mod sanitize;
pub mod sense;

pub use plan::{Compare, Lun, Plan, Range, plan, plan_for_absent_lun};
pub use sense::{Sense, Specific};

/// SCSI status codes (SAM-5 5.3.1).
pub mod status {
    pub const GOOD: u8 = 0x00;
    pub const CHECK_CONDITION: u8 = 0x02;
    pub const BUSY: u8 = 0x08;
    pub const RESERVATION_CONFLICT: u8 = 0x18;
    pub const TASK_SET_FULL: u8 = 0x28;
    pub const TASK_ABORTED: u8 = 0x40;
}

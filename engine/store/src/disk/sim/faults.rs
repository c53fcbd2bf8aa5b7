//! Which call of the disk fails, and how.

use fastrand::Rng;
use std::io;

/// Calls of the disk, by what can go wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Lengths, lists, space: what changes nothing and reads no data.
    Look,
    Read,
    Write,
    /// `set_len`.
    Length,
    /// `punch`, `dig_holes`.
    Free,
    /// `reserve`, `zero_reserved`.
    Reserve,
    Sync,
    /// Files and folders made, renamed, removed; `sync_folder`.
    Names,
}

impl Operation {
    pub const ALL: [Self; 8] =
        [Self::Look, Self::Read, Self::Write, Self::Length, Self::Free, Self::Reserve, Self::Sync, Self::Names];
}

/// One call that will fail: of those of the kind from now on, the one after `after` others. Once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// None: of any kind.
    pub operation: Option<Operation>,
    pub after: u64,
    pub errno: i32,
}

#[derive(Debug, Clone, Default)]
pub struct Faults {
    planned: Vec<Fault>,
    chances: Vec<(Operation, u32, i32)>,
    /// What has failed so far, and why.
    pub fired: Vec<(Operation, i32)>,
}

impl Faults {
    pub fn plan(&mut self, fault: Fault) {
        self.planned.push(fault);
    }

    pub fn chance(&mut self, operation: Operation, per_thousand: u32, errno: i32) {
        self.chances.push((operation, per_thousand, errno));
    }

    pub fn clear(&mut self) {
        self.planned.clear();
        self.chances.clear();
    }

    /// The error of this call, if it is one that fails.
    pub fn strike(&mut self, operation: Operation, chance: &mut Rng) -> Option<io::Error> {
        let mut errno = None;
        self.planned.retain_mut(|fault| {
            if fault.operation.is_some_and(|kind| kind != operation) {
                return true;
            }
            if fault.after > 0 {
                fault.after -= 1;
                return true;
            }
            errno = Some(fault.errno);
            false
        });
        for (kind, per_thousand, number) in &self.chances {
            if *kind == operation && chance.u32(0..1000) < *per_thousand {
                errno = Some(*number);
            }
        }
        let errno = errno?;
        self.fired.push((operation, errno));
        Some(io::Error::from_raw_os_error(errno))
    }
}

//! What can go wrong, told apart by whose turn it is.

use crate::VolumeId;
use std::{fmt, io};

/// A control request that was not done. Nothing has changed.
#[derive(Debug)]
pub enum StoreError {
    NotFound(VolumeId),
    Exists(String),
    NoSpace(String),
    BadSize(String),
    Io(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(id) => write!(f, "there is no volume {id}"),
            Self::Exists(text) | Self::NoSpace(text) | Self::BadSize(text) | Self::Io(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StoreError {}

impl StoreError {
    /// Wraps the system's words with what was being done.
    pub fn from_io(doing: &str, error: &io::Error) -> Self {
        let text = format!("{doing}: {error}");
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace(text),
            Some(libc::EFBIG) => Self::BadSize(text),
            _ => Self::Io(text),
        }
    }
}

/// A block command that was not done, or not known to be done.
#[derive(Debug)]
pub enum BlockError {
    OutOfRange,
    NoSpace,
    Io(io::Error),
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange => f.write_str("the range leaves the volume"),
            Self::NoSpace => f.write_str("no space left for the volume"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BlockError {}

impl From<io::Error> for BlockError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace,
            _ => Self::Io(error),
        }
    }
}

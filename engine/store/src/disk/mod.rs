//! The disk below the store: files, folders, and what survives which death. Everything the store keeps goes through these
//! two traits, so that a simulated disk can stand in and lose what a real one may lose.
//!
//! What is written is safe from the death of this process at once, and from a loss of power only after `sync` (data and
//! length of a file) or `sync_folder` (names). `incarnation` tells the two apart afterwards.

mod mapped;
pub mod os;
mod pace;
pub mod sim;

pub use os::OsDisk;
pub use sim::SimDisk;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Size of the file system, and what of it an ordinary user could still take. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    pub total_bytes: u64,
    pub free_bytes: u64,
}

/// A directory of the store. Paths are relative to it, with `/`; one level of folders.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Makes a folder with mode 0700 if it is not there.
    fn make_folder(&self, path: &str) -> io::Result<()>;
    /// Names in a folder, in no order.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Opens a file that is there, for reading and writing.
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes an empty file of mode 0600; what was there under the name is gone.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Atomic; what was at `to` is gone.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Names made, changed and removed in the folder so far survive a loss of power.
    fn sync_folder(&self, path: &str) -> io::Result<()>;
    /// Everything written to any file so far survives a loss of power.
    fn sync_everything(&self) -> io::Result<()>;
    /// Stays the same as long as nothing can have been lost that was written and not synced: a text that changes when the
    /// machine starts anew or the file system is mounted anew.
    fn incarnation(&self) -> io::Result<String>;
    fn space(&self) -> io::Result<DiskSpace>;
}

/// One open file. All methods may be called from many threads; overlapping writes land in some order.
pub trait DiskFile: Send + Sync + std::fmt::Debug {
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Longer: zeroes are added. Shorter: what lies behind is gone.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Fills the buffer; what lies in a hole or behind the end reads as zeroes.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// All of it, or an error; then any part of it may have been written. Grows the file if need be.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Zeroes a range and gives its space back. The length stays.
    fn punch(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Zeroes a range and keeps its space reserved. The length stays.
    fn zero_reserved(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Allocates what is not there yet up to `length`, without changing any byte; a shorter file grows.
    fn reserve(&self, length: u64) -> io::Result<()>;
    /// Gives back what of a range, of whole blocks, is allocated but was never written. Nobody may write there meanwhile.
    fn dig_holes(&self, range: Range<u64>) -> io::Result<()>;
    /// Data and length written so far survive a loss of power.
    fn sync(&self) -> io::Result<()>;
    /// Begins to write these ranges to the disk, and leaves the processor to others in between. Nothing is promised: what
    /// is not written, or cannot be, `sync` writes, or says so.
    fn write_out(&self, ranges: &[Range<u64>]) {
        let _ = ranges;
    }
    /// What the file occupies. Bytes.
    fn allocated_bytes(&self) -> io::Result<u64>;
    /// The next run of data at or after `offset`, within `end`: `(start, end)`, or none. A file system that does not know
    /// holes says that everything is data.
    fn next_data(&self, offset: u64, end: u64) -> io::Result<Option<(u64, u64)>>;
    /// The file itself, for whoever hands its pages to the kernel; none where there is none.
    fn system_file(&self) -> Option<&File> {
        None
    }
}

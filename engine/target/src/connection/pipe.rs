//! Pages of a file on their way to a socket, without a copy.
//!
//! They stop in a pipe, so that a file is touched only while its place is known to be held, and a slow initiator keeps
//! nothing waiting but its own connection. What is in the pipe has been read: it can be promised to the initiator.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

const PAGE_BYTES: usize = 4096;
const WANTED_BYTES: usize = 512 * 1024;
/// A smaller pipe is no gain.
const LEAST_BYTES: usize = 64 * 1024;

/// Pipes that nothing is in. There are as many as long reads have been on their way at once: a session has none of its own.
#[derive(Debug, Default)]
pub struct Pipes {
    empty: Mutex<Vec<Pipe>>,
}

const KEPT: usize = 8;

impl Pipes {
    fn empty(&self) -> MutexGuard<'_, Vec<Pipe>> {
        self.empty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take(&self) -> io::Result<Pipe> {
        let kept = self.empty().pop();
        kept.map_or_else(Pipe::new, Ok)
    }

    /// One that is not empty, after a failure, is closed instead.
    pub fn give_back(&self, pipe: Pipe) {
        let mut empty = self.empty();
        if pipe.held_bytes == 0 && empty.len() < KEPT {
            empty.push(pipe);
        }
    }
}

#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    /// What surely fits, however it lies across pages.
    pub fits_bytes: usize,
    held_bytes: usize,
}

fn result(returned: isize) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// `splice`; not interrupted.
fn splice(from: i32, offset: Option<&mut i64>, to: i32, bytes: usize, flags: u32) -> io::Result<usize> {
    let offset = offset.map_or(ptr::null_mut(), ptr::from_mut);
    loop {
        // SAFETY: the offset is null or lives longer than the call; nothing else is memory of this process.
        match result(unsafe { libc::splice(from, offset, to, ptr::null_mut(), bytes, flags) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: the array has room for both descriptors, which nobody else owns.
        let (reader, writer) = unsafe {
            if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
                return Err(io::Error::last_os_error());
            }
            (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
        };
        // SAFETY: both calls take and answer plain numbers. If it may not grow, its present size is what there is.
        let capacity = unsafe {
            libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, WANTED_BYTES);
            libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ)
        };
        let fits_bytes = usize::try_from(capacity).unwrap_or(0).saturating_sub(PAGE_BYTES);
        if fits_bytes + PAGE_BYTES < LEAST_BYTES {
            return Err(io::Error::other("the system gives only small pipes"));
        }
        Ok(Self { reader, writer, fits_bytes, held_bytes: 0 })
    }

    /// Takes `length` bytes of the file. On an error part of them may be in the pipe, which is good for nothing then.
    pub fn fill(&mut self, file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<()> {
        let mut offset = i64::try_from(offset).map_err(io::Error::other)?;
        let mut left = length;
        self.held_bytes += length;
        while left > 0 {
            let flags = libc::SPLICE_F_NONBLOCK; // of the pipe: it is never full
            match splice(file.as_raw_fd(), Some(&mut offset), self.writer.as_raw_fd(), left, flags)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => left -= count,
            }
        }
        Ok(())
    }

    /// Waits until the socket has taken all of it, for the socket's own send time-out.
    pub fn empty_into(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while self.held_bytes > 0 {
            match splice(self.reader.as_raw_fd(), None, socket.as_raw_fd(), self.held_bytes, 0)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => self.held_bytes -= count,
            }
        }
        Ok(())
    }
}

//! The system calls for sparse files, each as one small function.

use crate::disk::DiskSpace;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn fallocate(file: &File, mode: libc::c_int, offset: u64, length: u64) -> io::Result<()> {
    loop {
        // SAFETY: a plain system call on a descriptor that `file` keeps open.
        let result = check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, length as i64) });
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The file system that the open file or folder is on.
pub fn space(file: &File) -> io::Result<DiskSpace> {
    // SAFETY: an all-zero statvfs is a valid value, and the call fills it.
    let mut figures: libc::statvfs = unsafe { std::mem::zeroed() };
    check(unsafe { libc::fstatvfs(file.as_raw_fd(), &mut figures) })?;
    let (total_bytes, free_bytes) = (figures.f_blocks * figures.f_frsize, figures.f_bavail * figures.f_frsize);
    Ok(DiskSpace { total_bytes, free_bytes })
}

/// Allocates what is not there yet, without changing any byte; a file that is shorter grows. Blocks that the file shares
/// with another are made its own, where the file system has sharing and knows how (XFS): overwriting them would need space.
///
/// What cannot fit is refused before any of it is taken: fallocate would take all there is until it finds out, and everyone
/// who writes meanwhile would be told that the disk is full.
pub fn reserve(file: &File, length: u64) -> io::Result<()> {
    if length.saturating_sub(file.metadata()?.blocks() * 512) > space(file)?.free_bytes {
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    }
    fallocate(file, 0, 0, length)?;
    match fallocate(file, libc::FALLOC_FL_UNSHARE_RANGE, 0, length) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Zeroes a range and gives its space back.
pub fn punch(file: &File, offset: u64, length: u64) -> io::Result<()> {
    fallocate(file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, length)
}

/// Zeroes a range and keeps its space reserved.
pub fn zero_reserved(file: &File, offset: u64, length: u64) -> io::Result<()> {
    match fallocate(file, libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE, offset, length) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => write_zeroes(file, offset, length),
        other => other,
    }
}

fn write_zeroes(file: &File, mut offset: u64, mut length: u64) -> io::Result<()> {
    let zeroes = vec![0; 1 << 20];
    while length > 0 {
        let step = length.min(zeroes.len() as u64);
        file.write_all_at(&zeroes[..step as usize], offset)?;
        offset += step;
        length -= step;
    }
    Ok(())
}

/// The next run of data at or after `offset`, within `end`: `(start, end)`, or none. A file system that does not know
/// holes says that everything is data.
pub fn next_data(file: &File, offset: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    let Some(start) = seek(file, offset, libc::SEEK_DATA)? else { return Ok(None) };
    if start >= end {
        return Ok(None);
    }
    let stop = seek(file, start, libc::SEEK_HOLE)?.unwrap_or(end);
    Ok(Some((start, stop.min(end))))
}

/// `None`: there is nothing of the kind up to the end of the file (ENXIO).
fn seek(file: &File, offset: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    // SAFETY: a plain system call; the file position it moves is used by nobody, all I/O is positional.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset as i64, whence) };
    if found >= 0 {
        return Ok(Some(found as u64));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENXIO) { Ok(None) } else { Err(error) }
}

/// Gives back what of a range is allocated but was never written. Nobody may write there meanwhile.
pub fn dig_holes(file: &File, range: Range<u64>) -> io::Result<()> {
    // Reserved blocks count as holes only while they are not in the page cache, read as zeroes.
    let (from, length) = (range.start as i64, (range.end - range.start) as i64);
    // SAFETY: advice on an open descriptor; if it is not taken, fewer holes are found.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), from, length, libc::POSIX_FADV_DONTNEED) };
    let (mut position, end) = (range.start, range.end);
    while position < end {
        let (data_start, data_end) = next_data(file, position, end)?.unwrap_or((end, end));
        if data_start > position {
            punch(file, position, data_start - position)?;
        }
        position = data_end.max(data_start);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_takes_nothing_from_those_who_write_meanwhile() {
        let path = std::env::temp_dir().join(format!("gespann-sparse-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        reserve(&file, 1 << 20).unwrap();
        let before = file.metadata().unwrap().blocks();
        let free = space(&file).unwrap().free_bytes;
        let refused = reserve(&file, free + free / 2).unwrap_err();
        let after = file.metadata().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!((after.blocks(), after.len()), (before, 1 << 20), "the file is as it was");
    }
}

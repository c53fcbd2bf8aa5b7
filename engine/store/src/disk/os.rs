//! A directory of a real file system.

use super::mapped::{LONGEST_READ_BYTES, Window};
use super::pace::Pace;
use super::{Disk, DiskFile, DiskSpace};
use crate::{StoreError, sparse};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// One system call writes no more than this, and not across a multiple of it. Linux keeps what one call writes in page cache
/// folios of up to that size, and ext4 walks over every block of a folio to overwrite one of them: the longer the pieces,
/// the dearer every short write that comes later (`bench/results/engine-pieces.md`).
const WRITE_PIECE_BYTES: usize = 32 * 1024;

/// What is written out between two looks at how much of the processor that took.
const WRITE_OUT_BYTES: u64 = 256 << 10;
const PAGE_BYTES: usize = 4096;

/// A file that is read so often in short pieces is mapped.
const READS_BEFORE_MAPPING: u32 = 256;

/// Held by the one process that uses the directory, until it is dropped.
#[derive(Debug)]
pub struct OsDisk {
    root: PathBuf,
    incarnation: String,
    _lock: File,
}

impl OsDisk {
    /// Takes the directory (made if need be), or says who has it.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let failed = |doing: &str, error: &io::Error| StoreError::from_io(&format!("{doing} {}", root.display()), error);
        let build = || fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
        build().map_err(|error| failed("cannot make the data directory", &error))?;
        let lock = lock_directory(root)?;
        let parent = || File::open(root.canonicalize()?.parent().unwrap_or(Path::new("/")))?.sync_all();
        parent().map_err(|error| failed("cannot make durable the data directory", &error))?;
        let incarnation = incarnation(root).map_err(|error| failed("cannot tell the mount of", &error))?;
        Ok(Self { root: root.to_owned(), incarnation, _lock: lock })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

fn lock_directory(root: &Path) -> Result<File, StoreError> {
    let path = root.join("lock");
    let open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = open().map_err(|e| StoreError::from_io(&format!("cannot open {}", path.display()), &e))?;
    // SAFETY: a plain system call on an open descriptor.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        return Err(StoreError::Io(format!("another engine is running on the data directory {}", root.display())));
    }
    Ok(file)
}

/// The kernel's start and the device: what was written is in the page cache as long as both stay the same. (Not the mount,
/// which is another one in each mount namespace over the same page cache.)
fn incarnation(root: &Path) -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(format!("{} {:x}", boot.trim(), fs::metadata(root)?.dev()))
}

impl Disk for OsDisk {
    fn make_folder(&self, path: &str) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.path(path))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        fs::read_dir(self.path(folder))?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OsFile::of(OpenOptions::new().read(true).write(true).open(self.path(path))?)))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        Ok(Arc::new(OsFile::of(options.open(self.path(path))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path(path))
    }

    fn sync_folder(&self, path: &str) -> io::Result<()> {
        File::open(self.path(path))?.sync_all()
    }

    fn sync_everything(&self) -> io::Result<()> {
        let folder = File::open(&self.root)?;
        // SAFETY: a plain system call on an open descriptor.
        if unsafe { libc::syncfs(folder.as_raw_fd()) } != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn incarnation(&self) -> io::Result<String> {
        Ok(self.incarnation.clone())
    }

    fn space(&self) -> io::Result<DiskSpace> {
        sparse::space(&File::open(&self.root)?)
    }
}

#[derive(Debug)]
pub struct OsFile {
    window: OnceLock<Option<Window>>,
    short_reads: AtomicU32,
    file: File,
}

impl OsFile {
    fn of(file: File) -> Self {
        Self { window: OnceLock::new(), short_reads: AtomicU32::new(0), file }
    }

    /// From what is cached, without a system call; false if that is not to be had.
    fn read_mapped(&self, buffer: &mut [u8], offset: u64) -> bool {
        match self.window.get() {
            Some(window) => window.as_ref().is_some_and(|window| window.read(buffer, offset)),
            None => {
                if self.short_reads.fetch_add(1, Ordering::Relaxed) >= READS_BEFORE_MAPPING {
                    self.window.get_or_init(|| Window::new(&self.file));
                }
                false
            }
        }
    }
}

/// A process that is killed while it writes has written up to the first page of its data that was not in memory then, which
/// may end within a sector: fresh zeroes are such data. So all of it is looked at first.
fn bring_in(data: &[u8]) {
    for page in data.chunks(PAGE_BYTES) {
        std::hint::black_box((page[0], page[page.len() - 1]));
    }
}

impl DiskFile for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if buffer.len() <= LONGEST_READ_BYTES && self.read_mapped(buffer, offset) {
            return Ok(());
        }
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => {
                    buffer[done..].fill(0);
                    break;
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let (mut rest, mut at) = (data, offset);
        while !rest.is_empty() {
            let upto_bound = WRITE_PIECE_BYTES - (at % WRITE_PIECE_BYTES as u64) as usize;
            let (piece, later) = rest.split_at(upto_bound.min(rest.len()));
            bring_in(piece);
            self.file.write_all_at(piece, at)?;
            (rest, at) = (later, at + piece.len() as u64);
        }
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        sparse::punch(&self.file, offset, length)
    }

    fn zero_reserved(&self, offset: u64, length: u64) -> io::Result<()> {
        sparse::zero_reserved(&self.file, offset, length)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        sparse::reserve(&self.file, length)
    }

    fn dig_holes(&self, range: Range<u64>) -> io::Result<()> {
        sparse::dig_holes(&self.file, range)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_out(&self, ranges: &[Range<u64>]) {
        let mut pace = Pace::begin();
        let mut pieces = ranges.iter().flat_map(|range| {
            let end = range.end;
            range.clone().step_by(WRITE_OUT_BYTES as usize).map(move |at| at..end.min(at + WRITE_OUT_BYTES))
        });
        // Without SYNC_FILE_RANGE_WAIT_*: then it takes no error away from the sync that comes later.
        let mut begin = |piece: Range<u64>| {
            let (at, length) = (piece.start as libc::off64_t, (piece.end - piece.start) as libc::off64_t);
            // SAFETY: a plain system call on an open descriptor.
            let begun = unsafe { libc::sync_file_range(self.file.as_raw_fd(), at, length, libc::SYNC_FILE_RANGE_WRITE) };
            pace.rest_if_due();
            begun == 0
        };
        // Where it is not to be had, or fails, the sync does it all.
        while pieces.next().is_some_and(&mut begin) {}
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    fn next_data(&self, offset: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
        sparse::next_data(&self.file, offset, end)
    }

    fn system_file(&self) -> Option<&File> {
        Some(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory as fresh zeroes have it: no page of it is there yet.
    struct Fresh(*mut u8, usize);

    impl Fresh {
        fn new(pages: usize) -> Self {
            let length = pages * PAGE_BYTES;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a new mapping at a place that the system chooses.
            let start = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
            assert_ne!(start, libc::MAP_FAILED);
            Self(start.cast(), length)
        }

        fn bytes(&self) -> &[u8] {
            // SAFETY: mapped as long as `self` lives, and readable.
            unsafe { std::slice::from_raw_parts(self.0, self.1) }
        }

        fn pages_there(&self) -> usize {
            let mut there = vec![0_u8; self.1 / PAGE_BYTES];
            // SAFETY: a byte for each page of the mapping.
            assert_eq!(unsafe { libc::mincore(self.0.cast(), self.1, there.as_mut_ptr()) }, 0);
            there.iter().filter(|page| *page & 1 == 1).count()
        }
    }

    impl Drop for Fresh {
        fn drop(&mut self) {
            // SAFETY: nobody has a reference any more.
            unsafe { libc::munmap(self.0.cast(), self.1) };
        }
    }

    #[test]
    fn what_is_written_is_in_memory_before() {
        let fresh = Fresh::new(8);
        assert_eq!(fresh.pages_there(), 0);
        // From within the third page to within the seventh.
        bring_in(&fresh.bytes()[2 * PAGE_BYTES + 3520..6 * PAGE_BYTES + 1]);
        assert_eq!(fresh.pages_there(), 5);
    }
}

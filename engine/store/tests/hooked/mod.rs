//! A simulated disk whose syncs are calls of the test, and which counts what else it is asked for.

#![allow(dead_code)] // no test needs all of it

use gespann_store::disk::{Disk, DiskFile, DiskSpace, SimDisk};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What is called instead of a sync, with the file's path and the sync itself.
type Hook = dyn Fn(&str, &dyn Fn() -> io::Result<()>) -> io::Result<()> + Send + Sync;

/// What was asked of the files.
#[derive(Debug, Default)]
pub struct Asked {
    pub punched_bytes: AtomicU64,
    pub looks_for_data: AtomicU64,
    /// File by file, what was to be written out.
    pub written_out: Mutex<Vec<(String, Vec<Range<u64>>)>>,
}

#[derive(Clone)]
pub struct Hooked {
    pub disk: SimDisk,
    pub asked: Arc<Asked>,
    hook: Arc<Mutex<Option<Arc<Hook>>>>,
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl Hooked {
    pub fn new() -> Self {
        Self { disk: SimDisk::new(1), asked: Arc::default(), hook: Arc::default() }
    }

    pub fn set(&self, hook: impl Fn(&str, &dyn Fn() -> io::Result<()>) -> io::Result<()> + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    pub fn clear(&self) {
        *self.hook.lock().unwrap() = None;
    }

    fn wrap(&self, path: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(HookedFile { path: path.to_owned(), file, disk: self.clone() })
    }
}

impl Disk for Hooked {
    fn make_folder(&self, path: &str) -> io::Result<()> {
        self.disk.make_folder(path)
    }
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(path, self.disk.open(path)?))
    }
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(path, self.disk.create(path)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_folder(&self, path: &str) -> io::Result<()> {
        self.disk.sync_folder(path)
    }
    fn sync_everything(&self) -> io::Result<()> {
        self.disk.sync_everything()
    }
    fn incarnation(&self) -> io::Result<String> {
        self.disk.incarnation()
    }
    fn space(&self) -> io::Result<DiskSpace> {
        self.disk.space()
    }
}

#[derive(Debug)]
struct HookedFile {
    path: String,
    file: Arc<dyn DiskFile>,
    disk: Hooked,
}

impl DiskFile for HookedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(data, offset)
    }
    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.asked.punched_bytes.fetch_add(length, Ordering::Relaxed);
        self.file.punch(offset, length)
    }
    fn zero_reserved(&self, offset: u64, length: u64) -> io::Result<()> {
        self.file.zero_reserved(offset, length)
    }
    fn reserve(&self, length: u64) -> io::Result<()> {
        self.file.reserve(length)
    }
    fn dig_holes(&self, range: Range<u64>) -> io::Result<()> {
        self.file.dig_holes(range)
    }
    fn sync(&self) -> io::Result<()> {
        let hook = self.disk.hook.lock().unwrap().clone();
        hook.map_or_else(|| self.file.sync(), |hook| hook(&self.path, &|| self.file.sync()))
    }
    fn write_out(&self, ranges: &[Range<u64>]) {
        self.disk.asked.written_out.lock().unwrap().push((self.path.clone(), ranges.to_vec()));
        self.file.write_out(ranges);
    }
    fn allocated_bytes(&self) -> io::Result<u64> {
        self.file.allocated_bytes()
    }
    fn next_data(&self, offset: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
        self.disk.asked.looks_for_data.fetch_add(1, Ordering::Relaxed);
        self.file.next_data(offset, end)
    }
}

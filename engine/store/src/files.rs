//! The store of files.
//!
//! ```text
//! DATA/lock             held by the one engine that runs here
//! DATA/volumes/<naa>    the blocks: a sparse raw image, its length is the volume's size
//! DATA/volumes/.new-*   a volume being made, DATA/volumes/.gone-* one being deleted: removed at start
//! DATA/meta/<naa>       see `metadata`; `<naa>.new` one being written: removed at start
//! ```
//! A volume exists when `volumes/<naa>` does: the rename to that name is the commit of a create or a clone, after data
//! and metadata are on stable storage; the rename away from it is the commit of a delete. A data file is never removed
//! because its metadata is missing or damaged: it is kept as a thin volume and the log says so.

use crate::clone_job::CloneJob;
use crate::metadata::Metadata;
use crate::volume_file::VolumeFile;
use crate::{Space, Store, StoreError, Volume, VolumeId, VolumeInfo, check_size, sparse};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Called before each step that touches the disk; a test makes it fail, and nothing is cleaned up then: a crash.
pub type StepHook = Box<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

pub struct FileStore {
    root: PathBuf,
    volumes: Mutex<BTreeMap<VolumeId, Arc<VolumeFile>>>,
    claimed: Mutex<HashSet<VolumeId>>,
    released: Condvar,
    metadata: Mutex<()>,
    before_step: StepHook,
    /// What the start found and repaired, for the log.
    pub notes: Vec<String>,
    _lock: File,
}

impl std::fmt::Debug for FileStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileStore({})", self.root.display())
    }
}

/// One control request at a time a volume; released when dropped.
struct Claim<'a> {
    store: &'a FileStore,
    ids: Vec<VolumeId>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claimed = lock(&self.store.claimed);
        self.ids.iter().for_each(|id| {
            claimed.remove(id);
        });
        self.store.released.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileStore {
    /// Takes the data directory (made if need be), or says who has it.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with_hook(root, Box::new(|_| Ok(())))
    }

    pub fn open_with_hook(root: &Path, before_step: StepHook) -> Result<Self, StoreError> {
        let failed = |doing: &str, error: io::Error| StoreError::from_io(&format!("{doing} {}", root.display()), &error);
        for folder in [root.to_owned(), root.join("volumes"), root.join("meta")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|e| failed("cannot make the data directory", e))?;
        }
        let lock_file = lock_directory(root)?;
        let mut store = Self {
            root: root.to_owned(),
            volumes: Mutex::default(),
            claimed: Mutex::default(),
            released: Condvar::new(),
            metadata: Mutex::default(),
            before_step,
            notes: Vec::new(),
            _lock: lock_file,
        };
        store.load().map_err(|e| failed("cannot read the data directory", e))?;
        Ok(store)
    }

    fn load(&mut self) -> io::Result<()> {
        let mut loaded = BTreeMap::new();
        for entry in fs::read_dir(self.root.join("volumes"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(".new-") || name.starts_with(".gone-") {
                self.notes.push(format!("removed {name}, left by an interrupted request"));
                fs::remove_file(entry.path())?;
            } else if let Ok(id) = name.parse::<VolumeId>() {
                let file = OpenOptions::new().read(true).write(true).open(entry.path())?;
                let thick = self.load_thick(id);
                loaded.insert(id, Arc::new(VolumeFile::new(id, file, thick)?));
            } else {
                self.notes.push(format!("ignored volumes/{name}: not a volume's name"));
            }
        }
        for entry in fs::read_dir(self.root.join("meta"))? {
            let entry = entry?;
            let known = entry.file_name().to_string_lossy().parse().is_ok_and(|id: VolumeId| loaded.contains_key(&id));
            if !known {
                fs::remove_file(entry.path())?;
            }
        }
        self.sync_folder("volumes")?;
        self.sync_folder("meta")?;
        self.sync_folder("")?; // the names of these two folders, and below the name of the data directory
        File::open(self.root.canonicalize()?.parent().unwrap_or(Path::new("/")))?.sync_all()?;
        *lock(&self.volumes) = loaded;
        Ok(())
    }

    fn load_thick(&mut self, id: VolumeId) -> bool {
        match self.read_metadata(id) {
            Ok(metadata) => metadata.thick,
            Err(reason) => {
                self.notes.push(format!("volume {id}: its metadata {reason}; its data is kept, as a thin volume"));
                false
            }
        }
    }

    fn read_metadata(&self, id: VolumeId) -> Result<Metadata, String> {
        let bytes =
            fs::read(self.root.join("meta").join(id.to_string())).map_err(|error| format!("cannot be read: {error}"))?;
        Metadata::decode(&bytes)
    }

    fn data_path(&self, prefix: &str, id: VolumeId) -> PathBuf {
        self.root.join("volumes").join(format!("{prefix}{id}"))
    }

    fn step(&self, name: &str) -> io::Result<()> {
        (self.before_step)(name)
    }

    /// A request repeated: what the first one did may have failed at its last step, making it durable.
    fn settle(&self, id: VolumeId) -> Result<(), StoreError> {
        self.step("sync volumes folder")
            .and_then(|()| self.sync_folder("volumes"))
            .map_err(|error| StoreError::from_io(&format!("cannot make volume {id} durable"), &error))
    }

    fn sync_folder(&self, name: &str) -> io::Result<()> {
        File::open(self.root.join(name))?.sync_all()
    }

    fn claim(&self, ids: &[VolumeId]) -> Claim<'_> {
        let mut claimed = lock(&self.claimed);
        while ids.iter().any(|id| claimed.contains(id)) {
            claimed = self.released.wait(claimed).unwrap_or_else(PoisonError::into_inner);
        }
        claimed.extend(ids);
        Claim { store: self, ids: ids.to_vec() }
    }

    fn find(&self, id: VolumeId) -> Result<Arc<VolumeFile>, StoreError> {
        lock(&self.volumes).get(&id).cloned().ok_or(StoreError::NotFound(id))
    }

    fn describe(&self, volume: &VolumeFile) -> Result<VolumeInfo, StoreError> {
        let allocated_bytes =
            volume.allocated_bytes().map_err(|e| StoreError::from_io("cannot read the size of a volume", &e))?;
        let cloned_from = self.read_metadata(volume.id).ok().and_then(|metadata| metadata.cloned_from);
        let origin = cloned_from.and_then(|id| id.parse().ok());
        Ok(VolumeInfo { volume: volume.id, size_bytes: volume.size_bytes(), allocated_bytes, thick: volume.thick(), origin })
    }

    fn write_metadata(&self, metadata: &Metadata) -> io::Result<()> {
        let path = self.root.join("meta").join(&metadata.volume);
        let fresh = path.with_extension("new");
        self.step("write metadata")?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        io::Write::write_all(&mut &file, &metadata.encode())?;
        file.sync_all()?;
        self.step("rename metadata")?;
        fs::rename(&fresh, &path)?;
        self.step("sync metadata folder")?;
        self.sync_folder("meta")
    }

    /// One change at a time; not under the volume's claim, which a clone may hold for long.
    fn change_metadata(&self, volume: &VolumeFile, change: impl FnOnce(&mut Metadata)) -> io::Result<()> {
        let _alone = lock(&self.metadata);
        let fresh = || Metadata { volume: volume.id.to_string(), thick: volume.thick(), cloned_from: None, reservations: None };
        let mut metadata = self.read_metadata(volume.id).unwrap_or_else(|_| fresh());
        change(&mut metadata);
        self.write_metadata(&metadata)
    }

    fn new_data_file(&self, id: VolumeId, size_bytes: u64) -> io::Result<File> {
        self.step("make data file")?;
        let path = self.data_path(".new-", id);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        self.step("size data file")?;
        file.set_len(size_bytes)?;
        Ok(file)
    }

    /// From a complete `.new-` file to a volume: data, metadata, name, in this order.
    fn commit(&self, file: File, metadata: &Metadata, id: VolumeId) -> io::Result<Arc<VolumeFile>> {
        self.step("sync data file")?;
        file.sync_all()?;
        self.write_metadata(metadata)?;
        self.step("rename data file")?;
        fs::rename(self.data_path(".new-", id), self.data_path("", id))?;
        self.step("sync volumes folder")?;
        self.sync_folder("volumes")?;
        let volume = Arc::new(VolumeFile::new(id, file, metadata.thick)?);
        lock(&self.volumes).insert(id, volume.clone());
        Ok(volume)
    }

    /// Takes back a volume that could not be finished; a failure here is left to the next start.
    fn abandon(&self, id: VolumeId) {
        let _ = fs::remove_file(self.data_path(".new-", id));
        if lock(&self.volumes).contains_key(&id) {
            return;
        }
        // The name may have been given before the step that failed: then the volume is there without an answer, which
        // a repeated request finds and finishes.
        if let Ok(file) = OpenOptions::new().read(true).write(true).open(self.data_path("", id)) {
            let thick = self.read_metadata(id).is_ok_and(|metadata| metadata.thick);
            if let Ok(volume) = VolumeFile::new(id, file, thick) {
                lock(&self.volumes).insert(id, Arc::new(volume));
            }
        }
    }

    fn create_file(&self, id: VolumeId, size_bytes: u64, thick: bool) -> io::Result<Arc<VolumeFile>> {
        let file = self.new_data_file(id, size_bytes)?;
        if thick {
            self.step("reserve space")?;
            sparse::reserve(&file, size_bytes)?;
        }
        self.commit(file, &Metadata { volume: id.to_string(), thick, cloned_from: None, reservations: None }, id)
    }

    fn clone_file(&self, source: &Arc<VolumeFile>, id: VolumeId, thick: bool) -> io::Result<Arc<VolumeFile>> {
        let file = self.new_data_file(id, source.size_bytes())?;
        self.step("copy data")?;
        // Thick volumes own their blocks, the source as well as the clone, and shared ones are nobody's own.
        let shared = !thick && !source.thick() && {
            let _no_writes = source.exclude_writers();
            sparse::reflink(&source.file, &file)?
        };
        if !shared {
            if thick {
                sparse::reserve(&file, source.size_bytes())?;
            }
            self.copy_file(source, &file)?;
        }
        let metadata = Metadata { volume: id.to_string(), thick, cloned_from: Some(source.id.to_string()), reservations: None };
        self.commit(file, &metadata, id)
    }

    fn copy_file(&self, source: &Arc<VolumeFile>, target: &File) -> io::Result<()> {
        let job = Arc::new(CloneJob::new(source.file.clone(), target.try_clone()?, source.size_bytes()));
        source.exclude_writers().push(job.clone());
        let result = self.step("copy more data").and_then(|()| job.run());
        source.remove_job(&job);
        result
    }

    fn resize_file(&self, volume: &VolumeFile, size_bytes: u64) -> io::Result<()> {
        let _no_writes = volume.exclude_writers();
        self.step("resize")?;
        let before = volume.size_bytes();
        if volume.thick() && size_bytes > before {
            // Allocating past the end grows the file as well, and only if all of it fits.
            if let Err(error) = sparse::reserve(&volume.file, size_bytes) {
                volume.file.set_len(before)?;
                return Err(error);
            }
        }
        if size_bytes != before {
            volume.file.set_len(size_bytes)?;
            volume.mark_size(size_bytes);
        }
        self.step("sync size")?; // also when repeated: the first time may have failed here
        volume.file.sync_all()
    }

    fn change_thick(&self, volume: &VolumeFile, thick: bool) -> io::Result<()> {
        let _no_writes = volume.exclude_writers();
        self.step("change reservation")?;
        if thick {
            if let Err(error) = sparse::reserve(&volume.file, volume.size_bytes()) {
                if !volume.thick() {
                    sparse::dig_holes(&volume.file, volume.size_bytes())?;
                }
                return Err(error);
            }
            volume.file.sync_all()?;
        }
        self.change_metadata(volume, |metadata| metadata.thick = thick)?;
        volume.mark_thick(thick);
        if !thick {
            sparse::dig_holes(&volume.file, volume.size_bytes())?;
        }
        Ok(())
    }

    fn remove_files(&self, id: VolumeId) -> io::Result<()> {
        self.step("rename away")?;
        fs::rename(self.data_path("", id), self.data_path(".gone-", id))?;
        lock(&self.volumes).remove(&id);
        self.step("sync volumes folder")?;
        self.sync_folder("volumes")?;
        self.step("remove data file")?;
        fs::remove_file(self.data_path(".gone-", id))?;
        self.step("remove metadata")?;
        match fs::remove_file(self.root.join("meta").join(id.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
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

impl Store for FileStore {
    fn create(&self, id: VolumeId, size_bytes: u64, thick: bool) -> Result<VolumeInfo, StoreError> {
        check_size(size_bytes)?;
        let _claim = self.claim(&[id]);
        if let Ok(volume) = self.find(id) {
            if volume.size_bytes() == size_bytes && volume.thick() == thick {
                self.settle(id)?;
                return self.describe(&volume);
            }
            return Err(StoreError::Exists(format!("volume {id} exists with another size or provisioning")));
        }
        let volume = self.create_file(id, size_bytes, thick).map_err(|error| {
            self.abandon(id);
            StoreError::from_io(&format!("cannot make volume {id}"), &error)
        })?;
        self.describe(&volume)
    }

    fn delete(&self, id: VolumeId) -> Result<(), StoreError> {
        let _claim = self.claim(&[id]);
        if self.find(id).is_err() {
            self.settle(id)?;
            // Left by a delete that failed half-way; if it fails again the next start removes it.
            let _ = fs::remove_file(self.data_path(".gone-", id));
            return Ok(());
        }
        self.remove_files(id).map_err(|error| StoreError::from_io(&format!("cannot delete volume {id}"), &error))
    }

    fn resize(&self, id: VolumeId, size_bytes: u64) -> Result<VolumeInfo, StoreError> {
        check_size(size_bytes)?;
        let _claim = self.claim(&[id]);
        let volume = self.find(id)?;
        self.resize_file(&volume, size_bytes)
            .map_err(|error| StoreError::from_io(&format!("cannot resize volume {id}"), &error))?;
        self.describe(&volume)
    }

    fn clone_volume(&self, source: VolumeId, id: VolumeId, thick: bool) -> Result<VolumeInfo, StoreError> {
        if source == id {
            return Err(StoreError::Exists("a volume cannot be cloned onto itself".to_owned()));
        }
        let _claim = self.claim(&[source, id]);
        if let Ok(volume) = self.find(id) {
            let from = self.read_metadata(id).ok().and_then(|metadata| metadata.cloned_from);
            if from == Some(source.to_string()) && volume.thick() == thick {
                self.settle(id)?;
                return self.describe(&volume);
            }
            return Err(StoreError::Exists(format!("volume {id} exists and is no such clone of {source}")));
        }
        let original = self.find(source)?;
        let volume = self.clone_file(&original, id, thick).map_err(|error| {
            self.abandon(id);
            StoreError::from_io(&format!("cannot clone volume {source}"), &error)
        })?;
        self.describe(&volume)
    }

    fn set_thick(&self, id: VolumeId, thick: bool) -> Result<VolumeInfo, StoreError> {
        let _claim = self.claim(&[id]);
        let volume = self.find(id)?;
        if volume.thick() != thick {
            let failed = |error| StoreError::from_io(&format!("cannot change the reservation of volume {id}"), &error);
            self.change_thick(&volume, thick).map_err(failed)?;
        }
        self.describe(&volume)
    }

    fn list(&self) -> Result<Vec<VolumeInfo>, StoreError> {
        let volumes: Vec<_> = lock(&self.volumes).values().cloned().collect();
        volumes.iter().map(|volume| self.describe(volume)).collect()
    }

    fn info(&self, id: VolumeId) -> Result<VolumeInfo, StoreError> {
        self.describe(&*self.find(id)?)
    }

    fn space(&self) -> Result<Space, StoreError> {
        let failed = |error: &io::Error| StoreError::from_io("cannot read the size of the file system", error);
        let folder = File::open(&self.root).map_err(|e| failed(&e))?;
        // SAFETY: an all-zero statvfs is a valid value, and the call fills it.
        let mut figures: libc::statvfs = unsafe { std::mem::zeroed() };
        if unsafe { libc::fstatvfs(folder.as_raw_fd(), &mut figures) } != 0 {
            return Err(failed(&io::Error::last_os_error()));
        }
        let used_bytes = self.list()?.iter().map(|volume| volume.allocated_bytes).sum();
        let total_bytes = figures.f_blocks * figures.f_frsize;
        let free_bytes = figures.f_bavail * figures.f_frsize;
        Ok(Space { total_bytes, free_bytes, used_bytes, limit_bytes: None, reclaiming_bytes: 0 })
    }

    fn open(&self, id: VolumeId) -> Result<Arc<dyn Volume>, StoreError> {
        Ok(self.find(id)?)
    }

    fn reservations(&self, id: VolumeId) -> Result<Option<String>, StoreError> {
        // No metadata: nothing was kept; the start has told of it.
        Ok(self.find(id).ok().and_then(|_| self.read_metadata(id).ok()).and_then(|metadata| metadata.reservations))
    }

    fn set_reservations(&self, id: VolumeId, reservations: Option<String>) -> Result<(), StoreError> {
        let volume = self.find(id)?;
        self.change_metadata(&volume, |metadata| metadata.reservations = reservations)
            .map_err(|error| StoreError::from_io(&format!("cannot keep the reservations of volume {id}"), &error))
    }
}

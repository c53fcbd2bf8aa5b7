//! Stores as earlier versions of the format left them on the disk (`formats/README.md`): each is opened, says what was
//! written to it, and goes on.

use gespann_store::check::check;
use gespann_store::disk::OsDisk;
use gespann_store::{MappedStore, Options, Share, Store, VolumeId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CHUNK: usize = 16 << 10;

fn id(letter: char) -> VolumeId {
    VolumeId([letter as u8; 16])
}

/// What the volumes hold, by the steps with which the stores were made.
fn expected() -> BTreeMap<char, Vec<u8>> {
    let mut a = vec![0; 8 * CHUNK - 512];
    a[..4 * CHUNK].fill(1);
    let s = a.clone();
    a[CHUNK + 512..CHUNK + 512 + 4096].fill(2);
    a[2 * CHUNK..3 * CHUNK].fill(3);
    let mut c = s.clone();
    c[4096..8192].fill(4);
    a[..512].fill(10);
    let q = a.clone();
    a[512..1024].fill(11);
    let mut t = vec![0; 3 * CHUNK];
    t[CHUNK - 512..CHUNK + 512].fill(5);
    // From here on in the log only.
    let r = a.clone();
    a[CHUNK + 8192..CHUNK + 12288].fill(7);
    a[3 * CHUNK..4 * CHUNK].fill(0);
    c[5 * CHUNK..6 * CHUNK].copy_from_slice(&s[..CHUNK]);
    c.resize(20 * CHUNK, 0);
    let d = r.clone();
    a[7 * CHUNK..7 * CHUNK + 4096].fill(8);
    // `R` was written to after that, and not flushed: on another machine than the one it was written on that does not count.
    BTreeMap::from([('A', a), ('C', c), ('D', d), ('Q', q), ('R', r), ('T', t)])
}

/// A directory of its own, removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    fn with(version: &str) -> Self {
        let to = std::env::temp_dir().join(format!("gespann-formats-{version}-{}", std::process::id()));
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(version);
        for folder in ["map", "volumes"] {
            std::fs::create_dir_all(to.join(folder)).unwrap();
            for entry in std::fs::read_dir(from.join(folder)).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), to.join(folder).join(entry.file_name())).unwrap();
            }
        }
        Self(to)
    }

    fn disk(&self) -> OsDisk {
        OsDisk::open(&self.0).unwrap()
    }

    fn open(&self) -> MappedStore {
        MappedStore::open(Arc::new(self.disk()), Options::default()).unwrap()
    }

    /// The first frame of the newest checkpoint says the version: after eight bytes of head and eight of number, and the kind.
    fn version(&self) -> u8 {
        let newest = std::fs::read_dir(self.0.join("map")).unwrap().filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_prefix("checkpoint-").map(|number| number.parse::<u64>().unwrap())
        });
        let path = self.0.join(format!("map/checkpoint-{}", newest.max().unwrap()));
        std::fs::read(path).unwrap()[17]
    }
}

fn read(store: &MappedStore, letter: char) -> Vec<u8> {
    let volume = store.open(id(letter)).unwrap();
    let mut bytes = vec![0xff; volume.size_bytes() as usize];
    volume.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn compare(store: &MappedStore, expected: &BTreeMap<char, Vec<u8>>) {
    let there: Vec<_> = store.list().unwrap().into_iter().map(|info| info.volume).collect();
    assert_eq!(there, expected.keys().map(|letter| id(*letter)).collect::<Vec<_>>());
    for (letter, bytes) in expected {
        let found = read(store, *letter);
        assert_eq!(found.len(), bytes.len(), "{letter}");
        let wrong = found.iter().zip(bytes).position(|(one, other)| one != other);
        assert_eq!(wrong, None, "volume {letter}");
    }
}

fn settle(store: &MappedStore) {
    let mut idle = 0;
    while idle < 3 {
        idle = if store.background() { 0 } else { idle + 1 };
        assert_eq!(store.background_failure(), None);
    }
}

fn opens_and_goes_on(name: &str, version: u8) {
    let folder = Folder::with(name);
    assert_eq!(folder.version(), version);
    assert_eq!(check(&folder.disk()).unwrap().errors, Vec::<String>::new());
    let mut expected = expected();
    let store = folder.open();
    compare(&store, &expected);
    settle(&store);
    assert_eq!(store.verify(), Vec::<String>::new());
    let origins: Vec<_> = expected.keys().map(|letter| store.info(id(*letter)).unwrap().origin).collect();
    assert_eq!(origins, [None, Some(id('S')), None, Some(id('A')), Some(id('A')), None]);
    assert_eq!(store.reservations(id('A')).unwrap().as_deref(), Some("kept"));
    assert!(!store.info(id('T')).unwrap().thick);
    // It goes on: written in place and anew, shared, deleted, and all of that read again in the present format.
    store.open(id('A')).unwrap().write_at(&[20; 1024], CHUNK as u64).unwrap();
    store.snapshot(&[Share { source: id('A'), id: id('Z'), thick: false }]).unwrap();
    expected.get_mut(&'A').unwrap()[CHUNK..CHUNK + 1024].fill(20);
    expected.insert('Z', expected[&'A'].clone());
    store.open(id('A')).unwrap().write_at(&[21; 512], 0).unwrap();
    store.open(id('A')).unwrap().flush().unwrap();
    expected.get_mut(&'A').unwrap()[..512].fill(21);
    store.delete(id('R')).unwrap();
    expected.remove(&'R');
    settle(&store);
    compare(&store, &expected);
    drop(store);
    assert_ne!(folder.version(), version);
    assert_eq!(check(&folder.disk()).unwrap().errors, Vec::<String>::new());
    let store = folder.open();
    compare(&store, &expected);
    expected.keys().for_each(|letter| store.delete(id(*letter)).unwrap());
    settle(&store);
    assert_eq!(std::fs::read_dir(folder.0.join("volumes")).unwrap().count(), 0);
}

#[test]
fn a_store_of_version_1_is_read_and_goes_on() {
    opens_and_goes_on("version-1", 1);
}

#[test]
fn a_store_of_version_2_is_read_and_goes_on() {
    opens_and_goes_on("version-2", 2);
}

#[test]
fn a_store_of_version_3_is_read_and_goes_on() {
    opens_and_goes_on("version-3", 3);
}

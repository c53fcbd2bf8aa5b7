//! Folders and the names in them: what is seen, what a loss of power would leave, and the changes in between.

use super::{Fate, Fates};
use std::collections::{BTreeMap, BTreeSet};

/// The number of a file; `FOLDER` is what a name in the root stands for if it is a folder's.
pub type FileNumber = u64;
pub const FOLDER: FileNumber = 0;

/// (folder, name); the root is the empty text.
pub type Place = (String, String);

type Table = BTreeMap<Place, FileNumber>;

#[derive(Debug, Clone, Default)]
pub struct Names {
    pub now: Table,
    durable: Table,
    changes: Vec<Change>,
}

/// Names set or taken away together: a rename is never half done.
#[derive(Debug, Clone)]
struct Change {
    time: u64,
    sets: Vec<(Place, Option<FileNumber>)>,
}

/// `folder/name`, or `name` in the root.
pub fn place(path: &str) -> Place {
    let (folder, name) = path.trim_matches('/').rsplit_once('/').unwrap_or(("", path.trim_matches('/')));
    (folder.to_owned(), name.to_owned())
}

pub fn folder_of(path: &str) -> String {
    path.trim_matches('/').trim_start_matches('.').to_owned()
}

impl Change {
    fn in_folder(&self, folder: &str) -> bool {
        self.sets.iter().any(|((inside, _), _)| inside == folder)
    }

    fn apply(&self, table: &mut Table) {
        for (place, file) in &self.sets {
            match file {
                Some(file) => table.insert(place.clone(), *file),
                None => table.remove(place),
            };
        }
    }
}

impl Names {
    pub fn set(&mut self, sets: Vec<(Place, Option<FileNumber>)>, time: u64) {
        let change = Change { time, sets };
        change.apply(&mut self.now);
        self.changes.push(change);
    }

    pub fn has_folder(&self, folder: &str) -> bool {
        folder.is_empty() || self.now.get(&(String::new(), folder.to_owned())) == Some(&FOLDER)
    }

    pub fn in_folder(&self, folder: &str) -> Vec<String> {
        self.now.keys().filter(|(inside, _)| inside == folder).map(|(_, name)| name.clone()).collect()
    }

    pub fn oldest_unsynced(&self) -> Option<u64> {
        self.changes.first().map(|change| change.time)
    }

    pub fn sync_folder(&mut self, folder: &str) {
        let kept = self.with_what_they_stand_on(|change| change.in_folder(folder));
        for change in self.changes.iter().filter(|change| kept.contains(&change.time)) {
            change.apply(&mut self.durable);
        }
        self.changes.retain(|change| !kept.contains(&change.time));
    }

    pub fn sync_all(&mut self) {
        self.durable = self.now.clone();
        self.changes.clear();
    }

    /// Files in a folder that did not last are gone with it.
    pub fn after_power_loss(&self, fates: &mut Fates) -> Self {
        let wanted: BTreeSet<u64> =
            self.changes.iter().map(|change| change.time).filter(|time| fates.whole(*time) == Fate::Kept).collect();
        let kept = self.with_what_they_stand_on(|change| wanted.contains(&change.time));
        let mut durable = self.durable.clone();
        self.changes.iter().filter(|change| kept.contains(&change.time)).for_each(|change| change.apply(&mut durable));
        let folders: BTreeSet<String> =
            durable.iter().filter(|(_, file)| **file == FOLDER).map(|((_, name), _)| name.clone()).collect();
        durable.retain(|(folder, _), _| folder.is_empty() || folders.contains(folder));
        Self { now: durable.clone(), durable, changes: Vec::new() }
    }

    /// The changes asked for, and the earlier ones of the same names: no file system keeps a second change of a name
    /// without the first.
    fn with_what_they_stand_on(&self, wanted: impl Fn(&Change) -> bool) -> BTreeSet<u64> {
        let (mut kept, mut names) = (BTreeSet::new(), BTreeSet::new());
        for change in self.changes.iter().rev() {
            if wanted(change) || change.sets.iter().any(|(place, _)| names.contains(place)) {
                kept.insert(change.time);
                names.extend(change.sets.iter().map(|(place, _)| place.clone()));
            }
        }
        kept
    }
}

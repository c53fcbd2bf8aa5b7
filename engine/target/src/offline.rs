//! What can be done with a store that no engine runs on: check it, repair it, take a volume out of it.

use gespann_store::disk::OsDisk;
use gespann_store::{VolumeId, check, export};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub const CHECK_HELP: &str = "\
gespann-engine check: looks whether everything is there that the maps of the volumes refer to.

Usage: gespann-engine check --data DIR [--repair]

  --data DIR    the data directory; no engine may be running on it
  --repair      make it serve again what can be served, and say what is lost; without it nothing is changed

Exit status: 0 if every volume is sound (or was repaired), 1 if not.
";

pub const EXPORT_HELP: &str = "\
gespann-engine export: writes a volume or a snapshot to a raw image, also when the engine does not start any more.

Usage: gespann-engine export --data DIR --volume NAA --to FILE

  --data DIR     the data directory; no engine may be running on it; it is not changed
  --volume NAA   the volume's identity, 32 hex digits, as `gespann-engine check` lists them
  --to FILE      the image; it must not be there yet
";

#[derive(Debug)]
pub enum Task {
    Check { data: PathBuf, repair: bool },
    Export { data: PathBuf, volume: VolumeId, to: PathBuf },
    Print(String),
}

/// `verb` is the first word, `check` or `export`; the others are its options.
pub fn parse(verb: &str, mut words: impl Iterator<Item = String>) -> Result<Task, String> {
    let help = if verb == "check" { CHECK_HELP } else { EXPORT_HELP };
    let (mut data, mut repair, mut volume, mut to) = (None, false, None, None);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value; see gespann-engine {verb} --help"));
        match word.as_str() {
            "--help" | "-h" => return Ok(Task::Print(help.to_owned())),
            "--data" => data = Some(PathBuf::from(value()?)),
            "--repair" if verb == "check" => repair = true,
            "--volume" if verb == "export" => volume = Some(value()?.parse::<VolumeId>()?),
            "--to" if verb == "export" => to = Some(PathBuf::from(value()?)),
            _ => return Err(format!("{word:?} is not known; see gespann-engine {verb} --help")),
        }
    }
    let missing = |option: &str| format!("{option} is missing; see gespann-engine {verb} --help");
    let data = data.ok_or_else(|| missing("--data"))?;
    if verb == "check" {
        return Ok(Task::Check { data, repair });
    }
    Ok(Task::Export { data, volume: volume.ok_or_else(|| missing("--volume"))?, to: to.ok_or_else(|| missing("--to"))? })
}

fn open(data: &Path) -> Result<OsDisk, String> {
    if !data.join("volumes").is_dir() {
        return Err(format!("{} is no data directory of an engine", data.display()));
    }
    OsDisk::open(data).map_err(|error| error.to_string())
}

pub fn run(task: Task) -> Result<(), String> {
    match task {
        Task::Print(text) => {
            print!("{text}");
            Ok(())
        }
        Task::Check { data, repair } => run_check(&data, repair),
        Task::Export { data, volume, to } => run_export(&data, volume, &to),
    }
}

fn run_check(data: &Path, repair: bool) -> Result<(), String> {
    let disk = open(data)?;
    if repair {
        let done = check::repair(&disk).map_err(|error| error.to_string())?;
        done.iter().for_each(|line| println!("repair: {line}"));
    }
    let report = check::check(&disk).map_err(|error| error.to_string())?;
    report.volumes.iter().for_each(|line| println!("volume {line}"));
    report.notes.iter().for_each(|line| println!("note: {line}"));
    report.errors.iter().for_each(|line| println!("error: {line}"));
    match report.errors.len() {
        0 => {
            println!("{} volumes, all sound", report.volumes.len());
            Ok(())
        }
        count => Err(format!("{count} errors were found; nothing is changed without --repair")),
    }
}

fn run_export(data: &Path, volume: VolumeId, to: &Path) -> Result<(), String> {
    let disk = open(data)?;
    let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let out = out.map_err(|error| format!("cannot make {}: {error}", to.display()))?;
    match export::export(&disk, volume, &out) {
        Ok(notes) => {
            notes.iter().for_each(|line| println!("note: {line}"));
            println!("volume {volume} is in {}", to.display());
            Ok(())
        }
        Err(error) => {
            let _ = std::fs::remove_file(to); // nobody shall take a part for the whole
            Err(error.to_string())
        }
    }
}

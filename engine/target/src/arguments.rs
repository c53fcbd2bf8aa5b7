//! The command line.

use crate::connection::Timing;
use crate::engine::WRITE_DATA_BYTES;
use crate::log::Level;
use crate::offline;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub const HELP: &str = "\
gespann-engine: serves the volumes of an array group over iSCSI.

Usage: gespann-engine --data DIR --socket PATH [options]
       gespann-engine check --help     look at the volumes, and repair them, while no engine runs
       gespann-engine export --help    write a volume to a raw image, while no engine runs

  --data DIR             where the volumes are; made if it is not there; one engine at a time
  --socket PATH          the control socket (made with mode 0600); nobody can log in until the group has configured
  --portal ADDR:PORT     where initiators connect; may be given several times (default 0.0.0.0:3260)
  --login-timeout S      seconds a connection has to log in (default 15)
  --ping-after S         seconds of silence before an initiator is pinged (default 10)
  --missed-pings N       unanswered pings after which a session is dropped (default 3)
  --write-data MIB       memory for write data on its way, in all sessions together, 16 to 65536 (default 256)
  --data-timeout S       seconds a session has to send the data of a command while others wait for memory (default 20)
  --checkpoint-after KIB length of the log of the volumes' maps from which on a checkpoint is made, 4 to 1048576
                         (default 32768)
  --busy-poll US         microseconds for which a session stays awake when its next command usually follows at once, 0 to
                         1000, 0: never (default 50); half of the processors at most are kept awake so
  --log-level LEVEL      error, warning, info or debug (default info); the log goes to standard error
  --version, --help

SIGTERM and SIGINT end it in order: commands under way are finished, everything is flushed.
";

#[derive(Debug)]
pub struct Arguments {
    pub data: PathBuf,
    pub socket: PathBuf,
    pub portals: Vec<SocketAddr>,
    pub timing: Timing,
    pub write_data_bytes: u64,
    pub checkpoint_after_bytes: Option<u64>,
    /// `--memory-volumes`: not in the help, as it is of use only to `bench/`.
    pub memory_volumes: bool,
    pub log_level: Level,
}

#[derive(Debug)]
pub enum Asked {
    Run(Arguments),
    Offline(offline::Task),
    Print(String),
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text:?} is no number of seconds from 1 to 86400")),
    }
}

fn microseconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(count @ 0..=1000) => Ok(Duration::from_micros(count)),
        _ => Err(format!("{text:?} is no number of microseconds from 0 to 1000")),
    }
}

fn mebibytes(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(count @ 16..=65_536) => Ok(count << 20),
        _ => Err(format!("{text:?} is no number of MiB from 16 to 65536")),
    }
}

fn kibibytes(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(count @ 4..=1_048_576) => Ok(count << 10),
        _ => Err(format!("{text:?} is no number of KiB from 4 to 1048576")),
    }
}

fn level(text: &str) -> Result<Level, String> {
    let found = Level::NAMES.iter().find(|(name, _)| *name == text);
    found.map(|(_, level)| *level).ok_or_else(|| format!("{text:?} is no log level: error, warning, info or debug"))
}

pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
    let (mut data, mut socket, mut portals, mut log_level) = (None, None, Vec::new(), Level::Info);
    let mut memory_volumes = false;
    let (mut write_data_bytes, mut checkpoint_after_bytes) = (WRITE_DATA_BYTES, None);
    let mut timing = Timing {
        login: Duration::from_secs(15),
        ping_after: Duration::from_secs(10),
        missed_pings: 3,
        data: Duration::from_secs(20),
        busy_poll: Duration::from_micros(50),
    };
    while let Some(word) = words.next() {
        if matches!(word.as_str(), "check" | "export") {
            return offline::parse(&word, words).map(Asked::Offline);
        }
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value; see --help"));
        match word.as_str() {
            "--help" | "-h" => return Ok(Asked::Print(HELP.to_owned())),
            "--version" => return Ok(Asked::Print(format!("gespann-engine {}\n", env!("CARGO_PKG_VERSION")))),
            "--data" => data = Some(PathBuf::from(value()?)),
            "--socket" => socket = Some(PathBuf::from(value()?)),
            "--portal" => {
                let text = value()?;
                portals.push(text.parse().map_err(|_| format!("{text:?} is no address and port, like 192.0.2.1:3260"))?);
            }
            "--login-timeout" => timing.login = seconds(&value()?)?,
            "--ping-after" => timing.ping_after = seconds(&value()?)?,
            "--missed-pings" => {
                timing.missed_pings = value()?.parse().map_err(|_| "--missed-pings needs a number".to_owned())?
            }
            "--memory-volumes" => memory_volumes = true,
            "--write-data" => write_data_bytes = mebibytes(&value()?)?,
            "--checkpoint-after" => checkpoint_after_bytes = Some(kibibytes(&value()?)?),
            "--data-timeout" => timing.data = seconds(&value()?)?,
            "--busy-poll" => timing.busy_poll = microseconds(&value()?)?,
            "--log-level" => log_level = level(&value()?)?,
            _ => return Err(format!("{word:?} is not known; see --help")),
        }
    }
    if portals.is_empty() {
        portals.push(SocketAddr::from(([0, 0, 0, 0], 3260)));
    }
    let data = data.ok_or("--data is missing; see --help")?;
    let socket = socket.ok_or("--socket is missing; see --help")?;
    Ok(Asked::Run(Arguments {
        data,
        socket,
        portals,
        timing,
        write_data_bytes,
        checkpoint_after_bytes,
        memory_volumes,
        log_level,
    }))
}

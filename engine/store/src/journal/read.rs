//! Reading frames back, a window at a time, and telling a log's torn end from damage.

use super::frame::{self, MAX_PAYLOAD_BYTES};
use super::record::Record;
use crate::disk::DiskFile;
use std::io;
use std::sync::Arc;

const WINDOW_BYTES: usize = 4 << 20;
/// How far behind a torn end sound records are looked for.
const SEARCHED_BYTES: u64 = 64 << 20;
const ZEROES: [u8; 64] = [0; 64];

#[derive(Debug)]
pub struct FrameReader {
    file: Arc<dyn DiskFile>,
    length: u64,
    /// Where `window` begins in the file.
    start: u64,
    window: Vec<u8>,
    position: usize,
}

impl FrameReader {
    pub fn new(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let length = file.len()?;
        Ok(Self { file, length, start: 0, window: Vec::new(), position: 0 })
    }

    pub fn offset(&self) -> u64 {
        self.start + self.position as u64
    }

    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        self.start = self.offset();
        self.position = 0;
        let bytes = (self.length.saturating_sub(self.start)).min(bytes as u64) as usize;
        self.window.resize(bytes, 0);
        self.file.read_at(&mut self.window, self.start)
    }

    /// The next frame as its number and payload; none where there is no valid one.
    pub fn next(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        for bytes in [WINDOW_BYTES, MAX_PAYLOAD_BYTES + 64] {
            if let Some((number, payload, length)) = frame::take(&self.window[self.position..]) {
                let found = (number, payload.to_vec());
                self.position += length;
                return Ok(Some(found));
            }
            let whole = self.start + self.window.len() as u64 >= self.length;
            if whole {
                return Ok(None);
            }
            self.fill(bytes)?;
        }
        Ok(frame::take(&self.window[self.position..]).map(|(number, payload, length)| {
            let found = (number, payload.to_vec());
            self.position += length;
            found
        }))
    }
}

/// Behind a torn end: was anything there durable that cannot be read?
fn durable_behind(file: &Arc<dyn DiskFile>, torn_at: u64, latest: u64) -> io::Result<Option<u64>> {
    let mut rest = vec![0; file.len()?.saturating_sub(torn_at).min(SEARCHED_BYTES) as usize];
    file.read_at(&mut rest, torn_at)?;
    let mut at = 0;
    while at < rest.len() {
        // A log is as long as it may become from the beginning: nearly all of this is zeroes, where no frame begins.
        let piece = &rest[at..(at + ZEROES.len()).min(rest.len())];
        if piece == &ZEROES[..piece.len()] {
            at += piece.len();
            continue;
        }
        let here = &rest[at..];
        at += 8;
        let Some((_, payload, _)) = frame::take(here) else { continue };
        if let Some(Record::Commit { confirmed, .. }) = frame::decode::<Record>(payload) {
            if confirmed > latest {
                return Ok(Some(confirmed));
            }
        }
    }
    Ok(None)
}

/// Calls `visit` for each record of a log that goes on from record `after`, as far as it can be read, and tells the latest
/// number. An error in words: the log is damaged before a place that had been made durable, which no crash does.
pub fn read_log(
    file: &Arc<dyn DiskFile>,
    after: u64,
    visit: &mut dyn FnMut(u64, Record) -> Result<(), String>,
) -> io::Result<Result<u64, String>> {
    let mut reader = FrameReader::new(file.clone())?;
    let mut latest = after;
    let mut torn_at = 0;
    while let Some((number, payload)) = reader.next()? {
        let Some(record) = frame::decode::<Record>(&payload) else {
            return Ok(Err(format!("the record before byte {} is sound but cannot be understood", reader.offset())));
        };
        let begins = matches!(record, Record::Begin { .. });
        if begins != (torn_at == 0) || (!begins && number != latest + 1) {
            break; // not the next one: the end of a log before this one is missing
        }
        if !begins {
            latest = number;
        }
        torn_at = reader.offset();
        if let Err(words) = visit(number, record) {
            return Ok(Err(words));
        }
    }
    Ok(match durable_behind(file, torn_at, latest)? {
        None => Ok(latest),
        Some(confirmed) => {
            Err(format!("it cannot be read from byte {torn_at} on, though all was durable up to record {confirmed}"))
        }
    })
}

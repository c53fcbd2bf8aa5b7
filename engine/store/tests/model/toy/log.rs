//! The toy's log: one file, each record with a checksum that continues that of the record before it.

use super::Mistake;
use super::volumes::{ToyContent, Volumes};
use gespann_store::disk::{Disk, DiskFile};
use std::io;
use std::sync::Arc;

pub type Id = [u8; 16];

#[derive(Debug, Clone)]
pub enum Record {
    Create { id: Id, size_bytes: u64, thick: bool },
    Delete { id: Id },
    Resize { id: Id, size_bytes: u64, keep_tail: bool },
    SetThick { id: Id, thick: bool },
    Share { pairs: Vec<(Id, Id, bool)> },
    RollBack { id: Id, from: Id },
    Write { id: Id, offset: u64, data: Vec<u8> },
    Zero { id: Id, offset: u64, length: u64 },
}

#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    end: u64,
    /// What the chain of checksums begins with: another number in each file.
    first: u32,
    chain: u32,
    later: Vec<u8>,
    mistake: Option<Mistake>,
}

/// Length of what follows the head, checksum of it.
const HEAD: usize = 8;

impl Log {
    /// Reads what there is and begins a new file with it: what a failed sync has lost may still be readable in the old one.
    pub fn open(disk: Arc<dyn Disk>, mistake: Option<Mistake>) -> io::Result<(Self, Volumes)> {
        let mut volumes = Volumes::default();
        if disk.list("")?.iter().any(|name| name == "new") {
            disk.remove("new")?;
        }
        let there = disk.list("")?.iter().any(|name| name == "log");
        let file = disk.open("log").or_else(|_| disk.create("log"))?;
        let mut log = Self { disk, file, end: 0, first: 0, chain: 0, later: Vec::new(), mistake };
        if there {
            log.read(&mut volumes)?;
        }
        if there && (log.has(Mistake::LogOfBeforeTheFailureIsTrusted) || log.has(Mistake::OldRecordsComeBack)) {
            return Ok((log, volumes));
        }
        log.rewrite(&volumes, &[])?;
        Ok((log, volumes))
    }

    fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn read(&mut self, volumes: &mut Volumes) -> io::Result<()> {
        let mut bytes = vec![0; self.file.len()? as usize];
        self.file.read_at(&mut bytes, 0)?;
        let Some(first) = bytes.first_chunk::<4>() else { return Ok(()) };
        self.first = u32::from_le_bytes(*first);
        (self.chain, self.end) = (self.first, first.len() as u64);
        while let Some((payload, chain)) = self.take(&bytes[self.end as usize..]) {
            let Some(record) = decode(payload) else { break };
            volumes.apply(&record);
            self.end += (HEAD + payload.len()) as u64;
            self.chain = chain;
        }
        Ok(())
    }

    fn take<'a>(&self, bytes: &'a [u8]) -> Option<(&'a [u8], u32)> {
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (length, sum) = (number(0)? as usize, number(4)?);
        let payload = bytes.get(HEAD..HEAD + length)?;
        let chain = self.sum(payload);
        (length > 0 && (chain == sum || self.has(Mistake::RecordsWithoutChecksum))).then_some((payload, chain))
    }

    fn sum(&self, payload: &[u8]) -> u32 {
        crc32c::crc32c_append(if self.has(Mistake::OldRecordsComeBack) { 7 } else { self.chain }, payload)
    }

    fn frame(&mut self, record: &Record) -> Vec<u8> {
        let payload = encode(record);
        self.chain = self.sum(&payload);
        let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
        frame.extend(self.chain.to_le_bytes());
        frame.extend(payload);
        frame
    }

    /// What fails may have been written in part, and the next record goes over it.
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        let before = self.chain;
        let frame = self.frame(record);
        match self.file.write_at(&frame, self.end) {
            Ok(()) => self.end += frame.len() as u64,
            Err(error) => {
                self.chain = before;
                return Err(error);
            }
        }
        Ok(())
    }

    pub fn append_later(&mut self, record: &Record) {
        let frame = self.frame(record);
        self.later.extend(frame);
    }

    pub fn sync(&mut self) -> io::Result<()> {
        let later = std::mem::take(&mut self.later);
        self.file.write_at(&later, self.end)?;
        self.end += later.len() as u64;
        self.file.sync()
    }

    pub fn length(&self) -> u64 {
        self.end
    }

    /// A new log that says the same with no record too many.
    pub fn rewrite(&mut self, volumes: &Volumes, kept: &[ToyContent]) -> io::Result<()> {
        let file = self.disk.create("new")?;
        self.first = self.first.wrapping_add(1);
        self.chain = self.first;
        let mut bytes = self.first.to_le_bytes().to_vec();
        for (id, content) in &volumes.all {
            bytes.extend(self.frame(&Record::Create { id: *id, size_bytes: content.size_bytes, thick: content.thick }));
            for (sector, data) in &content.sectors {
                bytes.extend(self.frame(&Record::Write { id: *id, offset: sector * 512, data: data.to_vec() }));
            }
        }
        let kept_bytes: u64 = kept.iter().map(|content| content.sectors.len() as u64 * 512).sum();
        file.reserve(bytes.len() as u64 + kept_bytes)?;
        file.write_at(&bytes, 0)?;
        if !self.has(Mistake::CheckpointRenamedBeforeSync) {
            file.sync()?;
        }
        self.disk.rename("new", "log")?;
        if !self.has(Mistake::CheckpointNameNotSynced) {
            self.disk.sync_folder("")?;
        }
        self.end = bytes.len() as u64;
        self.file = file;
        Ok(())
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |kind: u8, ids: &[&Id], numbers: &[u64], data: &[u8]| {
        out.extend([kind, ids.len() as u8, numbers.len() as u8]);
        ids.iter().for_each(|id| out.extend(**id));
        numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
        out.extend(data);
    };
    match record {
        Record::Create { id, size_bytes, thick } => put(1, &[id], &[*size_bytes, (*thick).into()], &[]),
        Record::Delete { id } => put(2, &[id], &[], &[]),
        Record::Resize { id, size_bytes, keep_tail } => put(3, &[id], &[*size_bytes, (*keep_tail).into()], &[]),
        Record::SetThick { id, thick } => put(4, &[id], &[(*thick).into()], &[]),
        Record::Share { pairs } => {
            let ids: Vec<&Id> = pairs.iter().flat_map(|(source, id, _)| [source, id]).collect();
            let thick: Vec<u64> = pairs.iter().map(|(_, _, thick)| (*thick).into()).collect();
            put(5, &ids, &thick, &[]);
        }
        Record::RollBack { id, from } => put(6, &[id, from], &[], &[]),
        Record::Write { id, offset, data } => put(7, &[id], &[*offset], data),
        Record::Zero { id, offset, length } => put(8, &[id], &[*offset, *length], &[]),
    }
    out
}

fn decode(payload: &[u8]) -> Option<Record> {
    let (ids_end, numbers_end) = {
        let ids = 3 + 16 * *payload.get(1)? as usize;
        (ids, ids + 8 * *payload.get(2)? as usize)
    };
    let ids: Vec<Id> = payload.get(3..ids_end)?.chunks(16).map(|id| id.try_into().expect("16 bytes")).collect();
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    let numbers: Vec<u64> = payload.get(ids_end..numbers_end)?.chunks(8).map(number).collect();
    let data = payload[numbers_end..].to_vec();
    let flag = |at: usize| numbers[at] != 0;
    Some(match (payload[0], ids.as_slice(), numbers.as_slice()) {
        (1, [id], [size_bytes, _]) => Record::Create { id: *id, size_bytes: *size_bytes, thick: flag(1) },
        (2, [id], []) => Record::Delete { id: *id },
        (3, [id], [size_bytes, _]) => Record::Resize { id: *id, size_bytes: *size_bytes, keep_tail: flag(1) },
        (4, [id], [_]) => Record::SetThick { id: *id, thick: flag(0) },
        (5, all, thick) if all.len() == thick.len() * 2 => {
            let pairs = all.chunks(2).zip(thick).map(|(pair, thick)| (pair[0], pair[1], *thick != 0));
            Record::Share { pairs: pairs.collect() }
        }
        (6, [id, from], []) => Record::RollBack { id: *id, from: *from },
        (7, [id], [offset]) if data.len() % 512 == 0 => Record::Write { id: *id, offset: *offset, data },
        (8, [id], [offset, length]) => Record::Zero { id: *id, offset: *offset, length: *length },
        _ => return None,
    })
}

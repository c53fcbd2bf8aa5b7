//! What one volume may hold: for each sector of 512 bytes the values it may have after a crash.
//!
//! A sector is always one 64-bit number, 64 times over, so a torn sector shows, and a wrong one tells which step wrote it.

use std::collections::BTreeMap;

pub const SECTOR: u64 = 512;

/// After what a sector is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// The store has run all the time.
    Running,
    ProcessDeath,
    PowerLoss,
}

/// The values that a sector has had, or was to have; the last one is the present. From the first on they are possible after
/// a loss of power.
#[derive(Debug, Clone, Default)]
pub struct History {
    values: Vec<u64>,
    /// From here on they are possible after the death of the process.
    settled: usize,
    /// So many of them were there when a sync failed: a later flush says nothing of those.
    doubtful: usize,
    /// From here on they are possible now: a write failed, or a sync.
    unsure: Option<usize>,
}

impl History {
    pub fn known(value: u64) -> Self {
        Self { values: vec![value], ..Self::default() }
    }

    fn now(&self) -> u64 {
        *self.values.last().expect("never empty")
    }

    fn possible(&self, since: Since) -> &[u64] {
        let from = match since {
            Since::Running => self.unsure.unwrap_or(self.values.len() - 1),
            Since::ProcessDeath => self.settled,
            Since::PowerLoss => 0,
        };
        &self.values[from..]
    }

    fn push(&mut self, value: u64) {
        self.values.push(value);
        self.unsure = None;
    }

    fn is_plain(&self) -> bool {
        self.values.len() == 1
    }

    fn flushed(&mut self) {
        if self.doubtful < self.values.len() {
            *self = Self::known(self.now());
        }
        self.settled = self.values.len() - 1;
    }

    fn observed(&mut self, value: u64, since: Since) {
        if since == Since::PowerLoss {
            *self = Self::known(value);
            return;
        }
        if since == Since::Running && self.unsure.is_none() {
            return;
        }
        if self.now() != value {
            // It went back to what a failed sync may still take.
            let doubtful = self.doubtful == self.values.len() || self.values[..self.doubtful].contains(&value);
            self.values.push(value);
            self.doubtful = if doubtful { self.values.len() } else { self.doubtful };
        }
        self.unsure = None;
        if since == Since::ProcessDeath {
            self.settled = self.values.len() - 1;
        }
    }
}

/// Sectors by number; those not in it are zero, for certain.
#[derive(Debug, Clone, Default)]
pub struct Sectors {
    all: BTreeMap<u64, History>,
}

impl Sectors {
    pub fn now(&self, sector: u64) -> u64 {
        self.all.get(&sector).map_or(0, History::now)
    }

    pub fn has_had(&self, sector: u64, value: u64) -> bool {
        self.all.get(&sector).is_some_and(|history| history.values.contains(&value))
    }

    /// A write was answered, or tried.
    pub fn write(&mut self, first: u64, values: impl IntoIterator<Item = u64>) {
        for (sector, value) in (first..).zip(values) {
            self.all.entry(sector).or_insert_with(|| History::known(0)).push(value);
        }
    }

    /// Zeroes were answered, or tried. Sectors that were never written stay out of the book.
    pub fn zero(&mut self, from: u64, to: u64) {
        self.all.range_mut(from..to).for_each(|(_, history)| history.push(0));
    }

    pub fn settle(&mut self) {
        self.all.values_mut().for_each(|history| history.settled = history.values.len() - 1);
    }

    pub fn flush(&mut self) {
        self.all.values_mut().filter(|history| !history.is_plain()).for_each(History::flushed);
    }

    /// A write to the range failed: it may hold what it held, or what was written.
    pub fn write_failed(&mut self, from: u64, to: u64) {
        let unsure = |history: &mut History| history.unsure = Some(history.values.len().saturating_sub(2));
        self.all.range_mut(from..to).for_each(|(_, history)| unsure(history));
    }

    /// A sync failed: whatever was not flushed before may be lost, now or later.
    pub fn sync_failed(&mut self) {
        for history in self.all.values_mut().filter(|history| !history.is_plain()) {
            history.doubtful = history.values.len();
            history.unsure = Some(0);
            history.settled = 0; // a store may go back to what it knows to be durable
        }
    }

    /// The same contents, whole and durable; but what a failed sync may still take stays in doubt.
    pub fn shared(&self) -> Self {
        let share = |history: &History| if history.doubtful == 0 { History::known(history.now()) } else { history.clone() };
        Self { all: self.all.iter().map(|(sector, history)| (*sector, share(history))).collect() }
    }

    pub fn cut(&mut self, sectors: u64) {
        self.all.split_off(&sectors);
    }

    /// Those ever written, in order.
    pub fn touched(&self) -> impl Iterator<Item = u64> + '_ {
        self.all.keys().copied()
    }

    /// Is this what the volume may hold? `found`: sectors that are not zero; `looked_at`: runs of sectors that were read.
    pub fn allow(&self, found: &BTreeMap<u64, u64>, looked_at: &[(u64, u64)], since: Since) -> Result<(), String> {
        for &(from, to) in looked_at {
            for (sector, history) in self.all.range(from..to) {
                let value = found.get(sector).copied().unwrap_or(0);
                let possible = history.possible(since);
                if !possible.contains(&value) {
                    let all: Vec<String> = possible.iter().map(|value| name(*value)).collect();
                    return Err(format!("sector {sector} holds {}, not {}", name(value), all.join(" or ")));
                }
            }
        }
        match found.iter().find(|(sector, _)| !self.all.contains_key(sector)) {
            Some((sector, value)) => Err(format!("sector {sector} holds {} and was never written", name(*value))),
            None => Ok(()),
        }
    }

    pub fn observed(&mut self, found: &BTreeMap<u64, u64>, looked_at: &[(u64, u64)], since: Since) {
        for &(from, to) in looked_at {
            for (sector, history) in self.all.range_mut(from..to) {
                history.observed(found.get(sector).copied().unwrap_or(0), since);
            }
        }
    }
}

/// The value that step number `step` gives to the sector `index` of its range.
pub fn stamp(step: u64, index: u64) -> u64 {
    (step + 1) << 24 | index
}

pub fn name(value: u64) -> String {
    match value {
        0 => "zeroes".to_owned(),
        _ => format!("step {}'s sector {}", (value >> 24).wrapping_sub(1), value & 0xff_ffff),
    }
}

pub fn bytes_of(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes().repeat(SECTOR as usize / 8)).collect()
}

/// The number that a sector holds, or how it is torn.
pub fn value_of(sector: &[u8]) -> Result<u64, String> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    let value = number(&sector[..8]);
    match sector.chunks(8).position(|bytes| number(bytes) != value) {
        None => Ok(value),
        Some(at) => {
            Err(format!("is torn: {} up to byte {}, then {}", name(value), at * 8, name(number(&sector[at * 8..][..8]))))
        }
    }
}

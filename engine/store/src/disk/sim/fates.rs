//! What becomes of each unsynced change when the power goes: chosen by a seed, in one of a few ways that find different
//! mistakes.

use fastrand::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Kept,
    Lost,
    /// Each sector for itself.
    Torn,
}

#[derive(Debug)]
enum Way {
    AllLost,
    AllKept,
    /// In a hundred changes so many are lost, and so many torn.
    Mixed {
        lost: u32,
        torn: u32,
    },
    /// Everything before a moment is kept, everything later is lost.
    Until(u64),
    /// Everything before a moment is lost, everything later is kept.
    Since(u64),
}

#[derive(Debug)]
pub struct Fates {
    chance: Rng,
    way: Way,
}

impl Fates {
    /// `times`: the moments of the unsynced changes.
    pub fn new(seed: u64, times: std::ops::Range<u64>) -> Self {
        let mut chance = Rng::with_seed(seed);
        let moment = if times.is_empty() { times.start } else { chance.u64(times) };
        let way = match chance.u32(0..9) {
            0 => Way::AllLost,
            1 => Way::AllKept,
            2 => Way::Mixed { lost: 10, torn: 0 },
            3 => Way::Mixed { lost: 90, torn: 0 },
            4 => Way::Mixed { lost: 0, torn: 100 },
            5 => Way::Until(moment),
            6 => Way::Since(moment),
            _ => Way::Mixed { lost: 35, torn: 30 },
        };
        Self { chance, way }
    }

    pub fn of(&mut self, time: u64) -> Fate {
        match self.way {
            Way::AllLost => Fate::Lost,
            Way::AllKept => Fate::Kept,
            Way::Until(moment) if time < moment => Fate::Kept,
            Way::Since(moment) if time >= moment => Fate::Kept,
            Way::Until(_) | Way::Since(_) => Fate::Lost,
            Way::Mixed { lost, torn } => match self.chance.u32(0..100) {
                number if number < lost => Fate::Lost,
                number if number < lost + torn => Fate::Torn,
                _ => Fate::Kept,
            },
        }
    }

    /// For what cannot be torn.
    pub fn whole(&mut self, time: u64) -> Fate {
        match self.of(time) {
            Fate::Torn if self.coin() => Fate::Kept,
            Fate::Torn => Fate::Lost,
            fate => fate,
        }
    }

    pub fn coin(&mut self) -> bool {
        self.chance.bool()
    }

    pub fn below(&mut self, end: u32) -> u32 {
        self.chance.u32(0..end)
    }
}

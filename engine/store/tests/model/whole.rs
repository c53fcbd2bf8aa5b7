//! Ranges that were written atomically: after whatever crash all of one is there or nothing.

use crate::sectors::name;
use std::collections::BTreeMap;

/// Sector to the value that it got. Those written later by others are left out.
#[derive(Debug, Clone, Default)]
struct Write(BTreeMap<u64, u64>);

#[derive(Debug, Clone, Default)]
pub struct Whole(Vec<Write>);

impl Whole {
    pub fn written(&mut self, sectors: BTreeMap<u64, u64>) {
        self.0.push(Write(sectors));
    }

    /// Something else changes these sectors.
    pub fn changed(&mut self, from: u64, to: u64) {
        self.0.iter_mut().for_each(|write| write.0.retain(|sector, _| !(from..to).contains(sector)));
        self.0.retain(|write| !write.0.is_empty());
    }

    /// `found`: sectors that are not zero.
    pub fn allow(&self, found: &BTreeMap<u64, u64>) -> Result<(), String> {
        for Write(sectors) in &self.0 {
            let there = |sector: &u64| found.get(sector) == sectors.get(sector);
            let (have, lack): (Vec<u64>, Vec<u64>) = sectors.keys().partition(|sector| there(sector));
            if let (Some(have), Some(lack)) = (have.first(), lack.first()) {
                let value = name(sectors[have]);
                return Err(format!("of an atomic write sector {have} is there, {value}, and sector {lack} is not"));
            }
        }
        Ok(())
    }

    /// What is not there will not come any more.
    pub fn observed(&mut self, found: &BTreeMap<u64, u64>) {
        self.0.retain(|Write(sectors)| sectors.iter().all(|(sector, value)| found.get(sector) == Some(value)));
    }
}

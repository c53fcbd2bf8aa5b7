//! Whose the right to change a volume is, while more than one initiator is logged in: one name, given by the group.

#[derive(Debug, Default)]
pub struct Right {
    /// In small letters; empty: whoever is logged in.
    writer: String,
    /// Changes with lower numbers were admitted before the right went to `writer`.
    from: u64,
    /// Numbers of the admitted commands that may change blocks.
    changing: Vec<u64>,
}

impl Right {
    /// From here on nobody else's change is admitted. True if it has moved.
    pub fn give(&mut self, writer: &str, from: u64) -> bool {
        let writer = writer.to_ascii_lowercase();
        let moved = writer != self.writer;
        if moved {
            (self.writer, self.from) = (writer, from);
        }
        moved
    }

    pub fn is_of(&self, initiator: &str) -> bool {
        self.writer.is_empty() || self.writer == initiator
    }

    /// Is a change from before the move still under way?
    pub fn is_moving(&self) -> bool {
        self.changing.iter().any(|number| *number < self.from)
    }

    pub fn begin(&mut self, number: u64) {
        self.changing.push(number);
    }

    pub fn end(&mut self, number: u64) {
        self.changing.retain(|other| *other != number);
    }
}

//! Targets for fuzzing: each takes any bytes, drives a parser that outsiders reach, and panics if a promise is broken.
//!
//! The promises: no panic, memory within a bound, answers that decode, numbers that move as RFC 7143 says, and nobody in
//! who has not proved who he is. How to run them and keep what they find: engine/fuzz/run.

pub mod input;
pub mod memory;
pub mod mutation;
pub mod targets;

use memory::Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Debug)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// What one input may take at a time, apart from the input itself.
    pub memory_bytes: fn(input_bytes: usize) -> usize,
}

pub static TARGETS: &[Target] = &[
    Target { name: "session", run: targets::session::run, memory_bytes: |_| targets::session::MEMORY_BYTES },
    Target { name: "login", run: targets::login::run, memory_bytes: |_| 1 << 20 },
    Target { name: "command", run: targets::command::run, memory_bytes: |_| 1 << 20 },
    Target { name: "reservations", run: targets::reservations::run, memory_bytes: |_| 1 << 20 },
    // JSON values are larger than their text, up to `[[],[],` and so on.
    Target { name: "control", run: targets::control::run, memory_bytes: |bytes| 8192 + 128 * bytes },
];

pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// Panics if the target does, or if it takes more memory than it may.
    pub fn check(&self, input: &[u8]) {
        let used = memory::peak_of(|| (self.run)(input));
        let limit = (self.memory_bytes)(input.len());
        assert!(used <= limit, "{}: {used} bytes of memory for {} bytes of input, {limit} allowed", self.name, input.len());
    }
}

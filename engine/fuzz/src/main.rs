//! libFuzzer around one target, named by the environment variable FUZZ_TARGET. Built and started by engine/fuzz/run.

#![no_main]

use gespann_fuzz::{Target, target};
use std::sync::OnceLock;

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let chosen = TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is no target"))
    });
    chosen.check(input);
});

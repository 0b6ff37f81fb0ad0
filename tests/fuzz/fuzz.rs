//! One program for all targets; the variable RENEWD_FUZZ says which. See `run`.

#![no_main]

mod targets;

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let wanted = std::env::var("RENEWD_FUZZ").expect("RENEWD_FUZZ names a target");
        let found = targets::TARGETS.iter().find(|(name, _)| *name == wanted);
        found.expect("there is such a target").1
    });
    target(data);
});

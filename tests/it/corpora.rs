//! The inputs that fuzzing left, through the very functions that it calls: what once went wrong, and the
//! usual forms of what comes from outside. `make fuzz` looks for more.

use std::{collections::BTreeSet, fs, path::Path, sync::Mutex};

#[path = "../fuzz/targets.rs"]
mod targets;

/// Whoever runs targets holds one of these; the last one takes their folder away.
struct Scratch(());

static HELD: Mutex<usize> = Mutex::new(0);

impl Scratch {
    fn hold() -> Self {
        *HELD.lock().unwrap() += 1;
        Self(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap();
        *held -= 1;
        if *held == 0 {
            fs::remove_dir_all(targets::folder()).ok();
        }
    }
}

fn replay(target: &str) {
    let _scratch = Scratch::hold();
    let (_, run) = targets::TARGETS
        .iter()
        .find(|(name, _)| *name == target)
        .unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        run(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 2, "{target} has a corpus");
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let corpora = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus"));
    let found: BTreeSet<String> = corpora
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let wanted = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(found, wanted.collect());
}

macro_rules! corpora {
    ($($target:ident)*) => {$(
        #[test]
        fn $target() {
            replay(stringify!($target));
        }
    )*};
}

corpora! {
    configuration connection_string acs_answer selection import socket list schedule template
}

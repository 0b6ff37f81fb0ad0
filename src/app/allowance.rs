//! What the daemon may take at most, all doors together: by it the unit's limits are set.

use crate::{pool, store};

/// Threads, however much is asked: the first one, the workers, those for what blocks, the store's.
pub const THREADS: usize = 1 + pool::WORKERS + pool::BLOCKING + store::THREADS;
/// Where the system gives fewer, so many are left to the store and to a few programs.
pub const SPARE: usize = store::THREADS + 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api, sinks, sources};

    /// Processes and threads of one program of an operator's, a shell and what it starts.
    const TASKS_OF_PROGRAM: usize = 4;
    /// What a daemon of 100,000 identities takes for itself, in bytes: rather more than is measured.
    const OWN: usize = 256 << 20;

    /// Processes and threads of the whole unit.
    const TASKS: usize = THREADS
        + sinks::PROGRAMS * TASKS_OF_PROGRAM
        + sources::AT_ONCE * (TASKS_OF_PROGRAM + sources::THREADS_OF_READER);

    /// Memory of the whole unit, but for programs of operators.
    const MEMORY: usize = OWN + api::MEMORY + sources::AT_ONCE * sources::MEMORY_OF_READER;

    const UNIT: &str = include_str!("../../systemd/renewd.service");

    fn limit(key: &str) -> usize {
        let start = format!("{key}=");
        let text = UNIT.lines().find_map(|line| line.strip_prefix(&start));
        let text = text.unwrap();
        match text.strip_suffix('M') {
            Some(number) => number.parse::<usize>().unwrap() << 20,
            None => text.parse().unwrap(),
        }
    }

    #[test]
    fn the_limits_of_the_unit_fit_what_is_allowed_at_most() {
        println!("{TASKS} tasks, {} MiB", MEMORY >> 20);
        assert!(limit("TasksMax") >= TASKS, "{TASKS} tasks");
        assert!(limit("TasksMax") <= 2 * TASKS, "{TASKS} tasks");
        assert!(limit("MemoryHigh") >= MEMORY, "{} MiB", MEMORY >> 20);
        assert!(limit("MemoryMax") > limit("MemoryHigh"));
        assert!(limit("MemoryMax") <= MEMORY * 3 / 2, "{} MiB", MEMORY >> 20);
        assert!(
            limit("LimitNOFILE") >= api::CONNECTIONS + 2048,
            "files beside connections"
        );
        assert!(UNIT.lines().any(|line| line == "OOMPolicy=continue"));
    }
}

//! What this process takes from its machine, under the names that everybody's processes use for it.

use std::fs;

use jiff::Timestamp;

use super::exposition::Family;

/// Adds what is known; a system that does not tell leaves it out.
pub(super) fn add(since: Timestamp, all: &mut Vec<Family>) {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let fraction = f64::from(u32::try_from(spent.tv_nsec).unwrap_or(0)) / 1e9;
    let seconds = f64::from(u32::try_from(spent.tv_sec).unwrap_or(u32::MAX));
    all.extend([
        Family::counter(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds",
        )
        .of(seconds + fraction),
        Family::gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds",
        )
        .of(Some(since)),
    ]);
    all.extend(memory());
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The one that lists them is among them.
        let open = open.count().saturating_sub(1);
        let help = "Number of open file descriptors";
        all.push(Family::gauge("process_open_fds", help).of(open));
    }
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let help = "Maximum number of open file descriptors";
    all.extend(most.map(|most| Family::gauge("process_max_fds", help).of(most)));
}

fn memory() -> Vec<Family> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = rest.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib * 1024)
    };
    let found = [
        (
            "process_resident_memory_bytes",
            "Resident memory size in bytes",
            bytes("VmRSS:"),
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes",
            bytes("VmSize:"),
        ),
    ];
    let found = found.into_iter();
    found
        .filter_map(|(name, help, bytes)| Some(Family::gauge(name, help).of(bytes?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_system_tells_all_of_it() {
        let mut all = Vec::new();
        add(Timestamp::UNIX_EPOCH, &mut all);
        let names: Vec<_> = all.iter().map(Family::name).collect();
        assert_eq!(
            names,
            [
                "process_cpu_seconds_total",
                "process_start_time_seconds",
                "process_resident_memory_bytes",
                "process_virtual_memory_bytes",
                "process_open_fds",
                "process_max_fds",
            ]
        );
    }
}

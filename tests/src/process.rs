//! What a process costs, as the kernel counts it.

use std::fs;
use std::time::Duration;

/// Its proportional share of memory in KiB, of which nothing is shared out twice.
#[track_caller]
pub fn memory_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line `Pss:`");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The processor time that it has used since its start.
#[track_caller]
pub fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, in parentheses, may hold anything.
    let after_name = stat.rsplit_once(") ").expect("a name in parentheses").1;
    let ticks = |field: usize| after_name.split(' ').nth(field - 3).unwrap().parse::<u64>().unwrap();
    Duration::from_secs_f64((ticks(14) + ticks(15)) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// How many files it has open.
#[track_caller]
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

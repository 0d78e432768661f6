//! Which user numbers name somebody, and which stands for everybody else.

/// The number under which our user namespace shows every user that it does not map (user_namespaces(7)); `None` where it
/// maps them all. Whatever belongs to that number may belong to anybody.
pub fn nameless_uid() -> Option<u32> {
    // Where the system has no such file it has no user namespaces.
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    let overflow = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    (!maps_everybody(&map)).then(|| overflow.trim().parse().unwrap_or(USUAL))
}

/// The kernel's own choice, where the setting cannot be read.
const USUAL: u32 = 65534;

/// Whether the lines `INSIDE OUTSIDE COUNT` cover every number. The last one, -1, is nobody's.
fn maps_everybody(map: &str) -> bool {
    let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    counts.sum::<u64>() >= u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_map_of_every_number_leaves_nobody_nameless() {
        assert!(maps_everybody("         0          0 4294967295\n"));
        assert!(maps_everybody("0 0 1000\n1000 1000 4294966295\n"));
        for partial in ["", "1000 1000 1\n", "0 1000 1\n1 100000 65536\n", "nonsense\n"] {
            assert!(!maps_everybody(partial), "{partial:?}");
        }
    }
}

//! Which user numbers name somebody, and which stands for everybody else.

use std::fs::File;
use std::io::Read;

/// The number under which our user namespace shows every user that it does not map (user_namespaces(7)); `None` where it
/// maps them all. Whatever belongs to that number may belong to anybody.
pub fn nameless_uid() -> Option<u32> {
    // Where the system has no such file it has no user namespaces.
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    (!maps_everybody(&map)).then(overflow_uid)
}

/// Whether this is the number of [`nameless_uid`].
pub fn is_nameless(uid: u32) -> bool {
    // Mostly it is not even the number for it. That is the cheaper question: the kernel makes a process's own files in /proc
    // when they are first asked for, and every command of a person's asks this.
    uid == overflow_uid() && nameless_uid() == Some(uid)
}

/// The number for users that are not mapped.
fn overflow_uid() -> u32 {
    let mut text = [0; 16];
    let read = File::open("/proc/sys/kernel/overflowuid").and_then(|mut file| file.read(&mut text)).unwrap_or(0);
    std::str::from_utf8(&text[..read]).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL)
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
    fn the_number_for_unmapped_users_is_the_systems_own() {
        let said = std::fs::read_to_string("/proc/sys/kernel/overflowuid");
        assert_eq!(overflow_uid(), said.map_or(USUAL, |said| said.trim().parse().unwrap()));
        assert!(!is_nameless(0));
    }

    #[test]
    fn only_a_map_of_every_number_leaves_nobody_nameless() {
        assert!(maps_everybody("         0          0 4294967295\n"));
        assert!(maps_everybody("0 0 1000\n1000 1000 4294966295\n"));
        for partial in ["", "1000 1000 1\n", "0 1000 1\n1 100000 65536\n", "nonsense\n"] {
            assert!(!maps_everybody(partial), "{partial:?}");
        }
    }
}

//! What differs by platform, one small function each.

/// The time since the machine started, suspend included.
pub fn boot_time() -> crate::clock::Boot {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    crate::clock::Boot::from_start(std::time::Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
}

//! The only file with `unsafe`: one function for each need that no safe interface covers, each with the reason why it
//! holds.

#[cfg(target_os = "linux")]
pub(super) use linux::{OwnPages, watch};
#[cfg(windows)]
pub(super) use windows::tick_count;

#[cfg(target_os = "linux")]
mod linux {
    use std::alloc::Layout;
    use std::io;
    use std::mem::MaybeUninit;
    use std::ops::Deref;
    use std::os::fd::OwnedFd;
    use std::ptr::{self, NonNull};

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    use zeroize::Zeroize;

    /// Lets the runtime tell when `fd` is readable.
    pub(in crate::platform) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
        // SAFETY: an OwnedFd is open, stays open until the AsyncFd that owns it is dropped, and always returns the same number.
        Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
    }

    /// A value in pages that nothing else lies in. Owns it as a `Box` does; every byte of the pages is wiped when it is dropped.
    pub(in crate::platform) struct OwnPages<T> {
        value: NonNull<T>,
        length: usize,
    }

    // SAFETY: the value is owned, and reached through this one pointer alone, as with a `Box`.
    unsafe impl<T: Send> Send for OwnPages<T> {}
    // SAFETY: as above; `&OwnPages<T>` gives `&T` and nothing else.
    unsafe impl<T: Sync> Sync for OwnPages<T> {}

    impl<T> OwnPages<T> {
        /// Makes the value in new pages, and says whether the pages could be locked in memory (mlock(2)) and kept out of dumps
        /// and forked children (madvise(2)). Ends the process where there is no memory, as every allocation does.
        pub(in crate::platform) fn new(make: impl FnOnce() -> T) -> (Self, io::Result<()>) {
            let page = rustix::param::page_size();
            assert!(align_of::<T>() <= page, "a key is not aligned to more than a page");
            let length = size_of::<T>().max(1).next_multiple_of(page);
            let (modes, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
            // SAFETY: a new mapping at a place of the kernel's choice; it takes nothing away from anybody.
            let mapped = unsafe { mmap_anonymous(ptr::null_mut(), length, modes, kind) };
            let Some(pages) = mapped.ok().and_then(NonNull::new) else { std::alloc::handle_alloc_error(Layout::new::<T>()) };
            // SAFETY: whole pages that are ours alone; they hold nothing that the advice could take away.
            let guarded = unsafe {
                let (locked, undumped) = (mlock(pages.as_ptr(), length), madvise(pages.as_ptr(), length, Advice::LinuxDontDump));
                locked.and(undumped).and(madvise(pages.as_ptr(), length, Advice::LinuxWipeOnFork))
            };
            let value = pages.cast::<T>();
            // SAFETY: large enough, aligned to a page, ours, and nothing is there yet. A panic of `make` loses an empty page.
            unsafe { value.write(make()) };
            (Self { value, length }, guarded.map_err(io::Error::from))
        }
    }

    impl<T> Deref for OwnPages<T> {
        type Target = T;

        fn deref(&self) -> &T {
            // SAFETY: written in `new`, and valid until it is dropped with `self`.
            unsafe { self.value.as_ref() }
        }
    }

    impl<T> Drop for OwnPages<T> {
        fn drop(&mut self) {
            let pages = self.value.cast::<MaybeUninit<u8>>();
            // SAFETY: the value is dropped once, here; then the pages are bytes that belong to nobody else, and then they are gone.
            unsafe {
                self.value.drop_in_place();
                std::slice::from_raw_parts_mut(pages.as_ptr(), self.length).zeroize();
                // Nothing is lost but memory where the kernel refuses.
                let _ = munmap(pages.as_ptr().cast(), self.length);
            }
        }
    }
}

#[cfg(windows)]
mod windows {
    #[link(name = "kernel32")]
    // SAFETY: the signature is that of the Windows SDK (sysinfoapi.h).
    unsafe extern "system" {
        safe fn GetTickCount64() -> u64;
    }

    /// Milliseconds since the machine started, time in sleep included.
    pub(in crate::platform) fn tick_count() -> u64 {
        GetTickCount64()
    }
}

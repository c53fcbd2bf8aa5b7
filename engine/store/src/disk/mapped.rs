//! Short reads of cached pages without a system call: the file is mapped, and its bytes are copied from there.
//!
//! A page that is not there, or cannot be read, makes the copy stop in a signal, which becomes a plain "no": then the caller
//! reads with a system call, which also says what is wrong. That is the only way in which a mapping is ever used.
//!
//! Mapped pages are for what is cached. The kernel reads around a page that it has to fetch, which is wrong for random reads,
//! so after a fetch the file is left alone for a while. And they count as the process's own memory: what is mapped is
//! let go when it has become much (the pages stay cached).

use std::cell::Cell;
use std::fs::File;
use std::mem;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Longer reads gain nothing.
pub const LONGEST_READ_BYTES: usize = 16 * 1024;
/// Files grow: what comes later is shown up to here.
const LEAST_WINDOW_BYTES: u64 = 1 << 30;
/// All windows together, as a multiple of the machine's memory. Their page tables may come to a 512th of them.
const MOST_WINDOWS: u64 = 32;
/// What is shown of files before it is let go: this part of the machine's memory.
const MOST_SHOWN: u64 = 8;
/// One fault shows the cached pages around it, up to this much.
const FAULT_AROUND_BYTES: u64 = 64 * 1024;
/// So often a thread looks at its faults.
const READS_A_LOOK: u32 = 16;
/// So many reads take the system call after one had to wait for the disk, or could not be had.
const READS_LEFT_ALONE: u32 = 16 * 1024;

static MAPPED_BYTES: AtomicU64 = AtomicU64::new(0);
/// Faults since all windows were last emptied.
static FAULTS: AtomicU64 = AtomicU64::new(0);
/// Addresses and lengths of all windows.
static WINDOWS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

fn windows() -> MutexGuard<'static, Vec<(usize, usize)>> {
    WINDOWS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn memory_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    // SAFETY: both calls only answer numbers.
    *BYTES.get_or_init(|| {
        unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) * libc::sysconf(libc::_SC_PAGESIZE) }.try_into().unwrap_or(0)
    })
}

/// A file's bytes in the address space of this process.
#[derive(Debug)]
pub struct Window {
    address: usize,
    bytes: usize,
    left_alone: AtomicU32,
}

impl Window {
    /// None where that is not to be had. The file must stay open as long as there are readers.
    pub fn new(file: &File) -> Option<Self> {
        if !copy::installed() {
            return None;
        }
        let bytes = file.metadata().ok()?.len().max(LEAST_WINDOW_BYTES);
        let size = usize::try_from(bytes).ok()?;
        let taken = MAPPED_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // SAFETY: a new mapping, at a place that the kernel chooses; nobody else knows it.
        let address = unsafe { libc::mmap(ptr::null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        let failed = address == libc::MAP_FAILED;
        let this = Self { address: address as usize, bytes: size, left_alone: AtomicU32::new(0) };
        if failed {
            MAPPED_BYTES.fetch_sub(bytes, Ordering::Relaxed);
            mem::forget(this);
            return None;
        }
        windows().push((this.address, this.bytes));
        (taken <= MOST_WINDOWS * memory_bytes()).then_some(this)
    }

    /// Fills the buffer; false if it has to be read in another way, and is filled with anything.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> bool {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.bytes as u64) {
            return false;
        }
        let left_alone = self.left_alone.load(Ordering::Relaxed);
        if left_alone > 0 {
            self.left_alone.store(left_alone - 1, Ordering::Relaxed); // a count that need not be exact
            return false;
        }
        // SAFETY: the range is in the mapping, which lives as long as `self`; a fault in it ends the copy.
        let whole = unsafe { copy::whole(buffer.as_mut_ptr(), (self.address + offset as usize) as *const u8, buffer.len()) };
        if !whole || waited_for_the_disk() {
            self.left_alone.store(READS_LEFT_ALONE, Ordering::Relaxed);
        }
        whole
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let mut windows = windows();
        windows.retain(|(address, _)| *address != self.address);
        // SAFETY: its own mapping, which nobody can be reading any more; under the lock, so that nobody empties it.
        unsafe { libc::munmap(self.address as *mut libc::c_void, self.bytes) };
        MAPPED_BYTES.fetch_sub(self.bytes as u64, Ordering::Relaxed);
    }
}

/// Looks now and then at the faults of this thread: has one fetched a page? Lets go of what is mapped if that is much.
fn waited_for_the_disk() -> bool {
    thread_local!(static LOOKED: Cell<(u32, i64, i64)> = const { Cell::new((0, 0, i64::MAX)) });
    let (reads, minor, major) = LOOKED.get();
    if reads + 1 < READS_A_LOOK {
        LOOKED.set((reads + 1, minor, major));
        return false;
    }
    // SAFETY: all zeroes are a value of this structure, and the call fills it.
    let used = unsafe {
        let mut used: libc::rusage = mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut used);
        used
    };
    LOOKED.set((0, used.ru_minflt, used.ru_majflt));
    let new = u64::try_from(used.ru_minflt - minor).unwrap_or(0);
    let most = memory_bytes() / MOST_SHOWN / FAULT_AROUND_BYTES;
    if new > 0 && FAULTS.fetch_add(new, Ordering::Relaxed) + new > most {
        let_go();
    }
    used.ru_majflt > major
}

/// What the windows show is fetched from the page cache again when it is next read.
fn let_go() {
    let windows = windows();
    FAULTS.store(0, Ordering::Relaxed);
    for (address, bytes) in windows.iter() {
        // SAFETY: a mapping of a file that nobody writes through; it stays, and shows the same bytes as before.
        unsafe { libc::madvise(*address as *mut libc::c_void, *bytes, libc::MADV_DONTNEED) };
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod copy {
    //! A copy that a fault ends. Its one instruction that reads foreign memory has a name: if the signal says that it was
    //! this one, it goes on behind it, where the number of bytes that are missing is answered.

    use std::mem;
    use std::ptr;
    use std::sync::OnceLock;

    std::arch::global_asm!(
        ".pushsection .text",
        ".hidden gespann_copy_until_fault",
        ".globl gespann_copy_until_fault",
        ".hidden gespann_copy_instruction",
        ".globl gespann_copy_instruction",
        ".hidden gespann_copy_ended",
        ".globl gespann_copy_ended",
        "gespann_copy_until_fault:",
        ".cfi_startproc",
        "mov rcx, rdx",
        "gespann_copy_instruction:",
        "rep movsb",
        "gespann_copy_ended:",
        "mov rax, rcx",
        "ret",
        ".cfi_endproc",
        ".popsection",
    );

    unsafe extern "C" {
        /// How many of `count` bytes have not been copied.
        fn gespann_copy_until_fault(to: *mut u8, from: *const u8, count: usize) -> usize;
        fn gespann_copy_instruction();
        fn gespann_copy_ended();
    }

    /// # Safety
    /// `to` must be writable for `count` bytes, and nobody else's. `from` may fault, but must be in a mapping of a file.
    pub unsafe fn whole(to: *mut u8, from: *const u8, count: usize) -> bool {
        // SAFETY: as promised by the caller; the instruction follows the calling convention, and changes only `to`.
        unsafe { gespann_copy_until_fault(to, from, count) == 0 }
    }

    static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

    /// Only what may be done in a signal: two addresses are compared. Any other fault is left to whom it was left before:
    /// the instruction faults again.
    extern "C" fn on_bus_error(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel hands over the registers of the thread that was interrupted, and takes them back.
        let instruction = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] };
        if *instruction as usize == gespann_copy_instruction as *const () as usize {
            *instruction = gespann_copy_ended as *const () as usize as libc::greg_t;
        } else {
            let before = BEFORE.get().map_or(ptr::null(), ptr::from_ref);
            // SAFETY: what was in force before, or nothing.
            unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
        }
    }

    /// Takes the signal, at the first call; whether that could be done.
    pub fn installed() -> bool {
        static INSTALLED: OnceLock<bool> = OnceLock::new();
        *INSTALLED.get_or_init(|| {
            // SAFETY: all zeroes are a value of this structure; the handler has the form that SA_SIGINFO asks for.
            unsafe {
                let mut before: libc::sigaction = mem::zeroed();
                if libc::sigaction(libc::SIGBUS, ptr::null(), &mut before) != 0 || BEFORE.set(before).is_err() {
                    return false;
                }
                let mut ours: libc::sigaction = mem::zeroed();
                ours.sa_sigaction = on_bus_error as *const () as usize;
                ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigaction(libc::SIGBUS, &ours, ptr::null_mut()) == 0
            }
        })
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod copy {
    //! Other processors read with system calls only.

    /// # Safety
    /// Never called.
    pub unsafe fn whole(_: *mut u8, _: *const u8, _: usize) -> bool {
        false
    }

    pub fn installed() -> bool {
        false
    }
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(name: &str, content: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("gespann-mapped-{name}-{}", std::process::id()));
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn content() -> Vec<u8> {
        (0..300_000_u32).map(|index| (index / 7) as u8).collect()
    }

    fn reads(window: &Window, expected: &[u8], offset: usize, length: usize) {
        let mut buffer = vec![0xee; length];
        // A page that was not cached for once is no failure.
        while !window.read(&mut buffer, offset as u64) {}
        assert!(buffer == expected[offset..][..length], "{length} at {offset}");
    }

    #[test]
    fn it_shows_what_is_in_the_file() {
        let content = content();
        let file = file("shows", &content);
        let window = Window::new(&file).expect("a mapping");
        for (offset, length) in [(0, 4096), (1, 1), (4095, 2), (100_000, 16_384), (299_000, 1000), (5, 0)] {
            reads(&window, &content, offset, length);
        }
        use std::os::unix::fs::FileExt;
        file.write_all_at(b"changed", 4000).unwrap();
        reads(&window, &[&content[..4000], b"changed"].concat(), 4000, 7);
        let_go();
        reads(&window, &[&content[..4000], b"changed"].concat(), 4000, 7);
    }

    #[test]
    fn what_cannot_be_read_is_a_plain_no() {
        let content = content();
        let file = file("no", &content);
        let window = Window::new(&file).expect("a mapping");
        let mut buffer = [0; 4096];
        reads(&window, &content, 200_000, 4096);
        file.set_len(100_000).unwrap();
        assert!(!window.read(&mut buffer, 200_000), "the file has become shorter");
        assert!(!window.read(&mut buffer, 0), "and is left alone for a while");
        window.left_alone.store(0, Ordering::Relaxed);
        assert!(!window.read(&mut buffer, 101_000), "half of it is behind the end");
        window.left_alone.store(0, Ordering::Relaxed);
        reads(&window, &content, 90_000, 4096);
        assert!(!window.read(&mut buffer, u64::MAX - 5) && !window.read(&mut buffer, window.bytes as u64 - 4095));
    }

    #[test]
    fn any_other_bus_error_ends_the_process_as_ever() {
        let file = file("other", &[1; 8192]);
        let window = Window::new(&file).expect("a mapping");
        file.set_len(0).unwrap();
        // SAFETY: the child does nothing but read where it may not.
        let status = unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
                ptr::read_volatile(window.address as *const u8);
                libc::_exit(0);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            status
        };
        assert_eq!((libc::WIFSIGNALED(status), libc::WTERMSIG(status)), (true, libc::SIGBUS));
    }

    #[test]
    fn many_threads_read_while_it_changes_its_length_and_is_let_go() {
        let content = content();
        let file = file("threads", &content);
        let window = Window::new(&file).expect("a mapping");
        std::thread::scope(|scope| {
            for start in 0..2 {
                let (window, content) = (&window, &content);
                scope.spawn(move || {
                    let mut buffer = [0; 4096];
                    for turn in 0..20_000 {
                        window.left_alone.store(0, Ordering::Relaxed);
                        let offset = (start * 131 + turn * 37) % 90_000;
                        assert!(!window.read(&mut buffer, offset as u64) || buffer == content[offset..][..4096]);
                        window.read(&mut buffer, 200_000); // there or not
                    }
                });
            }
            for _ in 0..500 {
                file.set_len(100_000).unwrap();
                let_go();
                file.set_len(300_000).unwrap();
            }
        });
    }
}

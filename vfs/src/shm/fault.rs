//! What happens when the file behind a mapping is cut off: not the end of the process.
//!
//! The kernel answers an access beyond the end of a mapped file with SIGBUS, whose default is to kill. SQLite reads the
//! mapping directly, so only a signal handler can step in. Ours puts zeroed memory in the place of the mapping and marks the
//! connection as lost; the access is repeated and reads zeros, which no header of a WAL-index is, and the next call of the
//! connection fails. Every other SIGBUS goes to the handler that was there before, or has its default effect.
//!
//! Where somebody installs a handler of theirs later and does not pass on what is not theirs, the process dies as it would
//! without us.
//!
//! Invariant: a slot describes a mapping for as long as that may be accessed. The handler takes no lock and allocates nothing:
//! a slot whose version is odd, or changes while it is read, belongs to another thread's mapping that is just coming or going,
//! and never to the one being accessed.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Once};

struct Slot {
    used: AtomicBool,
    version: AtomicU32,
    start: AtomicUsize,
    length: AtomicUsize,
    lost: AtomicPtr<AtomicBool>,
}

impl Slot {
    const fn free() -> Slot {
        Slot {
            used: AtomicBool::new(false),
            version: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            length: AtomicUsize::new(0),
            lost: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    fn describe(&self, start: usize, length: usize, lost: *mut AtomicBool) {
        self.version.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        self.start.store(start, Ordering::Relaxed);
        self.length.store(length, Ordering::Relaxed);
        self.lost.store(lost, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Start, length and mark of the mapping, if `address` is in it.
    fn holds(&self, address: usize) -> Option<(usize, usize, *mut AtomicBool)> {
        let version = self.version.load(Ordering::Acquire);
        let (start, length) = (self.start.load(Ordering::Relaxed), self.length.load(Ordering::Relaxed));
        let lost = self.lost.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let stable = version % 2 == 0 && self.version.load(Ordering::Relaxed) == version;
        (stable && address.wrapping_sub(start) < length).then_some((start, length, lost))
    }
}

/// A connection has one mapping for an index of one region, and one more for each doubling.
const SLOTS: usize = 4096;
static MAPPINGS: [Slot; SLOTS] = [const { Slot::free() }; SLOTS];

/// A mapping that the handler knows.
#[derive(Debug)]
pub(super) struct Watched {
    slot: usize,
    /// The handler writes to it.
    _lost: Arc<AtomicBool>,
}

/// Makes a mapping known; `None` if there are too many.
pub(super) fn watch(start: *mut u8, length: usize, lost: &Arc<AtomicBool>) -> Option<Watched> {
    install();
    let slot = MAPPINGS.iter().position(|slot| !slot.used.swap(true, Ordering::AcqRel))?;
    MAPPINGS.get(slot)?.describe(start as usize, length, Arc::as_ptr(lost).cast_mut());
    Some(Watched { slot, _lost: Arc::clone(lost) })
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(slot) = MAPPINGS.get(self.slot) {
            slot.describe(0, 0, std::ptr::null_mut());
            slot.used.store(false, Ordering::Release);
        }
    }
}

/// What SIGBUS did before.
static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(take_over);
}

fn take_over() {
    // SAFETY: sigaction is a plain C structure for which all zeros is a value; sigaction(2) reads and writes structures
    // that live across the call, and the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut before) != 0 {
            return;
        }
        let mut ours: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
        ours.sa_sigaction = handler as usize;
        ours.sa_mask = before.sa_mask;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | (before.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART));
        // For ever: the handler may run at any time from now on.
        BEFORE.store(Box::into_raw(Box::new(before)), Ordering::Release);
        libc::sigaction(libc::SIGBUS, &raw const ours, std::ptr::null_mut());
    }
}

extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a valid siginfo_t to an SA_SIGINFO handler; with a positive code it has si_addr. errno is
    // this thread's. Nothing here but mmap, sigaction and raise is called, which take no locks (signal-safety(7) of the
    // latter two; mmap is a bare system call).
    unsafe {
        let errno = *libc::__errno_location();
        let fault = (*info).si_code > 0;
        if !(fault && replace((*info).si_addr() as usize)) {
            pass_on(signal, info, context, fault);
        }
        *libc::__errno_location() = errno;
    }
}

/// In a forked child, before anything else runs there: what SQLite writes to its copy of a mapping, as it does when it rolls
/// back, must not reach the index that the parent uses.
pub(crate) fn forget_inherited() {
    for slot in &MAPPINGS {
        let start = slot.start.load(Ordering::Relaxed);
        // One that was just coming or going in another thread is nobody's here.
        if let Some((start, length, _)) = slot.holds(start) {
            zero(start, length);
        }
    }
}

/// Puts zeroed memory in the place of the mapping around `address`, if that is one of ours.
fn replace(address: usize) -> bool {
    let Some((start, length, lost)) = MAPPINGS.iter().find_map(|slot| slot.holds(address)) else { return false };
    // SAFETY: the slot describes a mapping that is being accessed, so the mark is there.
    unsafe { (*lost).store(true, Ordering::Release) };
    zero(start, length)
}

/// Replaces a mapping that a slot describes; its owner unmaps the same range later.
fn zero(start: usize, length: usize) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: MAP_FIXED replaces exactly the mapping of the slot, which is there as long as the slot says so.
    unsafe { libc::mmap(start as *mut c_void, length, protection, flags, -1, 0) != libc::MAP_FAILED }
}

/// # Safety
/// Only from the handler, with its arguments.
unsafe fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, fault: bool) {
    let before = BEFORE.load(Ordering::Acquire);
    // SAFETY: null or what `install` left there for ever; a handler has the signature that its flags say.
    unsafe {
        let (handler, flags) =
            if before.is_null() { (libc::SIG_DFL, 0) } else { ((*before).sa_sigaction, (*before).sa_flags) };
        match handler {
            // The kernel does not let a fault be ignored either.
            libc::SIG_IGN if !fault => {}
            libc::SIG_DFL | libc::SIG_IGN => {
                let mut default: libc::sigaction = std::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, std::ptr::null_mut());
                if !fault {
                    // Sent by somebody; a fault is repeated.
                    libc::raise(signal);
                }
            }
            handler if flags & libc::SA_SIGINFO != 0 => {
                let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = std::mem::transmute(handler);
                handler(signal, info, context);
            }
            handler => {
                let handler: extern "C" fn(c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use memmap2::{MmapOptions, MmapRaw};
    use std::os::fd::AsRawFd;

    /// A page of a file that is not there.
    fn beyond_the_end() -> MmapRaw {
        let file = tempfile::tempfile().unwrap();
        MmapOptions::new().len(4096).map_raw(file.as_raw_fd()).unwrap()
    }

    fn touch(memory: &MmapRaw) -> u8 {
        // SAFETY: mapped; what the access does is the question.
        unsafe { memory.as_ptr().read_volatile() }
    }

    extern "C" fn theirs(_: c_int) {
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(7) }
    }

    fn on_bus_error_before(handler: libc::sighandler_t) {
        // SAFETY: a plain C structure of which all zeros is a value, and a handler of the signature its flags say.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
        // The one of this process has been set already, perhaps.
        take_over();
    }

    /// How a forked child that runs `body` ends.
    fn status_of(body: impl FnOnce()) -> c_int {
        // SAFETY: the child runs only `body` and leaves with _exit.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                body();
                libc::_exit(0);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            status
        }
    }

    /// In children: the handler of this process is set once.
    #[test]
    fn a_mapping_without_its_file_reads_as_zeros_and_every_other_fault_goes_where_it_went_before() {
        // Otherwise a child would set it a second time, behind itself, or wait for a thread that it does not have.
        install();
        let (ours, other) = (beyond_the_end(), beyond_the_end());
        let mine = || {
            let lost = Arc::new(AtomicBool::new(false));
            let watched = watch(ours.as_mut_ptr(), ours.len(), &lost).unwrap();
            let seen = (touch(&ours), lost.load(Ordering::Acquire));
            drop(watched);
            assert!(seen == (0, true));
        };
        let status = status_of(mine);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status}");

        let before = theirs as extern "C" fn(c_int) as libc::sighandler_t;
        for (handler, exit) in [(before, Some(7)), (libc::SIG_DFL, None), (libc::SIG_IGN, None)] {
            let status = status_of(|| {
                on_bus_error_before(handler);
                mine();
                touch(&other);
            });
            match exit {
                Some(code) => assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == code, "{status}"),
                None => assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGBUS, "{status}"),
            }
            // Sent by somebody, and not a fault.
            let status = status_of(|| {
                on_bus_error_before(handler);
                mine();
                // SAFETY: a signal to ourselves.
                unsafe { libc::raise(libc::SIGBUS) };
            });
            match handler {
                libc::SIG_DFL => assert_eq!(libc::WTERMSIG(status), libc::SIGBUS),
                libc::SIG_IGN => assert_eq!(status, 0),
                _ => assert_eq!(libc::WEXITSTATUS(status), 7),
            }
        }
    }

    #[test]
    fn a_mapping_that_is_gone_is_not_replaced() {
        let lost = Arc::new(AtomicBool::new(false));
        let memory = beyond_the_end();
        let watched = watch(memory.as_mut_ptr(), memory.len(), &lost).unwrap();
        let address = memory.as_mut_ptr() as usize;
        let known = |address| MAPPINGS.iter().any(|slot| slot.holds(address).is_some());
        assert!(known(address) && known(address + 4095) && !known(address + 4096));
        drop(watched);
        assert!(!known(address) && !known(0));
    }
}

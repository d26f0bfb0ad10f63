//! What a forked child may not touch: everything that was opened before the fork is the parent's.
//!
//! The child counts the fork before any other code of it runs; whoever remembers the count at which it was opened knows
//! from then on whether it was inherited, without a system call. Locks of an open file description live as long as any copy
//! of it, so the child closes its copies of our handles at once, and a parent that dies leaves no lock behind.
//!
//! Only fork(2) of the C library is seen. vfork(2) and posix_spawn(3) share the memory and call exec(2), which closes the
//! handles.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

static FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks of this process have begun, and how many are over.
static BEGUN: AtomicU32 = AtomicU32::new(0);
static OVER: AtomicU32 = AtomicU32::new(0);

/// Changes with each fork of this process; `None` while one is going on. A child releases what the parent is just closing.
pub(super) fn quiet() -> Option<u32> {
    let begun = BEGUN.load(Ordering::SeqCst);
    (begun == OVER.load(Ordering::SeqCst)).then_some(begun)
}

/// How many forks lie between this process and the one that loaded the program, since the first database was opened with
/// `hardened`. Whoever remembers the number knows later whether what he has is his parent's.
#[inline]
pub fn count() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Has forks counted from now on.
pub(crate) fn watch() {
    static WATCHED: OnceLock<()> = OnceLock::new();
    WATCHED.get_or_init(|| {
        // SAFETY: the handlers only store to atomics, and that of the child closes descriptors and maps memory, which it may do (signal-safety(7);
        // mmap is a bare system call); the C
        // library forgets it if the code is unloaded. Without memory for it nothing is registered, and forks are not seen.
        unsafe { pthread_atfork(Some(begins), Some(is_over), Some(forked)) };
    });
}

// SAFETY: POSIX's own declaration, which the oldest libc crate that we build with lacks.
unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> libc::c_int;
}

unsafe extern "C" fn begins() {
    BEGUN.fetch_add(1, Ordering::SeqCst);
}

unsafe extern "C" fn is_over() {
    OVER.fetch_add(1, Ordering::SeqCst);
}

/// Runs in the child, where only async-signal-safe calls are allowed.
unsafe extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    // Other threads that were about to fork are not in the child.
    OVER.store(BEGUN.load(Ordering::SeqCst), Ordering::SeqCst);
    #[cfg(target_os = "linux")]
    {
        super::handles::close_inherited();
        crate::shm::forget_inherited();
    }
}

/// A value behind a mutex, made anew in a forked child: what the parent had in it is the parent's, and a thread that does not
/// exist in the child may have held the mutex. Forks are seen from the first database on that is opened with `hardened`.
///
/// ```
/// static OPENED: hardened_vfs::PerProcess<u32> = hardened_vfs::PerProcess::new(|_| 0);
/// *OPENED.lock() += 1;
/// ```
#[derive(Debug)]
pub struct PerProcess<T: Send + 'static> {
    current: AtomicPtr<Node<T>>,
    make: fn(Option<&T>) -> T,
}

#[derive(Debug)]
struct Node<T> {
    forks: u32,
    value: Mutex<T>,
}

impl<T: Send + 'static> PerProcess<T> {
    /// `make` makes the value: from nothing, or in a child from what was inherited, if that can be read.
    pub const fn new(make: fn(Option<&T>) -> T) -> Self {
        PerProcess { current: AtomicPtr::new(std::ptr::null_mut()), make }
    }

    /// The value of this process. A panic while it was held is forgotten.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        loop {
            let current = self.current.load(Ordering::Acquire);
            // SAFETY: null, or a node that was leaked below and is never freed.
            let node = unsafe { current.as_ref() };
            if let Some(node) = node.filter(|node| node.forks == count()) {
                return node.value.lock().unwrap_or_else(PoisonError::into_inner);
            }
            let inherited = node.and_then(|node| node.value.try_lock().ok());
            let value = Mutex::new((self.make)(inherited.as_deref()));
            let fresh = Box::into_raw(Box::new(Node { forks: count(), value }));
            if self.current.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
                // SAFETY: made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
    }
}

/// Runs `body` in a forked child and tells what it answered, which it must do in time.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn in_child(body: impl FnOnce() -> bool) -> bool {
    watch();
    // SAFETY: the child runs only `body` and leaves with _exit, or is ended by the alarm.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(60);
            libc::_exit(i32::from(body()));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert!(libc::WIFEXITED(status), "{status}");
        libc::WEXITSTATUS(status) == 1
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_per_process_and_kept() {
        static VALUE: PerProcess<Vec<u32>> = PerProcess::new(|inherited| inherited.cloned().unwrap_or_default());
        VALUE.lock().push(1);
        VALUE.lock().push(2);
        assert_eq!(*VALUE.lock(), [1, 2]);
        // What a child does on its first look.
        let node = VALUE.current.load(Ordering::Acquire);
        // SAFETY: made by `lock`; nobody else uses it.
        let old = unsafe { &mut *node };
        old.forks = count().wrapping_sub(1);
        let held = old.value.lock().unwrap();
        assert!(VALUE.lock().is_empty(), "its mutex is held by a thread that the child does not have");
        drop(held);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_fork_of_this_process_shows_afterwards_and_is_over_in_the_child() {
        watch();
        let before = quiet();
        assert!(in_child(|| quiet().is_some()));
        // Other tests fork as well.
        assert!(before.is_none() || quiet() != before);
    }
}

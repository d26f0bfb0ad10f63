//! A statement of SQLite's that takes long, watched from another thread.
//!
//! The connection has one progress handler, and that is the application's. So nothing of the connection is changed: how
//! far it is tells the kernel, which counts the bytes that the thread has read, and it is stopped by an interrupt.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;

use super::pace::{EVERY, Pace};
use crate::progress::Stage;

/// Runs `body`, which runs one statement on the connection. `size` is how many bytes it reads at least, and told as pages of
/// `page` bytes. When the watch says stop, the statement is interrupted.
pub(super) fn run<T>(
    connection: &Connection,
    pace: &mut Pace<'_, '_>,
    size: u64,
    page: u64,
    body: impl FnOnce() -> T,
) -> Option<T> {
    let total = size / page.max(1);
    if pace.tell(Stage::Check, 0, total).is_break() {
        return None;
    }
    if !pace.is_watched() {
        return Some(body());
    }
    let (interrupt, counter) = (connection.get_interrupt_handle(), Counter::of_this_thread());
    let (over, signal) = (Mutex::new(false), Condvar::new());
    let result = thread::scope(|scope| {
        let watcher = || {
            let mut wait = EVERY;
            loop {
                let over = over.lock().unwrap_or_else(PoisonError::into_inner);
                let (over, _) =
                    signal.wait_timeout_while(over, wait, |over| !*over).unwrap_or_else(PoisonError::into_inner);
                if *over {
                    return;
                }
                drop(over);
                let done = counter.read() / page.max(1);
                // The last is told when it is over.
                if pace.tell(Stage::Check, done.min(total.saturating_sub(1)), total) == ControlFlow::Break(()) {
                    // It may come before the statement has begun, which forgets it.
                    interrupt.interrupt();
                    wait = Duration::from_millis(5);
                }
            }
        };
        // Without a thread nobody is told, and the statement is as good.
        let watcher = thread::Builder::new().name("hardened-watch".into()).spawn_scoped(scope, watcher);
        let result = body();
        *over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        signal.notify_all();
        if let Ok(watcher) = watcher {
            // A watch that panics does so for its caller.
            watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        result
    });
    // An answer that was complete before the interrupt came is as good as none.
    if pace.is_cancelled() || pace.tell(Stage::Check, total, total).is_break() {
        return None;
    }
    Some(result)
}

/// The bytes that a thread has read so far.
struct Counter {
    file: Option<PathBuf>,
    start: u64,
}

impl Counter {
    fn of_this_thread() -> Counter {
        let thread = std::fs::read_link("/proc/thread-self").ok();
        let mut counter =
            Counter { file: thread.map(|thread| PathBuf::from("/proc").join(thread).join("io")), start: 0 };
        counter.start = counter.read();
        counter
    }

    fn read(&self) -> u64 {
        let text = self.file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let read = text.lines().find_map(|line| line.strip_prefix("rchar: ")?.trim().parse::<u64>().ok());
        read.unwrap_or(self.start).saturating_sub(self.start)
    }
}

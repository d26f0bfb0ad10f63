//! Another thread of this process that opens and closes the files of a database without SQLite, as a backup does, a virus
//! scanner's library, a hash of all files.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use support::names::beside;

/// The files that a round closes; the first two are those with SQLite's locks.
const FILES: [&str; 4] = ["", "-shm", "-wal", "-journal"];

/// What a thread has closed so far.
#[derive(Default)]
pub(crate) struct Closes {
    rounds: AtomicU64,
    of: [AtomicU64; FILES.len()],
    ended: AtomicBool,
}

impl Closes {
    /// Opens and closes each file that is there, for reading and for writing, and doubles of the descriptors.
    pub(crate) fn round(&self, path: &Path) {
        let number = self.rounds.load(Ordering::SeqCst);
        for (suffix, closes) in FILES.iter().zip(&self.of) {
            for writable in [false, true] {
                // A journal comes and goes.
                let Ok(mut file) = File::options().read(true).write(writable).open(beside(path, suffix)) else {
                    continue;
                };
                // Now and then all of it, as a backup; for the rest the header, as a probe.
                let limit = if number % 64 == 0 { u64::MAX } else { 100 };
                (&mut file).take(limit).read_to_end(&mut Vec::new()).unwrap();
                let double = file.try_clone().unwrap();
                drop(double);
                drop(file);
                closes.fetch_add(2, Ordering::SeqCst);
            }
        }
        self.rounds.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns when the thread has made a whole round since.
    pub(crate) fn wait(&self) {
        // The one that is under way has perhaps closed the file of interest before.
        let enough = self.rounds.load(Ordering::SeqCst) + 2;
        while self.rounds.load(Ordering::SeqCst) < enough {
            assert!(!self.ended.load(Ordering::SeqCst), "the thread that closes has ended");
            std::thread::yield_now();
        }
    }

    /// How often the database has been closed, and its -shm.
    pub(crate) fn count(&self) -> [u64; 2] {
        [0, 1].map(|file| self.of[file].load(Ordering::SeqCst))
    }
}

/// Ends the thread, or says that it has ended, also by a panic.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs `body` while a thread closes the files of the database at `path`.
pub(crate) fn closing<R>(path: &Path, body: impl FnOnce(&Closes) -> R) -> R {
    let closes = Closes::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ended = Ended(&closes.ended);
            while !closes.ended.load(Ordering::SeqCst) {
                closes.round(path);
            }
        });
        let _ended = Ended(&closes.ended);
        body(&closes)
    })
}

/// One round by another thread, done when this returns.
pub(crate) fn close_once(path: &Path) {
    std::thread::scope(|scope| {
        scope.spawn(|| Closes::default().round(path));
    });
}

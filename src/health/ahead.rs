//! Reading a file ahead of SQLite, in order and in large pieces, so that the check finds it in the page cache.

use std::ops::ControlFlow;
use std::path::Path;

use super::pace::Pace;
use crate::beside::Beside;
use crate::progress::Stage;

/// How much is read at once.
const PIECE: usize = 1 << 20;

/// Below this SQLite is as fast alone.
const LEAST: u64 = 4 << 20;

/// Reads as much of the file as fits into memory that is free for it. What cannot be read here is left to SQLite, which will
/// say so.
pub(super) fn read(path: &Path, page: u64, pace: &mut Pace<'_, '_>) -> ControlFlow<()> {
    let Ok(file) = Beside::open(path) else { return ControlFlow::Continue(()) };
    let Ok(size) = file.size() else { return ControlFlow::Continue(()) };
    let size = size.min(free_memory() / 2);
    if size < LEAST {
        return ControlFlow::Continue(());
    }
    expect_in_order(&file);
    let mut piece = vec![0; PIECE];
    let (mut at, total) = (0, size / page.max(1));
    while at < size {
        pace.tell(Stage::Read, at / page.max(1), total)?;
        match file.read_at(&mut piece, at) {
            Ok(read) if read > 0 => at += read as u64,
            _ => break,
        }
    }
    pace.tell(Stage::Read, total, total)
}

/// Has the kernel read further ahead than it does unasked.
pub(crate) fn expect_in_order(file: &Beside) {
    #[cfg(target_os = "linux")]
    if let Ok(fd) = file.fd() {
        // Advice; nothing depends on it.
        let _ = rustix::fs::fadvise(fd, 0, None, rustix::fs::Advice::Sequential);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Bytes that the page cache may take without pushing out what is in use.
fn free_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB"));
    line.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
}

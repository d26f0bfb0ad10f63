//! The torn-write guard: what the sidecar file beside a database remembers, and what it proves after a crash.
//!
//! Invariant: nothing here opens, locks or changes a file by itself, and no input makes it panic. [`sums`] describes the
//! image of a page in a few bytes, [`log`] writes and reads the sidecar's records, `keeper` adds them while the database is
//! open, [`images`] folds them into what is known of each page, and [`classify`](mod@classify) compares that with what the
//! files hold now. An alarm is raised on proof alone: absence or damage of the sidecar proves nothing, and a suspicion is a
//! note.

pub(crate) mod beside;
pub mod classify;
mod examine;
pub mod images;
pub(crate) mod keeper;
pub mod log;
pub(crate) mod pages;
pub(crate) mod store;
pub mod sums;

use std::sync::OnceLock;

pub use examine::{Examined, examine, sidecar};

/// What stands behind the name of the database in that of its sidecar.
pub(crate) const SUFFIX: &str = "-guard";

/// The kernel's name for the time since this host was started; zeros where there is none.
pub(crate) fn boot_id() -> log::Boot {
    static BOOT: OnceLock<log::Boot> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return *boot;
    }
    let mut boot = [0; 16];
    // What cannot be read now, for want of a descriptor, may be read the next time.
    let Ok(text) = std::fs::read_to_string("/proc/sys/kernel/random/boot_id") else { return boot };
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    for (byte, pair) in boot.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or("0");
        *byte = u8::from_str_radix(pair, 16).unwrap_or(0);
    }
    *BOOT.get_or_init(|| boot)
}

//! Where Rust ends: a panic becomes an SQLite error.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `body`; if it panics, answers `on_panic` instead.
///
/// What `body` leaves half done is guarded by the caller: every lock of this crate recovers from poisoning, and state
/// that a file keeps is written in single steps.
pub(crate) fn guarded(on_panic: c_int, body: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(on_panic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_error_code() {
        assert_eq!(guarded(10, || std::panic::resume_unwind(Box::new(()))), 10);
        assert_eq!(guarded(10, || 0), 0);
    }
}

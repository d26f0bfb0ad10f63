//! The numbers of the standard streams, which no file of a database may have: a message of anybody's would be written into it.
//!
//! SQLite's unix VFS takes none of them either. A number that it has refused it can close at once; a handle on a database cannot be
//! closed so easily, so the numbers are taken before one is opened.

use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd};

/// Opens /dev/null under each of these numbers that is free, for good.
pub(super) fn occupy() {
    let stream = |fd| libc::pollfd { fd, events: 0, revents: 0 };
    let mut streams = [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO].map(stream);
    // SAFETY: an array of three that lives across the call, which does not wait.
    let found = unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) };
    if found <= 0 {
        return;
    }
    for _ in streams.iter().filter(|stream| stream.revents & libc::POLLNVAL != 0) {
        // The lowest number that is free.
        match File::open("/dev/null") {
            Ok(null) if null.as_raw_fd() <= libc::STDERR_FILENO => drop(null.into_raw_fd()),
            _ => return,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{fork, ofd::Handle};

    #[test]
    fn a_handle_never_has_the_number_of_a_standard_stream() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let high = fork::in_child(|| {
            // SAFETY: this process is a copy that writes no messages.
            unsafe { libc::close(libc::STDERR_FILENO) };
            // One that stays where it was opened, as that of a -shm does.
            let handle = Handle::beside(file.path(), false, None, (0, 0)).unwrap();
            let high = std::os::fd::AsRawFd::as_raw_fd(&handle.fd().unwrap()) > libc::STDERR_FILENO;
            std::mem::forget(handle);
            high
        });
        assert!(high);
    }
}

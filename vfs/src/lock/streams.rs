//! The numbers of the standard streams, which no file of a database may have: a message of anybody's would be written into it.
//!
//! SQLite's unix VFS takes none of them either, and opens /dev/null under those that it has got. A handle on a database cannot be
//! closed so easily. It is opened after the database, so that it does not get one of them unless a stream was closed in between;
//! then it is moved away. Where nothing was opened before, the numbers are taken first.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;

use super::kind::Kind;
use super::parked;

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

/// The same file under another number, if it has one of these, which is /dev/null's then. While a neighbour has locks on the file,
/// which a close would drop, it keeps the number.
pub(super) fn keep_off(file: File) -> File {
    if file.as_raw_fd() > libc::STDERR_FILENO {
        return file;
    }
    match moved(&file) {
        Some(other) => {
            // The number is /dev/null's.
            let _null = file.into_raw_fd();
            other
        }
        None => file,
    }
}

#[cold]
fn moved(file: &File) -> Option<File> {
    let (low, found) = (file.as_raw_fd(), file.metadata().ok()?);
    let free = matches!(parked::is_free(Some((found.dev(), found.ino())), low, Kind::of(low)), Ok(true));
    let null = File::open("/dev/null").ok().filter(|_| free)?;
    // SAFETY: numbers of open descriptors; the new one is nobody else's.
    unsafe {
        let high = libc::fcntl(low, libc::F_DUPFD_CLOEXEC, libc::STDERR_FILENO + 1);
        let other = (high >= 0).then(|| File::from_raw_fd(high))?;
        (libc::dup2(null.as_raw_fd(), low) == low).then_some(other)
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

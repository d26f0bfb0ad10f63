//! The one system call of the probe that has no safe wrapper anywhere.

use std::io;

/// struct mnt_id_req of linux/mount.h, first version.
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount_id: u64,
    mask: u64,
}

/// The number on all architectures but Alpha and MIPS, where this one is not used and the answer ENOSYS.
const SYS_STATMOUNT: libc::c_long = 457;

/// Asks for what `mask` names about the mount with this unique id. The answer is a struct statmount with its strings.
pub(crate) fn statmount(mount_id: u64, mask: u64, buffer: &mut [u8]) -> io::Result<()> {
    let request = Request { size: size_of::<Request>() as u32, spare: 0, mount_id, mask };
    // SAFETY: statmount(2) reads `size` bytes of the request and writes at most `buffer.len()` bytes to the buffer; both
    // live across the call. A kernel without it answers ENOSYS.
    let result = unsafe { libc::syscall(SYS_STATMOUNT, &raw const request, buffer.as_mut_ptr(), buffer.len(), 0_u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

//! An open file of the base VFS.
//!
//! Invariant: from a successful [`BaseFile::open`] to [`BaseFile::close`] `file` points to memory of at least the base's
//! szOsFile bytes, and its pMethods is not null.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::{CStr, c_char, c_int, c_void};

use libsqlite3_sys as ffi;

/// sqlite3_file structures hold pointers and 64-bit integers.
const ALIGN: usize = 16;

pub(crate) struct BaseFile {
    file: *mut ffi::sqlite3_file,
    layout: Layout,
    /// The name it was opened with, if that is a copy of ours: it lives as long as the file.
    _name: Option<Box<[u8]>>,
}

// SAFETY: the files of a registered VFS may be used from any thread, one call at a time
// (https://www.sqlite.org/threadsafe.html); whoever owns the value makes the calls.
unsafe impl Send for BaseFile {}

macro_rules! call {
    ($self:ident . $method:ident ( $($argument:expr),* ) or $missing:expr) => {{
        // SAFETY: the invariant of the module; the method belongs to this file, and the arguments are those SQLite gave us
        // under the contract of the same method (https://www.sqlite.org/c3ref/io_methods.html).
        unsafe {
            match (*(*$self.file).pMethods).$method {
                Some(method) => method($self.file $(, $argument)*),
                None => $missing,
            }
        }
    }};
}

impl BaseFile {
    /// Opens `name` in `vfs`.
    ///
    /// # Safety
    /// `vfs` must be registered, `name` and `out_flags` as SQLite hands them to xOpen.
    pub(crate) unsafe fn open(
        vfs: *mut ffi::sqlite3_vfs,
        name: *const c_char,
        flags: c_int,
        out_flags: *mut c_int,
    ) -> Result<BaseFile, c_int> {
        // SAFETY: a registered VFS has a valid szOsFile and xOpen. The memory is zeroed, so that a VFS that leaves
        // pMethods unset on failure leaves it null.
        unsafe {
            let size = usize::try_from((*vfs).szOsFile).unwrap_or(0).max(size_of::<ffi::sqlite3_file>());
            let layout = Layout::from_size_align(size, ALIGN).map_err(|_| ffi::SQLITE_NOMEM)?;
            let file = alloc_zeroed(layout).cast::<ffi::sqlite3_file>();
            if file.is_null() {
                return Err(ffi::SQLITE_NOMEM);
            }
            let base = BaseFile { file, layout, _name: None };
            let Some(open) = (*vfs).xOpen else { return Err(ffi::SQLITE_ERROR) };
            let code = open(vfs, name, file, flags, out_flags);
            if code == ffi::SQLITE_OK && !(*file).pMethods.is_null() {
                return Ok(base);
            }
            // A failed xOpen that set pMethods wants xClose (https://www.sqlite.org/c3ref/vfs.html).
            if !(*file).pMethods.is_null() {
                base.close();
            }
            Err(if code == ffi::SQLITE_OK { ffi::SQLITE_ERROR } else { code })
        }
    }

    /// A file that is open already.
    ///
    /// # Errors
    /// SQLITE_NOMEM.
    ///
    /// # Safety
    /// `File` must begin with an sqlite3_file that has methods, which may be called on it.
    pub(crate) unsafe fn with<File>(file: File) -> Result<BaseFile, c_int> {
        let layout = Layout::new::<File>().align_to(ALIGN).map_err(|_| ffi::SQLITE_NOMEM)?;
        // SAFETY: not of size zero; the memory has room for a `File`.
        unsafe {
            let memory = alloc_zeroed(layout);
            if memory.is_null() {
                return Err(ffi::SQLITE_NOMEM);
            }
            memory.cast::<File>().write(file);
            Ok(BaseFile { file: memory.cast(), layout, _name: None })
        }
    }

    /// The same with a copy of the name and of the parameters behind it, so that the file may outlive the connection.
    ///
    /// # Safety
    /// As [`BaseFile::open`]; without SQLITE_OPEN_URI nothing need stand behind the name.
    pub(crate) unsafe fn open_for_long(
        vfs: *mut ffi::sqlite3_vfs,
        name: *const c_char,
        flags: c_int,
        out_flags: *mut c_int,
    ) -> Result<BaseFile, c_int> {
        // Four zero bytes before it, and empty strings behind it where the names of journals may stand
        // (https://www.sqlite.org/c3ref/create_filename.html).
        let mut copy = vec![0; 4];
        // SAFETY: a C string, and behind it, if it comes from a URI, keys and values up to an empty key.
        unsafe {
            let mut next = name;
            loop {
                let text = CStr::from_ptr(next).to_bytes_with_nul();
                copy.extend_from_slice(text);
                let key = !std::ptr::eq(next, name);
                if flags & ffi::SQLITE_OPEN_URI == 0 || (key && text.len() == 1) {
                    break;
                }
                next = next.add(text.len());
                if key {
                    let value = CStr::from_ptr(next).to_bytes_with_nul();
                    copy.extend_from_slice(value);
                    next = next.add(value.len());
                }
            }
        }
        copy.extend_from_slice(&[0; 4]);
        let copy = copy.into_boxed_slice();
        let Some(start) = copy.get(4..) else { return Err(ffi::SQLITE_NOMEM) };
        // SAFETY: as xOpen wants it, and kept as long as the file.
        let mut base = unsafe { BaseFile::open(vfs, start.as_ptr().cast(), flags, out_flags) }?;
        base._name = Some(copy);
        Ok(base)
    }

    pub(crate) fn methods(&self) -> &ffi::sqlite3_io_methods {
        // SAFETY: the invariant of the module; a VFS's methods are static.
        unsafe { &*(*self.file).pMethods }
    }

    /// Closes the file. Afterwards nothing but dropping is allowed.
    pub(crate) fn close(&self) -> c_int {
        call!(self.xClose() or ffi::SQLITE_OK)
    }

    /// # Safety
    /// `buffer` must have room for `amount` bytes.
    pub(crate) unsafe fn read(&self, buffer: *mut c_void, amount: c_int, offset: i64) -> c_int {
        call!(self.xRead(buffer, amount, offset) or ffi::SQLITE_IOERR_READ)
    }

    /// # Safety
    /// `buffer` must hold `amount` bytes.
    pub(crate) unsafe fn write(&self, buffer: *const c_void, amount: c_int, offset: i64) -> c_int {
        call!(self.xWrite(buffer, amount, offset) or ffi::SQLITE_IOERR_WRITE)
    }

    pub(crate) fn truncate(&self, size: i64) -> c_int {
        call!(self.xTruncate(size) or ffi::SQLITE_IOERR_TRUNCATE)
    }

    pub(crate) fn sync(&self, flags: c_int) -> c_int {
        call!(self.xSync(flags) or ffi::SQLITE_IOERR_FSYNC)
    }

    /// # Safety
    /// `size` must point to a 64-bit integer.
    pub(crate) unsafe fn file_size(&self, size: *mut i64) -> c_int {
        call!(self.xFileSize(size) or ffi::SQLITE_IOERR_FSTAT)
    }

    pub(crate) fn lock(&self, level: c_int) -> c_int {
        call!(self.xLock(level) or ffi::SQLITE_OK)
    }

    pub(crate) fn unlock(&self, level: c_int) -> c_int {
        call!(self.xUnlock(level) or ffi::SQLITE_OK)
    }

    /// # Safety
    /// `result` must point to an integer.
    pub(crate) unsafe fn check_reserved_lock(&self, result: *mut c_int) -> c_int {
        call!(self.xCheckReservedLock(result) or ffi::SQLITE_IOERR_CHECKRESERVEDLOCK)
    }

    /// # Safety
    /// `argument` must be what the opcode asks for.
    pub(crate) unsafe fn file_control(&self, op: c_int, argument: *mut c_void) -> c_int {
        call!(self.xFileControl(op, argument) or ffi::SQLITE_NOTFOUND)
    }

    pub(crate) fn sector_size(&self) -> c_int {
        call!(self.xSectorSize() or 4096)
    }

    pub(crate) fn device_characteristics(&self) -> c_int {
        call!(self.xDeviceCharacteristics() or 0)
    }

    /// # Safety
    /// `region` must point to a pointer.
    pub(crate) unsafe fn shm_map(&self, page: c_int, size: c_int, extend: c_int, region: *mut *mut c_void) -> c_int {
        call!(self.xShmMap(page, size, extend, region.cast()) or ffi::SQLITE_IOERR_SHMMAP)
    }

    pub(crate) fn shm_lock(&self, offset: c_int, count: c_int, flags: c_int) -> c_int {
        call!(self.xShmLock(offset, count, flags) or ffi::SQLITE_IOERR_SHMLOCK)
    }

    pub(crate) fn shm_barrier(&self) {
        call!(self.xShmBarrier() or ());
    }

    pub(crate) fn shm_unmap(&self, delete: c_int) -> c_int {
        call!(self.xShmUnmap(delete) or ffi::SQLITE_OK)
    }

    /// # Safety
    /// `page` must point to a pointer.
    pub(crate) unsafe fn fetch(&self, offset: i64, amount: c_int, page: *mut *mut c_void) -> c_int {
        call!(self.xFetch(offset, amount, page) or ffi::SQLITE_OK)
    }

    /// # Safety
    /// `page` must be null or come from [`BaseFile::fetch`] at the same offset.
    pub(crate) unsafe fn unfetch(&self, offset: i64, page: *mut c_void) -> c_int {
        call!(self.xUnfetch(offset, page) or ffi::SQLITE_OK)
    }

    /// Reads `buffer.len()` bytes; the result code, SQLITE_IOERR_SHORT_READ if there were fewer.
    pub(crate) fn read_into(&self, buffer: &mut [u8], offset: i64) -> c_int {
        let Ok(amount) = c_int::try_from(buffer.len()) else { return ffi::SQLITE_IOERR_READ };
        // SAFETY: `amount` is the length of the buffer.
        unsafe { self.read(buffer.as_mut_ptr().cast(), amount, offset) }
    }
}

impl BaseFile {
    /// Writes all of `bytes`; the result code.
    pub(crate) fn write_from(&self, bytes: &[u8], offset: u64) -> c_int {
        // SQLite's unix VFS counts no further than 131071. Pieces that end where pages of the kernel's do are not split again.
        const PIECE: usize = 31 * 4096;
        let mut at = offset;
        for piece in bytes.chunks(PIECE) {
            let (Ok(amount), Ok(offset)) = (c_int::try_from(piece.len()), i64::try_from(at)) else {
                return ffi::SQLITE_IOERR_WRITE;
            };
            // SAFETY: `amount` is the length of the buffer.
            match unsafe { self.write(piece.as_ptr().cast(), amount, offset) } {
                ffi::SQLITE_OK => at += piece.len() as u64,
                code => return code,
            }
        }
        ffi::SQLITE_OK
    }

    /// Reads the bytes from `from` to `to` piece by piece.
    pub(crate) fn pieces(
        &self,
        from: u64,
        to: u64,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), c_int>,
    ) -> Result<(), c_int> {
        const PIECE: u64 = 1 << 16;
        let mut buffer = vec![0; to.saturating_sub(from).min(PIECE) as usize];
        let mut at = from;
        while at < to {
            let length = (to - at).min(PIECE) as usize;
            let (Some(piece), Ok(offset)) = (buffer.get_mut(..length), i64::try_from(at)) else {
                return Err(ffi::SQLITE_IOERR_READ);
            };
            match self.read_into(piece, offset) {
                ffi::SQLITE_OK => each(at, piece)?,
                code => return Err(code),
            }
            at += length as u64;
        }
        Ok(())
    }

    /// The CRC-32C of all its bytes.
    pub(crate) fn checksum(&self) -> Result<u32, c_int> {
        let mut sum = 0;
        self.pieces(0, self.size()?, |_, piece| {
            sum = crc32c::crc32c_append(sum, piece);
            Ok(())
        })?;
        Ok(sum)
    }

    /// Writes all its bytes into `to`, at the same place.
    pub(crate) fn copy_to(&self, to: &BaseFile) -> Result<(), c_int> {
        self.pieces(0, self.size()?, |at, piece| to.write_whole(piece, at))
    }

    /// [`BaseFile::write_from`] as a result.
    pub(crate) fn write_whole(&self, bytes: &[u8], offset: u64) -> Result<(), c_int> {
        match self.write_from(bytes, offset) {
            ffi::SQLITE_OK => Ok(()),
            code => Err(code),
        }
    }

    /// The size in bytes, or the result code.
    pub(crate) fn size(&self) -> Result<u64, c_int> {
        let mut size = 0_i64;
        // SAFETY: a pointer to a 64-bit integer.
        match unsafe { self.file_size(&raw mut size) } {
            ffi::SQLITE_OK => u64::try_from(size).map_err(|_| ffi::SQLITE_IOERR_FSTAT),
            code => Err(code),
        }
    }
}

impl Drop for BaseFile {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `open`, and closed by whoever drops it.
        unsafe { dealloc(self.file.cast(), self.layout) }
    }
}

/// Asks the base whether a file exists and is not empty.
///
/// # Safety
/// `vfs` must be registered, `name` a C string.
pub(crate) unsafe fn exists(vfs: *mut ffi::sqlite3_vfs, name: *const c_char) -> bool {
    let mut found = 0;
    // SAFETY: the contract of xAccess with arguments that live across the call.
    unsafe {
        match (*vfs).xAccess {
            Some(access) => {
                access(vfs, name, ffi::SQLITE_ACCESS_EXISTS, &raw mut found) == ffi::SQLITE_OK && found != 0
            }
            None => false,
        }
    }
}

//! The automatic extension: what is set on each connection whose main database is ours.

use std::ffi::{c_char, c_int};
use std::sync::Arc;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::connection::Borrowed;
use super::control::is_stamped_wal;
use super::edge::guarded;
use super::file;
use super::sqlite::Api;
use crate::checksum;
use crate::main_file::MainFile;
use crate::setup::{self, Disk};

/// Called by SQLite at the end of each sqlite3_open, when SQL may run.
pub(crate) unsafe extern "C" fn opened(
    db: *mut ffi::sqlite3,
    message: *mut *mut c_char,
    routines: *const ffi::sqlite3_api_routines,
) -> c_int {
    guarded(ffi::SQLITE_ERROR, || {
        #[cfg(not(feature = "loadable"))]
        let api = {
            let _ = routines;
            Api::linked()
        };
        // SAFETY: SQLite hands automatic extensions its table (https://www.sqlite.org/c3ref/auto_extension.html). A
        // host too old was told so when it loaded us.
        #[cfg(feature = "loadable")]
        let Ok(api) = (unsafe { Api::of_host(routines) }) else { return ffi::SQLITE_OK };

        // SAFETY: the connection is open, and ours alone until sqlite3_open returns.
        let connection = unsafe { Borrowed::new(&api, db) };
        let Some((main, file)) = connection.who_and_where("main") else { return ffi::SQLITE_OK };
        if let Some(refusal) = &main.refusal {
            // SAFETY: SQLite frees what it finds here.
            unsafe {
                if !message.is_null() {
                    *message = api.copy_out(&format!("hardened: {refusal}"));
                }
            }
            return refusal.code;
        }
        let disk = OnDisk { file, main: &main };
        checksum::reserve::prepare(&Reservation { disk: &disk, connection: &connection }, &main);
        setup::apply(&connection, &disk, &main, std::thread::sleep);
        ffi::SQLITE_OK
    })
}

struct OnDisk<'a> {
    file: *mut ffi::sqlite3_file,
    main: &'a Arc<MainFile>,
}

impl OnDisk<'_> {
    fn base(&self) -> Option<&BaseFile> {
        // SAFETY: the file is open as long as the connection, which is open while this lives.
        unsafe { file::state(self.file).base.as_ref() }
    }
}

struct Reservation<'a> {
    disk: &'a OnDisk<'a>,
    connection: &'a Borrowed<'a>,
}

impl checksum::reserve::Reserve for Reservation<'_> {
    fn look(&self) -> Option<(i64, [u8; 100])> {
        let (base, mut size, mut header) = (self.disk.base()?, 0, [0; 100]);
        // SAFETY: a pointer to a 64-bit integer.
        let code = unsafe { base.file_size(&raw mut size) };
        let read = if size == 0 { ffi::SQLITE_OK } else { base.read_into(&mut header, 0) };
        (code == ffi::SQLITE_OK && read == ffi::SQLITE_OK).then_some((size, header))
    }

    fn reserve(&self, bytes: u8) -> Result<(), i32> {
        match self.connection.reserve_bytes(c_int::from(bytes)) {
            ffi::SQLITE_OK => Ok(()),
            code => Err(code),
        }
    }
}

impl Disk for OnDisk<'_> {
    fn stamped_wal(&self) -> bool {
        let mut header = [0_u8; 20];
        let read = self.base().is_some_and(|base| base.read_into(&mut header, 0) == ffi::SQLITE_OK);
        // SAFETY: 20 bytes.
        read && unsafe { is_stamped_wal(header.as_ptr().cast()) }
    }

    fn hide_shared_memory(&self) {
        debug_assert!(self.main.policy().hides_shared_memory());
        // SAFETY: the file is open; the policy fell back before WAL mode was entered, or it was left again.
        unsafe { file::hide_shared_memory(self.file) }
    }
}

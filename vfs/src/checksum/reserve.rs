//! Asking SQLite for the 8 bytes.

use crate::main_file::{Access, MainFile};
use crate::options::ChecksumChoice;

/// What SQLite and the file can do.
pub(crate) trait Reserve {
    /// The size of the database file and its first 100 bytes, zeros where there are fewer; `None` if it cannot be read.
    fn look(&self) -> Option<(i64, [u8; 100])>;
    /// Sets the number of reserved bytes for a new database, and for one that is rewritten by VACUUM.
    fn reserve(&self, bytes: u8) -> Result<(), i32>;
}

/// Prepares a new connection, before anything else is done on it.
pub(crate) fn prepare(disk: &dyn Reserve, main: &MainFile) {
    if main.options.checksum != ChecksumChoice::On
        || main.access == Access::ReadOnly
        || main.access == Access::Immutable
    {
        return;
    }
    let Some((size, header)) = disk.look() else { return };
    let reserved = if size == 0 { 0 } else { header[20] };
    match reserved {
        8 => {}
        0 => {
            if let Err(code) = disk.reserve(8) {
                main.warn("checksum", format!("checksum=on: SQLite could not reserve the bytes for it (code {code})"));
            } else if size != 0 {
                main.note(
                    "the database has no checksums: VACUUM adds them now, and `hardened checksum on` does it safely"
                        .into(),
                );
            }
        }
        other => main.warn(
            "checksum",
            format!(
                "checksum=on is not possible: the database has {other} reserved bytes a page, and checksums need 8"
            ),
        ),
    }
}

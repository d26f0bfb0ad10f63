//! After a halt, and before a damaged log is written over: making sure that what is read is also on disk.

use std::ffi::c_int;
use std::os::unix::ffi::OsStrExt;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::link::Files;
use super::observe::Beside;
use crate::guard::keeper::Keeper;
use crate::shared::Shared;

/// A sync has failed in a process that is gone. What this one reads of the journal or the log may only be in memory, and a
/// sync would succeed without writing it; so both are written again as they are read, with everybody else kept out. The
/// pages of the database are restored from them.
pub(crate) fn after_halt(files: &Files<'_>, shared: &Shared, keeper: &mut Keeper) {
    let refreshed = match exclusively(files) {
        ffi::SQLITE_OK => {
            let done = refresh(files, "-journal", ffi::SQLITE_OPEN_MAIN_JOURNAL)
                .and_then(|()| refresh(files, "-wal", ffi::SQLITE_OPEN_WAL));
            shared_again(files);
            done
        }
        code => {
            shared_again(files);
            Err(code)
        }
    };
    match refreshed {
        Ok(()) => {
            keeper.resumed();
            files.main.note(
                "a sync had failed in another process: its journal and its log were written and synced again".into(),
            );
        }
        Err(code) => {
            let why = if code & 0xff == ffi::SQLITE_BUSY {
                "another connection still has the database open".to_owned()
            } else {
                format!("writing its journal and its log again failed with code {code}")
            };
            let story = format!(
                "a sync has failed in a process that is gone, and {why}: close it everywhere and open it again"
            );
            if shared.health.halt(story.clone()) {
                files.main.warn("halted", story);
            }
        }
    }
}

fn exclusively(files: &Files<'_>) -> c_int {
    for level in [ffi::SQLITE_LOCK_RESERVED, ffi::SQLITE_LOCK_EXCLUSIVE] {
        let code = match files.locks() {
            Some(locks) => locks.lock(level),
            None => files.database.lock(level),
        };
        if code != ffi::SQLITE_OK {
            return code;
        }
    }
    ffi::SQLITE_OK
}

fn shared_again(files: &Files<'_>) {
    match files.locks() {
        Some(locks) => locks.unlock(ffi::SQLITE_LOCK_SHARED),
        None => files.database.unlock(ffi::SQLITE_LOCK_SHARED),
    };
}

fn refresh(files: &Files<'_>, suffix: &str, kind: c_int) -> Result<(), c_int> {
    let flags = kind | ffi::SQLITE_OPEN_READWRITE;
    // SAFETY: the base of an open file is registered.
    let Some(beside) = (unsafe { Beside::open(files.vfs(), &files.main.path, suffix, flags) })? else {
        return Ok(());
    };
    beside.file().copy_to(beside.file())?;
    synced(beside.file())
}

fn synced(file: &BaseFile) -> Result<(), c_int> {
    match file.sync(ffi::SQLITE_SYNC_NORMAL) {
        ffi::SQLITE_OK => Ok(()),
        code => Err(code),
    }
}

/// A host that loses power often must not fill its disk with copies.
const MOST_KEPT: usize = 16;

/// What became of a log or a journal that was to be kept.
enum Kept {
    /// There is none.
    Nothing,
    /// What stands behind the name of the database.
    As(String),
    TooMany,
}

/// Whether as many copies as may be are there, and none of this name.
fn is_full(files: &Files<'_>, suffix: &str, name: &str) -> bool {
    let path = &files.main.path;
    let (Some(directory), Some(main), true) = (path.parent(), path.file_name(), files.main.native) else {
        return false;
    };
    let start = [main.as_bytes(), suffix.as_bytes(), b"_kept_"].concat();
    let names =
        std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.file_name());
    let copies: Vec<_> = names.filter(|found| found.as_bytes().starts_with(&start)).collect();
    let this = [main.as_bytes(), name.as_bytes()].concat();
    copies.len() >= MOST_KEPT && copies.iter().all(|found| found.as_bytes() != this)
}

/// Copies the log or the journal to a name made of its content, so that the same damage is kept once; a sentence about it.
pub(crate) fn keep(files: &Files<'_>, suffix: &str) -> String {
    match try_keep(files, suffix) {
        Ok(Kept::As(kept)) => format!("It is kept as {}{kept}.", files.main.path.display()),
        Ok(Kept::Nothing) => String::new(),
        Ok(Kept::TooMany) => {
            format!("It is not kept aside: {MOST_KEPT} others are, look through them and remove them.")
        }
        Err(code) => format!("It could not be kept aside (code {code})."),
    }
}

fn try_keep(files: &Files<'_>, suffix: &str) -> Result<Kept, c_int> {
    let path = &files.main.path;
    let flags = if suffix == "-wal" { ffi::SQLITE_OPEN_WAL } else { ffi::SQLITE_OPEN_MAIN_JOURNAL };
    // SAFETY: the base of an open file is registered.
    let Some(found) = (unsafe { Beside::open(files.vfs(), path, suffix, flags | ffi::SQLITE_OPEN_READONLY) })? else {
        return Ok(Kept::Nothing);
    };
    let start = found.start();
    let sum = found.file().checksum()?;
    // SQLite's unix VFS takes what stands before the last hyphen for the database, whose owner and mode the new file gets.
    let name = format!("{suffix}_kept_{sum:08x}");
    if is_full(files, suffix, &name) {
        return Ok(Kept::TooMany);
    }
    // SAFETY: as above.
    let kept = unsafe { Beside::create(files.vfs(), path, &name, ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_READWRITE) }?;
    if kept.file().checksum() != Ok(sum) {
        found.file().copy_to(kept.file())?;
        synced(kept.file())?;
    }
    if found.start() != start || kept.file().checksum() != Ok(sum) {
        // It was begun anew meanwhile, so it was not damaged, or not any more.
        return Err(ffi::SQLITE_BUSY);
    }
    Ok(Kept::As(name))
}

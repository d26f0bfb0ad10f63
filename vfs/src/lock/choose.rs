//! Whose locks a database gets.
//!
//! Ours wherever the file is the operating system's and the base is its `unix` VFS, whose bytes they are; the base's where
//! the user said so or the filesystem does not know locks of an open file. What is chosen, and why, stands in the report.

use libsqlite3_sys as ffi;

use super::FileLocks;
use crate::main_file::{Access, MainFile};
use crate::options::LocksChoice;
use crate::refusal::Refusal;

/// What was chosen.
pub(crate) struct Chosen {
    pub(crate) locks: Option<FileLocks>,
    /// For the report.
    pub(crate) said: String,
}

/// The VFS whose lock bytes ours are.
const UNIX: &str = "unix";

/// Whether locks of our own may be chosen for a database on this base.
pub(crate) fn may_be_ours(choice: LocksChoice, base: &str, off: bool) -> bool {
    cfg!(target_os = "linux") && base == UNIX && choice != LocksChoice::Posix && (!off || choice == LocksChoice::Ofd)
}

/// A handle that was opened before the decision.
#[cfg(target_os = "linux")]
pub(crate) type OpenedHandle = super::ofd::Handle;
#[cfg(not(target_os = "linux"))]
pub(crate) type OpenedHandle = std::convert::Infallible;

/// Decides, with a handle if one is `opened` already. `try_base` takes and releases a lock of the base, and answers the error number if that cannot work.
///
/// # Errors
/// If the locks asked for cannot be had, or none that work.
pub(crate) fn for_file(
    main: &MainFile,
    off: bool,
    opened: Option<OpenedHandle>,
    try_base: impl FnOnce() -> Result<(), i32>,
) -> Result<Chosen, Refusal> {
    let choice = main.options.locks;
    let base = |why: &str| Chosen { locks: None, said: format!("the base VFS `{}` takes them: {why}", main.base) };
    match main.access {
        Access::Immutable => return Ok(Chosen { locks: None, said: "none: opened with immutable=1".into() }),
        Access::NoLock => return Ok(Chosen { locks: None, said: "none: opened with nolock=1".into() }),
        Access::ReadWrite | Access::ReadOnly => {}
    }
    if !may_be_ours(choice, &main.base, off) {
        let why = match choice {
            LocksChoice::Posix => "locks=posix",
            LocksChoice::Ofd => return Err(not_to_be_had(main, "only Linux has them, over the base VFS `unix`")),
            LocksChoice::Auto if off => "policy=off",
            LocksChoice::Auto => "another base than `unix`, or another system than Linux",
        };
        return Ok(base(why));
    }
    #[cfg(target_os = "linux")]
    let why = match linux::ours(main, opened)? {
        Ok(chosen) => return Ok(chosen),
        Err(why) => why,
    };
    #[cfg(not(target_os = "linux"))]
    let why = {
        let _ = opened;
        String::new()
    };
    if choice == LocksChoice::Ofd {
        return Err(not_to_be_had(main, &why));
    }
    if let Err(errno) = try_base() {
        let error = std::io::Error::from_raw_os_error(errno);
        let reason =
            format!("the filesystem ({}) takes no locks: {why}, and of the process: {error}", main.verdict.filesystem);
        return Err(hinted(Refusal::new(&main.path, ffi::SQLITE_IOERR_LOCK, reason)));
    }
    main.warn_only("locks", &format!("any close() of the file in this process drops its locks: {why}"));
    Ok(base(&format!("{why}; any close() of the file in this process drops them")))
}

fn not_to_be_had(main: &MainFile, why: &str) -> Refusal {
    let reason = format!("option `locks=ofd`: locks of an open file cannot be had: {why}");
    Refusal::new(&main.path, ffi::SQLITE_CANTOPEN, reason).hint("leave the option out, or take locks=posix")
}

fn hinted(refusal: Refusal) -> Refusal {
    refusal.hint(
        "move it to another filesystem; or, if no other process and no other host ever opens it, say nolock=1 in its URI",
    )
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::path::Path;

    use super::super::manner::Manner;
    use super::super::names::{self, Claim};
    use super::super::try_out::{self, Outcome};
    use super::super::{Locks, Upgrade, fork, ofd};
    use super::{Chosen, hinted};
    use crate::explain;
    use crate::fs::{Class, Verdict};
    use crate::main_file::{Access, MainFile};
    use crate::policy::Rule;
    use crate::refusal::Refusal;

    /// How locks are taken there.
    fn upgrade_on(verdict: &Verdict) -> Upgrade {
        // With `nobrl` the locks stay in this kernel.
        match verdict.is_smb() {
            true => Upgrade::Apart,
            false => Upgrade::Atomic,
        }
    }

    /// Claims the name, and gives the handle a high number.
    fn claim(handle: &mut ofd::Handle, upgrade: Upgrade, path: &Path) -> io::Result<Claim> {
        // On SMB a lock behind SQLite's would keep others from writing what stands there.
        if upgrade != Upgrade::Atomic {
            handle.move_up();
            return Ok(Claim::Agreed);
        }
        let quiet = fork::quiet();
        let claim = names::claim(handle, path);
        match claim {
            // It was just asked whether anybody has locks.
            Ok(Claim::Alone) => handle.move_up_alone(),
            Ok(_) | Err(_) => handle.move_up(),
        }
        if handle.has_moved() && (quiet.is_none() || quiet != fork::quiet()) {
            // A child that was forked while the low number was being closed has released what the high one had.
            handle.unclaim();
            return names::claim(handle, path);
        }
        claim
    }

    /// Locks of our own, or why they cannot be had.
    pub(super) fn ours(main: &MainFile, opened: Option<ofd::Handle>) -> Result<Result<Chosen, String>, Refusal> {
        let verdict = &main.verdict;
        let read_only = main.access == Access::ReadOnly;
        let upgrade = upgrade_on(verdict);
        let manner = Manner { read_only, apart: upgrade == Upgrade::Apart };
        let opened = opened.filter(|handle| handle.is_apart() == manner.apart);
        let mut handle = match opened.map_or_else(|| ofd::Handle::low(&main.path, manner), Ok) {
            Ok(handle) => handle,
            Err(error) => {
                return match error.raw_os_error() {
                    Some(errno @ (libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => {
                        Err(explain::failed_open(&main.path, libsqlite3_sys::SQLITE_CANTOPEN, errno, false))
                    }
                    _ => Ok(Err(format!("no handle for them could be opened ({error})"))),
                };
            }
        };
        let unknown = |errno: i32| {
            let error = std::io::Error::from_raw_os_error(errno);
            Ok(Err(format!("the filesystem ({}) refuses locks of an open file ({error})", verdict.filesystem)))
        };
        if verdict.class != Class::Local && !verdict.speaks_smb() {
            let outcome = try_out::on(verdict, &handle, &main.path, read_only);
            match outcome.unwrap_or_else(|error| Outcome::Refused(error.raw_os_error().unwrap_or(libc::EIO))) {
                Outcome::Works => {}
                Outcome::LocksNothing if read_only => {
                    main.warn(
                        "locks",
                        format!("locks on {} lock nothing: what is read may be half written", verdict.filesystem),
                    );
                }
                Outcome::LocksNothing => {
                    let reason = format!(
                        "locks on {} lock nothing: two handles were given the same exclusive lock, so two writers would \
                         corrupt the database",
                        verdict.filesystem
                    );
                    return Err(hinted(Refusal::new(&main.path, libsqlite3_sys::SQLITE_IOERR_LOCK, reason)));
                }
                Outcome::Refused(errno) => return unknown(errno),
            }
        }
        let claim = claim(&mut handle, upgrade, &main.path);
        if let Some(errno) = handle.refused() {
            return unknown(errno);
        }
        if matches!(claim, Ok(Claim::Refused)) {
            let reason = "somebody has the file open by another name: a hard link, the file mounted alone at a second place \
                          (a bind mount, as containers make it), or the name it had before it was renamed. Each name has \
                          its own journal and its own -wal, so the two would corrupt it";
            let refusal = Refusal::new(&main.path, libsqlite3_sys::SQLITE_CANTOPEN, reason);
            return Err(refusal.hint(
                "open it by one name everywhere: remove the other hard links, mount its directory and not the file, and \
                 close what has a renamed file open by its old name",
            ));
        }
        let said = match upgrade {
            Upgrade::Atomic | Upgrade::Stepwise => "of the open file (OFD): no other close() drops them".to_owned(),
            Upgrade::Apart => {
                main.note(
                    "its locks are taken by hardened itself: SMB does not turn a shared lock into an exclusive one"
                        .into(),
                );
                "of the open file (OFD), step by step: SMB does not turn a shared lock into an exclusive one".to_owned()
            }
        };
        let locks = Locks::new(handle, upgrade);
        let turns = verdict.class != Class::Local && main.policy().rule != Rule::Off;
        Ok(Ok(Chosen { locks: Some(if turns { locks.in_turns() } else { locks }), said }))
    }
}

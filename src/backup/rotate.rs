//! A copy takes its name, and older ones move on.
//!
//! Invariant: at every moment the name of the backup leads to a whole backup, the old one or the new, and of the older ones at
//! most the last is gone. Each step is one rename, the oldest first; a step that a killed run has not done is done by the
//! next. A step takes a name away from a backup, so it waits until the new name that the step before has given to that backup
//! is on disk: POSIX lets a power cut keep the later of two renames and lose the earlier. (On a filesystem without hard links
//! the name is free for a moment, and the backup is then `.1`.)

use std::path::{Path, PathBuf};

use super::destination::{Destination, is_database, is_unused};
use super::staged::{Staged, Turn, fresh_name};
use crate::beside::{Beside, identity_of};
use crate::error::Error;

/// Gives the copy its name.
pub(super) fn publish(staged: Staged, destination: &Destination) -> Result<(), Error> {
    let turn = Turn::take(destination)?;
    // Somebody may have opened it since.
    is_unused(&destination.path)?;
    if destination.keep > 1 && exists(&destination.path) {
        // What a killed run has renamed.
        turn.sync(&destination.path)?;
        make_room(destination, &turn)?;
        let first = destination.numbered(1);
        if !is_same(&destination.path, &first) {
            keep_as(destination, &first)?;
        }
        turn.sync(&destination.path)?;
    }
    staged.publish(&destination.path)?;
    turn.sync(&destination.path)?;
    remove_beyond(destination);
    Ok(())
}

fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

fn is_same(one: &Path, other: &Path) -> bool {
    identity_of(one).is_ok_and(|one| identity_of(other).is_ok_and(|other| one == other))
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::of_file(path, "an older backup cannot be moved", error)
}

/// Has the backup that is there last, if a run was killed before it did that, or somebody else has put it there.
pub(super) fn settle(destination: &Destination) -> Result<(), Error> {
    let path = &destination.path;
    let file = Beside::open(path).map_err(|error| Error::of_file(path, "it cannot be opened", &error))?;
    let synced = file.fd().and_then(|fd| Ok(rustix::fs::fsync(fd)?));
    synced.map_err(|error| Error::of_file(path, "it cannot be synced", &error))?;
    Turn::take(destination)?.sync(path)
}

/// Moves older backups on, as far as there is no gap that takes them.
fn make_room(destination: &Destination, turn: &Turn) -> Result<(), Error> {
    let first = destination.numbered(1);
    if !exists(&first) || is_same(&destination.path, &first) {
        return Ok(());
    }
    let last =
        (2..destination.keep).find(|number| !exists(&destination.numbered(*number))).unwrap_or(destination.keep - 1);
    for number in (1..last).rev() {
        let (from, to) = (destination.numbered(number), destination.numbered(number + 1));
        std::fs::rename(&from, &to).map_err(|error| failed(&from, &error))?;
        turn.sync(&to)?;
    }
    Ok(())
}

/// Gives the backup a second name, under which it stays when the first goes to the new one.
fn keep_as(destination: &Destination, first: &Path) -> Result<(), Error> {
    let link = fresh_name(destination);
    match std::fs::hard_link(&destination.path, &link) {
        Ok(()) => std::fs::rename(&link, first).map_err(|error| {
            let _ = std::fs::remove_file(&link);
            failed(first, &error)
        }),
        // No hard links here.
        Err(_) => std::fs::rename(&destination.path, first).map_err(|error| failed(&destination.path, &error)),
    }
}

/// Removes what more were kept than are now.
fn remove_beyond(destination: &Destination) {
    for number in destination.keep.. {
        let path = destination.numbered(number);
        let is_file = std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
        if !is_file || is_database(&path).ok() != Some(true) || std::fs::remove_file(&path).is_err() {
            return;
        }
    }
}

/// The older backups that there are.
pub(super) fn older(destination: &Destination) -> Vec<PathBuf> {
    (1..destination.keep).map(|number| destination.numbered(number)).take_while(|path| exists(path)).collect()
}

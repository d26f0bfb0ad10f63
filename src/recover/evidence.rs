//! The damaged database, kept as it was.
//!
//! Invariant: what is kept has a name of `DATABASE.corrupt-TIME-SUM`, with its log and journal beside it in SQLite's way, and the
//! database comes last: where it is, the others are. The same bytes are kept once; equal sums alone are not believed.

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::work::sync_directory;
use crate::backup::copy::{by_the_kernel, shares};
use crate::beside::{Beside, directory_of, with_ending};
use crate::error::Error;

/// What belongs to a database on disk: itself, its log, its journal.
pub(super) const FILES: [&str; 3] = ["", "-wal", "-journal"];

/// Copies one file to a new one, blocks shared where the filesystem does that. How long it is.
fn copy_file(from: &Beside, to: &Path) -> io::Result<u64> {
    let file = File::options().write(true).create_new(true).open(to)?;
    let size = from.size()?;
    if shares(from.fd()?, &file) {
        return Ok(size);
    }
    let mut at = 0;
    if by_the_kernel(from.fd()?, &file, &mut at, size).is_ok() {
        return Ok(size);
    }
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = from.read_at(&mut piece, at)?;
        if read == 0 {
            return Ok(at);
        }
        let Some(part) = piece.get(..read) else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        std::os::unix::fs::FileExt::write_all_at(&file, part, at)?;
        at += read as u64;
    }
}

/// Copies a database with its log and journal; `main` is the open database.
///
/// # Errors
/// Those of the files.
pub(super) fn copy(path: &Path, main: &Beside, to: &Path) -> Result<(), Error> {
    for ending in FILES {
        let (from, to) = (with_ending(path, ending), with_ending(to, ending));
        let other = if ending.is_empty() { None } else { Some(Beside::open(&from)) };
        let copied = match &other {
            None => copy_file(main, &to),
            Some(Ok(file)) => copy_file(file, &to),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => continue,
            Some(Err(error)) => return Err(Error::of_file(&from, "it cannot be read", error)),
        };
        copied.map_err(|error| Error::of_file(&from, "it cannot be copied", &error))?;
    }
    Ok(())
}

/// A sum over the files of a database, for its name. It tells different files apart with near certainty; a maker of
/// files with equal sums is not what it protects from.
fn sum(path: &Path) -> io::Result<u64> {
    let mut sum = 0x9e37_79b9_7f4a_7c15_u64;
    let mut piece = vec![0; 1 << 20];
    for ending in FILES {
        let mut file = match File::open(with_ending(path, ending)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                sum = mix(sum, 1);
                continue;
            }
            file => file?,
        };
        let mut length = 0;
        loop {
            let read = read_full(&mut file, &mut piece)?;
            length += read as u64;
            for word in piece.get(..read).unwrap_or(&[]).chunks(8) {
                let mut bytes = [0; 8];
                bytes.iter_mut().zip(word).for_each(|(to, from)| *to = *from);
                sum = mix(sum, u64::from_le_bytes(bytes));
            }
            if read < piece.len() {
                break;
            }
        }
        sum = mix(sum, length);
    }
    Ok(sum)
}

fn mix(sum: u64, word: u64) -> u64 {
    let mixed = (sum ^ word).wrapping_mul(0x2545_f491_4f6c_dd1d);
    mixed ^ (mixed >> 29)
}

fn read_full(file: &mut File, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn is_same(a: &Path, b: &Path) -> io::Result<bool> {
    for ending in FILES {
        let (a, b) = (File::open(with_ending(a, ending)), File::open(with_ending(b, ending)));
        let (mut a, mut b) = match (a, b) {
            (Ok(a), Ok(b)) => (a, b),
            (Err(a), Err(b)) if a.kind() == b.kind() && a.kind() == io::ErrorKind::NotFound => continue,
            _ => return Ok(false),
        };
        if a.metadata()?.len() != b.metadata()?.len() {
            return Ok(false);
        }
        let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        loop {
            let read = read_full(&mut a, &mut one)?;
            if read_full(&mut b, &mut other)? != read || one.get(..read) != other.get(..read) {
                return Ok(false);
            }
            if read == 0 {
                break;
            }
        }
    }
    Ok(true)
}

/// `2026-01-31T23:59:59Z` without the marks that some filesystems refuse.
fn time() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since March 1 of year 0 (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// The names of everything of this database that was kept, the oldest first.
pub(super) fn kept(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".corrupt-");
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(directory_of(path))? {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        let rest = bytes.strip_prefix(prefix.as_encoded_bytes());
        if rest.is_some_and(|rest| rest.len() >= 33 && !bytes.ends_with(b"-wal") && !bytes.ends_with(b"-journal")) {
            kept.push(path.with_file_name(name));
        }
    }
    kept.sort();
    Ok(kept)
}

/// Puts the copy on disk, and says its sum. It takes a while and needs nobody, so it can go on beside other work.
///
/// # Errors
/// Those of the files.
pub(super) fn settle(copy: &Path) -> io::Result<u64> {
    for ending in FILES {
        match File::open(with_ending(copy, ending)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            file => file?.sync_all()?,
        }
    }
    sum(copy)
}

/// Gives the copy at `copy`, which is settled, the name under which it is kept, unless the same is kept already. The name, and
/// whether it was.
///
/// # Errors
/// Those of the files.
pub(super) fn keep(path: &Path, copy: &Path, settled: io::Result<u64>) -> Result<(PathBuf, bool), Error> {
    let failed = |error: io::Error| Error::of_file(path, "the damaged database cannot be kept", &error);
    let sum = settled.map_err(failed)?;
    let ending = format!("-{sum:016x}");
    for kept in kept(path).map_err(failed)? {
        let named_so = kept.as_os_str().as_encoded_bytes().ends_with(ending.as_bytes());
        if named_so && is_same(&kept, copy).map_err(failed)? {
            // Who has kept it may have been killed before its name was on disk.
            sync_directory(directory_of(path))?;
            return Ok((kept, true));
        }
    }
    let name = with_ending(path, &format!(".corrupt-{}{ending}", time()));
    let there = |ending: &&str| with_ending(copy, ending).exists();
    for ending in FILES.iter().rev().filter(|ending| there(ending)) {
        let (from, to) = (with_ending(copy, ending), with_ending(&name, ending));
        let file = File::open(&from).map_err(failed)?;
        // A look at it with SQLite must not change it.
        let mode = std::fs::metadata(path).map_or(0o400, |found| found.mode() & 0o444);
        file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        if ending.is_empty() {
            // A power cut may keep the later of two names and lose the earlier.
            sync_directory(directory_of(path))?;
        }
        std::fs::rename(&from, &to).map_err(failed)?;
    }
    sync_directory(directory_of(path))?;
    Ok((name, false))
}

/// Removes the oldest, until there are no more than `most`; never `newest`.
pub(super) fn thin_out(path: &Path, most: usize, newest: &Path) {
    let kept = kept(path).unwrap_or_default();
    let surplus = kept.len().saturating_sub(most);
    let old: Vec<&PathBuf> = kept.iter().filter(|old| *old != newest).take(surplus).collect();
    // The database first: without it nobody takes the rest for whole. What a power cut leaves of it, the next recovery removes.
    for ending in FILES {
        for old in &old {
            let _ = std::fs::remove_file(with_ending(old, ending));
        }
        if old.is_empty() || sync_directory(directory_of(path)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_time_has_the_form_of_a_file_name() {
        let time = super::time();
        assert_eq!((time.len(), time.as_bytes().get(8), time.ends_with('Z')), (16, Some(&b'T'), true));
    }
}

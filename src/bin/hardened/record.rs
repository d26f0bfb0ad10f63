//! The guard's record beside a database: what it says, and how a user goes on in spite of it.

use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use hardened_sqlite::fs::Class;
use hardened_sqlite::hardened_vfs::guard;
use hardened_sqlite::hardened_vfs::guard::classify::State;

use crate::examine::{Examination, Level};

/// What the record says, if there is one. The pages that it proves to be torn or lost.
pub(crate) fn look(seen: &mut Examination, path: &Path) -> Vec<(u32, &'static str)> {
    let shared = seen.verdict.as_ref().is_none_or(|verdict| verdict.class != Class::Local);
    let examined = match guard::examine(path, shared) {
        Ok(Some(examined)) => examined,
        Ok(None) => return Vec::new(),
        Err(error) => {
            seen.file("guard", format!("its record cannot be used, and nothing is concluded from it: {error}"));
            return Vec::new();
        }
    };
    let counts = examined.finding.counts();
    seen.file(
        "guard",
        format!(
            "{} records: the database is open, or was not closed in order; of the pages that were written last {} are as \
             written, {} torn, {} lost, {} about to be repaired",
            examined.records,
            counts.intact_new + counts.intact_old,
            counts.torn,
            counts.lost,
            counts.to_be_repaired
        ),
    );
    let hint = "the choices: put back the journal or -wal that is missing, or restore a backup, or recover what is \
                readable into a new file; then, or to go on with the file as it is, `hardened doctor --accept`";
    for alarm in &examined.finding.alarms {
        seen.find(Level::Problem, alarm.text.clone(), Some(hint));
    }
    if let (Some(text), true) = (&examined.alarm, examined.finding.alarms.is_empty()) {
        let text = format!("an alarm was raised at an open, and nobody has decided about it: {text}");
        seen.find(Level::Problem, text, Some(hint));
    }
    for halt in &examined.halts {
        let hint = "close the database everywhere, check the disk (its log: dmesg), and open it again";
        seen.find(Level::Problem, halt.clone(), Some(hint));
    }
    for note in &examined.finding.notes {
        seen.find(Level::Note, note.clone(), None);
    }
    // Without an alarm nothing is proven.
    let pages = examined.finding.pages.iter().filter(|_| !examined.finding.alarms.is_empty());
    pages
        .filter_map(|(page, state)| match state {
            State::Torn { .. } => Some((*page, "it is torn: a write of it came to the disk in part, says the guard")),
            State::Lost => Some((*page, "a write of it never came to the disk, says the guard")),
            _ => None,
        })
        .collect()
}

/// Moves the record aside; a sentence about it.
pub(crate) fn accept(path: &Path) -> io::Result<String> {
    let path = std::fs::canonicalize(path)?;
    let record = guard::sidecar(&path);
    let time = UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let mut aside = record.clone().into_os_string();
    aside.push(format!("-accepted-{time}"));
    match std::fs::rename(&record, &aside) {
        Ok(()) => Ok(format!(
            "{}: accepted as it is; what the guard knew is kept as {}",
            path.display(),
            Path::new(&aside).display()
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(format!("{}: there is nothing to accept: the guard has no record of it", path.display()))
        }
        Err(error) => Err(error),
    }
}

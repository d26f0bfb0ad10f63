//! What is written beside commits that were saved from a -wal whose name does not lead to it any more.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::Identity;
use crate::format::wal::{Header, Scan};

/// How a program or a person finds the database that saved commits belong to.
#[derive(Debug, Serialize)]
pub(crate) struct Manifest {
    /// The file beside this one.
    saved: String,
    /// What the database was called when it was opened. Bytes that are not UTF-8 are replaced.
    database: String,
    /// Device and inode of the database, by which it is found if it was renamed.
    database_device: Option<u64>,
    database_inode: Option<u64>,
    page_size: u32,
    /// The salts of the generation, in hexadecimal.
    salts: String,
    checkpoint_sequence: u32,
    frames: u64,
    commits: u64,
    /// Pages of the database after the last commit.
    page_count: Option<u32>,
    /// Seconds since 1970.
    saved_at: u64,
    what_happened: String,
    what_to_do: String,
}

impl Manifest {
    pub(crate) fn new(
        database: &Path,
        identity: Option<Identity>,
        header: &Header,
        scan: &Scan,
        saved: &str,
        what_happened: &str,
    ) -> Manifest {
        let mut salts = String::new();
        for salt in header.salts {
            // A String takes everything.
            let _ = write!(salts, "{salt:08x}");
        }
        Manifest {
            saved: saved.to_owned(),
            database: database.display().to_string(),
            database_device: identity.map(|(device, _)| device),
            database_inode: identity.map(|(_, inode)| inode),
            page_size: header.page_size,
            salts,
            checkpoint_sequence: header.checkpoint_sequence,
            frames: scan.committed_frames,
            commits: scan.commits,
            page_count: scan.page_count,
            saved_at: std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs()),
            what_happened: what_happened.to_owned(),
            what_to_do: "Close the database everywhere. Find the database file these commits belong to (by its inode, if it \
                         was renamed) and make a copy of it. If no program has written to it since, put this saved file \
                         beside the copy under the copy's name with -wal behind it, and open the copy: SQLite recovers \
                         the commits."
                .to_owned(),
        }
    }

    /// As JSON, with a line for each field.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

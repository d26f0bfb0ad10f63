//! Folders that a program copies to other machines while we write: each file for itself, at its own time.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

/// A folder kept in step by a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncFolder {
    /// Whose: `Dropbox`, `Syncthing`.
    pub program: &'static str,
    /// The folder's root.
    pub root: PathBuf,
}

impl fmt::Display for SyncFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} folder {}", self.program, self.root.display())
    }
}

/// What these programs leave in the root of their folder.
const MARKERS: [(&str, &str); 8] = [
    (".dropbox.cache", "Dropbox"),
    (".dropbox", "Dropbox"),
    (".stfolder", "Syncthing"),
    (".nextcloudsync.log", "Nextcloud"),
    (".owncloudsync.log", "ownCloud"),
    (".tmp.drivedownload", "Google Drive"),
    (".tmp.driveupload", "Google Drive"),
    (".sync/ID", "Resilio Sync"),
];

/// Names that these programs give their folder, when it stands directly in a home directory.
const HOME_NAMES: [(&str, &str); 8] = [
    ("Dropbox", "Dropbox"),
    ("OneDrive", "OneDrive"),
    ("Google Drive", "Google Drive"),
    ("GoogleDrive", "Google Drive"),
    ("iCloudDrive", "iCloud Drive"),
    ("Nextcloud", "Nextcloud"),
    ("ownCloud", "ownCloud"),
    ("MEGA", "MEGA"),
];

/// Whether a directory on the way to `directory` has one of these names, so that it matters where the home is.
pub(super) fn may_be_named(directory: &Path) -> bool {
    directory.ancestors().any(|root| {
        let name = root.file_name().and_then(OsStr::to_str).unwrap_or_default();
        HOME_NAMES.iter().any(|(known, _)| name.starts_with(known))
    })
}

/// Which sync folder `directory` is in, if any: by a marker that `exists`, by a name under `home`, or by the places
/// where macOS keeps iCloud and its file providers.
pub fn recognise(directory: &Path, home: Option<&Path>, exists: impl Fn(&Path) -> bool) -> Option<SyncFolder> {
    for root in directory.ancestors() {
        for (marker, program) in MARKERS {
            // In a home directory, ours or another user's, `.dropbox` is where the program keeps its settings.
            if marker == ".dropbox" && (home == Some(root) || exists(&root.join(".dropbox/info.json"))) {
                continue;
            }
            if exists(&root.join(marker)) {
                return Some(SyncFolder { program, root: root.to_owned() });
            }
        }
        let name = root.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let parent = root.parent();
        if parent.is_some() && parent == home {
            let known = HOME_NAMES.iter().find(|(known, _)| {
                // "Dropbox (Personal)", "OneDrive - Company"
                name.strip_prefix(known)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(" (") || rest.starts_with(" - "))
            });
            if let Some((_, program)) = known {
                return Some(SyncFolder { program, root: root.to_owned() });
            }
        }
        let within_library =
            |folder: &str| name == folder && parent.and_then(Path::file_name) == Some(OsStr::new("Library"));
        if within_library("Mobile Documents") {
            return Some(SyncFolder { program: "iCloud Drive", root: root.to_owned() });
        }
        if within_library("CloudStorage") {
            return Some(SyncFolder { program: "cloud storage", root: root.to_owned() });
        }
    }
    None
}

//! Looks at a database and its journals from outside.
//!
//! Invariant: nothing is changed. Files are opened for reading only and closed again, which is safe because this process
//! has no connection whose locks that could drop; no lock is taken.

use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hardened_sqlite::format::{database, journal, wal};
use hardened_sqlite::fs::{self, Class, Problem, Verdict};
use hardened_sqlite::hardened_vfs::{self, Outlook};
use hardened_sqlite::page_map::PageMap;
use rustix::fs::Access;

use crate::map::{self, When};
use crate::record;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Note,
    Warning,
    Problem,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

/// One thing worth saying.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(crate) text: String,
    pub(crate) hint: Option<String>,
}

/// Everything seen about one path.
#[derive(Debug)]
pub(crate) struct Examination {
    pub(crate) path: PathBuf,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) outlook: Option<Outlook>,
    /// `database`, `-wal`, `-journal`, `-shm`, `access`, in words.
    pub(crate) files: Vec<(String, String)>,
    pub(crate) free_space: Option<u64>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) map: Option<PageMap>,
}

impl Examination {
    pub(crate) fn find(&mut self, level: Level, text: impl Into<String>, hint: Option<&str>) {
        self.findings.push(Finding { level, text: text.into(), hint: hint.map(str::to_owned) });
    }

    pub(crate) fn file(&mut self, name: &str, text: impl Into<String>) {
        self.files.push((name.to_owned(), text.into()));
    }
}

/// Below this much free space a backup or VACUUM of anything is likely to fail.
const LITTLE_SPACE: u64 = 64 << 20;

/// Examines `path`; a filesystem that does not answer within `limit` is not touched.
pub(crate) fn examine(path: &Path, limit: Duration, map: When) -> Examination {
    let mut seen = Examination {
        path: path.to_owned(),
        verdict: None,
        outlook: None,
        files: Vec::new(),
        free_space: None,
        findings: Vec::new(),
        map: None,
    };
    match fs::classify(path, limit) {
        Ok(verdict) => {
            let outlook = hardened_vfs::outlook(&hardened_vfs::Options::default(), &verdict);
            for warning in &verdict.warnings {
                seen.find(Level::Warning, warning.clone(), None);
            }
            seen.verdict = Some(verdict);
            seen.outlook = Some(outlook);
            look_at(&mut seen, map);
        }
        Err(Problem::NoAnswer(no_answer)) => {
            let text = Problem::NoAnswer(no_answer.clone()).to_string();
            seen.find(Level::Problem, text, Some("nothing was touched; try again when the server answers"));
            seen.verdict = Some(no_answer.verdict);
        }
        Err(problem) => seen.find(Level::Problem, problem.to_string(), Some("check the path")),
    }
    seen
}

fn look_at(seen: &mut Examination, when: When) {
    // SQLite follows links, so the journals are beside what the link names.
    let path = std::fs::canonicalize(&seen.path).unwrap_or_else(|_| seen.path.clone());
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => directory(seen, &path),
        Ok(metadata) if metadata.is_file() => {
            directory(seen, parent(&path));
            file_access(seen, &path, &metadata);
            database(seen, &path, &metadata);
            let accused = record::look(seen, &path);
            map::look(seen, &path, when, &accused);
        }
        Ok(_) => seen.find(Level::Problem, "it is not a regular file", Some("name a database file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if std::fs::symlink_metadata(&path).is_ok() {
                seen.find(Level::Problem, "it is a symbolic link to nothing", Some("correct or remove the link"));
            } else if parent(&path).is_dir() {
                seen.file("database", "does not exist yet");
                directory(seen, parent(&path));
                journals(seen, &path, None);
            } else {
                let text = format!("the directory {} does not exist", parent(&path).display());
                seen.find(Level::Problem, text, Some("create it first"));
            }
        }
        Err(error) => seen.find(Level::Problem, error.to_string(), Some("check the directories of the path")),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn directory(seen: &mut Examination, directory: &Path) {
    if let Err(error) = rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        let text = format!("journals cannot be created in {}: {}", directory.display(), io::Error::from(error));
        seen.find(Level::Problem, text, Some("change the directory's mode or owner, or open the database read-only"));
    }
    match fs2::available_space(directory) {
        Ok(space) => {
            seen.free_space = Some(space);
            if space < LITTLE_SPACE {
                let text = format!("only {} MiB are free", space >> 20);
                seen.find(Level::Warning, text, Some("make room before the next write needs it"));
            }
        }
        Err(error) => seen.find(Level::Note, format!("the free space cannot be read: {error}"), None),
    }
}

fn file_access(seen: &mut Examination, path: &Path, metadata: &Metadata) {
    let may = |access| rustix::fs::access(path, access).is_ok();
    let (read, write) = (may(Access::READ_OK), may(Access::WRITE_OK));
    let owner = metadata.uid();
    let may = match (read, write) {
        (true, true) => "readable and writable",
        (true, false) => "read-only",
        _ => "not readable",
    };
    let mode = metadata.mode() & 0o7777;
    seen.file("access", format!("{may} for this user, mode {mode:04o}, owner {owner}"));
    if !read {
        seen.find(Level::Problem, "no permission to read it", Some("run as its owner or change its mode"));
    }
    if metadata.nlink() > 1 {
        let text = format!("it has {} names (hard links); each would have its own journal", metadata.nlink());
        seen.find(Level::Warning, text, Some("keep one name and remove the others"));
    }
}

fn database(seen: &mut Examination, path: &Path, metadata: &Metadata) {
    let first = match read_first(path, 4096) {
        Ok(first) => first,
        Err(error) => {
            seen.find(Level::Problem, format!("it cannot be read: {error}"), None);
            return;
        }
    };
    let header = match database::Header::parse(&first) {
        Ok(header) => {
            let pages = metadata.len() / u64::from(header.page_size);
            let mode = if header.is_wal() { "WAL" } else { "rollback journal" };
            seen.file("database", format!("{pages} pages of {} bytes, {mode}", header.page_size));
            if metadata.len() % u64::from(header.page_size) != 0 {
                seen.find(
                    Level::Warning,
                    "its length is not a multiple of its page size",
                    Some("check it: PRAGMA quick_check"),
                );
            }
            Some(header)
        }
        Err(database::HeaderError::Empty) => {
            seen.file("database", "empty: a database without tables");
            None
        }
        Err(error) => {
            seen.file("database", "not readable as a database");
            seen.find(
                Level::Problem,
                error.to_string(),
                Some("check the name; if it was a database, restore a backup"),
            );
            None
        }
    };
    let is_wal = header.as_ref().is_some_and(database::Header::is_wal);
    if let (true, Some(outlook), Some(verdict)) = (is_wal, &seen.outlook, &seen.verdict) {
        if !outlook.wal && verdict.class != Class::Local {
            let (level, text) = if outlook.convertible {
                (
                    Level::Warning,
                    "a WAL database where WAL is not safe: hardened converts it if nobody else has it open",
                )
            } else {
                (
                    Level::Problem,
                    "a WAL database where WAL is not safe, and this mount's locks cannot show who else has it open",
                )
            };
            seen.find(level, text, Some("close it everywhere before the next open"));
        }
    }
    let completed = journals(seen, path, header.as_ref());
    if let (Some(header), false) = (header, completed) {
        cut_off(seen, path, &header, metadata.len());
    }
}

/// SQLite refuses a database that is shorter than it says, unless a journal or WAL makes it whole. Looked at twice, because
/// a transaction may have ended in between.
fn cut_off(seen: &mut Examination, path: &Path, header: &database::Header, length: u64) {
    let missing = |header: &database::Header, length: u64| {
        let (have, should) = (length / u64::from(header.page_size), u64::from(header.trusted_page_count()?));
        (have < should).then_some((have, should))
    };
    if missing(header, length).is_none() {
        return;
    }
    let Ok(first) = read_first(path, 4096) else { return };
    let (Ok(header), Ok(metadata)) = (database::Header::parse(&first), std::fs::metadata(path)) else { return };
    if let Some((have, should)) = missing(&header, metadata.len()) {
        let text = format!("it says that it has {should} pages and the file has {have}: it is cut off");
        seen.find(Level::Problem, text, Some("restore a backup, or recover what is left from a copy"));
    }
}

/// Whether a journal or WAL has something that the database is without.
fn journals(seen: &mut Examination, path: &Path, header: Option<&database::Header>) -> bool {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let commits = write_ahead_log(seen, &beside("-wal"), header);
    let hot = rollback_journal(seen, &beside("-journal"), header);
    if let Ok(metadata) = std::fs::metadata(beside("-shm")) {
        seen.file("-shm", format!("{} bytes", metadata.len()));
    }
    commits || hot
}

/// Whether it has commits.
fn write_ahead_log(seen: &mut Examination, path: &Path, header: Option<&database::Header>) -> bool {
    let scanned = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
        Ok(file) => match file.metadata() {
            Ok(metadata) if metadata.len() == 0 => {
                seen.file("-wal", "empty");
                return false;
            }
            _ => wal::scan(BufReader::with_capacity(1 << 20, file)),
        },
        Err(error) => Err(error),
    };
    let scan = match scanned {
        Ok(scan) => scan,
        Err(error) => {
            seen.find(Level::Problem, format!("the -wal cannot be read: {error}"), None);
            return false;
        }
    };
    seen.file(
        "-wal",
        format!(
            "{} commits in {} frames not yet in the database, or being copied",
            scan.commits, scan.committed_frames
        ),
    );
    if scan.unreachable_commits > 0 {
        let text = format!(
            "{} commits in the -wal stand behind a damaged frame and will be dropped at the next open",
            scan.unreachable_commits
        );
        seen.find(Level::Problem, text, Some("copy the database, -wal and -shm aside before anything opens them"));
    }
    match header {
        None if scan.commits > 0 => {
            let text = "there are commits in the -wal of a database that is missing or not readable";
            seen.find(Level::Problem, text, Some("do not delete the -wal; find the database it belongs to"));
        }
        Some(header) if scan.commits > 0 && !header.is_wal() => seen.find(
            Level::Warning,
            "the database says rollback journal, but there is a -wal with commits beside it",
            Some("it may belong to another database; copy both aside before opening"),
        ),
        _ => {}
    }
    scan.commits > 0
}

/// Whether it may be hot.
fn rollback_journal(seen: &mut Examination, path: &Path, header: Option<&database::Header>) -> bool {
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
        Err(error) => {
            seen.find(Level::Problem, format!("the -journal cannot be read: {error}"), None);
            return false;
        }
    };
    let first = match read_first(path, 512) {
        Ok(first) => first,
        Err(error) => {
            seen.find(Level::Problem, format!("the -journal cannot be read: {error}"), None);
            return false;
        }
    };
    let state = journal::State::of(Some(length), &first);
    seen.file("-journal", state.to_string());
    if state.is_hot_candidate() {
        if header.is_some() {
            seen.find(
                Level::Note,
                "a transaction is under way, or was cut off: then the next open rolls it back",
                Some("never delete the -journal"),
            );
        } else {
            let text = "there is a journal of a transaction, but no database that it could belong to";
            seen.find(Level::Warning, text, Some("do not delete it; find the database it belongs to"));
        }
    }
    state.is_hot_candidate()
}

fn read_first(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut first = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut first)?;
    Ok(first)
}

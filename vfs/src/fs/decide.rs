//! Facts in, verdict out. Nothing here asks the system anything.

use super::table::{self, Entry};
use super::{Class, LockReach, MountFacts, Source, SyncFolder, Verdict};

/// Everything the decision may depend on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The mount of the directory: -wal, -shm and -journal will be there.
    pub directory: MountFacts,
    /// The mount of the file, if it is another one.
    pub file: Option<MountFacts>,
    /// The mount under a stacked filesystem (overlay's upper layer, eCryptfs' source), if it could be found.
    pub under: Option<MountFacts>,
    /// The sync folder the directory is in.
    pub sync_folder: Option<SyncFolder>,
    /// Whether this is the first Windows Subsystem for Linux, whose files are the host's.
    pub wsl1: bool,
}

impl Facts {
    /// A directory on one mount and nothing special about it.
    pub fn of(directory: MountFacts) -> Self {
        Facts { directory, file: None, under: None, sync_folder: None, wsl1: false }
    }
}

/// The verdict on a database at this place.
///
/// ```
/// use hardened_vfs::fs::{Class, Facts, MountTable, decide};
///
/// let table = MountTable::parse(b"40 1 0:50 / /home rw - nfs4 server:/home rw,vers=4.2,hard\n");
/// let facts = Facts::of(table.by_id(40).unwrap().facts.clone());
/// let verdict = decide(&facts);
/// assert_eq!((verdict.class, verdict.wal), (Class::Network, false));
/// ```
pub fn decide(facts: &Facts) -> Verdict {
    let mut verdict = of_mount(&facts.directory);
    if let Some(under) = &facts.under {
        let mut below = of_mount(under);
        let mut warnings = std::mem::take(&mut verdict.warnings);
        warnings.append(&mut below.warnings);
        if !below.wal {
            verdict = Verdict {
                filesystem: verdict.filesystem.clone(),
                mount_point: verdict.mount_point.clone(),
                reason: format!("{} lies over {}, and {}", verdict.filesystem, below.filesystem, below.reason),
                ..below
            };
        }
        verdict.warnings = warnings;
    }
    if let Some(file) = &facts.file {
        let mut own = of_mount(file);
        let mut warnings = std::mem::take(&mut verdict.warnings);
        warnings.append(&mut own.warnings);
        // The locks are taken on the file, what they protect is also in the directory.
        let locks = worse(verdict.locks, own.locks);
        if own.wal && verdict.wal {
            verdict.wal = false;
            verdict.reason = format!(
                "the file is a mount of its own ({}) in a directory on {}: whoever reaches it by another path finds \
                 another -wal",
                own.filesystem, verdict.filesystem
            );
        } else if !own.wal && (verdict.wal || own.class > verdict.class) {
            verdict = own;
        }
        verdict.locks = locks;
        verdict.warnings = warnings;
        verdict.warnings.push("the database file is a mount of its own; its journals are not".into());
    }
    if facts.wsl1 && verdict.class == Class::Local {
        verdict.class = Class::VmShared;
        verdict.wal = false;
        verdict.reason = "this is WSL 1, whose files are also open to Windows programs with locks of their own".into();
    }
    if let Some(folder) = &facts.sync_folder {
        verdict.warnings.push(format!(
            "the directory is inside {folder}, which copies the database and its journals at different times; move the \
             database out of it"
        ));
        if verdict.wal {
            verdict.wal = false;
            verdict.reason = format!("{} is local, but the directory is inside {folder}", verdict.filesystem);
        }
    }
    verdict
}

fn worse(one: LockReach, other: LockReach) -> LockReach {
    match (one, other) {
        (LockReach::ThisMount, _) | (_, LockReach::ThisMount) => LockReach::ThisMount,
        (LockReach::Unknown, _) | (_, LockReach::Unknown) => LockReach::Unknown,
        (LockReach::Everybody, LockReach::Everybody) => LockReach::Everybody,
    }
}

fn of_mount(mount: &MountFacts) -> Verdict {
    let by_statfs = mount.fs_type.is_none();
    let name = mount.name().or_else(|| mount.magic.and_then(table::by_magic).map(str::to_owned));
    let Some(name) = name else {
        let mut verdict = Verdict::unknown(match mount.magic {
            Some(magic) => format!("no filesystem with the magic number {magic:#x} is on the list of local ones"),
            None => "the kernel told nothing about the filesystem".to_owned(),
        });
        verdict.from = mount.from;
        return verdict;
    };

    let entry = table::by_name(&name);
    let mut verdict = Verdict {
        class: entry.map_or(Class::Unknown, |entry| entry.class),
        wal: entry.is_some_and(|entry| entry.wal),
        filesystem: name.clone(),
        source: mount.source.clone(),
        mount_point: mount.mount_point.clone(),
        options: Vec::new(),
        locks: entry.map_or(LockReach::Unknown, |entry| entry.locks),
        reason: match entry {
            Some(Entry { why, .. }) => format!("{name} {why}"),
            None => format!("{name} is not on the list of local filesystems"),
        },
        warnings: Vec::new(),
        from: mount.from,
    };
    if by_statfs && matches!(name.as_str(), "overlay" | "ecryptfs") {
        verdict.class = Class::Unknown;
        verdict.wal = false;
        verdict.reason = format!("{name} is a layer over a filesystem that could not be seen");
    }
    weigh_options(mount, &mut verdict);
    verdict
}

/// Keeps the options that matter, and says what they break.
fn weigh_options(mount: &MountFacts, verdict: &mut Verdict) {
    let own_locks = |verdict: &mut Verdict, option: &str| {
        verdict.locks = LockReach::ThisMount;
        verdict.warnings.push(format!(
            "mounted with `{option}`: locks are not sent to the server, so a second host that writes to this database \
             corrupts it"
        ));
    };
    match verdict.filesystem.as_str() {
        "nfs" | "nfs4" => {
            keep(mount, verdict, &["vers", "soft", "softerr", "hard", "nolock", "local_lock", "noac", "sync"]);
            if mount.has("nolock") {
                own_locks(verdict, "nolock");
            } else if let Some(value @ ("posix" | "all")) = mount.option("local_lock") {
                own_locks(verdict, &format!("local_lock={value}"));
            }
            if let Some(soft) = ["soft", "softerr"].into_iter().find(|option| mount.has(option)) {
                verdict.warnings.push(format!(
                    "mounted with `{soft}`: a slow server makes writes fail instead of waiting; mount it `hard`"
                ));
            }
        }
        "cifs" | "smb3" | "smbfs" => {
            keep(mount, verdict, &["vers", "cache", "nobrl", "nolock", "soft", "hard", "unix", "mapposix"]);
            match ["nobrl", "nolock"].into_iter().find(|option| mount.has(option)) {
                Some(option) => own_locks(verdict, option),
                None => verdict.locks = LockReach::Everybody,
            }
        }
        "lustre" | "ocfs2" => {
            let own = ["localflock", "noflock", "localflocks"];
            keep(mount, verdict, &own);
            if let Some(option) = own.into_iter().find(|option| mount.has(option)) {
                own_locks(verdict, option);
            }
        }
        // What such a mount was told about caches is known to its daemon alone.
        "glusterfs" | "fuse.glusterfs" => verdict.warnings.push(
            "two clients of a GlusterFS volume must not open this database: a client reads old bytes after another has \
             written, unless the volume's performance translators are off and each client is mounted with \
             auto-invalidation=on,attribute-timeout=0,entry-timeout=0; and then one was still damaged when a brick \
             came back"
                .into(),
        ),
        "9p" | "v9fs" => keep(mount, verdict, &["cache", "trans", "version"]),
        "overlay" => {
            keep(mount, verdict, &["upperdir", "volatile"]);
            if mount.has("volatile") {
                verdict.warnings.push(
                    "mounted with `volatile`: nothing is ever synced, a power cut may lose or corrupt the database"
                        .into(),
                );
            }
        }
        "ext3" | "ext4" | "xfs" | "btrfs" => {
            let unsafe_options = ["nobarrier", "barrier=0", "data=writeback", "norecovery"];
            for option in unsafe_options.into_iter().filter(|option| mount.has(option)) {
                verdict.options.push(option.to_owned());
                if option != "data=writeback" {
                    verdict.warnings.push(format!("mounted with `{option}`: a power cut may undo what was synced"));
                }
            }
        }
        _ => {}
    }
    if mount.has("lazytime") {
        // What changed when is then not known after a crash.
        verdict.options.push("lazytime".into());
    }
    if mount.has("ro") {
        verdict.options.push("ro".into());
    }
    if verdict.from == Source::Statfs && verdict.wal {
        verdict.warnings.push("only the magic number of the filesystem could be read; mount /proc to know more".into());
    }
}

fn keep(mount: &MountFacts, verdict: &mut Verdict, keys: &[&str]) {
    for option in &mount.options {
        let key = option.split('=').next().unwrap_or(option);
        if keys.contains(&key) && !verdict.options.contains(option) {
            verdict.options.push(option.clone());
        }
    }
}

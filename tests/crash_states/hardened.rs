//! Databases opened through the shim.

use hardened_sqlite::hardened_vfs;
use support::crash::{Disk, Journal, Opener, Promise, Session, Setting, Synchronous};
use support::sqlite::Failure;

/// The shim over the disk, with these further URI parameters. Each disk gets a registration of its own, as the VFS of a
/// real disk would be the base of the registration.
pub(crate) struct Hardened {
    name: String,
    extra: String,
}

impl Hardened {
    /// `extra` is empty or `key=value&key=value`.
    pub(crate) fn new(name: &str, extra: &str) -> Self {
        Self { name: name.to_owned(), extra: extra.to_owned() }
    }
}

impl Opener for Hardened {
    fn name(&self) -> &str {
        &self.name
    }

    fn uri(&self, disk: &Disk, file: &str, setting: &Setting) -> String {
        let vfs = format!("hardened-{}", disk.name());
        let mut options = hardened_vfs::Options::default();
        options.base = Some(disk.name().to_owned());
        hardened_vfs::register_as(&vfs, options).unwrap();
        let policy = match setting.journal {
            Journal::Wal => "policy=wal".to_owned(),
            other => format!("policy=delete&journal={}", other.word()),
        };
        let extra = if self.extra.is_empty() { String::new() } else { format!("&{}", self.extra) };
        format!("file:{}?vfs={vfs}&{policy}{extra}", disk.path(file))
    }

    fn alarm(&self, session: &Session) -> Option<String> {
        let report = session.rows("PRAGMA hardened_report").ok()?.concat();
        let report = hardened_vfs::Report::from_json(&report).ok()?;
        (!report.alarms.is_empty()).then(|| report.alarms.join("; "))
    }

    fn alarm_in(&self, failure: &Failure) -> Option<String> {
        // SQLITE_IOERR_DATA: reading or writing was refused, with the reason in the log.
        (failure.code == 10 | (32 << 8)).then(|| failure.message.clone())
    }

    /// The shim raises the synchronous level. To WAL NORMAL only where the file system is known to be local, which the
    /// disk in memory is not unless the parameters say so.
    fn promise(&self, setting: &Setting) -> Promise {
        let mut setting = *setting;
        let local = self.extra.split('&').any(|parameter| parameter == "fs=local");
        let floor = if setting.journal == Journal::Wal && local { Synchronous::Normal } else { Synchronous::Full };
        setting.synchronous = setting.synchronous.max(floor);
        setting.promise()
    }
}

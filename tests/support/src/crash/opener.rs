//! How a state is opened, and what an application notices.

use super::disk::Disk;
use super::image::Image;
use super::record::{beside_recordings, open};
use super::session::{Content, Session};
use super::workload::{Promise, Setting};
use crate::sqlite::Failure;

/// A way to open databases: stock SQLite, or a VFS above the disk.
pub trait Opener: Sync {
    /// What tables call it.
    fn name(&self) -> &str;

    /// The URI of one database.
    fn uri(&self, disk: &Disk, file: &str, setting: &Setting) -> String;

    /// What it promises for databases of this setting; more than stock SQLite if it raises the synchronous level.
    fn promise(&self, setting: &Setting) -> Promise {
        setting.promise()
    }

    /// An alarm that the connection has for the application, asked after it was opened and after everything was read.
    fn alarm(&self, _session: &Session) -> Option<String> {
        None
    }

    /// Whether a failed open or read is a deliberate alarm, and what it says.
    fn alarm_in(&self, _failure: &Failure) -> Option<String> {
        None
    }
}

/// SQLite as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stock;

impl Opener for Stock {
    fn name(&self) -> &str {
        "stock"
    }

    fn uri(&self, disk: &Disk, file: &str, _: &Setting) -> String {
        format!("file:{}?vfs={}", disk.path(file), disk.name())
    }
}

/// What was found on a disk after a power cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The alarm that was given.
    pub alarm: Option<String>,
    /// The first error that an application met which opens the database and reads everything.
    pub failure: Option<Failure>,
    /// What it read.
    pub content: Option<Content>,
    /// What only an integrity check finds.
    pub damage: Option<String>,
}

/// Puts the image on the disk, opens its databases, lets SQLite recover them and reads everything.
pub fn recover(opener: &dyn Opener, disk: &Disk, setting: &Setting, image: &Image) -> Found {
    let _randomness = beside_recordings();
    disk.load(image);
    disk.set_up(setting.device, 1);
    let mut found = Found { alarm: None, failure: None, content: None, damage: None };
    let session = match open(opener, disk, setting) {
        Ok(session) => session,
        Err(failure) => {
            found.alarm = opener.alarm_in(&failure);
            found.failure = Some(failure);
            return found;
        }
    };
    found.alarm = opener.alarm(&session);
    match session.content(setting.schemas()) {
        Ok(content) => found.content = Some(content),
        Err(failure) => {
            found.alarm = found.alarm.or_else(|| opener.alarm_in(&failure));
            found.failure = Some(failure);
        }
    }
    found.alarm = found.alarm.or_else(|| opener.alarm(&session));
    match session.integrity() {
        Ok(damage) => found.damage = damage,
        Err(failure) => found.damage = Some(failure.message),
    }
    found
}

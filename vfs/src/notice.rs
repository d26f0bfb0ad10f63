//! Warnings: once per database, process and kind, through the `log` crate and SQLite's own error log.

use std::collections::HashSet;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use crate::lock::fork::PerProcess;

/// SQLite's error log, with a result code and a message.
pub(crate) type Speak = std::sync::Arc<dyn Fn(i32, &std::ffi::CStr) + Send + Sync>;

static SAID: PerProcess<HashSet<(PathBuf, &'static str)>> = PerProcess::new(|_| HashSet::new());

/// A process that opens more databases than this hears some warnings twice.
const MOST: usize = 10_000;

/// Says `message` about `path` unless something of this kind was said about it before.
pub(crate) fn once(speak: &Speak, path: &Path, kind: &'static str, message: &str) {
    let new = {
        let mut said = SAID.lock();
        if said.len() >= MOST {
            said.clear();
        }
        said.insert((path.to_owned(), kind))
    };
    if new {
        say(speak, libsqlite3_sys::SQLITE_WARNING, &format!("{}: {message}", path.display()));
    }
}

/// Says `message` now.
pub(crate) fn say(speak: &Speak, code: i32, message: &str) {
    log::warn!(target: "hardened", "{message}");
    let text: String = format!("hardened: {message}").replace('\0', " ");
    if let Ok(text) = CString::new(text) {
        speak(code, &text);
    }
}

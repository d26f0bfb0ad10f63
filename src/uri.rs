//! Paths as SQLite URIs (<https://www.sqlite.org/uri.html>).

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hardened_vfs::Options;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// Everything but what is certain to stand for itself; `/` separates.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The URI that opens `path` with the VFS `hardened` and these options, whatever bytes the path is made of. (No path can
/// contain a zero byte; SQLite would read the name up to it.)
///
/// ```
/// let options = "policy=delete".parse()?;
/// let uri = hardened_sqlite::uri("/tmp/100% sure?.db".as_ref(), &options);
/// assert_eq!(uri, "file:///tmp/100%25%20sure%3F.db?vfs=hardened&policy=delete");
/// # Ok::<(), hardened_sqlite::OptionError>(())
/// ```
pub fn uri(path: &Path, options: &Options) -> String {
    with_options(path, &options.to_string())
}

/// The same with every option written out, so that none is left to the defaults the VFS was registered with.
pub(crate) fn of_all(path: &Path, options: &Options) -> String {
    with_options(path, &options.in_full())
}

/// The URI that opens `path` with another VFS.
pub(crate) fn plain(path: &Path) -> String {
    format!("{}{}", scheme(path), percent_encode(path.as_os_str().as_bytes(), ESCAPED))
}

fn scheme(path: &Path) -> &'static str {
    if path.is_absolute() { "file://" } else { "file:" }
}

fn with_options(path: &Path, options: &str) -> String {
    let mut uri = format!("{}?vfs={}", plain(path), hardened_vfs::NAME);
    if !options.is_empty() {
        uri.push('&');
        uri.push_str(options);
    }
    uri
}

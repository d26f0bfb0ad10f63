//! `PRAGMA checksum_verification`, as SQLite's checksum VFS has it, and `PRAGMA hardened_checksum`, which reads every page.

use super::pages::Pages;
use crate::shim::below::Below;

/// At most so many pages are named.
const MOST: usize = 1000;

/// The answer to a pragma of this room; the result code of a failed read; `None` if the pragma is not one.
pub(crate) fn answer(pages: &Pages, base: &Below<'_>, name: &str, value: Option<&str>) -> Option<Result<String, i32>> {
    if name.eq_ignore_ascii_case("checksum_verification") {
        if let Some(value) = value {
            pages.set_verify(means_on(value));
        }
        return Some(Ok(u8::from(pages.verifies()).to_string()));
    }
    name.eq_ignore_ascii_case("hardened_checksum").then(|| scan(pages, base))
}

/// `{"page_size":4096,"reserved":8,"pages":17,"bad":2,"bad_pages":[3,9]}`; a page size of 0 means that the database has no checksums.
fn scan(pages: &Pages, base: &Below<'_>) -> Result<String, i32> {
    let (mut bad, mut named) = (0_u64, Vec::new());
    let (size, count) = pages.scan(base, |number| {
        bad += 1;
        if named.len() < MOST {
            named.push(number);
        }
    })?;
    let answer = serde_json::json!({ "page_size": size, "reserved": pages.reserved(base), "pages": count, "bad": bad, "bad_pages": named });
    Ok(answer.to_string())
}

/// The words that the checksum VFS takes for ON; all others are OFF.
fn means_on(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    value == "yes" || value == "on" || value.starts_with("enable") || value.starts_with(|c| ('1'..='9').contains(&c))
}

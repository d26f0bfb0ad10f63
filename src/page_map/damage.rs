//! Why pages are taken for damaged.

use std::collections::BTreeMap;

/// Of at most so many pages the reason is kept.
const MOST: usize = 1000;

#[derive(Clone, Debug, Default)]
pub(super) struct Damage(BTreeMap<u32, String>);

impl Damage {
    /// Keeps the first reason for a page.
    pub(super) fn add(&mut self, page: u32, why: impl FnOnce() -> String) {
        if self.0.len() < MOST {
            self.0.entry(page).or_insert_with(why);
        }
    }

    pub(super) fn why(&self, page: u32) -> Option<&str> {
        self.0.get(&page).map(String::as_str)
    }
}

//! One page against the images that are known of it.

use super::{Case, PageNow, State};
use crate::guard::images::{Image, PageOf, Transaction};
use std::collections::BTreeMap;

/// Which side of a transaction a page is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// As before.
    Old,
    /// As a commit leaves it.
    New,
    /// Neither, and made of images that the transaction wrote.
    Partial,
    /// Something else.
    Foreign,
}

/// The journaled pages of a transaction and their sides.
#[derive(Clone, Debug, Default)]
pub(super) struct Sides(BTreeMap<u32, Side>);

impl Sides {
    pub(super) fn of(&self, which: &[Side]) -> Vec<u32> {
        self.0.iter().filter(|(_, side)| which.contains(side)).map(|(number, _)| *number).collect()
    }

    pub(super) fn any(&self, which: &[Side]) -> bool {
        self.0.values().any(|side| which.contains(side))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Side)> + '_ {
        self.0.iter().map(|(number, side)| (*number, *side))
    }
}

impl Case<'_> {
    /// The page as it is now; each page is read once.
    pub(super) fn now(&mut self, number: u32) -> PageNow {
        if let Some(now) = self.read.get(&number) {
            return now.clone();
        }
        let now = self.pages.page(number);
        self.read.insert(number, now.clone());
        now
    }

    /// Where the pages of a transaction stand that rolling it back restores and a commit changes. `skip` are not asked.
    pub(super) fn sides(&mut self, transaction: &Transaction, skip: impl Fn(u32) -> bool) -> Sides {
        let mut sides = Sides::default();
        for (number, page) in &transaction.pages {
            if !skip(*number) {
                if let Some(side) = self.side(*number, page) {
                    sides.0.insert(*number, side);
                }
            }
        }
        sides
    }

    fn side(&mut self, number: u32, page: &PageOf) -> Option<Side> {
        let (before, after) = (page.before.filter(|_| page.journaled)?, page.after()?);
        if self.log.same(before, after) {
            return None;
        }
        let now = match self.now(number) {
            PageNow::Image(now) => now,
            PageNow::Beyond => return Some(Side::Foreign),
            PageNow::Unread => return None,
        };
        let (now, log) = (now.as_slice(), self.log);
        let images = std::iter::once(before).chain(page.written.iter().copied());
        Some(if now == log.sums_of(after) {
            Side::New
        } else if now == log.sums_of(before) {
            Side::Old
        } else if is_mix(now, images.map(|image| log.sums_of(image))) {
            Side::Partial
        } else {
            Side::Foreign
        })
    }

    /// What a page is that is expected to hold this image.
    pub(super) fn judge(&mut self, number: u32, expected: Image) -> State {
        let now = match self.now(number) {
            PageNow::Image(now) => now,
            PageNow::Beyond => return State::Lost,
            PageNow::Unread => return State::NotJudged,
        };
        let (now, newest, log) = (now.as_slice(), self.log.sums_of(expected), self.log);
        let chain = log.chain(number);
        if now == newest {
            State::IntactNew
        } else if chain.iter().any(|image| log.sums_of(*image) == now) {
            State::Lost
        } else if is_mix(now, chain.iter().map(|image| log.sums_of(*image))) {
            State::Torn { newest: now.iter().zip(newest).map(|(now, newest)| now == newest).collect() }
        } else {
            State::Foreign
        }
    }
}

/// Whether each sector is that of one of the images.
fn is_mix<'i>(now: &[u32], images: impl Iterator<Item = &'i [u32]> + Clone) -> bool {
    now.iter().enumerate().all(|(at, sum)| images.clone().any(|image| image.get(at) == Some(sum)))
}

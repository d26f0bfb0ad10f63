//! Overflow pages: the rest of a row or key that has no room on its page.
//!
//! Invariant: a chain is as long as its row says, or it is damaged where it departs from that.

use super::PageKind;
use super::walk::{Read, Walk};
use crate::salvage::page::{Page, be32};

/// So many chains of damaged pages are followed.
const MOST: usize = 100_000;

impl Walk<'_> {
    /// Notes the chains of a page, for [`Walk::overflow`], or for the end if the page is damaged.
    pub(super) fn spilled(&mut self, number: u32, page: &Page<'_>, offsets: &[Option<usize>], doubtful: bool) {
        let room = self.usable.saturating_sub(4).max(1) as u64;
        self.chains.clear();
        self.holder = number;
        for cell in offsets.iter().flatten().filter_map(|offset| page.cell(*offset)) {
            let rest = cell.length.saturating_sub(cell.local.len() as u64);
            match rest.div_ceil(room) {
                0 => {}
                pages if !doubtful => self.chains.push((cell.overflow, pages)),
                pages if self.doubtful_chains.len() < MOST => self.doubtful_chains.push((cell.overflow, pages)),
                _ => {}
            }
        }
    }

    /// Follows the chains that were noted last.
    pub(super) fn overflow(&mut self, doubtful: bool) {
        let chains = std::mem::take(&mut self.chains);
        if !chains.is_empty() {
            let mut buffer = self.buffer();
            for (first, pages) in &chains {
                self.chain(self.holder, *first, *pages, doubtful, &mut buffer);
            }
            self.give_back(buffer);
        }
        self.chains = chains;
        self.chains.clear();
    }

    fn chain(&mut self, holder: u32, first: u32, pages: u64, mut doubtful: bool, buffer: &mut [u8]) {
        let (mut from, mut next) = (holder, first);
        for left in (0..pages).rev() {
            if !self.exists(next) {
                if !doubtful {
                    self.accuse(from, || match next {
                        0 => format!("the rest of a row is cut off behind it: {} pages are missing", left + 1),
                        _ => format!("it leads to page {next}, which the database does not have"),
                    });
                }
                return;
            }
            if !self.is_unclaimed(next) {
                if !doubtful {
                    self.accuse(next, || "it has two places: more than one page leads to it".to_owned());
                }
                return;
            }
            let read = self.read(next, buffer);
            match read {
                Read::Sound => self.set(next, PageKind::Overflow),
                Read::Wrong(why) => {
                    self.accuse(next, || why);
                    doubtful = true;
                }
                Read::Gone(why) => {
                    self.accuse(next, || why);
                    return;
                }
            }
            from = next;
            next = be32(buffer, 0).unwrap_or(0);
        }
        if next != 0 && !doubtful {
            self.accuse(from, || format!("it ends a row, and leads on to page {next}"));
        }
    }

    /// Follows the chains of damaged pages: each is taken if all of it fits, and no page of it has another place.
    pub(super) fn doubtful_overflow(&mut self) {
        let mut buffer = self.buffer();
        let mut left = u64::from(self.count()) * 2;
        for (first, pages) in std::mem::take(&mut self.doubtful_chains) {
            let (mut next, mut chain) = (first, Vec::new());
            while (chain.len() as u64) < pages && left > 0 && self.is_unclaimed(next) {
                left -= 1;
                let Read::Sound = self.read(next, &mut buffer) else { break };
                chain.push(next);
                next = be32(&buffer, 0).unwrap_or(0);
            }
            if chain.len() as u64 == pages && next == 0 {
                for page in chain {
                    self.set(page, PageKind::Overflow);
                }
            }
        }
        self.give_back(buffer);
    }
}

//! The list of free pages, and the pointer maps.

use super::PageKind;
use super::fixed;
use super::walk::{Read, Walk};
use crate::salvage::image::Pages;
use crate::salvage::page::be32;

impl Walk<'_> {
    /// Walks the list. Unless `sure` that the header is one, nothing is wrong where it leads nowhere.
    pub(super) fn free_pages(&mut self, sure: bool) {
        let mut buffer = self.buffer();
        let (mut from, mut trunk, mut found, mut whole) = (1, self.header.freelist_trunk, 0_u64, true);
        while trunk != 0 {
            let next = self.trunk(from, trunk, &mut found, sure, &mut buffer);
            whole &= next.is_some();
            (from, trunk) = (trunk, next.unwrap_or(0));
        }
        let said = u64::from(self.header.freelist_count);
        if whole && sure && found != said {
            self.accuse(1, || format!("it says that {said} pages are free, and the list of them has {found}"));
        }
        self.give_back(buffer);
    }

    /// One page of the list, with those that it names; the next, `None` if it cannot be believed.
    fn trunk(&mut self, from: u32, trunk: u32, found: &mut u64, sure: bool, buffer: &mut [u8]) -> Option<u32> {
        let wrong = |walk: &mut Self, page: u32, why: String| {
            if sure {
                walk.accuse(page, || why);
            }
        };
        if !self.exists(trunk) {
            wrong(self, from, format!("its list of free pages goes on at page {trunk}, which there is not"));
            return None;
        }
        match self.kind(trunk) {
            Some(PageKind::Orphan) => {}
            Some(PageKind::LockByte | PageKind::PointerMap) => {
                wrong(self, from, format!("its list of free pages goes on at page {trunk}, which is never free"));
                return None;
            }
            _ => {
                wrong(self, trunk, "it is on the list of free pages twice, or free and in use".to_owned());
                return None;
            }
        }
        if let Read::Wrong(why) | Read::Gone(why) = self.read(trunk, buffer) {
            wrong(self, trunk, why);
            return None;
        }
        let leaves = be32(buffer, 4).unwrap_or(0) as usize;
        if leaves > (self.usable / 4).saturating_sub(2) {
            wrong(self, trunk, "it is no page of the list of free pages: it has no room for what it names".to_owned());
            return None;
        }
        self.set(trunk, PageKind::FreeTrunk);
        *found += 1;
        for leaf in (0..leaves).filter_map(|leaf| be32(buffer, 8 + 4 * leaf)) {
            match self.kind(leaf) {
                Some(PageKind::Orphan) => {
                    self.set(leaf, PageKind::FreeLeaf);
                    *found += 1;
                }
                None | Some(PageKind::LockByte | PageKind::PointerMap) => {
                    wrong(self, trunk, format!("it says that page {leaf} is free, which there is not, or never free"));
                }
                Some(_) => wrong(self, leaf, "it is on the list of free pages twice, or free and in use".to_owned()),
            }
        }
        Some(be32(buffer, 0).unwrap_or(0))
    }

    /// Compares the pointer maps with what was found.
    pub(super) fn pointer_maps(&mut self) {
        let (size, usable) = (self.image.page_size(), self.usable);
        let mut buffer = self.buffer();
        let maps: Vec<u32> =
            (1..).zip(&self.kinds).filter(|(_, kind)| **kind == PageKind::PointerMap).map(|m| m.0).collect();
        for map in maps {
            match self.read(map, &mut buffer) {
                Read::Sound => {}
                Read::Wrong(why) | Read::Gone(why) => {
                    self.accuse(map, || why);
                    continue;
                }
            }
            let places = buffer.get(..usable).unwrap_or_default().chunks_exact(5).zip(map.saturating_add(1)..);
            let lie =
                places.take_while(|(_, page)| !fixed::is_pointer_map(*page, size, usable)).find(|(entry, page)| {
                    let kinds: &[u8] = match self.kind(*page) {
                        None
                        | Some(PageKind::Orphan | PageKind::Damaged | PageKind::LockByte | PageKind::PointerMap) => {
                            return false;
                        }
                        Some(PageKind::FreeTrunk | PageKind::FreeLeaf) => &[2],
                        Some(PageKind::Overflow) => &[3, 4],
                        Some(_) if *page == 1 => return false,
                        Some(_) => &[1, 5],
                    };
                    !entry.first().is_some_and(|kind| kinds.contains(kind))
                });
            if let Some((_, page)) = lie {
                self.accuse(map, || format!("it says of page {page} what that is not"));
            }
        }
        self.give_back(buffer);
    }
}

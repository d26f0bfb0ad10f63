//! Pages whose place says what they are, whatever is on them.

/// The page of the bytes that locks are taken on (<https://www.sqlite.org/fileformat2.html#the_lock_byte_page>).
pub(crate) fn lock_byte_page(page_size: usize) -> u32 {
    ((1_u64 << 30) / page_size.max(1) as u64 + 1) as u32
}

/// Whether a page is a pointer map of a database that has those
/// (<https://www.sqlite.org/fileformat2.html#pointer_map_or_ptrmap_pages>).
pub(crate) fn is_pointer_map(number: u32, page_size: usize, usable: usize) -> bool {
    let lock = lock_byte_page(page_size);
    let apart = (usable / 5 + 1) as u32;
    let is_place = |number: u32| number >= 2 && (number - 2) % apart == 0;
    // A map whose place is the page of the lock bytes stands behind it.
    match number == lock {
        true => false,
        false => is_place(number) || (number == lock + 1 && is_place(lock)),
    }
}

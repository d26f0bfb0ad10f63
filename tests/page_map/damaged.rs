//! Damage is shown where it is, and nowhere else.

use super::*;

const PAGE: usize = 1024;

/// Several levels of a table and an index, rows with overflow pages, and free pages; as bytes.
fn sound(pragmas: &str) -> (TempDir, PathBuf, Vec<u8>) {
    let (home, path) = home();
    let connection = Connection::open(&path).unwrap();
    let sql = "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b); CREATE TABLE big(x);
               CREATE TABLE gone(x); BEGIN";
    connection.execute_batch(&format!("PRAGMA page_size = {PAGE}; {pragmas}; {sql}")).unwrap();
    for row in 0..3000 {
        connection
            .execute("INSERT INTO t VALUES (?1, ?2)", (row, format!("{:05} filler", row * 7919 % 10007)))
            .unwrap();
    }
    let sql =
        "INSERT INTO big VALUES (zeroblob(5000)); INSERT INTO gone VALUES (zeroblob(30000)); COMMIT; DROP TABLE gone";
    connection.execute_batch(sql).unwrap();
    drop(connection);
    let bytes = std::fs::read(&path).unwrap();
    assert_as_sqlite_says(&path, "sound");
    (home, path, bytes)
}

fn at(page: u32) -> usize {
    (page as usize - 1) * PAGE
}

#[test]
fn a_page_of_each_kind_that_is_overwritten_is_damaged_and_no_other() {
    let (_home, path, bytes) = sound("");
    let whole = map(&path);
    for kind in [
        PageKind::TableLeaf,
        PageKind::IndexLeaf,
        PageKind::TableInterior,
        PageKind::IndexInterior,
        PageKind::FreeTrunk,
    ] {
        let page = whole.pages(kind).last().unwrap();
        for (fill, why) in [(0_u8, "zeros"), (0xee, "")] {
            if (kind, fill) == (PageKind::FreeTrunk, 0) {
                // An empty end of the list is as good, and its header then counts too many.
                continue;
            }
            let mut changed = bytes.clone();
            changed[at(page)..at(page) + PAGE].fill(fill);
            std::fs::write(&path, changed).unwrap();
            let map = map(&path);
            let found: Vec<u32> = map.pages(PageKind::Damaged).collect();
            assert_eq!(found, [page], "{kind:?} filled with {fill:#x}");
            assert!(map.why(page).unwrap().contains(why), "{:?}", map.why(page));
        }
    }
}

#[test]
fn what_an_interior_page_led_to_is_orphaned_with_it_and_found_again_if_it_can_still_be_read() {
    let (_home, path, mut bytes) = sound("");
    let whole = map(&path);
    let root = whole.pages(PageKind::TableInterior).next().unwrap();
    // One byte that counts fragments: the page is not as SQLite left it, and its pointers are.
    bytes[at(root) + 7] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let seen = map(&path);
    assert_eq!(seen.pages(PageKind::Damaged).collect::<Vec<_>>(), [root]);
    assert_eq!(seen.count(PageKind::Orphan), 0);
    assert_eq!(seen.count(PageKind::TableLeaf), whole.count(PageKind::TableLeaf));
    bytes[at(root)..at(root) + PAGE].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let seen = map(&path);
    assert_eq!(seen.pages(PageKind::Damaged).collect::<Vec<_>>(), [root]);
    assert!(seen.count(PageKind::Orphan) > 50, "{}", seen.count(PageKind::Orphan));
}

#[test]
fn a_flipped_bit_anywhere_in_a_page_with_a_checksum_is_damage() {
    let (home, path) = home();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(20000)); CREATE TABLE u(x)").unwrap();
    connection.execute_batch("INSERT INTO u VALUES (zeroblob(3000))").unwrap();
    drop(connection);
    let done = Command::new(env!("CARGO_BIN_EXE_hardened")).args(["checksum", "on"]).arg(&path).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let stock = Connection::open(home.path().join("app.db")).unwrap();
    stock.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(stock);
    let bytes = std::fs::read(&path).unwrap();
    let whole = map(&path);
    assert_eq!(whole.count(PageKind::Damaged), 0);
    for kind in [PageKind::TableLeaf, PageKind::Overflow] {
        let page = whole.pages(kind).last().unwrap();
        let mut changed = bytes.clone();
        changed[(page as usize - 1) * 4096 + 3333] ^= 4;
        std::fs::write(&path, changed).unwrap();
        let seen = map(&path);
        assert_eq!(seen.pages(PageKind::Damaged).collect::<Vec<_>>(), [page], "{kind:?}");
        assert!(seen.why(page).unwrap().contains("checksum"), "{:?}", seen.why(page));
        assert_eq!(seen.count(PageKind::Orphan), 0);
    }
}

#[test]
fn pages_whose_table_the_schema_has_forgotten_are_orphans() {
    let (_home, path, _) = sound("");
    let connection = Connection::open(&path).unwrap();
    let root = number(&connection, "SELECT rootpage FROM sqlite_schema WHERE name = 'big'") as u32;
    let sql = "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'big'";
    connection.execute_batch(sql).unwrap();
    drop(connection);
    let seen = map(&path);
    let orphans: Vec<u32> = seen.pages(PageKind::Orphan).collect();
    assert!(orphans.contains(&root) && orphans.len() == 5, "its page, and four of overflow: {orphans:?}");
    assert_eq!(seen.count(PageKind::Damaged), 0);
    let connection = Connection::open(&path).unwrap();
    let said: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert!(orphans.iter().all(|page| said.contains(&format!("Page {page}: never used"))), "SQLite agrees: {said}");
}

#[test]
fn a_page_in_two_trees_and_one_that_is_free_and_in_use_are_damaged() {
    let (_home, path, bytes) = sound("");
    let connection = Connection::open(&path).unwrap();
    let (t, big) = (
        "SELECT rootpage FROM sqlite_schema WHERE name = 't'",
        "SELECT rootpage FROM sqlite_schema WHERE name = 'big'",
    );
    let (t, big) = (number(&connection, t) as u32, number(&connection, big) as u32);
    let sql = format!("PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = {t} WHERE name = 'big'");
    connection.execute_batch(&sql).unwrap();
    drop(connection);
    let seen = map(&path);
    assert_eq!(seen.pages(PageKind::Damaged).collect::<Vec<_>>(), [t]);
    assert!(seen.why(t).unwrap().contains("two places"), "{:?}", seen.why(t));
    assert!(seen.pages(PageKind::Orphan).any(|page| page == big));

    let mut changed = bytes.clone();
    std::fs::write(&path, &bytes).unwrap();
    let trunk = map(&path).pages(PageKind::FreeTrunk).next().unwrap();
    changed[at(trunk) + 8..at(trunk) + 12].copy_from_slice(&big.to_be_bytes());
    std::fs::write(&path, changed).unwrap();
    let seen = map(&path);
    assert!(seen.why(big).unwrap().contains("free and in use"), "{:?}", seen.why(big));
    assert_eq!(seen.count(PageKind::Orphan), 1, "the page that the list has lost");
}

#[test]
fn a_chain_of_overflow_pages_that_breaks_off_or_goes_on_is_damaged_there() {
    let (_home, path, bytes) = sound("");
    let chain: Vec<u32> = map(&path).pages(PageKind::Overflow).collect();
    let last = *chain.iter().find(|page| bytes[at(**page)..at(**page) + 4] == [0; 4]).unwrap();
    let middle = *chain.iter().find(|page| **page != last).unwrap();
    for (page, next, why) in
        [(middle, 0_u32, "pages are missing"), (middle, 0x00ff_ffff, "does not have"), (last, middle, "leads on")]
    {
        let mut changed = bytes.clone();
        changed[at(page)..at(page) + 4].copy_from_slice(&next.to_be_bytes());
        std::fs::write(&path, changed).unwrap();
        let seen = map(&path);
        assert_eq!(seen.pages(PageKind::Damaged).collect::<Vec<_>>(), [page]);
        assert!(seen.why(page).unwrap().contains(why), "{:?}", seen.why(page));
    }
}

#[test]
fn a_pointer_map_that_lies_is_damaged() {
    let (_home, path, mut bytes) = sound("PRAGMA auto_vacuum = INCREMENTAL");
    assert_eq!(bytes[at(2)], 1, "page 3 is a root");
    bytes[at(2)] = 4;
    std::fs::write(&path, &bytes).unwrap();
    let seen = map(&path);
    assert_eq!(seen.pages(PageKind::Damaged).collect::<Vec<_>>(), [2]);
    assert!(seen.why(2).unwrap().contains("page 3"), "{:?}", seen.why(2));
}

#[test]
fn pages_behind_the_end_of_the_file_are_damaged_and_one_that_it_ends_in() {
    let (_home, path, mut bytes) = sound("");
    let whole = map(&path);
    let (pages, last) = (whole.kinds().len(), whole.pages(PageKind::IndexLeaf).last().unwrap());
    assert!(whole.pages(PageKind::FreeTrunk).all(|page| page > last), "so that nothing tells which were free");
    bytes.truncate(at(last) + PAGE / 2);
    std::fs::write(&path, &bytes).unwrap();
    let seen = map(&path);
    assert_eq!(seen.kinds().len(), pages);
    assert!(seen.why(last).unwrap().contains("cut off"), "{:?}", seen.why(last));
    assert_eq!(seen.pages(PageKind::Damaged).collect::<Vec<_>>(), (last..=pages as u32).collect::<Vec<_>>());
    // Free pages that were never written are none the less free.
    let trunk = whole.pages(PageKind::FreeTrunk).next().unwrap();
    let (_home, path, mut bytes) = sound("");
    bytes.truncate(at(trunk) + PAGE);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(map(&path).kinds(), whole.kinds());
}

#[test]
fn a_database_without_its_header_keeps_its_map() {
    let (_home, path, mut bytes) = sound("");
    let whole = map(&path);
    bytes[..16].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let error = Connection::open(&path).unwrap().query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::NotADatabase), "SQLite cannot open it");
    let seen = map(&path);
    assert_eq!(seen.pages(PageKind::Damaged).collect::<Vec<_>>(), [1]);
    assert_eq!(seen.kinds()[1..], whole.kinds()[1..]);
    // Nothing of page 1 at all: then nothing leads to the tables.
    bytes[..PAGE].fill(0x55);
    std::fs::write(&path, &bytes).unwrap();
    let seen = map(&path);
    assert_eq!((seen.page_size() as usize, seen.kinds().len()), (PAGE, whole.kinds().len()));
    assert!(seen.kinds()[0] == PageKind::Damaged && seen.count(PageKind::Orphan) > 50, "{seen:?}");
}

#[test]
fn a_header_that_tells_of_four_billion_pages_costs_no_memory() {
    let (_home, path, mut bytes) = sound("");
    bytes[28..32].copy_from_slice(&(u32::MAX - 1).to_be_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let seen = map(&path);
    assert!(seen.kinds().len() < 10_000 && seen.kinds()[0] == PageKind::Damaged, "{}", seen.kinds().len());
}

#[test]
fn no_damage_makes_it_panic_and_an_accused_page_has_a_reason() {
    let rounds: u64 = std::env::var("PAGE_MAP_FUZZ").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(12);
    let dir = support::memory::directory();
    let (original, copy) = (dir.path().join("original"), dir.path().join("copy"));
    for (number, kind) in KINDS.iter().enumerate() {
        for ending in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{ending}", original.display()));
        }
        kind.make(&original);
        let bytes = std::fs::read(&original).unwrap();
        let size = map(&original).page_size() as usize;
        if let Ok(log) = std::fs::read(dir.path().join("original-wal")) {
            std::fs::write(dir.path().join("copy-wal"), log).unwrap();
        }
        for round in 0..rounds * ALL.len() as u64 {
            let (seed, what) = (100_000 * number as u64 + round, ALL[round as usize % ALL.len()]);
            println!("{}, {what:?}, seed {seed}", kind.name);
            let (mut random, mut bytes) = (Random::new(seed), bytes.clone());
            what.apply(&mut bytes, size, &mut random);
            for _ in 0..random.below(40) {
                // Bytes that matter, at random.
                let page = random.below(bytes.len() / size) * size;
                let place = (page + random.below(120)).min(bytes.len() - 1);
                bytes[place] = random.next() as u8;
            }
            std::fs::write(&copy, bytes).unwrap();
            // So that nobody has to wait whether it changes again.
            let file = std::fs::OpenOptions::new().write(true).open(&copy).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
            let Ok(map) = PageMap::read(&copy) else { continue };
            assert!(map.kinds().len() < 1 << 20);
            let told = map.pages(PageKind::Damaged).filter(|page| map.why(*page).is_some()).count();
            assert_eq!(told as u64, map.count(PageKind::Damaged).min(1000));
        }
    }
}

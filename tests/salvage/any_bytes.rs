//! Whatever the bytes are, salvaging comes to an end, without a panic.

use super::*;

/// A small database of each kind, and for each of them many files that were one.
#[test]
fn no_bytes_make_it_panic_or_fail() {
    let rounds: u64 = std::env::var("SALVAGE_FUZZ").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(25);
    let dir = support::memory::directory();
    for (number, kind) in KINDS.iter().enumerate() {
        let (original, copy, to) = (dir.path().join("original"), dir.path().join("copy"), dir.path().join("to"));
        kind.make(&original);
        let (bytes, size) = (std::fs::read(&original).unwrap(), page_size(&original));
        let log = std::fs::read(beside(&original, "-wal")).unwrap_or_default();
        for round in 0..rounds {
            let seed = 100_000 * number as u64 + round;
            println!("{}, seed {seed}", kind.name);
            let mut random = Random::new(seed);
            // A part of it, so that much of it is damaged.
            let start = random.below(bytes.len() / size) * size * usize::from(round % 3 == 0);
            let length = (bytes.len() - start).min(size * (1 + random.below(60)));
            let mut bytes = bytes[start..start + length].to_vec();
            let mut log = log.clone();
            for _ in 0..random.below(200) {
                mutate(&mut bytes, size, &mut random);
            }
            if round % 2 == 0 && !log.is_empty() {
                mutate(&mut log, size, &mut random);
            }
            std::fs::write(&copy, bytes).unwrap();
            std::fs::write(beside(&copy, "-wal"), log).unwrap();
            let salvaged = salvage(&copy, &to);
            assert!(salvaged.pages <= 1 << 20);
            std::fs::remove_file(&to).unwrap();
        }
        for ending in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(beside(&original, ending));
        }
    }
}

/// Numbers that parsers stumble over, where they are read.
fn mutate(bytes: &mut [u8], size: usize, random: &mut Random) {
    let page = random.below(bytes.len() / size) * size;
    let at = match random.below(4) {
        0 => page + random.below(16),
        1 => page + random.below(100),
        2 => random.below(120),
        _ => random.below(bytes.len()),
    };
    let value: &[u8] = match random.below(7) {
        0 => &[0xff],
        1 => &[0],
        2 => &[0xff; 9],
        3 => &[0x80; 9],
        4 => &[0x7f, 0xff, 0xff, 0xff],
        5 => &[[2, 5, 10, 13][random.below(4)]],
        _ => &[random.next() as u8],
    };
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

#[test]
fn files_that_are_no_database_at_all_give_nothing() {
    let dir = support::memory::directory();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let mut random = Random::new(77);
    let noise: Vec<u8> = (0..100_000).map(|_| random.next() as u8).collect();
    for bytes in
        [&[][..], b"S", b"SQLite format 3\0", &[0; 70_000], &[0xff; 10_000], b"hello\n", &noise, &noise[..4095]]
    {
        std::fs::write(&from, bytes).unwrap();
        let salvaged = salvage(&from, &to);
        assert!(salvaged.tables.is_empty(), "{salvaged}");
        std::fs::remove_file(&to).unwrap();
    }
}

#[test]
fn chains_that_lead_in_circles_come_to_an_end() {
    let dir = support::memory::directory();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let connection = Connection::open(&from).unwrap();
    connection
        .execute_batch("PRAGMA page_size = 512; CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(20000))")
        .unwrap();
    drop(connection);
    let mut bytes = std::fs::read(&from).unwrap();
    // The last overflow page leads back to the first of them, and the record is longer than the file.
    let last = bytes.len() - 512;
    bytes[last..last + 4].copy_from_slice(&3_u32.to_be_bytes());
    let cell = 512 + usize::from(u16::from_be_bytes([bytes[520], bytes[521]]));
    bytes[cell..cell + 3].copy_from_slice(&[0xff, 0xff, 0x7f]);
    std::fs::write(&from, bytes).unwrap();
    let salvaged = salvage(&from, &to);
    assert_eq!(salvaged.rows() + salvaged.lost_and_found, 2, "the row, and what is left of its value");
}

//! Rows come out of damaged databases: at least those that SQLite's own `.recover` finds, whatever the damage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use hardened_sqlite::{Salvage, Salvaged};
use rusqlite::Connection;
use support::shell::Shell;

#[path = "salvage/any_bytes.rs"]
mod any_bytes;
#[path = "salvage/content.rs"]
mod content;
#[path = "salvage/corpus.rs"]
mod corpus;
#[path = "salvage/damage.rs"]
mod damage;

use content::Content;
use corpus::{KINDS, Kind};
use damage::{ALL, Damage, Random};

fn salvage(from: &Path, to: &Path) -> Salvaged {
    Salvage::new().run(from, to, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn page_size(path: &Path) -> usize {
    let bytes = std::fs::read(path).unwrap();
    match u16::from_be_bytes([bytes[16], bytes[17]]) {
        1 => 65536,
        size => usize::from(size),
    }
}

/// A copy of a database with its log, damaged.
fn damaged(original: &Path, copy: &Path, damage: Option<(Damage, u64)>) {
    let mut bytes = std::fs::read(original).unwrap();
    if let Some((damage, seed)) = damage {
        damage.apply(&mut bytes, page_size(original), &mut Random::new(seed));
    }
    std::fs::write(copy, bytes).unwrap();
    if let Ok(log) = std::fs::read(beside(original, "-wal")) {
        std::fs::write(beside(copy, "-wal"), log).unwrap();
    }
}

fn integrity(path: &Path) -> String {
    let connection = Connection::open(path).unwrap();
    connection.query_row("PRAGMA integrity_check(3)", [], |row| row.get(0)).unwrap_or_else(|error| error.to_string())
}

#[test]
fn an_intact_database_of_every_kind_comes_out_as_it_was() {
    for kind in KINDS {
        let dir = support::memory::directory();
        let (from, to) = (dir.path().join("from.db"), dir.path().join("to.db"));
        kind.make(&from);
        let salvaged = salvage(&from, &to);
        let (original, saved) = (Content::of(&from), Content::of(&to));
        assert_eq!(saved.tables, original.tables, "{}", kind.name);
        assert_eq!(saved.objects, original.objects, "{}", kind.name);
        // Of these two the list of free pages still has rows.
        if !matches!(kind.name, "free pages" | "autoincrement, views, triggers") {
            assert!(!salvaged.lost_something(), "{}: {salvaged}", kind.name);
        }
        assert_eq!(integrity(&to), "ok", "{}", kind.name);
        let pragmas = |path: &Path| -> Vec<String> {
            let connection = Connection::open(path).unwrap();
            ["encoding", "page_size", "auto_vacuum", "user_version", "application_id"]
                .map(|name| {
                    connection
                        .query_row(&format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}"), [], |row| row.get(0))
                        .unwrap()
                })
                .into()
        };
        assert_eq!(pragmas(&from), pragmas(&to), "{}", kind.name);
    }
}

/// One damage to one database, salvaged by both. What is worse than stock is told.
fn compare(shell: &Shell, kind: &Kind, damage: Damage, seed: u64, totals: &mut Totals) -> Vec<String> {
    let dir = support::memory::directory();
    let path = |name| dir.path().join(name);
    kind.make(&path("original.db"));
    damaged(&path("original.db"), &path("ours.db"), Some((damage, seed)));
    damaged(&path("original.db"), &path("stock.db"), Some((damage, seed)));
    let original = Content::of(&path("original.db"));
    let salvaged = salvage(&path("ours.db"), &path("ours-saved.db"));
    shell.recover(&path("stock.db"), &path("stock-saved.db")).unwrap();
    let (ours, stock) = (Content::of(&path("ours-saved.db")), Content::of(&path("stock-saved.db")));
    let mut worse = Vec::new();
    let place = format!("{}, {damage:?}, seed {seed}", kind.name);
    for (((table, ours), (_, stock)), rows) in
        ours.saved(&original).iter().zip(&stock.saved(&original)).zip(original.tables.values())
    {
        totals.original += rows.values().sum::<usize>();
        totals.ours = (totals.ours.0 + ours.0, totals.ours.1 + ours.1);
        totals.stock = (totals.stock.0 + stock.0, totals.stock.1 + stock.1);
        if ours.1 < stock.1 {
            worse.push(format!("{place}: {table}: {ours:?} rows, stock {stock:?}\n{salvaged}"));
        }
        totals.elsewhere += stock.0.saturating_sub(ours.0);
    }
    totals.all = (totals.all.0 + ours.count(), totals.all.1 + stock.count());
    for object in
        stock.objects.iter().filter(|object| original.objects.contains(object) && !ours.objects.contains(object))
    {
        worse.push(format!("{place}: {object} is missing"));
    }
    let integrity = integrity(&path("ours-saved.db"));
    // The shadow tables of a virtual table may have lost what its index needs.
    if integrity != "ok" && kind.name != "virtual tables" {
        worse.push(format!("{place}: {integrity}"));
    }
    if !worse.is_empty() {
        worse.push(format!("kept in {}", dir.keep().display()));
    }
    worse
}

#[derive(Debug, Default)]
struct Totals {
    original: usize,
    /// In their table, and anywhere.
    ours: (usize, usize),
    stock: (usize, usize),
    /// With rows that never were.
    all: (usize, usize),
    /// Rows that stock has in their table and we in lost_and_found: on a page that says it is one of an index, so that there
    /// is no rowid, which stock then makes up.
    elsewhere: usize,
}

#[test]
fn at_least_as_many_rows_are_saved_as_by_recover_of_the_shell() {
    let Some(shell) = Shell::find() else { return };
    let rounds: u64 = std::env::var("SALVAGE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let mut worse = Vec::new();
    println!("rows of {rounds} rounds: original; saved by us in their table, anywhere; by stock; all rows ours, stock");
    for damage in ALL {
        let mut totals = Totals::default();
        for (number, kind) in KINDS.iter().enumerate() {
            for round in 0..rounds {
                worse.extend(compare(&shell, kind, damage, 1000 * number as u64 + round, &mut totals));
            }
        }
        println!("{damage:?}: {totals:?}");
        assert!(
            totals.ours.0 >= totals.stock.0 && totals.elsewhere * 1000 <= totals.original,
            "{damage:?}: {totals:?}"
        );
    }
    assert!(worse.is_empty(), "{} worse:\n{}", worse.len(), worse.join("\n"));
}

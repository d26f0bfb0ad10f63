//! What a power cut leaves of databases, on disks of every kind, with stock SQLite and through the shim.
//!
//! The table goes to stdout in the form of Markdown: `cargo test --test crash_states -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "crash_states/hardened.rs"]
mod hardened;
#[path = "crash_states/rows.rs"]
mod rows;

use std::time::Instant;

use hardened::Hardened;
use rows::{Column, Row, SEED, column};
use support::crash::workloads::Group;
use support::crash::{Loss, Opener, Stock, Tally};

/// How many distinct states must be judged over all columns.
const STATES: u64 = 200_000;

#[test]
fn what_a_power_cut_leaves_is_what_the_table_says() {
    if std::env::var_os("HARDENED_SKIP_CRASH_STATES").is_some() {
        println!("SKIPPED: HARDENED_SKIP_CRASH_STATES is set");
        return;
    }
    // A column more is a line more here, with what is expected of it below.
    let (on, strict) =
        (Hardened::new("hardened", ""), Hardened::new("guard=strict, combine=off", "guard=strict&combine=off"));
    let openers: [&dyn Opener; 3] = [&Stock, &on, &strict];
    let columns: Vec<Column> = openers.iter().map(|opener| run(*opener)).collect();

    println!("\n| disk | opened by {}", Tally::head());
    println!("|---|---{}|", "|---:".repeat(9));
    for row in columns[0].rows.keys() {
        for (opener, column) in openers.iter().zip(&columns) {
            println!("| {} | {} {}", row.words(), opener.name(), column.row(*row).row());
        }
    }
    let states: u64 = columns.iter().map(|column| column.total().states).sum();
    println!("\n{states} distinct states in all, seed {SEED}\n");
    for (opener, column) in openers.iter().zip(&columns) {
        show_examples(*opener, column);
    }

    assert!(states >= STATES, "{states}");
    stock_loses_where_it_is_known_to_lose(&columns[0]);
    columns[1..].iter().for_each(hardened_keeps_its_promises);
}

fn run(opener: &dyn Opener) -> Column {
    let start = Instant::now();
    let column = column(opener);
    println!("{}: {} distinct states in {:.1?}", opener.name(), column.total().states, start.elapsed());
    column
}

/// Each workload of a row in which something went wrong, with the first such state.
fn show_examples(opener: &dyn Opener, column: &Column) {
    for ((row, workload), tally) in &column.details {
        let honest = matches!(row, Row::Honest(_) | Row::Interrupted);
        let all = std::env::var_os("HARDENED_CRASH_EXAMPLES").is_some();
        if (honest || all || tally.false_alarms > 0) && tally.good < tally.states {
            println!("{}, {}, {workload}: {}", opener.name(), row.words(), tally.row());
            tally.examples.iter().for_each(|example| println!("    {example}"));
        }
    }
}

fn stock_loses_where_it_is_known_to_lose(stock: &Column) {
    let honest = |group| stock.row(Row::Honest(group));
    let full = honest(Group::Full);
    assert_eq!((full.damaged(), full.unreadable), (0, 0), "{:?}", full.examples);
    // Nobody syncs the directory from which the journal was deleted, unless EXTRA asks for it.
    assert!(full.lost > 0);
    for ((row, workload), tally) in &stock.details {
        if *row == Row::Honest(Group::Full) {
            assert!(tally.lost == 0 || workload.starts_with("delete full"), "{workload}: {:?}", tally.examples);
        }
    }
    for row in [Row::Honest(Group::NormalWal), Row::Interrupted] {
        let tally = stock.row(row);
        assert_eq!(tally.good, tally.states, "{}: {:?}", row.words(), tally.examples);
    }
    assert!(honest(Group::Off).corrupt > 0);
    assert!(honest(Group::Off).undetected > 0);
    // The journal comes back, but not what was cut off the database.
    assert!(honest(Group::FullUnordered).damaged() > 0);
    for group in [Group::Full, Group::NormalWal, Group::NormalRollback] {
        let lying = stock.row(Row::Lying(group));
        assert!(lying.lost > 0 && lying.mixed > 0 && lying.corrupt > 0 && lying.undetected > 0, "{lying:?}");
    }
    for loss in [Loss::Drop, Loss::KeepClean, Loss::Revert] {
        let failed = stock.row(Row::FailedSync(loss));
        assert!(failed.lost > 0 && failed.damaged() > 0 && failed.undetected > 0, "{failed:?}");
    }
    let directory = stock.row(Row::Directory);
    assert!(directory.damaged() > 0 && directory.undetected > 0, "{directory:?}");
    assert!(stock.row(Row::Full).good > 0);
    assert_eq!(stock.total().alarms, 0);
}

fn hardened_keeps_its_promises(hardened: &Column) {
    for ((row, workload), tally) in &hardened.details {
        // What a directory did not do a base in memory does not tell; on a real one `failed_syncs` does.
        if let Row::Honest(_) | Row::Interrupted | Row::FailedSync(_) | Row::Full = row {
            assert_eq!(tally.good, tally.states, "{}, {workload}: {:?}", row.words(), tally.examples);
        }
    }
    let lying: u64 = [Group::Full, Group::NormalWal, Group::NormalRollback]
        .map(|group| hardened.row(Row::Lying(group)).alarms)
        .iter()
        .sum();
    assert!(lying > 1000, "{lying} alarms on lying disks");
}

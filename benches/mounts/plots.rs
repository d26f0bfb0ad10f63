//! What is drawn.

use crate::Place;
use crate::svg::{Line, Series, bars, lines};

/// Names of files, and what is in them.
pub(crate) fn all(places: &[Place]) -> Vec<(&'static str, String)> {
    let mounts: Vec<&Place> = places.iter().filter(|place| place.latency.is_some()).collect();
    let latency = |place: &&Place| format!("{} ms", place.latency.unwrap_or_default());
    let local = [("WAL, NORMAL", &places[0]), ("rollback journal, FULL", &places[1])];
    let local = local.map(|(name, place)| series(name.to_owned(), place));
    let network: Vec<Series> = mounts.iter().map(|place| series(latency(place), place)).collect();
    let categories: Vec<String> = mounts.iter().map(latency).collect();
    let rates = |side: &'static str| Line {
        name: side,
        values: mounts.iter().map(|place| place.row("insert a row").of(side, "per_second").unwrap()).collect(),
    };
    let operations: Vec<String> = places[0].rows().iter().map(|row| row.operation().to_owned()).collect();
    let operations: Vec<&str> = operations.iter().map(String::as_str).collect();
    let sentence = "Operations per second of hardened divided by those of stock SQLite; the fine line is from quartile to quartile";
    vec![
        (
            "commits.svg",
            lines(
                "Commits of one row per second on a network mount",
                "Both with a rollback journal and synchronous FULL; logarithmic",
                &categories,
                "how long the server takes to answer a request",
                &[rates("stock"), rates("hardened")],
            ),
        ),
        ("network.svg", bars("Network mounts: hardened against stock", sentence, &operations, &network)),
        ("local.svg", bars("A local disk: hardened against stock", sentence, &operations, &local)),
    ]
}

fn series(name: String, place: &Place) -> Series {
    Series { name, ratios: place.rows().iter().map(|row| row.ratio()).collect() }
}

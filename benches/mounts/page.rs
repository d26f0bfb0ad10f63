//! The tables, and their place in a page that people have written.
//!
//! Invariant: what is between the markers is replaced, and not a byte beside it.

use std::path::Path;

use crate::machine::Begun;
use crate::{Place, Row};

const COMMAND: &str = "cargo bench --bench mounts";

/// What was measured, in Markdown.
pub(crate) fn measured(places: &[Place], begun: &Begun, seconds: &str) -> String {
    let sqlite = places[0].measured["sqlite"].as_str().unwrap();
    let mut text = format!("`{COMMAND}`, {seconds} s a row: {}\n", begun.sentence(sqlite));
    for place in places {
        let (filesystem, policy) = (&place.measured["verdict"]["filesystem"], &place.measured["policy"]);
        let (filesystem, policy) = (filesystem.as_str().unwrap(), policy.as_str().unwrap());
        let rounds = || place.rows().into_iter().filter_map(|row| row.0["rounds"].as_u64());
        let (least, most) = (rounds().min().unwrap_or(0), rounds().max().unwrap_or(0));
        let heading = &place.heading;
        text.push_str(&format!("\n### {heading}\n\n{filesystem}; both {policy}; {least} to {most} rounds.\n\n"));
        text.push_str("| operation | stock, 1/s | hardened, 1/s | ratio | quartiles | ");
        text.push_str("stock: median, p95 | hardened: median, p95 |\n|---|---|---|---|---|---|---|\n");
        for row in place.rows() {
            text.push_str(&line(&row));
        }
    }
    text.trim_end().to_owned()
}

fn line(row: &Row<'_>) -> String {
    let rate = |side| row.of(side, "per_second").map_or("failed".to_owned(), number);
    let times = |side| {
        let (median, p95) = (row.of(side, "median_us"), row.of(side, "p95_us"));
        median.zip(p95).map_or_else(String::new, |(median, p95)| format!("{}, {}", time(median), time(p95)))
    };
    let (ratio, quartiles) = row.ratio().map_or_else(Default::default, |[low, median, high]| {
        (format!("{median:.2}"), format!("{low:.2} to {high:.2}"))
    });
    format!(
        "| {} | {} | {} | {ratio} | {quartiles} | {} | {} |\n",
        row.operation(),
        rate("stock"),
        rate("hardened"),
        times("stock"),
        times("hardened")
    )
}

/// Three digits.
pub(crate) fn number(number: f64) -> String {
    match number {
        1000.0.. => {
            let unit = 10f64.powf(number.log10().floor() - 2.0);
            format!("{:.0}", (number / unit).round() * unit)
        }
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

fn time(micros: f64) -> String {
    if micros >= 1000.0 { format!("{} ms", number(micros / 1e3)) } else { format!("{} µs", number(micros)) }
}

/// Puts each text between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.
pub(crate) fn write(page: &Path, texts: &[(&str, &str)]) {
    let mut all = std::fs::read_to_string(page).unwrap();
    for (name, text) in texts {
        let [begin, end] = ["begin", "end"].map(|which| format!("<!-- {name}: {which} -->\n"));
        let from = all.find(&begin).unwrap_or_else(|| panic!("no {begin}")) + begin.len();
        let to = from + all[from..].find(&end).unwrap_or_else(|| panic!("no {end}"));
        all.replace_range(from..to, &format!("\n{text}\n\n"));
    }
    std::fs::write(page, all).unwrap();
}

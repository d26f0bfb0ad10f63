//! Tells the code where SQLite's own source is, which libsqlite3-sys brings along.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DEP_SQLITE3_INCLUDE");
    let source = std::env::var("DEP_SQLITE3_INCLUDE").unwrap_or_default();
    println!("cargo:rustc-env=SQLITE3_SOURCE={source}");
}

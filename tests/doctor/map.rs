//! The map of pages that doctor draws: on a terminal, as text, as JSON and as a picture.

use super::*;

/// Four kinds of pages and free ones; its map in letters.
fn mapped() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    let stock = Connection::open(&path).unwrap();
    let sql = "CREATE TABLE t(x); CREATE INDEX i ON t(x); CREATE TABLE gone(x); INSERT INTO t VALUES (1);
               INSERT INTO gone VALUES (zeroblob(15000)); INSERT INTO t VALUES (zeroblob(9000)); DROP TABLE gone";
    stock.execute_batch(sql).unwrap();
    (home, path)
}

/// The cells of a text without colours.
fn cells(text: &str) -> String {
    let row =
        |line: &str| Some(line.trim().split_once("  ").filter(|(page, _)| page.parse::<u32>().is_ok())?.1.to_owned());
    text.lines().filter_map(row).collect()
}

fn run(arguments: &[&str], path: &Path) -> Output {
    output(&[arguments.iter().map(Path::new).collect(), vec![path]].concat())
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What it writes to a terminal of so many columns.
fn on_a_terminal(columns: usize, environment: &str, path: &Path) -> String {
    let line = format!("stty cols {columns}; {environment} '{PROGRAM}' doctor '{}'", path.display());
    let output =
        Command::new("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm-256color").output().unwrap();
    assert!(output.status.code().is_some_and(|code| code == 0 || code == 3), "{output:?}");
    String::from_utf8(output.stdout).unwrap().replace('\r', "")
}

fn has_script() -> bool {
    Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success())
        || require::unavailable("script(1)")
}

/// Without the colours, of which there must be an end on each line that has one.
fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    for line in text.lines() {
        assert!(!line.contains('\x1b') || line.contains("\x1b[0m"), "{line:?}");
        let mut rest = line;
        while let Some((before, escape)) = rest.split_once("\x1b[") {
            plain.push_str(before);
            rest = escape.split_once('m').unwrap().1;
        }
        plain.push_str(rest);
        plain.push('\n');
    }
    plain
}

#[test]
fn each_page_is_a_letter_where_there_are_no_colours_and_a_number_in_json() {
    let (home, path) = mapped();
    let seen = doctor(home.path(), &path);
    seen.assert_nothing_found();
    let map = &seen.json["map"];
    let stock = Connection::open(&path).unwrap();
    let number = |sql: &str| stock.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as u64;
    assert_eq!((&map["pages"], &map["page_size"]), (&number("PRAGMA page_count").into(), &4096.into()));
    let counts = &map["counts"];
    let free = counts["free_trunk"].as_u64().unwrap() + counts["free_leaf"].as_u64().unwrap();
    assert_eq!(free, number("PRAGMA freelist_count"));
    assert_eq!((&counts["table_leaf"], &counts["index_leaf"], &counts["overflow"]), (&2.into(), &1.into(), &4.into()));
    assert_eq!(map["damaged"], serde_json::json!({ "total": 0, "pages": [] }));
    assert_eq!(map["orphans"], serde_json::json!({ "total": 0, "pages": [] }));
    assert_eq!(map["unsettled"], Value::Null);
    let cells = cells(&seen.text);
    for (letter, kind) in
        [('t', "table_leaf"), ('i', "index_leaf"), ('o', "overflow"), (',', "free_trunk"), ('.', "free_leaf")]
    {
        assert_eq!(cells.matches(letter).count() as u64, counts[kind].as_u64().unwrap(), "{letter} in {cells}");
    }
    assert_eq!(cells.len() as u64, number("PRAGMA page_count"));
    assert!(
        seen.text.contains("pages of 4096 bytes, a cell is a page\n") && seen.text.contains("\x20o overflow"),
        "{}",
        seen.text
    );
}

#[test]
fn damage_and_orphans_are_marked_told_and_a_problem() {
    let (home, path) = mapped();
    let mut bytes = std::fs::read(&path).unwrap();
    // The root of t, which the overflow pages of its row depend on.
    bytes[4096..8192].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let seen = doctor(home.path(), &path);
    assert_eq!(seen.code, 3);
    seen.assert_found("problem", "1 page is damaged", "hardened recover");
    seen.assert_found("note", "2 pages belong to no table and are not free", "hardened recover");
    let cells = cells(&seen.text);
    assert_eq!((cells.chars().nth(1), cells.matches('!').count(), cells.matches('?').count()), (Some('!'), 1, 2));
    assert!(seen.text.contains("  damaged     page 2: it is all zeros\n"), "{}", seen.text);
    assert!(seen.text.contains("  orphans     pages "), "{}", seen.text);
    let map = &seen.json["map"];
    assert_eq!(map["damaged"], serde_json::json!({ "total": 1, "pages": [{ "page": 2, "why": "it is all zeros" }] }));
    assert_eq!(map["orphans"]["total"], 2);
    assert_eq!(map["orphans"]["pages"].as_array().unwrap().len(), 2);
}

#[test]
fn orphans_alone_are_a_warning_of_lost_space() {
    let (home, path) = mapped();
    let stock = Connection::open(&path).unwrap();
    let sql = "CREATE TABLE lost(x); PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'lost'";
    stock.execute_batch(sql).unwrap();
    drop(stock);
    let seen = doctor(home.path(), &path);
    assert_eq!(seen.code, 1);
    seen.assert_found("warning", "1 page belongs to no table and is not free", "VACUUM gives it back");
}

#[test]
fn what_has_no_pages_has_no_map() {
    let (home, path) = home();
    std::fs::write(home.path().join("empty.db"), "").unwrap();
    std::fs::write(home.path().join("notes.db"), "Dear diary\n".repeat(100)).unwrap();
    for (name, code) in [("", 0), ("new.db", 0), ("empty.db", 0), ("notes.db", 3)] {
        let seen = doctor(home.path(), &home.path().join(name));
        assert_eq!((seen.code, &seen.json["map"]), (code, &Value::Null), "{name}");
        assert!(!seen.text.contains("  map "), "{}", seen.text);
        let file = home.path().join("map.svg");
        let output = run(&["--svg", file.to_str().unwrap()], &home.path().join(name));
        assert_eq!(output.status.code(), Some(3), "{name}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("it has no pages to draw"), "{output:?}");
        assert!(!file.exists());
    }
    let seen = output(&[Path::new("--no-map"), &path]);
    assert!(seen.status.success() && cells(&text(&seen)).is_empty());
}

#[test]
fn a_large_database_is_read_for_its_map_only_if_asked() {
    let (_home, path) = mapped();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len((1 << 30) + 4096).unwrap();
    let seen = text(&output(&[&path]));
    assert!(
        cells(&seen).is_empty() && seen.contains("  map         1024 MiB are to be read for it: --map draws it\n"),
        "{seen}"
    );
    assert_eq!(cells(&text(&run(&["--map"], &path))).len(), 11);
}

#[test]
fn the_text_has_no_colours_and_is_no_wider_than_80_columns() {
    let (home, path) = (tempfile::tempdir().unwrap(), "app.db");
    let path = home.path().join(path);
    let stock = Connection::open(&path).unwrap();
    stock.execute_batch("PRAGMA page_size = 512; CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(4000000))").unwrap();
    let seen = text(&output(&[&path]));
    assert!(!seen.contains('\x1b') && seen.contains(" a cell is 8 pages\n"), "{seen}");
    let map: Vec<&str> = seen.lines().skip_while(|line| !line.starts_with("  map ")).collect();
    assert!(map.iter().all(|line| line.chars().count() <= 80), "{seen}");
    assert!(cells(&seen).len() > 512 && map.len() <= 30, "{seen}");
}

#[test]
fn a_terminal_gets_colours_in_its_width_and_none_with_no_color() {
    if !has_script() {
        return;
    }
    let (_home, path) = mapped();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..8192].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    for columns in [40, 80, 200] {
        let seen = on_a_terminal(columns, "", &path);
        assert!(seen.contains("\x1b[48;5;196;38;5;231m!"), "damage in red: {seen:?}");
        let plain = without_colours(&seen);
        let map = plain.lines().skip_while(|line| !line.starts_with("  map ")).skip(1);
        let map: Vec<&str> = map.take_while(|line| !line.starts_with("  damaged ")).collect();
        assert!(!map.is_empty() && map.iter().all(|line| line.chars().count() <= columns), "{columns}: {plain}");
    }
    for environment in ["NO_COLOR=1", "TERM=dumb"] {
        let seen = on_a_terminal(80, environment, &path);
        assert!(!seen.contains('\x1b') && cells(&seen).starts_with("t!"), "{environment}: {seen:?}");
    }
    assert!(on_a_terminal(80, "NO_COLOR=", &path).contains('\x1b'), "an empty NO_COLOR is none");
}

/// The names of all elements, in order, of text that must be well-formed XML of the plain kind that doctor writes.
fn elements(xml: &str) -> Vec<&str> {
    let (mut found, mut open, mut rest) = (Vec::new(), Vec::new(), xml);
    let is_text = |text: &str| {
        let entities = ["amp;", "lt;", "gt;", "quot;"];
        let sound = text.split('&').skip(1).all(|after| entities.iter().any(|entity| after.starts_with(entity)));
        sound && !text.contains(|c: char| c == '<' || (c < ' ' && c != '\n') || c == '\u{fffe}' || c == '\u{ffff}')
    };
    while let Some((text, tag)) = rest.split_once('<') {
        assert!(is_text(text), "{text:?}");
        assert!(found.is_empty() || !open.is_empty() || text.trim().is_empty(), "text behind the end: {text:?}");
        let (tag, after) = tag.split_once('>').expect("a tag ends");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "in its order");
            continue;
        }
        assert!(found.is_empty() || !open.is_empty(), "one root");
        let (tag, empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, mut attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        while !attributes.trim().is_empty() {
            let (attribute, value) = attributes.trim_start().split_once("=\"").expect("a quoted attribute");
            assert!(attribute.chars().all(|c| c.is_ascii_alphanumeric()), "{attribute:?}");
            let (value, after) = value.split_once('"').expect("an end of it");
            assert!(is_text(value), "{value:?}");
            attributes = after;
        }
        found.push(name);
        if !empty {
            open.push(name);
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest:?}");
    found
}

#[test]
fn the_picture_is_well_formed_xml_with_a_cell_for_each_page() {
    let (home, plain) = mapped();
    let mut bytes = std::fs::read(&plain).unwrap();
    bytes[4096..8192].fill(0);
    let path = home.path().join("we<ird> & \"odd\" \u{1b}[31m ä.db");
    std::fs::write(&path, &bytes).unwrap();
    let file = home.path().join("map.svg");
    let seen = run(&["--svg", file.to_str().unwrap()], &path);
    assert_eq!((seen.status.code(), seen.stderr.as_slice()), (Some(3), &b""[..]), "as without a picture");
    let svg = std::fs::read_to_string(&file).unwrap();
    let all = elements(&svg);
    let pages = bytes.len() / 4096;
    let (cells, legend) = svg.split_once("<g id=\"legend\">").unwrap();
    assert_eq!(cells.matches("<rect class=\"").count(), pages + 1, "and the background");
    assert_eq!(all.iter().filter(|name| **name == "rect").count(), pages + 1 + legend.matches("<rect").count());
    for (class, count) in [("table_leaf", 1), ("index_leaf", 1), ("damaged", 1), ("orphan", 2)] {
        assert_eq!(cells.matches(&format!("<rect class=\"{class}\"")).count(), count, "{class}");
        assert_eq!(legend.matches(&format!("<rect class=\"{class}\"")).count(), 1, "{class}");
    }
    assert!(svg.contains("we&lt;ird&gt; &amp; &quot;odd&quot; \\u{1b}[31m ä.db</title>"), "{svg}");
    assert!(
        svg.contains(&format!("{pages} pages of 4096 bytes")) && svg.contains("page 2: damaged: it is all zeros"),
        "{svg}"
    );
    assert!(
        svg.contains("prefers-color-scheme:dark") && !svg.contains("href") && !svg.contains("url("),
        "self-contained"
    );
}

#[test]
fn no_file_is_overwritten_by_a_picture() {
    let (home, path) = mapped();
    let (file, link) = (home.path().join("map.svg"), home.path().join("link.svg"));
    std::fs::write(&file, "mine").unwrap();
    symlink("nothing.svg", &link).unwrap();
    for existing in [&file, &link, &path] {
        let before = everything(home.path());
        let seen = run(&["--svg", existing.to_str().unwrap()], &path);
        assert_eq!(seen.status.code(), Some(2), "{seen:?}");
        assert!(
            String::from_utf8_lossy(&seen.stderr).contains("it exists already, and is not overwritten"),
            "{seen:?}"
        );
        assert!(seen.stdout.is_empty() && everything(home.path()) == before);
    }
    let nowhere = home.path().join("missing/map.svg");
    let seen = run(&["--svg", nowhere.to_str().unwrap()], &path);
    assert_eq!(seen.status.code(), Some(2), "{seen:?}");
    assert!(String::from_utf8_lossy(&seen.stderr).contains("cannot be written: No such file"), "{seen:?}");
    assert!(text(&seen).contains("  map "), "all else is told");
    let new = home.path().join("new.svg");
    let both = output(&[Path::new("--svg"), &new, &path, &path]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    assert!(!new.exists());
}

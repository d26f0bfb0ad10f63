//! `hardened doctor`: what is this filesystem, what would hardened do there and why, and in what state is the database.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args as ClapArgs;
use hardened_sqlite::VerdictReport;
use serde_json::json;

use crate::examine::{Examination, Finding, Level, examine};
use crate::failure::{Failure, Told};
use crate::map::{self, Style, When};
use crate::record;
use crate::table::printable;

/// The end of the help text.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  nothing to do
  1  at least one warning: it works, but something should be changed
  2  the command line could not be understood, or the file of --svg not be written
  3  at least one problem: a database cannot be opened or trusted";

/// Examines databases and the filesystems they are on, without changing anything.
///
/// A path may name a database, a file that does not exist yet, or a directory. Of a database a map of its pages is drawn, which
/// shows what they are for, which are free, and which are damaged or belong to nothing.
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// Databases or directories
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// One JSON document a path, each on a line of its own
    #[arg(long)]
    json: bool,
    /// Go on with these databases as they are: move the guard's record of each aside, and with it its alarm
    #[arg(long)]
    accept: bool,
    /// Draw the map of pages also if all of a large database has to be read for it
    #[arg(long, conflicts_with = "no_map")]
    map: bool,
    /// Draw no map, and read nothing for it
    #[arg(long)]
    no_map: bool,
    /// Draw the map as a picture too, into this new file
    #[arg(long, value_name = "FILE", conflicts_with = "no_map")]
    svg: Option<PathBuf>,
    /// How long a filesystem may take to answer
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    fs_timeout: u64,
}

impl Args {
    fn when(&self) -> When {
        match (self.map || self.svg.is_some(), self.no_map) {
            (true, _) => When::Always,
            (_, true) => When::Never,
            _ => When::Quick,
        }
    }
}

/// Set for the process that does the looking.
const WORKER: &str = "HARDENED_DOCTOR_WORKER";

/// Begins the worker's last line, which holds the exit code.
const END: &str = "\u{1e}";

/// Examines and prints; the exit code is that of the worst finding.
///
/// A child process does the looking: one that waits for a dead FUSE daemon cannot even be killed, and whoever called the
/// doctor should not wait for it.
pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<ExitCode, Failure> {
    if let Some(file) = &args.svg {
        if args.paths.len() > 1 {
            return Err(Failure::Usage("--svg draws one database: name one path".to_owned()));
        }
        map::refuse_existing(file)?;
    }
    if let Some(style) = std::env::var_os(WORKER) {
        match look(args, Style::parse(&style.to_string_lossy()), out) {
            Ok(code) => writeln!(out, "{END}{code}"),
            Err(failure) => writeln!(out, "{END}{}", json!(failure.told()?)),
        }
        .map_err(Failure::Output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let style = Style::of_stdout();
    match worker(style) {
        Ok(lines) => relay(lines, out),
        // Without a child process the looking is done here.
        Err(_) => look(args, style, out).map(ExitCode::from),
    }
}

/// How the worker ended.
fn heard(end: &str) -> Result<ExitCode, Failure> {
    match serde_json::from_str::<Told>(end) {
        Ok(told) => Err(told.into()),
        Err(_) => Ok(ExitCode::from(end.parse::<u8>().unwrap_or(3))),
    }
}

fn worker(style: Style) -> std::io::Result<BufReader<ChildStdout>> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(WORKER, style.text())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    child.stdout.take().map(BufReader::new).ok_or_else(|| std::io::ErrorKind::BrokenPipe.into())
}

fn relay(lines: BufReader<ChildStdout>, out: &mut impl Write) -> Result<ExitCode, Failure> {
    for line in lines.lines() {
        let line = line.map_err(Failure::Output)?;
        match line.strip_prefix(END) {
            Some(end) => return heard(end),
            None => writeln!(out, "{line}").map_err(Failure::Output)?,
        }
    }
    let message = "the examination ended before it was complete".to_owned();
    Err(Failure::Open { message, hint: None })
}

fn look(args: &Args, style: Style, out: &mut impl Write) -> Result<u8, Failure> {
    let mut worst = Level::Note;
    for (index, path) in args.paths.iter().enumerate() {
        if args.accept {
            match record::accept(path) {
                Ok(text) => writeln!(out, "{}", printable(text.as_bytes())).map_err(Failure::Output)?,
                Err(error) => {
                    let message = format!("{}: the guard's record cannot be moved aside: {error}", path.display());
                    return Err(Failure::Open { message, hint: Some("check the directory's mode and owner".into()) });
                }
            }
        }
        let examination = examine(path, Duration::from_millis(args.fs_timeout), args.when());
        worst = examination.findings.iter().map(|finding| finding.level).fold(worst, Level::max);
        let text = if args.json {
            format!("{}\n", as_json(&examination))
        } else {
            format!("{}{}", if index > 0 { "\n" } else { "" }, as_text(&examination, style))
        };
        out.write_all(text.as_bytes()).map_err(Failure::Output)?;
        match (&args.svg, &examination.map) {
            (Some(file), Some(map)) => map::write_svg(map, path, file)?,
            (Some(file), None) => {
                let message =
                    format!("{}: it has no pages to draw, and {} is not made", path.display(), file.display());
                return Err(Failure::Open { message, hint: None });
            }
            (None, _) => {}
        }
    }
    Ok(match worst {
        Level::Note => 0,
        Level::Warning => 1,
        Level::Problem => 3,
    })
}

fn as_text(examination: &Examination, style: Style) -> String {
    let mut lines = vec![printable(examination.path.as_os_str().as_encoded_bytes())];
    let line = |lines: &mut Vec<String>, name: &str, text: String| {
        lines.push(format!("  {name:<12}{}", printable(text.as_bytes())));
    };
    if let Some(verdict) = &examination.verdict {
        let mut text = format!("{} ({})", verdict.filesystem, verdict.class);
        if let Some(point) = &verdict.mount_point {
            text.push_str(&format!(" at {}", point.display()));
        }
        if let Some(source) = &verdict.source {
            text.push_str(&format!(" from {source}"));
        }
        if !verdict.options.is_empty() {
            text.push_str(&format!(", options {}", verdict.options.join(",")));
        }
        line(&mut lines, "filesystem", text);
        line(&mut lines, "locks", format!("seen by {}", verdict.locks.name()));
    }
    if let Some(outlook) = &examination.outlook {
        line(&mut lines, "hardened", format!("{}: {}", outlook.policy, outlook.reason));
    }
    for (name, text) in &examination.files {
        line(&mut lines, name, text.clone());
    }
    if let Some(space) = examination.free_space {
        line(&mut lines, "free space", format!("{} MiB", space >> 20));
    }
    lines.extend(examination.map.iter().flat_map(|map| map::lines(map, style)));
    for Finding { level, text, hint } in &examination.findings {
        line(&mut lines, level.name(), text.clone());
        if let Some(hint) = hint {
            line(&mut lines, "", format!("-> {hint}"));
        }
    }
    lines.join("\n") + "\n"
}

fn as_json(examination: &Examination) -> serde_json::Value {
    json!({
        "path": examination.path.to_string_lossy(),
        "verdict": examination.verdict.as_ref().map(VerdictReport::from),
        "policy": examination.outlook.as_ref().map(|outlook| &outlook.policy),
        "reason": examination.outlook.as_ref().map(|outlook| &outlook.reason),
        "files": examination.files.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "free_space": examination.free_space,
        "map": examination.map.as_ref().map(map::as_json),
        "findings": examination.findings.iter().map(|finding| json!({
            "level": finding.level.name(),
            "text": finding.text,
            "hint": finding.hint,
        })).collect::<Vec<_>>(),
    })
}

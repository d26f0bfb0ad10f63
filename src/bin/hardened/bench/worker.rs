//! The process that measures, and the one that waits for it.
//!
//! Invariant: however the command ends, by a signal too, the worker hears of it, for it is the only one who holds the other end of
//! its standard input; it is in a process group of its own, which no Ctrl-C reaches, and removes what it has made.

use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hardened_sqlite::{VerdictReport, fs, rusqlite};
use serde::{Deserialize, Serialize};

use super::Args;
use super::measure::{Stopped, measure};
use super::place::Room;
use super::result::Measured;
use super::subject;
use super::workload::WORKLOADS;
use crate::failure::{Failure, Told};
use crate::print::document;
use crate::progress::Bar;

/// Set for the worker.
const WORKER: &str = "HARDENED_BENCH_WORKER";

/// What the worker says, a line each.
#[derive(Serialize, Deserialize)]
enum Message {
    /// Milliseconds, of how many.
    Progress(u64, u64),
    Measured(Box<Measured>),
    Failed(Told),
    End,
}

/// Whether this process is the worker.
pub(crate) fn is_this() -> bool {
    std::env::var_os(WORKER).is_some()
}

/// Has the worker measure, and prints what it says.
pub(crate) fn attend(args: &Args, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let mut listener = Listener { json: args.json, bar: Bar::new(args.json), printed: 0, code: 0, out };
    let Ok(mut child) = start() else {
        // Without a child process the measuring is done here, where nothing removes what a signal leaves.
        directories(args, &AtomicBool::new(false), &mut |message| listener.hear(message))?;
        return Ok(ExitCode::from(listener.code));
    };
    let lines = child.stdout.take().map(BufReader::new).ok_or_else(|| lost("it has no output"))?;
    let heard = relay(lines, &mut listener);
    // It goes on until it hears this, if the output could not be written.
    drop(child.stdin.take());
    child.wait().map_err(|error| lost(&error.to_string()))?;
    heard.map(|()| ExitCode::from(listener.code))
}

fn relay(lines: impl BufRead, listener: &mut Listener<'_, impl Write>) -> Result<(), Failure> {
    for line in lines.lines() {
        let line = line.map_err(|error| lost(&error.to_string()))?;
        match serde_json::from_str(&line).map_err(|error| lost(&error.to_string()))? {
            Message::End => return Ok(()),
            message => listener.hear(message)?,
        }
    }
    Err(lost("it ended early"))
}

/// Prints what it hears.
struct Listener<'a, W> {
    json: bool,
    bar: Bar,
    printed: usize,
    code: u8,
    out: &'a mut W,
}

impl<W: Write> Listener<'_, W> {
    fn hear(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Progress(done, total) => self.bar.at("measuring", done, total),
            Message::Failed(told) => return Err(told.into()),
            Message::End => {}
            Message::Measured(measured) => {
                let (json, first, out) = (self.json, self.printed == 0, &mut *self.out);
                self.bar.hidden(|| match (json, first) {
                    (true, _) => document(&measured, out),
                    (_, true) => measured.print(out).map_err(Failure::Output),
                    _ => writeln!(out).and_then(|()| measured.print(out)).map_err(Failure::Output),
                })?;
                self.out.flush().map_err(Failure::Output)?;
                self.printed += 1;
                self.code |= u8::from(measured.has_failed());
            }
        }
        Ok(())
    }
}

fn start() -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(WORKER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
}

fn lost(cause: &str) -> Failure {
    Failure::Sql { message: format!("the process that measures was lost: {cause}"), hint: None }
}

/// What the worker does.
pub(crate) fn work(args: &Args, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    std::thread::spawn(move || {
        // It ends when nobody is there to write any more.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        seen.store(true, Ordering::Relaxed);
    });
    let last = match directories(args, &stop, &mut |message| say(&message, out)) {
        Ok(()) => Message::End,
        Err(failure) => Message::Failed(failure.told()?),
    };
    say(&last, out)?;
    Ok(ExitCode::SUCCESS)
}

fn say(message: &Message, out: &mut impl Write) -> Result<(), Failure> {
    document(message, out)?;
    out.flush().map_err(Failure::Output)
}

/// Measures all of them. `say` takes what came out, and how far it is.
fn directories(
    args: &Args,
    stop: &AtomicBool,
    say: &mut dyn FnMut(Message) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // All of them before the first is measured: nobody wants to hear it after minutes.
    for directory in &args.directories {
        drop(Room::new(directory, args.seconds)?);
    }
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let each = millis(args.seconds);
    let total = each * (args.directories.len() * WORKLOADS.len()) as u64;
    let mut before = 0;
    for directory in &args.directories {
        let room = Room::new(directory, args.seconds)?;
        let failed = |cause: String| Failure::Sql { message: format!("{}: {cause}", directory.display()), hint: None };
        let verdict = fs::classify(&room.file("hardened.db"), Duration::from_secs(10));
        let verdict = verdict.map_err(|problem| failed(problem.to_string()))?;
        let (subjects, report) = subject::both(&room, args.policy).map_err(failed)?;
        let mut measured = Measured {
            directory: directory.display().to_string(),
            verdict: VerdictReport::from(&verdict),
            filesystem: verdict.to_string(),
            policy: report.policy,
            sqlite: rusqlite::version().to_owned(),
            seconds: args.seconds.as_secs_f64(),
            rows: Vec::new(),
        };
        for workload in &WORKLOADS {
            let mut shown = None;
            let row = measure(workload, &subjects, args.seconds, &mut |over| {
                let done = before + millis(over);
                let percent = done * 100 / total.max(1);
                let gone = shown.replace(percent) != Some(percent) && say(Message::Progress(done, total)).is_err();
                if gone || stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let row = row.map_err(|Stopped| failed("the measurement was stopped".to_owned()))?;
            measured.rows.push(row);
            before += each;
        }
        drop(room);
        say(Message::Measured(Box::new(measured)))?;
    }
    Ok(())
}

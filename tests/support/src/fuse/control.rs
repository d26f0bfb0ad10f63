//! The FUSE server process of this process, started on first use.
//!
//! It is a process of its own because a server must never need anything that its client holds. When a
//! mapped file is unmapped, the kernel writes its dirty pages to the server while it holds the memory
//! map of the client; a server in the same process would wait for that map as soon as it allocates.
//!
//! The server is the same program once more: [`HOOK`] runs before `main` and takes over if the
//! environment says so. It ends when the socket that it has as its standard input is closed, that is
//! when this process ends in whatever way, and unmounts everything first.

use super::server::service;
use super::wire::{Request, Wire, receive, send};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Names the socket to listen on; set only for the server.
const SOCKET_VARIABLE: &str = "HARDENED_TEST_FUSE_SERVER";

/// The way to the server.
#[derive(Debug)]
pub(super) struct Control {
    socket: PathBuf,
    /// The server lives while this is open.
    _lifeline: UnixStream,
}

/// The server, started if need be.
///
/// # Panics
/// If it does not start.
pub(super) fn control() -> &'static Control {
    static CONTROL: OnceLock<Control> = OnceLock::new();
    CONTROL.get_or_init(|| match start() {
        Ok(control) => control,
        Err(error) => panic!("the FUSE server does not start: {error}"),
    })
}

fn start() -> io::Result<Control> {
    if std::env::var_os(SOCKET_VARIABLE).is_some() {
        return Err(io::Error::other("this is the server, but its hook has not run"));
    }
    // Only this user may tell the server what to mount: the directory is closed to others.
    let socket = tempfile::TempDir::with_prefix("hardened-fuse-")?.keep().join("socket");
    let (mut lifeline, theirs) = UnixStream::pair()?;
    Command::new("/proc/self/exe")
        .arg0("hardened-fuse-server")
        // If the hook were missing, a test program would only list its tests.
        .arg("--list")
        .env(SOCKET_VARIABLE, &socket)
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        // Ctrl-C must not kill it before it has unmounted.
        .process_group(0)
        .spawn()?;
    lifeline.read_exact(&mut [0])?;
    Ok(Control { socket, _lifeline: lifeline })
}

impl Control {
    /// Asks and waits for the answer, however long that takes.
    pub(super) fn ask<T: Wire>(&self, request: &Request) -> io::Result<T> {
        let mut stream = UnixStream::connect(&self.socket)?;
        send(&mut stream, &request.to_bytes())?;
        let answer = receive(&mut stream)?;
        io::Result::<T>::get(&mut answer.as_slice())?
    }

    /// The same where only a dead server could fail.
    ///
    /// # Panics
    /// If the server is dead.
    pub(super) fn must<T: Wire>(&self, request: &Request) -> T {
        match self.ask(request) {
            Ok(answer) => answer,
            Err(error) => panic!("the FUSE server on {request:?}: {error}"),
        }
    }
}

extern "C" fn become_server() {
    if let Some(socket) = std::env::var_os(SOCKET_VARIABLE) {
        serve(&socket);
    }
}

fn serve(socket: &OsStr) -> ! {
    let status = match service::run(socket.as_ref()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("FUSE server: {error}");
            1
        }
    };
    // SAFETY: ends the process at once; `main` and exit handlers are the test program's, not ours.
    unsafe { libc::_exit(status) }
}

/// Runs before `main` in every program that mounts with this crate.
#[used]
// SAFETY: entries of .init_array are functions that the C library calls once before `main`; it
// ignores what it passes.
#[unsafe(link_section = ".init_array")]
static HOOK: extern "C" fn() = become_server;

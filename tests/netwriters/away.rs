//! The server of a mount, gone for as long as a test wants.
//!
//! Invariant: it is started again, whatever becomes of the test.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Between stop and start the program runs what it is given: this one tells that the server is gone, and waits for the end
/// of its orders.
const MEANWHILE: [&str; 3] = ["bash", "-c", "echo gone; read -r || true"];

/// As long as this is there, the server is not.
pub(crate) struct Away {
    restart: Child,
    orders: Option<ChildStdin>,
    since: Instant,
}

impl Away {
    /// Stops the server with the program `SERVER_RESTART` of the lab.
    pub(crate) fn new(program: &str) -> Away {
        let mut restart =
            Command::new(program).args(MEANWHILE).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let orders = restart.stdin.take();
        let mut said = String::new();
        BufReader::new(restart.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "gone\n");
        Away { restart, orders, since: Instant::now() }
    }

    /// Starts the server again, and answers how long it was away.
    pub(crate) fn comes_back(mut self) -> Duration {
        drop(self.orders.take());
        let status = self.restart.wait().unwrap();
        assert!(status.success(), "{status}");
        self.since.elapsed()
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _status = self.restart.wait();
    }
}

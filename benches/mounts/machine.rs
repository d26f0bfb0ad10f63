//! On what it was measured.

use std::process::Command;

/// The state of the machine when it began.
pub(crate) struct Begun {
    load: String,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Of the last minute.
fn load() -> String {
    read("/proc/loadavg").split(' ').next().unwrap_or("?").to_owned()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| "?".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Begun {
    pub(crate) fn now() -> Begun {
        Begun { load: load() }
    }

    /// Date, machine, kernel, and how busy it was.
    pub(crate) fn sentence(&self, sqlite: &str) -> String {
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        format!(
            "{}, commit {}, SQLite {sqlite}, {cores} cores of {} ({}), Linux {}, load {} when it began and {} when it ended.",
            said("date", &["-u", "+%Y-%m-%d"]),
            said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]),
            model.map_or("an unknown processor", |(_, model)| model),
            if cpu.contains("hypervisor") { "a virtual machine" } else { "not a virtual machine" },
            read("/proc/sys/kernel/osrelease").trim(),
            self.load,
            load(),
        )
    }
}

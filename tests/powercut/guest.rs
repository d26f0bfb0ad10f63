//! A guest whose power is cut: the emulator of the network lab, with disks whose writes are logged, ended by SIGKILL.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::log_writes::Disk;
use support::{mounts, process};

use crate::disks::{FILESYSTEM, KINDS, Kind, SIZE};
use crate::workload::Rng;

/// A disk after the power cut.
pub(crate) struct Remains {
    pub(crate) kind: &'static Kind,
    /// What it held before the boot.
    pub(crate) initial: Disk,
    /// What it holds now, nothing lost.
    pub(crate) image: PathBuf,
    pub(crate) log: PathBuf,
    /// The last commit that the console told of.
    pub(crate) heard: u32,
}

fn new_disk(directory: &Path, kind: &'static Kind) -> Remains {
    let image = directory.join(format!("{}.img", kind.name));
    File::create(&image).unwrap().set_len(SIZE).unwrap();
    mounts::format(kind.filesystem(), &image, FILESYSTEM).unwrap();
    let log = directory.join(format!("{}.log", kind.name));
    // The driver does not let it grow. Sparse, of course.
    File::create(&log).unwrap().set_len(4 << 30).unwrap();
    Remains { kind, initial: Disk::read(&image).unwrap(), image, log, heard: 0 }
}

/// What the emulator needs to have the disk.
fn emulated((number, disk): (usize, &Remains)) -> [String; 8] {
    let name = disk.kind.name;
    let file = |node: &str, path: &Path| format!("driver=file,node-name={node}-{name},filename={}", path.display());
    let logged =
        format!("driver=blklogwrites,node-name={name},file=file-{name},log=log-{name},log-super-update-interval=1");
    let blockdev = || "-blockdev".to_owned();
    [
        blockdev(),
        file("file", &disk.image),
        blockdev(),
        file("log", &disk.log),
        blockdev(),
        logged,
        "-device".to_owned(),
        // Behind those of the guest itself, which knows its disks by their order.
        format!("virtio-blk-pci,drive={name},serial={name},addr={:#x}", 0x10 + number),
    ]
}

/// Boots a guest with all kinds of disks, in `directory`, and cuts its power when the writers are under way. `test` is
/// the name of the test that calls [`crate::disks::is_writer`] first.
pub(crate) fn cut(directory: &Path, test: &str, seed: u64, rng: &mut Rng) -> Vec<Remains> {
    let mut disks: Vec<Remains> = KINDS.iter().map(|kind| new_disk(directory, kind)).collect();
    std::fs::write(directory.join("seed"), seed.to_string()).unwrap();
    std::fs::write(directory.join("test"), test).unwrap();
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/netlab");
    let (pid, errors) = (directory.join("pid"), directory.join("errors"));
    let mut run = Command::new(lab.join("run"));
    for file in [process::copy_of_this_program(directory, "writer"), directory.join("seed"), directory.join("test")] {
        run.arg("-f").arg(file);
    }
    let pidfile = ["-pidfile".to_owned(), pid.display().to_string()];
    for option in disks.iter().enumerate().flat_map(emulated).chain(pidfile) {
        run.args(["-o", &option]);
    }
    run.arg(lab.join("power-cut")).arg("tmpfs").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = run.stderr(File::create(&errors).unwrap()).spawn().unwrap();

    let (mut said, mut alive) = (String::new(), true);
    let mut heard: BTreeMap<String, u32> = BTreeMap::new();
    // So many commits in all, and some of everybody.
    let (total, each) = (400 + rng.below(400), 20);
    for line in BufReader::new(running.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let commit = line.strip_prefix("commit ").and_then(|commit| commit.split_once(' '));
        match commit.and_then(|(name, seq)| Some((name, seq.parse().ok()?))) {
            Some((name, seq)) => heard.insert(name.to_owned(), seq),
            None => {
                said.push_str(&line);
                said.push('\n');
                continue;
            }
        };
        let enough = heard.len() == KINDS.len() && heard.values().all(|seq| *seq >= each);
        if alive && enough && heard.values().sum::<u32>() >= total {
            for _ in 0..rng.below(3_000_000) {
                std::hint::spin_loop();
            }
            let pid = std::fs::read_to_string(&pid).unwrap().trim().parse().ok().and_then(Pid::from_raw);
            kill_process(pid.unwrap(), Signal::KILL).unwrap();
            alive = false;
        }
    }
    let _it_complains_that_the_guest_did_not_finish = running.wait().unwrap();
    let errors = std::fs::read_to_string(errors).unwrap();
    assert!(!alive, "the guest ended too early, after {heard:?}\n{said}{errors}");
    for disk in &mut disks {
        disk.heard = heard[disk.kind.name];
    }
    disks
}

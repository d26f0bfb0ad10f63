//! What SQLite's recovery would find in a write-ahead log.
//!
//! Invariant: a frame is accepted if and only if recovery accepts it, so [`Scan::committed_frames`] is the number
//! of frames that it recovers and [`Scan::page_count`] the size of the database they describe. The log is
//! read once, in order, with one frame in memory.

use super::super::be32;
use super::{Checksum, FRAME_HEADER_SIZE, HEADER_SIZE, Header, HeaderError};
use std::fmt;
use std::io::{self, Read};

/// What [`scan`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scan {
    /// The header; `None` if it is not valid, in which case `end` says why and all counts are zero.
    pub header: Option<Header>,
    /// Frames that follow one another with the salts of the header and the right checksums.
    pub valid_frames: u64,
    /// Transactions among them, each ended by a frame that says how large the database is then.
    pub commits: u64,
    /// Frames up to and including the last commit: those that recovery keeps.
    pub committed_frames: u64,
    /// Size of the database in pages after the last commit; `None` without one.
    pub page_count: Option<u32>,
    /// Why the scan ended.
    pub end: End,
    /// Whole frames from the first that is not valid on that carry the salts of the header: what a torn write
    /// or damage in the middle of the log cuts off from recovery.
    pub unreachable_frames: u64,
    /// Those among the unreachable frames that are marked as commits. More than none means that damage may
    /// have hidden transactions that had been reported as committed, or that a commit failed while the log
    /// was being written.
    pub unreachable_commits: u64,
}

/// Why [`scan`] found no further valid frame. SQLite's recovery ends at the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The file ends with the last valid frame.
    EndOfFile,
    /// The frame has other salts: it was left by an older generation of the log, which a reset after a
    /// checkpoint overwrites from the start (section 4.4).
    OlderGeneration {
        /// The salts of the frame.
        salts: [u32; 2],
    },
    /// The frame has the salts of the header and its page number is zero.
    NoPageNumber,
    /// The frame has the salts of the header and its checksum is wrong: a torn write, damage, or a frame of an
    /// open transaction, which SQLite may write again in place and whose checksum it mends at the commit.
    ChecksumMismatch,
    /// The file ends within the frame.
    TruncatedFrame {
        /// How many bytes of the frame there are.
        have: usize,
    },
    /// The header is not valid.
    BadHeader(HeaderError),
}

impl Scan {
    /// Frames after the last commit: SQLite ignores them and writes over them.
    #[must_use]
    pub fn uncommitted_frames(&self) -> u64 {
        self.valid_frames - self.committed_frames
    }

    fn count_unreachable(&mut self, frame: &Frame, header: &Header) {
        if frame.salts == header.salts {
            self.unreachable_frames += 1;
            self.unreachable_commits += u64::from(frame.commit_size != 0);
        }
    }

    fn of_no_frames(header: Option<Header>, end: End) -> Scan {
        Scan {
            header,
            valid_frames: 0,
            commits: 0,
            committed_frames: 0,
            page_count: None,
            end,
            unreachable_frames: 0,
            unreachable_commits: 0,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::EndOfFile => f.write_str("the end of the file"),
            End::OlderGeneration { salts: [0, 0] } => f.write_str("a frame that was never written"),
            End::OlderGeneration { .. } => f.write_str("a frame left by an older generation of the log"),
            End::NoPageNumber => f.write_str("a frame without a page number"),
            End::ChecksumMismatch => f.write_str("a frame that does not match its checksum"),
            End::TruncatedFrame { have } => {
                write!(f, "the end of the file, {have} bytes into a frame")
            }
            End::BadHeader(error) => error.fmt(f),
        }
    }
}

/// Reads a write-ahead log from its start to its end and verifies every frame that SQLite would.
///
/// The log may be growing while it is read; a frame that is being written then looks like a torn one.
///
/// ```
/// use hardened_vfs::format::wal::{End, HeaderError, scan};
///
/// let empty = scan(std::io::empty())?;
/// assert_eq!(empty.committed_frames, 0);
/// assert_eq!(empty.end, End::BadHeader(HeaderError::Truncated { have: 0 }));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// What `log` answers to a read. Whatever it contains is no error.
pub fn scan(log: impl Read) -> io::Result<Scan> {
    scan_frames(log, |_| ())
}

/// A frame that recovery accepts, as [`scan_frames`] shows it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ValidFrame<'a> {
    /// The number of the page it holds.
    pub page_number: u32,
    /// Size of the database in pages if the frame ends a transaction, otherwise 0.
    pub commit_size: u32,
    /// The page.
    pub page: &'a [u8],
}

/// [`scan`], and shows each valid frame on the way. Those after the last commit are among them.
///
/// # Errors
///
/// As [`scan`].
pub fn scan_frames(mut log: impl Read, mut each: impl FnMut(ValidFrame<'_>)) -> io::Result<Scan> {
    let mut start = [0u8; HEADER_SIZE];
    let have = read_full(&mut log, &mut start)?;
    let header = match Header::parse(start.get(..have).unwrap_or(&start)) {
        Ok(header) => header,
        Err(error) => return Ok(Scan::of_no_frames(None, End::BadHeader(error))),
    };
    let mut scan = Scan::of_no_frames(Some(header), End::EndOfFile);
    let mut running = header.checksum;
    let mut frame_header = [0u8; FRAME_HEADER_SIZE];
    let mut page = vec![0u8; header.page_size as usize];
    loop {
        let (have, frame) = read_frame(&mut log, &mut frame_header, &mut page)?;
        let Some(frame) = frame else {
            if have > 0 {
                scan.end = End::TruncatedFrame { have };
            }
            return Ok(scan);
        };
        if let Err(end) = frame.verify(&header, &mut running, &page) {
            scan.end = end;
            scan.count_unreachable(&frame, &header);
            break;
        }
        scan.valid_frames += 1;
        each(ValidFrame { page_number: frame.page_number, commit_size: frame.commit_size, page: &page });
        if frame.commit_size != 0 {
            scan.commits += 1;
            scan.committed_frames = scan.valid_frames;
            scan.page_count = Some(frame.commit_size);
        }
    }
    while let (_, Some(frame)) = read_frame(&mut log, &mut frame_header, &mut page)? {
        scan.count_unreachable(&frame, &header);
    }
    Ok(scan)
}

/// The header of a frame (section 4.1).
struct Frame {
    page_number: u32,
    /// Size of the database in pages if the frame ends a transaction, otherwise 0.
    commit_size: u32,
    salts: [u32; 2],
    checksum: Checksum,
    /// The first eight bytes, which the checksum covers.
    covered: [u8; 8],
}

impl Frame {
    /// Accepts the frame that follows the bytes summed up in `running`, or says why not. The checks and
    /// their order are those of recovery.
    fn verify(&self, header: &Header, running: &mut Checksum, page: &[u8]) -> Result<(), End> {
        if self.salts != header.salts {
            return Err(End::OlderGeneration { salts: self.salts });
        }
        if self.page_number == 0 {
            return Err(End::NoPageNumber);
        }
        *running = running.over(&self.covered, header.order).over(page, header.order);
        if *running == self.checksum { Ok(()) } else { Err(End::ChecksumMismatch) }
    }
}

/// Reads one frame: how many bytes there were, and the frame if it is whole.
fn read_frame(
    log: &mut impl Read,
    header: &mut [u8; FRAME_HEADER_SIZE],
    page: &mut [u8],
) -> io::Result<(usize, Option<Frame>)> {
    let mut have = read_full(log, header)?;
    if have == header.len() {
        have += read_full(log, page)?;
    }
    if have < header.len() + page.len() {
        return Ok((have, None));
    }
    let [a, b, c, d, e, f, g, h, ..] = *header;
    let frame = Frame {
        page_number: be32::<0, FRAME_HEADER_SIZE>(header),
        commit_size: be32::<4, FRAME_HEADER_SIZE>(header),
        salts: [be32::<8, FRAME_HEADER_SIZE>(header), be32::<12, FRAME_HEADER_SIZE>(header)],
        checksum: Checksum(be32::<16, FRAME_HEADER_SIZE>(header), be32::<20, FRAME_HEADER_SIZE>(header)),
        covered: [a, b, c, d, e, f, g, h],
    };
    Ok((have, Some(frame)))
}

/// Fills `buffer` as far as the file goes; unlike `read_exact` it tells how far that was.
fn read_full(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match log.read(rest) {
            Ok(0) => break,
            // A reader that claims more than it was given room for is cut to size.
            Ok(n) => have += n.min(rest.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

//! What the test process and its FUSE server say to each other, over a Unix socket.
//!
//! A frame is a length and that many bytes; a request and an answer are one frame each. Both ends are
//! the same program, so there are no versions.

use super::counters::{Counters, Op};
use super::fault::{Fault, What};
use super::hold::Hold;
use super::options::Options;
use crate::rule::Times;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

/// What is left of a frame.
pub(super) type Input<'a> = &'a [u8];

/// Something that can be said.
pub(super) trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(input: &mut Input<'_>) -> io::Result<Self>;

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "garbled message of the FUSE server")
}

pub(super) fn send(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| garbled())?;
    to.write_all(&[&length.to_le_bytes(), bytes].concat())
}

pub(super) fn receive(mut from: impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

impl Wire for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn get(input: &mut Input<'_>) -> io::Result<Self> {
        let (number, rest) = input.split_first_chunk().ok_or_else(garbled)?;
        *input = rest;
        Ok(u64::from_le_bytes(*number))
    }
}

/// A type that is said as another.
macro_rules! said_as {
    ($type:ty, $other:ty, |$out:ident| $there:expr, |$in:ident| $back:expr) => {
        impl Wire for $type {
            fn put(&self, to: &mut Vec<u8>) {
                let $out = self;
                <$other as Wire>::put(&$there, to);
            }

            fn get(input: &mut Input<'_>) -> io::Result<Self> {
                let $in = <$other as Wire>::get(input)?;
                Ok($back)
            }
        }
    };
}

said_as!((), u64, |_nothing| 0, |_zero| ());
said_as!(bool, u64, |on| u64::from(*on), |on| on != 0);
said_as!(usize, u64, |n| *n as u64, |n| n as usize);
said_as!(i32, u64, |n| *n as u64, |n| n as i32);
said_as!(Duration, u64, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), |nanos| {
    Duration::from_nanos(nanos)
});
said_as!(PathBuf, Vec<u8>, |path| path.as_os_str().as_bytes().to_vec(), |bytes| OsString::from_vec(bytes).into());
said_as!(String, Vec<u8>, |text| text.clone().into_bytes(), |bytes| {
    String::from_utf8(bytes).map_err(|_| garbled())?
});
said_as!(Op, String, |op| op.name().to_owned(), |name| {
    *Op::ALL.iter().find(|op| op.name() == name).ok_or_else(garbled)?
});
said_as!(
    Times,
    Option<u64>,
    |times| match times {
        Times::N(n) => Some(*n),
        Times::Forever => None,
    },
    |n| n.map_or(Times::Forever, Times::N)
);
said_as!(
    What,
    (u64, u64),
    |what| match *what {
        What::Errno(number) => (0, number as u64),
        What::Enospc => (1, 0),
        What::DropWrite => (2, 0),
        What::TearWrite { keep_sectors } => (3, keep_sectors as u64),
        What::ShortWrite(bytes) => (4, bytes as u64),
        What::GrantLock => (5, 0),
    },
    |said| match said {
        (0, number) => What::Errno(number as i32),
        (1, _) => What::Enospc,
        (2, _) => What::DropWrite,
        (3, sectors) => What::TearWrite { keep_sectors: sectors as usize },
        (4, bytes) => What::ShortWrite(bytes as usize),
        (5, _) => What::GrantLock,
        _ => return Err(garbled()),
    }
);
said_as!(
    Hold,
    (Option<Op>, Option<String>),
    |hold| match hold {
        Hold::All => (None, None),
        Hold::Op(op) => (Some(*op), None),
        Hold::Named(op, name) => (Some(*op), Some(name.clone())),
    },
    |said| match said {
        (None, _) => Hold::All,
        (Some(op), None) => Hold::Op(op),
        (Some(op), Some(name)) => Hold::Named(op, name),
    }
);
said_as!(Counters, Vec<(Op, u64)>, |counters| counters.iter().collect(), |list| list.into_iter().collect());

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn get(input: &mut Input<'_>) -> io::Result<Self> {
        Ok((A::get(input)?, B::get(input)?))
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn get(input: &mut Input<'_>) -> io::Result<Self> {
        Ok(if bool::get(input)? { Some(T::get(input)?) } else { None })
    }
}

impl Wire for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn get(input: &mut Input<'_>) -> io::Result<Self> {
        let (byte, rest) = input.split_first().ok_or_else(garbled)?;
        *input = rest;
        Ok(*byte)
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        for item in self {
            item.put(out);
        }
    }

    fn get(input: &mut Input<'_>) -> io::Result<Self> {
        (0..usize::get(input)?).map(|_| T::get(input)).collect()
    }
}

/// An answer, or the error instead.
impl<T: Wire> Wire for io::Result<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_ok().put(out);
        match self {
            Ok(value) => value.put(out),
            Err(error) => (error.raw_os_error(), error.to_string()).put(out),
        }
    }

    fn get(input: &mut Input<'_>) -> io::Result<Self> {
        if bool::get(input)? {
            return T::get(input).map(Ok);
        }
        let (number, text): (Option<i32>, String) = Wire::get(input)?;
        Ok(Err(match number {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::other(text),
        }))
    }
}

macro_rules! wire_struct {
    ($type:ident { $($field:ident),* }) => {
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }

            fn get(input: &mut Input<'_>) -> io::Result<Self> {
                Ok($type { $($field: Wire::get(input)?),* })
            }
        }
    };
}

wire_struct!(Fault { on, name, skip, times, what });
wire_struct!(Options {
    backing,
    subtype,
    source,
    cache,
    direct_io,
    auto_invalidate,
    latency,
    locks,
    read_only,
    allow_other,
    threads
});

macro_rules! requests {
    ($($variant:ident { $($field:ident: $type:ty),* },)*) => {
        /// What the test process asks for. Mounts, holds and faults go by the numbers that the server
        /// has given them; a lock table by the number that the test process has.
        #[derive(Debug)]
        pub(super) enum Request { $($variant { $($field: $type),* },)* }

        impl Wire for Request {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Request::$variant { $($field),* } => {
                        stringify!($variant).to_owned().put(out);
                        $($field.put(out);)*
                    })*
                }
            }

            fn get(input: &mut Input<'_>) -> io::Result<Self> {
                match String::get(input)?.as_str() {
                    $(stringify!($variant) => {
                        Ok(Request::$variant { $($field: Wire::get(input)?),* })
                    })*
                    _ => Err(garbled()),
                }
            }
        }
    };
}

requests! {
    Mount { options: Options, at: PathBuf },
    Unmount { mount: u64 },
    Counters { mount: u64 },
    WaitCounted { mount: u64, op: Op, n: u64, timeout: Duration },
    SetLatency { mount: u64, latency: Duration },
    AddFault { mount: u64, fault: Fault },
    ClearFaults { mount: u64 },
    Struck { fault: u64 },
    AddHold { mount: u64, hold: Hold },
    Release { mount: u64, hold: u64 },
    Held { mount: u64 },
    WaitHeld { mount: u64, n: usize, timeout: Duration },
    Locked { table: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard() {
        let whats =
            [What::Errno(-5), What::Enospc, What::DropWrite, What::TearWrite { keep_sectors: 3 }, What::ShortWrite(9)];
        for what in whats {
            let fault = Fault::on(Op::Write).name("-wal").skip(1).times(2).what(what);
            let said = Request::AddFault { mount: 7, fault: fault.clone() }.to_bytes();
            match Request::get(&mut said.as_slice()).expect("well-formed") {
                Request::AddFault { mount: 7, fault: heard } => assert_eq!(heard, fault),
                other => panic!("{other:?}"),
            }
            let cut = Request::get(&mut &said[..said.len() - 1]).expect_err("cut short");
            assert_eq!(cut.kind(), io::ErrorKind::InvalidData);
        }
        for hold in [Hold::All, Hold::Op(Op::Read), Hold::Named(Op::Fsync, ".db".into())] {
            assert_eq!(Hold::get(&mut hold.to_bytes().as_slice()).expect("well-formed"), hold);
        }
        let error: io::Result<u64> = Err(io::Error::from_raw_os_error(libc::ENOSPC));
        let heard = io::Result::<u64>::get(&mut error.to_bytes().as_slice()).expect("well-formed");
        assert_eq!(heard.expect_err("an error").raw_os_error(), Some(libc::ENOSPC));
    }
}

//! Records: how SQLite stores the values of a row
//! ([file format](https://www.sqlite.org/fileformat2.html#record_format), section 2.1).
//!
//! Invariant: any bytes decode to some fields, and none of them reaches beyond the bytes that there are.

/// More fields no record has: the largest number of columns that SQLite can be built for.
pub(crate) const MOST_FIELDS: usize = 32_767;

/// The variable-length integer at the start of `bytes`, and how long it is. Bytes that are missing count as zeros.
pub(crate) fn varint(bytes: &[u8]) -> (u64, usize) {
    let mut value = 0_u64;
    for at in 0..8 {
        let byte = bytes.get(at).copied().unwrap_or(0);
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return (value, at + 1);
        }
    }
    ((value << 8) | u64::from(bytes.get(8).copied().unwrap_or(0)), 9)
}

/// One value, in the bytes of its record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Integer(i64),
    Real(f64),
    /// In the encoding of the database, valid or not.
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

/// Where a field is and what it is.
#[derive(Clone, Copy, Debug)]
struct Field {
    serial: u64,
    start: usize,
    /// Its bytes are all there.
    whole: bool,
}

/// The fields of a record, used again for one record after the other.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    fields: Vec<Field>,
}

fn length(serial: u64) -> u64 {
    match serial {
        0 | 8..=11 => 0,
        1..=4 => serial,
        5 => 6,
        6 | 7 => 8,
        _ => (serial - 12) / 2,
    }
}

impl Fields {
    /// Finds the fields of `record`, and says whether it is whole: the header ends where it should, and what it tells of is
    /// there. A field that is cut off is NULL.
    pub(crate) fn find(&mut self, record: &[u8]) -> bool {
        self.fields.clear();
        let (declared, mut at) = varint(record);
        let header = match usize::try_from(declared) {
            Ok(header) if header <= record.len() => header,
            _ => return false,
        };
        let mut body = header;
        let mut whole = header >= at;
        while at < header && self.fields.len() < MOST_FIELDS {
            let (serial, size) = varint(record.get(at..).unwrap_or(&[]));
            // No value is that long; SQLite reads such a type as NULL.
            let serial = if serial > u64::from(u32::MAX) { 0 } else { serial };
            at += size;
            let end = usize::try_from(length(serial)).ok().and_then(|length| body.checked_add(length));
            match end.filter(|end| *end <= record.len()) {
                Some(end) => {
                    self.fields.push(Field { serial, start: body, whole: true });
                    body = end;
                }
                None => {
                    self.fields.push(Field { serial, start: body, whole: false });
                    body = record.len();
                    whole = false;
                }
            }
        }
        whole && at == header
    }

    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// The field `index` of `record`, the one whose fields were found last. NULL if there is none.
    pub(crate) fn value<'a>(&self, record: &'a [u8], index: usize) -> Value<'a> {
        match self.fields.get(index) {
            Some(field) if field.whole => read(field.serial, record.get(field.start..).unwrap_or(&[])),
            _ => Value::Null,
        }
    }

    /// The same, and of a text or blob that is cut off what there is, as a blob.
    pub(crate) fn remains<'a>(&self, record: &'a [u8], index: usize) -> Value<'a> {
        match self.fields.get(index) {
            Some(field) if !field.whole && field.serial >= 12 => match record.get(field.start..) {
                Some(rest) if !rest.is_empty() => Value::Blob(rest),
                _ => Value::Null,
            },
            _ => self.value(record, index),
        }
    }

    /// Whether no field is cut off.
    pub(crate) fn all_there(&self) -> bool {
        self.fields.iter().all(|field| field.whole)
    }

    /// Whether the field is NULL in a record of an intact database.
    pub(crate) fn is_null(&self, index: usize) -> bool {
        self.fields.get(index).is_none_or(|field| field.serial == 0)
    }
}

fn read(serial: u64, from: &[u8]) -> Value<'_> {
    let bytes = usize::try_from(length(serial)).ok().and_then(|length| from.get(..length)).unwrap_or(&[]);
    match serial {
        1..=6 => Value::Integer(integer(bytes)),
        7 => Value::Real(f64::from_bits(integer(bytes) as u64)),
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        12.. if serial % 2 == 0 => Value::Blob(bytes),
        12.. => Value::Text(bytes),
        _ => Value::Null,
    }
}

/// Big-endian two's complement of up to eight bytes.
fn integer(bytes: &[u8]) -> i64 {
    let sign = bytes.first().map_or(0, |first| if first & 0x80 == 0 { 0 } else { -1_i64 });
    bytes.iter().fold(sign, |value, byte| (value << 8) | i64::from(*byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_all_lengths_keep_their_sign() {
        assert_eq!(read(1, &[0xff]), Value::Integer(-1));
        assert_eq!(read(2, &[0x80, 0]), Value::Integer(-32768));
        assert_eq!(read(3, &[0, 1, 0]), Value::Integer(256));
        assert_eq!(read(5, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Value::Integer(-2));
        assert_eq!(read(6, &i64::MIN.to_be_bytes()), Value::Integer(i64::MIN));
        assert_eq!(read(7, &1.5_f64.to_bits().to_be_bytes()), Value::Real(1.5));
    }

    #[test]
    fn a_varint_of_nine_bytes_uses_all_bits_of_the_last() {
        assert_eq!(varint(&[0xff; 9]), (u64::MAX, 9));
        assert_eq!(varint(&[0x81, 0x00]), (128, 2));
        assert_eq!(varint(&[0x81]), (128, 2), "what is missing is zero");
    }

    #[test]
    fn a_field_that_is_cut_off_is_null_and_its_remains_are_a_blob() {
        // Header of 3 bytes: an integer of one byte and a text of five, of which two are there.
        let record = [3, 1, 23, 7, b'a', b'b'];
        let mut fields = Fields::default();
        assert!(!fields.find(&record));
        assert_eq!(fields.len(), 2);
        assert_eq!(fields.value(&record, 0), Value::Integer(7));
        assert_eq!(fields.value(&record, 1), Value::Null);
        assert_eq!(fields.remains(&record, 1), Value::Blob(b"ab"));
    }

    #[test]
    fn a_header_larger_than_the_record_has_no_fields() {
        let mut fields = Fields::default();
        assert!(!fields.find(&[9, 1, 1]));
        assert_eq!(fields.len(), 0);
    }
}

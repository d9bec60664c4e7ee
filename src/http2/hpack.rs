//! The part of HPACK (RFC 7541) that is needed to recognize pseudo-header fields in a block. Values are not decoded.
//! The dynamic table is kept as sizes and kinds, which decide the entry that an index refers to.

use std::collections::VecDeque;

/// The default of SETTINGS_HEADER_TABLE_SIZE (RFC 9113 6.5.2) in bytes, which neither side changes.
const MAX_TABLE: usize = 4096;
/// Bytes that an entry takes beside its text (RFC 7541 4.1).
const OVERHEAD: usize = 32;
/// Lengths of the names in the static table (RFC 7541 Appendix A), from index 1.
const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13,
    12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3,
    16,
];
/// Last index of a pseudo-header field in the static table; `:status` entries, all final, start at `STATIC_STATUS`.
const STATIC_PSEUDO: usize = 14;
const STATIC_STATUS: usize = 8;
/// Number of codes of each length in the Huffman code (RFC 7541 Appendix B). The code is canonical: longer codes are
/// greater.
const CODES: [(u32, u32); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 4),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ordinary,
    Pseudo,
    /// The `:status` of an interim response.
    Interim,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: usize,
    size: usize,
    kind: Kind,
    /// Memory in bytes that is freed when the entry leaves the table.
    pins: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub pseudo: bool,
    /// Whether the block is the head of an interim response.
    pub interim: bool,
}

/// The state of a block that is read in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub found: Block,
    pub fields: usize,
    /// Bytes of the decoded names and values.
    pub size: usize,
    /// Whether the block's last inserted field is the newest entry of the table.
    inserted: bool,
}

impl Progress {
    /// Returns whether the block added an entry that is still in the table.
    pub(crate) fn has_entry(&self) -> bool {
        self.inserted
    }
}

/// An error for a block that is not valid HPACK. The library reports it to the peer and ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The HPACK state of one direction of a connection.
#[derive(Debug)]
pub(crate) struct Table {
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
    pinned: usize,
}

impl Default for Table {
    fn default() -> Table {
        Table { entries: VecDeque::new(), size: 0, max: MAX_TABLE, pinned: 0 }
    }
}

impl Table {
    /// Reads the complete fields of a block and returns the number of octets consumed. The next call has to start with
    /// the rest.
    pub(crate) fn read(&mut self, block: &[u8], progress: &mut Progress) -> Result<usize, Malformed> {
        let mut input = Input(block);
        loop {
            let rest = input.0.len();
            match self.read_field(&mut input, progress) {
                Ok(true) => {}
                Ok(false) | Err(Flaw::Short) => return Ok(block.len() - rest),
                Err(Flaw::Malformed) => return Err(Malformed),
            }
        }
    }

    /// Reads one field, or a change of the table's size. Returns `false` at the end of the input. An incomplete field
    /// changes nothing.
    fn read_field(&mut self, input: &mut Input<'_>, progress: &mut Progress) -> Result<bool, Flaw> {
        let Some(first) = input.0.first().copied() else { return Ok(false) };
        let entry = match first {
            0x80.. => self.at(input.integer(7)?)?,
            0x40.. => {
                let entry = self.literal(input, 6)?;
                progress.inserted = self.insert(entry);
                entry
            }
            0x20.. => {
                let max = input.integer(5)?;
                if max > MAX_TABLE {
                    return Err(Flaw::Malformed);
                }
                self.max = max;
                self.evict(0);
                return Ok(true);
            }
            _ => self.literal(input, 4)?,
        };
        progress.fields += 1;
        progress.size += entry.size.saturating_sub(OVERHEAD);
        progress.found.pseudo |= entry.kind != Kind::Ordinary;
        progress.found.interim |= entry.kind == Kind::Interim;
        Ok(true)
    }

    /// Records that a block was read whose receive buffer takes `bytes`: a field of it in the table keeps the whole
    /// buffer alive.
    pub(crate) fn pin(&mut self, progress: &Progress, bytes: usize) {
        if let Some(newest) = self.entries.front_mut().filter(|_| progress.inserted) {
            // Entries leave in the order of insertion, so the newest is the last of its block.
            newest.pins += bytes;
            self.pinned += bytes;
        }
    }

    /// Returns the bytes of buffers that table entries keep alive.
    pub(crate) fn pinned(&self) -> usize {
        self.pinned
    }

    fn literal(&self, input: &mut Input<'_>, prefix: u32) -> Result<Entry, Flaw> {
        let index = input.integer(prefix)?;
        let (name, pseudo, status) = if index == 0 {
            let name = input.string()?;
            (name.length, name.begins_with_colon(), name.is_status())
        } else {
            let entry = self.at(index)?;
            let status = matches!(index, STATIC_STATUS..=STATIC_PSEUDO) || (index > 61 && entry.name == 7);
            (entry.name, entry.kind != Kind::Ordinary, status)
        };
        let value = input.string()?;
        let kind = match (pseudo, status && value.begins_with_one()) {
            (false, _) => Kind::Ordinary,
            (true, false) => Kind::Pseudo,
            (true, true) => Kind::Interim,
        };
        Ok(Entry { name, size: name + value.length + OVERHEAD, kind, pins: 0 })
    }

    fn at(&self, index: usize) -> Result<Entry, Flaw> {
        if index == 0 {
            return Err(Flaw::Malformed);
        }
        match STATIC_NAMES.get(index - 1) {
            Some(name) => {
                let kind = if index <= STATIC_PSEUDO { Kind::Pseudo } else { Kind::Ordinary };
                Ok(Entry { name: usize::from(*name), size: OVERHEAD + usize::from(*name), kind, pins: 0 })
            }
            None => self.entries.get(index - 1 - STATIC_NAMES.len()).copied().ok_or(Flaw::Malformed),
        }
    }

    /// Inserts an entry. Returns whether it is in the table.
    fn insert(&mut self, entry: Entry) -> bool {
        self.evict(entry.size);
        // RFC 7541 4.4: an entry larger than the table empties it.
        let fits = entry.size <= self.max;
        if fits {
            self.size += entry.size;
            self.entries.push_front(entry);
        }
        fits
    }

    fn evict(&mut self, room: usize) {
        while self.size + room > self.max {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size;
            self.pinned -= oldest.pins;
        }
    }
}

/// A string as it stands in a block.
struct Text<'a> {
    raw: &'a [u8],
    coded: bool,
    /// Number of octets after decoding.
    length: usize,
}

impl Text<'_> {
    fn begins_with_colon(&self) -> bool {
        // `:` is 1011100 in the Huffman code.
        self.raw
            .first()
            .is_some_and(|first| if self.coded { first >> 1 == 0b101_1100 } else { *first == b':' })
    }

    fn begins_with_one(&self) -> bool {
        // `1` is 00001 in the Huffman code.
        self.raw.first().is_some_and(|first| if self.coded { first >> 3 == 1 } else { *first == b'1' })
    }

    /// Returns whether the name is `:status`, the only pseudo-header field of that length in a response.
    fn is_status(&self) -> bool {
        self.length == ":status".len() && self.begins_with_colon()
    }
}

/// The reason why a field could not be read.
enum Flaw {
    /// The end of the field is not here yet.
    Short,
    Malformed,
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Reads an integer (RFC 7541 5.1).
    fn integer(&mut self, prefix: u32) -> Result<usize, Flaw> {
        const MAX: u32 = 28;
        let (first, mut rest) = self.0.split_first().ok_or(Flaw::Short)?;
        let mask = (1usize << prefix) - 1;
        let mut value = usize::from(*first) & mask;
        if value == mask {
            let mut shift = 0;
            loop {
                let (octet, after) = rest.split_first().ok_or(Flaw::Short)?;
                rest = after;
                value += usize::from(octet & 0x7f) << shift;
                shift += 7;
                if octet & 0x80 == 0 {
                    break;
                }
                if shift > MAX {
                    return Err(Flaw::Malformed);
                }
            }
        }
        self.0 = rest;
        Ok(value)
    }

    /// Reads a string literal (RFC 7541 5.2).
    fn string(&mut self) -> Result<Text<'a>, Flaw> {
        let coded = self.0.first().ok_or(Flaw::Short)? & 0x80 != 0;
        let length = self.integer(7)?;
        let (raw, rest) = self.0.split_at_checked(length).ok_or(Flaw::Short)?;
        self.0 = rest;
        Ok(Text { raw, coded, length: if coded { decoded_length(raw) } else { length } })
    }
}

/// Returns the number of octets of a decoded Huffman string; only the lengths of the codes matter. The rest at the end
/// is padding of ones, which is a prefix of the longest code.
fn decoded_length(raw: &[u8]) -> usize {
    let total = raw.len() * 8;
    let (mut at, mut count) = (0, 0);
    while at < total {
        let mut window = 0u64;
        for place in 0..5 {
            window = window << 8 | u64::from(raw.get(at / 8 + place).copied().unwrap_or(0xff));
        }
        let bits = (window >> (8 - at % 8)) as u32;
        let length = code_length(bits);
        if at + length > total {
            break;
        }
        at += length;
        count += 1;
    }
    count
}

/// Returns the length in bits of the code at the front of `bits`.
fn code_length(bits: u32) -> usize {
    // The first code of each length follows the last of the length before, with zeros appended.
    let mut first = 0u64;
    for (length, codes) in CODES {
        first += u64::from(codes) << (32 - length);
        if u64::from(bits) < first {
            return length as usize;
        }
    }
    30
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a block that is complete.
    fn read(table: &mut Table, block: &[u8]) -> Result<Block, Malformed> {
        let mut progress = Progress::default();
        let taken = table.read(block, &mut progress)?;
        if taken == block.len() { Ok(progress.found) } else { Err(Malformed) }
    }

    #[test]
    fn huffman_lengths() {
        // RFC 7541 C.4, C.6.
        for (coded, length) in [
            (
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
                "www.example.com".len(),
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache".len()),
            (&[0x64, 0x02], "302".len()),
            (&[0xae, 0xc3, 0x77, 0x1a, 0x4b], "private".len()),
            (&[], 0),
        ] {
            assert_eq!(decoded_length(coded), length, "{coded:x?}");
        }
        assert_eq!(CODES.iter().map(|(_, codes)| codes).sum::<u32>(), 257, "every octet and EOS");
        let whole: u64 = CODES.iter().map(|(length, codes)| u64::from(*codes) << (32 - length)).sum();
        assert_eq!(whole, 1 << 32, "the code is complete");
    }

    #[test]
    fn pseudo_fields_are_found_however_they_are_written() {
        let pseudo = Block { pseudo: true, interim: false };
        let interim = Block { pseudo: true, interim: true };
        let mut table = Table::default();
        for (block, found) in [
            (&[0x82][..], pseudo),
            (&[0x8e], pseudo),
            (&[0x8f], Block::default()),
            // `:path: /x` by a static name, put into the table; then by its index there.
            (b"\x44\x02/x", pseudo),
            (&[0xbe], pseudo),
            (b"\x40\x01a\x01b", Block::default()),
            (&[0xbe], Block::default()),
            (&[0xbf], pseudo),
            // A literal name, raw and coded (`:path`), never put into the table.
            (b"\x00\x05:path\x01/", pseudo),
            (b"\x10\x84\xb9\x58\xd3\x3f\x01/", pseudo),
            // Blocks with a status.
            (b"\x08\x03103", interim),
            (b"\x08\x82\x08\x19", interim),
            (b"\x08\x03200", pseudo),
            (b"\x00\x07:status\x03102", interim),
            (b"\x04\x03103", pseudo),
            // A table size of zero, then of 4096 again.
            (&[0x20, 0x3f, 0xe1, 0x1f], Block::default()),
        ] {
            assert_eq!(read(&mut table, block), Ok(found), "{block:x?}");
        }
        for block in [
            &[0x80][..],
            &[0xbe],
            &[0x40],
            b"\x00\x05:pa",
            &[0x3f, 0xe2, 0x1f],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(read(&mut table, block), Err(Malformed), "{block:x?}");
        }
    }

    #[test]
    fn entries_leave_as_the_table_is_full() {
        let mut table = Table::default();
        read(&mut table, b"\x44\x02/x").unwrap();
        // An entry of 4096 octets with its name and overhead evicts the other entry.
        let value = 4096 - 32 - 1;
        let mut block = vec![0x40, 1, b'a', 0x7f];
        let mut rest = value - 127;
        while rest >= 128 {
            block.push((rest % 128) as u8 | 0x80);
            rest /= 128;
        }
        block.push(rest as u8);
        block.extend(vec![b'v'; value]);
        read(&mut table, &block).unwrap();
        assert_eq!((table.entries.len(), table.size), (1, 4096));
        assert_eq!(read(&mut table, &[0xbf]), Err(Malformed), "what was there before is gone");
    }
}

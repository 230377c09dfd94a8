//! A gzip bomb, encoded here: no dependency of Pixy can compress or decompress.

/// A gzip file (RFC 1952) of about `size` zero bytes: one block of fixed Huffman codes (RFC 1951 §3.2.6) with a zero, and then
/// repetitions of length 258 and distance 1, 13 bits each.
pub(super) fn gzip_of_zeros(size: usize) -> Vec<u8> {
    let repeats = (size - 1) / 258;
    let mut bits = Bits::default();
    bits.push(0b1, 1); // the last block
    bits.push(0b01, 2); // fixed codes
    bits.push_code(0b0011_0000, 8); // the literal 0
    for _ in 0..repeats {
        bits.push_code(0b1100_0101, 8); // length 258
        bits.push_code(0b00000, 5); // distance 1
    }
    bits.push_code(0, 7); // the end of the block
    let length = 1 + repeats * 258;
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    file.extend(bits.bytes());
    file.extend(crc_of_zeros(length).to_le_bytes());
    file.extend(u32::try_from(length).unwrap().to_le_bytes());
    file
}

#[derive(Default)]
struct Bits {
    whole: Vec<u8>,
    open: u32,
    count: u32,
}

impl Bits {
    /// Appends bits, least significant first.
    fn push(&mut self, value: u32, count: u32) {
        self.open |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            self.whole.push((self.open & 0xff) as u8);
            self.open >>= 8;
            self.count -= 8;
        }
    }

    /// Appends a Huffman code, most significant bit first.
    fn push_code(&mut self, code: u32, count: u32) {
        self.push(code.reverse_bits() >> (32 - count), count);
    }

    fn bytes(mut self) -> Vec<u8> {
        self.push(0, 7);
        self.whole
    }
}

/// CRC-32 (RFC 1952 §8) of zeros alone.
fn crc_of_zeros(length: usize) -> u32 {
    let mut table = [0_u32; 256];
    for (entry, byte) in table.iter_mut().zip(0_u32..) {
        *entry = (0..8).fold(byte, |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)));
    }
    !(0..length).fold(!0_u32, |crc, _| (crc >> 8) ^ table[(crc & 0xff) as usize])
}

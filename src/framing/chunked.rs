//! Checks a chunked body (RFC 9112 §7.1) without buffering any of it: what passes has one reading.

use super::fields::{FieldLimits, is_text, is_token};

/// The state machine of one chunked body.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ChunkedBody {
    state: ChunkState,
    /// The chunk's size while it is read, then the bytes of its data that are left.
    left: u64,
    /// Digits of the size, bytes of the extension, or bytes of all trailers, by `state`.
    count: usize,
    /// Trailer fields.
    trailers: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    #[default]
    Size,
    Extension,
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastEnd,
}

/// What a piece of a chunked body contains.
#[derive(Debug, PartialEq, Eq)]
pub enum ChunkedProgress {
    /// The body continues after the piece.
    Continues,
    /// The body ends after so many bytes of the piece.
    Ends(usize),
    /// The byte after so many of the piece is malformed.
    Malformed(usize, &'static str),
}

/// In bytes. Real clients send no extensions; CVE-2025-55315 and similar attacks use them.
const MAX_EXTENSION: usize = 256;

/// Hexadecimal digits of a 64-bit size.
const MAX_DIGITS: usize = 16;

impl ChunkedBody {
    /// Checks the next piece of the body.
    pub fn check(&mut self, piece: &[u8], limits: FieldLimits) -> ChunkedProgress {
        let mut at = 0;
        while at < piece.len() {
            if self.state == ChunkState::Data {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(piece.len() - at);
                self.left -= here as u64;
                at += here;
                if self.left == 0 {
                    self.state = ChunkState::DataReturn;
                }
                continue;
            }
            match self.step(piece[at], limits) {
                Ok(true) => return ChunkedProgress::Ends(at + 1),
                Ok(false) => at += 1,
                Err(reason) => return ChunkedProgress::Malformed(at, reason),
            }
        }
        ChunkedProgress::Continues
    }

    /// Checks one byte of the framing. `true` when it is the last byte of the body.
    fn step(&mut self, byte: u8, limits: FieldLimits) -> Result<bool, &'static str> {
        self.state = match (self.state, byte) {
            (ChunkState::Size, digit) if digit.is_ascii_hexdigit() => {
                self.count += 1;
                if self.count > MAX_DIGITS {
                    return Err("the size of a chunk is too large");
                }
                self.left = self.left << 4 | u64::from(char::from(digit).to_digit(16).unwrap_or(0));
                ChunkState::Size
            }
            (ChunkState::Size, b'\r') if self.count > 0 => ChunkState::SizeEnd,
            (ChunkState::Size, b';') if self.count > 0 => {
                self.count = 0;
                ChunkState::Extension
            }
            (ChunkState::Size, _) => return Err("the size of a chunk is no hexadecimal number"),
            (ChunkState::Extension, b'\r') => ChunkState::SizeEnd,
            (ChunkState::Extension, byte) => {
                self.count += 1;
                if self.count > MAX_EXTENSION {
                    return Err("the extension of a chunk is too long");
                }
                // A quoted string could hold what looks like the end of the line.
                if byte == b'"' || !(is_text(byte) && byte.is_ascii()) {
                    return Err("the extension of a chunk holds a quote or a control character");
                }
                ChunkState::Extension
            }
            (ChunkState::SizeEnd, b'\n') => {
                self.count = 0;
                if self.left == 0 { ChunkState::TrailerStart } else { ChunkState::Data }
            }
            (ChunkState::DataReturn, b'\r') => ChunkState::DataEnd,
            (ChunkState::DataEnd, b'\n') => ChunkState::Size,
            (ChunkState::DataReturn | ChunkState::DataEnd, _) => {
                return Err("a chunk does not end after its size");
            }
            (ChunkState::TrailerStart, b'\r') => ChunkState::LastEnd,
            (ChunkState::LastEnd, b'\n') => return Ok(true),
            (
                ChunkState::TrailerStart | ChunkState::TrailerName | ChunkState::TrailerValue | ChunkState::TrailerEnd,
                byte,
            ) => self.trailer(byte, limits)?,
            (ChunkState::SizeEnd | ChunkState::LastEnd, _) => return Err("a carriage return without a line feed"),
            (ChunkState::Data, _) => ChunkState::Data, // skipped in `check`
        };
        Ok(false)
    }

    /// Checks one byte of a trailer, by the rules and the limits of a head's fields.
    fn trailer(&mut self, byte: u8, limits: FieldLimits) -> Result<ChunkState, &'static str> {
        self.count += 1;
        if self.count > limits.bytes {
            return Err("the trailers are too large");
        }
        match (self.state, byte) {
            (ChunkState::TrailerStart, byte) if is_token(byte) => {
                self.trailers += 1;
                if self.trailers > limits.fields {
                    return Err("there are too many trailers");
                }
                Ok(ChunkState::TrailerName)
            }
            (ChunkState::TrailerName, b':') => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerName, byte) if is_token(byte) => Ok(ChunkState::TrailerName),
            (ChunkState::TrailerValue, b'\r') => Ok(ChunkState::TrailerEnd),
            (ChunkState::TrailerValue, byte) if is_text(byte) => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerEnd, b'\n') => Ok(ChunkState::TrailerStart),
            _ => Err("a trailer is no field"),
        }
    }
}

//! Follows a chunked body (RFC 9112 §7.1) without holding any of it, strictly: what this passes has one reading.

use super::head::{is_text, is_token};
use crate::server::Limits;

/// Where in a chunked body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct Chunked {
    place: Position,
    /// Of the size while it is read, then of the data still to come.
    left: u64,
    /// Digits of the size; bytes of the extension; bytes of all trailers.
    count: usize,
    /// Trailer fields.
    trailers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
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

/// How far a piece of a body goes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::server) enum Reach {
    /// The body may go on.
    On,
    /// It ends after so many bytes of the piece.
    End(usize),
    /// So many bytes are fine, and the next is not.
    Broken(usize, &'static str),
}

/// A real client sends none at all; CVE-2025-55315 and its kin live here.
const LONGEST_EXTENSION: usize = 256;

/// 64 bits.
const MOST_DIGITS: usize = 16;

impl Chunked {
    /// Before the first chunk.
    pub(in crate::server) fn new() -> Self {
        Self { place: Position::Size, left: 0, count: 0, trailers: 0 }
    }

    /// Follows a piece of the body.
    pub(in crate::server) fn follow(&mut self, piece: &[u8], limits: &Limits) -> Reach {
        let mut at = 0;
        while at < piece.len() {
            if self.place == Position::Data {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(piece.len() - at);
                self.left -= here as u64;
                at += here;
                if self.left == 0 {
                    self.place = Position::DataReturn;
                }
                continue;
            }
            match self.step(piece[at], limits) {
                Ok(true) => return Reach::End(at + 1),
                Ok(false) => at += 1,
                Err(why) => return Reach::Broken(at, why),
            }
        }
        Reach::On
    }

    /// One byte of the framing; `true` when it was the body's last.
    fn step(&mut self, byte: u8, limits: &Limits) -> Result<bool, &'static str> {
        self.place = match (self.place, byte) {
            (Position::Size, digit) if digit.is_ascii_hexdigit() => {
                self.count += 1;
                if self.count > MOST_DIGITS {
                    return Err("the size of a chunk is too large");
                }
                self.left = self.left << 4 | u64::from(char::from(digit).to_digit(16).unwrap_or(0));
                Position::Size
            }
            (Position::Size, b'\r') if self.count > 0 => Position::SizeEnd,
            (Position::Size, b';') if self.count > 0 => {
                self.count = 0;
                Position::Extension
            }
            (Position::Size, _) => return Err("the size of a chunk is no hexadecimal number"),
            (Position::Extension, b'\r') => Position::SizeEnd,
            (Position::Extension, byte) => {
                self.count += 1;
                if self.count > LONGEST_EXTENSION {
                    return Err("the extension of a chunk is too long");
                }
                // A quoted string could hold what looks like the end of the line.
                if byte == b'"' || !(is_text(byte) && byte.is_ascii()) {
                    return Err("the extension of a chunk holds a quote or a control character");
                }
                Position::Extension
            }
            (Position::SizeEnd, b'\n') => {
                self.count = 0;
                if self.left == 0 { Position::TrailerStart } else { Position::Data }
            }
            (Position::DataReturn, b'\r') => Position::DataEnd,
            (Position::DataEnd, b'\n') => Position::Size,
            (Position::DataReturn | Position::DataEnd, _) => return Err("a chunk does not end where its size says"),
            (Position::TrailerStart, b'\r') => Position::LastEnd,
            (Position::LastEnd, b'\n') => return Ok(true),
            (Position::TrailerStart | Position::TrailerName | Position::TrailerValue | Position::TrailerEnd, byte) => {
                self.trailer(byte, limits)?
            }
            (Position::SizeEnd | Position::LastEnd, _) => return Err("a carriage return stands alone"),
            (Position::Data, _) => Position::Data, // followed above
        };
        Ok(false)
    }

    /// As in a head, and no more of them.
    fn trailer(&mut self, byte: u8, limits: &Limits) -> Result<Position, &'static str> {
        self.count += 1;
        if self.count > limits.header_bytes {
            return Err("the trailers are too large");
        }
        match (self.place, byte) {
            (Position::TrailerStart, byte) if is_token(byte) => {
                self.trailers += 1;
                if self.trailers > limits.header_fields {
                    return Err("there are too many trailers");
                }
                Ok(Position::TrailerName)
            }
            (Position::TrailerName, b':') => Ok(Position::TrailerValue),
            (Position::TrailerName, byte) if is_token(byte) => Ok(Position::TrailerName),
            (Position::TrailerValue, b'\r') => Ok(Position::TrailerEnd),
            (Position::TrailerValue, byte) if is_text(byte) => Ok(Position::TrailerValue),
            (Position::TrailerEnd, b'\n') => Ok(Position::TrailerStart),
            _ => Err("a trailer is no field"),
        }
    }
}

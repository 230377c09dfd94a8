//! Finds the frames of a WebSocket (RFC 6455 §5.2) without changing them.

use bytes::BytesMut;

/// Parses the frames of one direction.
#[derive(Debug)]
pub struct FrameParser {
    /// A client's frames are masked, a server's are not (RFC 6455 §5.1).
    masked: bool,
    /// An incomplete header.
    header: Vec<u8>,
    /// Bytes of the payload still to come.
    remaining: u64,
    /// The current frame is the last of its message.
    ends_message: bool,
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramePart {
    /// Part of a header, of this many bytes; kept until the header is complete.
    PartialHeader(usize),
    /// This many bytes complete a header: [`FrameParser::write_header`].
    Header(usize),
    /// Part of a payload.
    Payload {
        /// In bytes.
        length: usize,
        /// The frame ends here.
        ends_frame: bool,
        /// The message ends here.
        ends_message: bool,
    },
}

/// Why a frame is invalid in a WebSocket without extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameError(pub &'static str);

/// The longest header: two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;

impl FrameParser {
    /// For an agent's frames.
    pub fn of_agent() -> Self {
        Self::new(true)
    }

    /// For an upstream's frames.
    pub fn of_upstream() -> Self {
        Self::new(false)
    }

    fn new(masked: bool) -> Self {
        Self { masked, header: Vec::with_capacity(MAX_HEADER), remaining: 0, ends_message: false }
    }

    /// No frame is incomplete.
    pub fn is_between_frames(&self) -> bool {
        self.remaining == 0 && self.header.is_empty()
    }

    /// Appends the complete header to `to`, after [`FramePart::Header`].
    pub fn write_header(&mut self, to: &mut BytesMut) {
        to.extend_from_slice(&self.header);
        self.header.clear();
    }

    /// Parses the start of `bytes`, which must not be empty.
    pub fn next(&mut self, bytes: &[u8]) -> Result<FramePart, FrameError> {
        if self.remaining > 0 {
            let length = usize::try_from(self.remaining).map_or(bytes.len(), |remaining| remaining.min(bytes.len()));
            self.remaining -= length as u64;
            let ends_frame = self.remaining == 0;
            return Ok(FramePart::Payload { length, ends_frame, ends_message: ends_frame && self.ends_message });
        }
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken) {
            self.header.push(byte);
            taken += 1;
            match self.parse_header() {
                Ok(true) => return Ok(FramePart::Header(taken)),
                Ok(false) => {}
                Err(error) => {
                    self.header.clear(); // none of it was forwarded
                    return Err(error);
                }
            }
        }
        Ok(FramePart::PartialHeader(taken))
    }

    /// Whether the header is complete; then its values are stored.
    fn parse_header(&mut self) -> Result<bool, FrameError> {
        let [first, second, rest @ ..] = self.header.as_slice() else { return Ok(false) };
        let (fin, opcode, short) = (first & 0x80 != 0, first & 0x0f, second & 0x7f);
        if first & 0x70 != 0 {
            // For instance compressed (RFC 7692 §6), which cannot be scrubbed.
            return Err(FrameError("it uses an extension that was not negotiated"));
        }
        if (second & 0x80 != 0) != self.masked {
            return Err(FrameError("it is masked where it must not be, or not masked where it must be"));
        }
        let control = opcode & 0x8 != 0;
        match opcode {
            0..=2 => {}
            8..=10 if fin && short <= 125 => {}
            8..=10 => return Err(FrameError("a control frame is too long or fragmented")),
            _ => return Err(FrameError("it has an unknown opcode")),
        }
        let (length_bytes, mask_bytes) = (length_bytes(short), if self.masked { 4 } else { 0 });
        if rest.len() < length_bytes + mask_bytes {
            return Ok(false);
        }
        let long = rest[..length_bytes].iter().fold(0, |length, &byte| length << 8 | u64::from(byte));
        let length = if length_bytes == 0 { u64::from(short) } else { long };
        if length > i64::MAX.unsigned_abs() {
            return Err(FrameError("it is longer than a frame can be"));
        }
        self.remaining = length;
        self.ends_message = fin && !control;
        Ok(true)
    }
}

fn length_bytes(short: u8) -> usize {
    match short {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers and payloads, and where frames and messages end, as text.
    fn parts(mut frames: FrameParser, bytes: &[u8], size: usize) -> Result<String, FrameError> {
        let mut parts = String::new();
        for mut piece in bytes.chunks(size) {
            while !piece.is_empty() {
                let length = match frames.next(piece)? {
                    FramePart::PartialHeader(length) => length,
                    FramePart::Header(length) => {
                        let mut header = BytesMut::new();
                        frames.write_header(&mut header);
                        parts.extend(["[".to_owned(), header.len().to_string(), "]".to_owned()]);
                        length
                    }
                    FramePart::Payload { length, ends_frame, ends_message } => {
                        parts += &"p".repeat(length);
                        parts += if ends_frame { "," } else { "" };
                        parts += if ends_message { "." } else { "" };
                        length
                    }
                };
                piece = &piece[length..];
            }
        }
        assert!(frames.is_between_frames(), "{parts}");
        Ok(parts)
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let mut text = b"\x81\x02hi\x89\x00\x01\x03abc\x80\x01d\x82\x7e\x00\x05hello\x88\x02\x03\xe9".to_vec();
        text.extend(b"\x82\x7f\0\0\0\0\0\0\0\x01x");
        for size in 1..=text.len() {
            let found = parts(FrameParser::of_upstream(), &text, size).unwrap();
            assert_eq!(found, "[2]pp,.[2][2]ppp,[2]p,.[4]ppppp,.[2]pp,[10]p,.", "in pieces of {size}");
        }
        let masked = b"\x81\x82mask\x01\x02\x89\x80mask";
        assert_eq!(parts(FrameParser::of_agent(), masked, 3).unwrap(), "[6]pp,.[6]");
    }

    #[test]
    fn invalid_frames_are_errors() {
        for (text, why) in [
            (&b"\xc1\x02hi"[..], "extension"),
            (b"\x81\x82mask\0\0", "masked"),
            (b"\x83\x00", "opcode"),
            (b"\x8b\x00", "opcode"),
            (b"\x09\x00", "control"),
            (b"\x89\x7e\x00\x7e", "control"),
            (b"\x82\x7f\xff\0\0\0\0\0\0\x01x", "longer"),
            (b"HTTP/1.1 200 OK", "extension"),
        ] {
            let error = parts(FrameParser::of_upstream(), text, 64).unwrap_err();
            assert!(error.0.contains(why), "{text:?}: {error:?}");
        }
        assert!(parts(FrameParser::of_agent(), b"\x81\x02hi", 64).is_err());
    }
}

//! Where the frames of a WebSocket begin and end (RFC 6455 §5.2): followed, never changed.

use bytes::BytesMut;

/// Follows one direction.
#[derive(Debug)]
pub struct Frames {
    /// Frames of an agent are masked, those of an upstream are not (RFC 6455 §5.1).
    masked: bool,
    /// A header that is not whole yet.
    header: Vec<u8>,
    /// Bytes of the payload still to come.
    left: u64,
    /// The frame under way ends its message.
    ends_message: bool,
}

/// What stands at the start of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// So many bytes of a header that is not whole yet: it comes with the rest of it.
    HeaderBegins(usize),
    /// So many bytes that complete a header: [`Frames::give_header`].
    Header(usize),
    /// So many bytes of a payload.
    Payload {
        /// How many.
        length: usize,
        /// The frame ends with them.
        ends_frame: bool,
        /// And the message does.
        ends_message: bool,
    },
}

/// The frames are not those of a WebSocket without extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotFrames(pub &'static str);

/// The longest header: two bytes, eight of length, four of mask.
const LONGEST_HEADER: usize = 14;

impl Frames {
    /// What an agent sends.
    pub fn of_agent() -> Self {
        Self::new(true)
    }

    /// What an upstream sends.
    pub fn of_upstream() -> Self {
        Self::new(false)
    }

    fn new(masked: bool) -> Self {
        Self { masked, header: Vec::with_capacity(LONGEST_HEADER), left: 0, ends_message: false }
    }

    /// Between two frames.
    pub fn is_between(&self) -> bool {
        self.left == 0 && self.header.is_empty()
    }

    /// Gives the header that [`Part::Header`] has completed.
    pub fn give_header(&mut self, to: &mut BytesMut) {
        to.extend_from_slice(&self.header);
        self.header.clear();
    }

    /// Judges the start of `text`, which is not empty.
    pub fn next(&mut self, text: &[u8]) -> Result<Part, NotFrames> {
        if self.left > 0 {
            let length = usize::try_from(self.left).map_or(text.len(), |left| left.min(text.len()));
            self.left -= length as u64;
            let ends_frame = self.left == 0;
            return Ok(Part::Payload { length, ends_frame, ends_message: ends_frame && self.ends_message });
        }
        let mut taken = 0;
        while let Some(&byte) = text.get(taken) {
            self.header.push(byte);
            taken += 1;
            match self.judge() {
                Ok(true) => return Ok(Part::Header(taken)),
                Ok(false) => {}
                Err(error) => {
                    self.header.clear(); // nothing of it has passed
                    return Err(error);
                }
            }
        }
        Ok(Part::HeaderBegins(taken))
    }

    /// Whether the header is whole; then what it says is known.
    fn judge(&mut self) -> Result<bool, NotFrames> {
        let [first, second, rest @ ..] = self.header.as_slice() else { return Ok(false) };
        let (fin, opcode, short) = (first & 0x80 != 0, first & 0x0f, second & 0x7f);
        if first & 0x70 != 0 {
            // Compressed, for instance, which cannot be searched (RFC 7692 §6), and which nobody agreed to.
            return Err(NotFrames("a frame uses an extension that was not agreed on"));
        }
        if (second & 0x80 != 0) != self.masked {
            return Err(NotFrames("a frame is masked where it must not be, or not where it must"));
        }
        let control = opcode & 0x8 != 0;
        match opcode {
            0..=2 => {}
            8..=10 if fin && short <= 125 => {}
            8..=10 => return Err(NotFrames("a control frame is too long or in parts")),
            _ => return Err(NotFrames("a frame has an unknown opcode")),
        }
        let (length_bytes, mask_bytes) = (length_bytes(short), if self.masked { 4 } else { 0 });
        if rest.len() < length_bytes + mask_bytes {
            return Ok(false);
        }
        let long = rest[..length_bytes].iter().fold(0, |length, &byte| length << 8 | u64::from(byte));
        let length = if length_bytes == 0 { u64::from(short) } else { long };
        if length > i64::MAX.unsigned_abs() {
            return Err(NotFrames("a frame is longer than a frame can be"));
        }
        self.left = length;
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

    /// What a text is made of: headers and payloads, and where frames and messages end.
    fn parts(mut frames: Frames, text: &[u8], size: usize) -> Result<String, NotFrames> {
        let mut told = String::new();
        for mut piece in text.chunks(size) {
            while !piece.is_empty() {
                let length = match frames.next(piece)? {
                    Part::HeaderBegins(length) => length,
                    Part::Header(length) => {
                        let mut header = BytesMut::new();
                        frames.give_header(&mut header);
                        told.extend(["[".to_owned(), header.len().to_string(), "]".to_owned()]);
                        length
                    }
                    Part::Payload { length, ends_frame, ends_message } => {
                        told += &"p".repeat(length);
                        told += if ends_frame { "," } else { "" };
                        told += if ends_message { "." } else { "" };
                        length
                    }
                };
                piece = &piece[length..];
            }
        }
        assert!(frames.is_between(), "{told}");
        Ok(told)
    }

    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let mut text = b"\x81\x02hi\x89\x00\x01\x03abc\x80\x01d\x82\x7e\x00\x05hello\x88\x02\x03\xe9".to_vec();
        text.extend(b"\x82\x7f\0\0\0\0\0\0\0\x01x");
        for size in 1..=text.len() {
            let told = parts(Frames::of_upstream(), &text, size).unwrap();
            assert_eq!(told, "[2]pp,.[2][2]ppp,[2]p,.[4]ppppp,.[2]pp,[10]p,.", "in pieces of {size}");
        }
        let masked = b"\x81\x82mask\x01\x02\x89\x80mask";
        assert_eq!(parts(Frames::of_agent(), masked, 3).unwrap(), "[6]pp,.[6]");
    }

    #[test]
    fn what_is_no_plain_frame_is_refused() {
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
            let error = parts(Frames::of_upstream(), text, 64).unwrap_err();
            assert!(error.0.contains(why), "{text:?}: {error:?}");
        }
        assert!(parts(Frames::of_agent(), b"\x81\x02hi", 64).is_err());
    }
}

//! Length-prefixed fields: the content of one field cannot be read as part of the next.

/// Appends `field` after its length (eight bytes, big endian).
pub(super) fn put(out: &mut Vec<u8>, field: &[u8]) {
    out.extend_from_slice(&(field.len() as u64).to_be_bytes());
    out.extend_from_slice(field);
}

/// Reads fields from the front; returns `None`, never panics, when too few bytes are left.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// A field of a fixed length.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// A field written by [`put`].
    pub(super) fn field(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(u64::from_be_bytes(self.array()?)).ok()?;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    /// A field written by [`put`] that is UTF-8.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.field()?).ok()
    }

    /// The unread bytes.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

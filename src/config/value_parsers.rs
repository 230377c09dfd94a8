//! Parsers of single values of the configuration.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};

use crate::oauth::profile::values::{InvalidValue, duration, parsed};
use crate::server::{Access, Address};
use crate::upstream::AddressRange;

/// As [`duration`], but not zero.
pub(super) fn timeout(text: &str) -> Result<Duration, InvalidValue> {
    match duration(text)? {
        Duration::ZERO => Err("is zero; write at least 1ms".into()),
        time => Ok(time),
    }
}

/// `127.0.0.1:8700`, `[::1]:8700` or `unix:/path`.
pub(super) fn address(text: &str, home: Option<&Path>) -> Result<Address, InvalidValue> {
    if let Some(path) = text.strip_prefix("unix:") {
        return self::path(path, home).map(Address::Unix);
    }
    text.parse::<SocketAddr>().map(Address::Tcp).map_err(|_| {
        let hint = if text.starts_with("localhost:") { " (host names are not resolved: write 127.0.0.1)" } else { "" };
        format!("is not an address; write 127.0.0.1:8700, [::1]:8700 or unix:/path{hint}").into()
    })
}

/// `0600`, `0660` or `0666`. Other modes add nothing: connecting needs write permission, and Pixy itself connects to check whether
/// another program is listening.
pub(super) fn access(text: &str) -> Result<Access, InvalidValue> {
    match text.strip_prefix('0').unwrap_or(text) {
        "600" => Ok(Access::Owner),
        "660" => Ok(Access::Group),
        "666" => Ok(Access::Everybody),
        _ => Err("is not a mode of a socket; write \"0600\" (Pixy's own user), \"0660\" (its group too) or \"0666\" \
                  (every user who can reach its directory)"
            .into()),
    }
}

/// The name of a host, in lower case, without port and without the dot of the root.
pub(super) fn host_name(text: &str) -> Result<String, InvalidValue> {
    let is_label = |label: &str| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.len() <= 63 && label.bytes().all(is_name)
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(
            "is not the name of a host; write one like pixy or pixy.example.com, without scheme and port, and \
                    without `*`"
                .into(),
        );
    }
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err("is an IP address, which is always allowed; remove it".into());
    }
    Ok(name.to_ascii_lowercase())
}

/// An absolute path; `~` is the home directory.
pub(super) fn path(text: &str, home: Option<&Path>) -> Result<PathBuf, InvalidValue> {
    let full = match text.strip_prefix('~') {
        Some("") => home.map(Path::to_path_buf),
        Some(rest) if rest.starts_with('/') => home.map(|home| home.join(rest.trim_start_matches('/'))),
        Some(_) => return Err("starts with the home directory of another user; only `~/` is supported".into()),
        None => Some(PathBuf::from(text)),
    };
    match full {
        None => Err("starts with `~`, but HOME is not set; set HOME or write an absolute path".into()),
        Some(full) if text.contains('\0') || !full.is_absolute() => {
            Err("is not an absolute path; start it with `/` or `~/`".into())
        }
        Some(full) => Ok(full),
    }
}

/// 64 hexadecimal digits.
pub(super) fn sha256(text: &str) -> Result<[u8; 32], InvalidValue> {
    // The text is not quoted: it may be a key that was pasted by mistake.
    let invalid = "is not a SHA-256 digest; write the 64 hexadecimal digits that `sha256sum` prints for the key";
    let is_digest = text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let (high, low) = text.split_at_checked(32).filter(|_| is_digest).ok_or(invalid)?;
    let half = |digits: &str| u128::from_str_radix(digits, 16).map(u128::to_be_bytes).map_err(|_| invalid);
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(&half(high)?);
    digest[16..].copy_from_slice(&half(low)?);
    Ok(digest)
}

/// `10.0.0.0/8`, `fd00::/8` or `192.0.2.7`.
fn range(text: &str) -> Result<AddressRange, InvalidValue> {
    let invalid =
        "is not a range of addresses; write 10.0.0.0/8, fd00::/8 or one address, without bits after the prefix";
    text.parse().map_err(|_| invalid.into())
}

/// A number of bytes: a whole number, or a text with a unit, like 128MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(u64);

impl Size {
    pub(super) fn bytes(self) -> u64 {
        self.0
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": SIZE_PATTERN }] })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl de::Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of bytes, or a text like 128MiB")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                size(text).map(Size).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

/// Of a [`Size`] that is a text.
const SIZE_PATTERN: &str = "^[0-9]+ ?(KiB|MiB|GiB)$";

const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

fn size(text: &str) -> Result<u64, InvalidValue> {
    let parsed = UNITS.iter().find_map(|(unit, bytes)| {
        let number = text.strip_suffix(unit)?;
        let number = number.strip_suffix(' ').unwrap_or(number);
        number.bytes().all(|digit| digit.is_ascii_digit()).then_some(())?;
        number.parse::<u64>().ok()?.checked_mul(*bytes)
    });
    parsed.ok_or_else(|| "is not a size; write a number of bytes, or one with KiB, MiB or GiB, like 128MiB".into())
}

/// The size as a person writes it.
pub(super) fn size_text(bytes: usize) -> String {
    let unit = UNITS.iter().rev().find(|(_, unit)| bytes > 0 && (bytes as u64).is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes as u64 / unit))
}

parsed! {
    /// A range of addresses.
    Range(AddressRange) = range;
    /// A duration that is not zero.
    Timeout(Duration) = timeout;
    /// A duration.
    Time(Duration) = duration;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_paths() {
        let home = Some(Path::new("/home/me"));
        assert_eq!(address("unix:~/a.sock", home), Ok(Address::Unix("/home/me/a.sock".into())));
        assert_eq!(address("[::1]:1", home).unwrap().to_string(), "[::1]:1");
        assert!(address("localhost:1", home).unwrap_err().to_string().contains("127.0.0.1"));
        assert!(path("~/x", None).unwrap_err().to_string().contains("HOME"));
        for wrong in ["x", "./x", "~you/x", "", "/a\0b"] {
            assert!(path(wrong, home).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn host_names() {
        assert_eq!(host_name("Pixy.Example.com."), Ok("pixy.example.com".to_owned()));
        assert_eq!(host_name("host_1"), Ok("host_1".to_owned()));
        for wrong in
            ["", ".", "*", "*.example.com", "http://pixy", "pixy:8700", "[::1]", "a..b", "pi xy", "pïxy", "10.0.0.1"]
        {
            assert!(host_name(wrong).is_err(), "{wrong:?}");
        }
        assert!(host_name(&"a".repeat(64)).is_err());
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("1KiB", 1024), ("128MiB", 128 << 20), ("128 MiB", 128 << 20), ("2GiB", 2 << 30), ("0MiB", 0)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "MiB", "1", "1MB", "1.5MiB", "-1MiB", "+1MiB", "1mib", "1  MiB", "99999999999GiB"] {
            assert!(size(wrong).unwrap_err().contains("128MiB"), "{wrong:?}");
        }
        for (bytes, text) in
            [(0, "0"), (1, "1"), (1024, "1KiB"), (40 << 20, "40MiB"), (1 << 30, "1GiB"), (1025, "1025")]
        {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn timeouts_and_digests() {
        assert!(timeout("0s").is_err() && timeout("1ms").is_ok());
        assert_eq!(sha256(&"0f".repeat(32)), Ok([15; 32]));
        assert!(sha256(&"é".repeat(32)).is_err() && sha256(&"+f".repeat(32)).is_err());
    }
}

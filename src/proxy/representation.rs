//! Whether a response can be searched for secrets as it is.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode};

use super::comma_lists::list_members;
use super::refusal::Refusal;

/// The compression of the messages of a gRPC response.
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Refuses a body that is compressed, a part or a difference of another, or in a charset in which a token has other bytes. Requests
/// choose none of these (`strip`, `attach`), but a provider may.
///
/// A body with a transfer coding (RFC 9112 §7) other than chunked is refused by `upstream`.
pub fn check(status: StatusCode, headers: &HeaderMap) -> Result<(), Refusal> {
    let is_coded = |name| list_members(headers, name).any(|coding| !coding.is_empty() && coding != "identity");
    if is_coded(&CONTENT_ENCODING) {
        return Err(Refusal::UpstreamEncoded);
    }
    let is_partial = status == StatusCode::PARTIAL_CONTENT || status == StatusCode::IM_USED;
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    if is_partial || is_coded(&GRPC_ENCODING) || types.any(|value| !is_readable(value.as_bytes())) {
        return Err(Refusal::UpstreamRepresentation);
    }
    Ok(())
}

/// Whether a value of Content-Type (RFC 9110 §8.3) names a type and a charset that can be searched.
fn is_readable(value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    if text.trim_start().starts_with("multipart/byteranges") {
        return false;
    }
    // Quoted strings are cut at their semicolons too: that finds more charsets, never fewer.
    let mut charsets = text.split([';', ',']).filter_map(|parameter| {
        let (name, charset) = parameter.split_once('=')?;
        name.trim().starts_with("charset").then_some(charset)
    });
    charsets.all(|charset| is_ascii_compatible(charset.trim().trim_matches(['"', '\'']).trim()))
}

/// Whether ASCII text has the same bytes in a charset (<https://www.iana.org/assignments/character-sets>).
fn is_ascii_compatible(charset: &str) -> bool {
    const FAMILIES: [&str; 5] = ["iso-8859-", "iso_8859-", "iso8859-", "windows-125", "cp125"];
    let named = matches!(
        charset,
        "" | "utf-8"
            | "utf8"
            | "us-ascii"
            | "ascii"
            | "latin1"
            | "latin-1"
            | "gbk"
            | "gb2312"
            | "gb18030"
            | "big5"
            | "euc-jp"
            | "euc-kr"
            | "shift_jis"
            | "koi8-r"
            | "koi8-u"
            | "windows-874"
    );
    named || FAMILIES.iter().any(|family| charset.starts_with(family))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn attack_87_only_charsets_with_ascii_bytes_come_back() {
        for readable in [
            "application/json",
            "application/json; charset=utf-8",
            "text/html;charset=\"UTF-8\"; x=y",
            "text/plain; charset=ISO-8859-1",
            "text/event-stream;charset=Windows-1252",
            "multipart/form-data; boundary=x",
            "text/plain; charset=",
        ] {
            assert!(is_readable(readable.as_bytes()), "{readable}");
        }
        for hidden in [
            "text/plain; charset=utf-16",
            "text/plain;CharSet = \"UTF-16LE\"",
            "text/plain; charset=utf-32",
            "text/plain; charset=utf-7",
            "text/plain; charset=ibm037",
            "text/plain; charset=iso-2022-jp",
            "text/plain; charset=unknown",
            "text/plain; x=\"a\"; charset=utf-16; charset=utf-8",
            "text/plain; charset=utf-8; charset=utf-16",
            "text/plain; charset*=us-ascii''utf-16",
            "Multipart/ByteRanges; boundary=x",
        ] {
            assert!(!is_readable(hidden.as_bytes()), "{hidden}");
        }
    }

    #[test]
    fn attack_87_parts_differences_and_codings_are_refused() {
        let refused = |status: u16, fields: &[(HeaderName, &'static str)]| {
            let headers = fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
            check(StatusCode::from_u16(status).unwrap(), &headers).err()
        };
        assert_eq!(refused(200, &[]), None);
        assert_eq!(refused(200, &[(CONTENT_ENCODING, "identity"), (GRPC_ENCODING, "identity")]), None);
        assert_eq!(refused(206, &[]), Some(Refusal::UpstreamRepresentation));
        assert_eq!(refused(226, &[]), Some(Refusal::UpstreamRepresentation));
        assert_eq!(refused(200, &[(GRPC_ENCODING, "gzip")]), Some(Refusal::UpstreamRepresentation));
        assert_eq!(refused(500, &[(CONTENT_ENCODING, "identity, br")]), Some(Refusal::UpstreamEncoded));
        let two = [(CONTENT_TYPE, "text/plain"), (CONTENT_TYPE, "text/plain; charset=utf-16")];
        let headers: HeaderMap = {
            let mut headers = HeaderMap::new();
            for (name, value) in &two {
                headers.append(name, HeaderValue::from_static(value));
            }
            headers
        };
        assert_eq!(check(StatusCode::OK, &headers), Err(Refusal::UpstreamRepresentation));
    }
}

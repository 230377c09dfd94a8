//! Ambiguous and malformed requests, and similar valid ones, generated from lists of mutations.

use serde_json::{Value, json};

/// Bytes to send on a new connection, and the expected outcome.
pub(super) struct Case {
    /// Describes the mutation; unique.
    pub(super) name: String,
    /// The request; [`SUCCESSOR`] is sent right after it.
    pub(super) bytes: Vec<u8>,
    pub(super) expected: Expected,
}

/// The expected outcome of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// Nothing reaches the upstream, the response has this status, and the connection is closed.
    Refused(u16),
    /// The error is within the body: no complete request reaches the upstream, and the connection is closed.
    Broken,
    /// Exactly this reaches the upstream, and then the successor.
    Forwarded { method: &'static str, target: String, body: Vec<u8> },
}

/// A valid request right after every case: it is forwarded after a forwarded case and never after any other.
pub(super) const SUCCESSOR: &[u8] =
    b"GET /a/v1/models?after=successor HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n";

const POST: &str = "POST /a/v1/messages HTTP/1.1\r\nHost: pixy\r\n";
const GET: &str = "GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\n";

/// All of them.
pub(super) fn cases() -> Vec<Case> {
    let mut corpus = Corpus(Vec::new());
    corpus.lengths();
    corpus.codings();
    corpus.lengths_and_codings();
    corpus.names();
    corpus.values();
    corpus.line_ends();
    corpus.request_lines();
    corpus.targets();
    corpus.hosts();
    corpus.expectations();
    corpus.refused_chunks();
    corpus.accepted_chunks();
    corpus.trailers();
    corpus.honest();
    corpus.0
}

/// The corpus for programs in other languages; one character a byte.
pub(super) fn as_json() -> Value {
    let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    let case = |case: &Case| {
        let expected = match &case.expected {
            Expected::Refused(status) => json!({ "refused": status }),
            Expected::Broken => json!("broken"),
            Expected::Forwarded { method, target, body } => {
                json!({ "method": method, "target": target, "body": text(body) })
            }
        };
        json!({ "name": case.name, "bytes": text(&case.bytes), "expected": expected })
    };
    json!({ "successor": text(SUCCESSOR), "cases": cases().iter().map(case).collect::<Vec<_>>() })
}

struct Corpus(Vec<Case>);

impl Corpus {
    fn add(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>, expected: Expected) {
        self.0.push(Case { name: name.into(), bytes: bytes.into(), expected });
    }

    fn refused(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.add(name, bytes, Expected::Refused(400));
    }

    fn broken(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.add(name, bytes, Expected::Broken);
    }

    fn posted(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>, body: &str) {
        let expected = Expected::Forwarded { method: "POST", target: "/v1/messages".to_owned(), body: body.into() };
        self.add(name, bytes, expected);
    }

    fn got(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.add(name, bytes, Expected::Forwarded { method: "GET", target: "/v1/models".to_owned(), body: Vec::new() });
    }

    fn lengths(&mut self) {
        const WRONG: [&str; 33] = [
            "+5",
            "-5",
            "0x5",
            "5,5",
            "5, 5",
            "5,6",
            "5;",
            "5.0",
            "",
            "5 5",
            "18446744073709551616",
            "five",
            "5a",
            "a5",
            "99999999999999999999999999",
            "'5'",
            "\"5\"",
            "5e0",
            "0b101",
            "1_0",
            "-0",
            "+0",
            "--5",
            "5-",
            "5\u{b2}",
            "\u{665}",
            ",5",
            "5,",
            "(5)",
            "5%",
            "%35",
            "0x",
            "NaN",
        ];
        for value in WRONG {
            for name in ["Content-Length", "content-length", "CONTENT-LENGTH"] {
                self.refused(format!("{name} {value:?}"), format!("{POST}{name}: {value}\r\n\r\nhello"));
            }
        }
        for (first, second) in [("5", "5"), ("5", "6"), ("6", "5"), ("0", "5"), ("5", "0"), ("", "5"), ("5", "")] {
            for between in ["", "X-Between: 1\r\n"] {
                let fields = format!("Content-Length: {first}\r\n{between}content-length: {second}\r\n");
                self.refused(
                    format!("two lengths {first:?} {second:?} {between:?}"),
                    format!("{POST}{fields}\r\nhello"),
                );
            }
        }
        for value in ["5", " 5", "5 ", "\t5\t", "   5   ", "05", "00000000000000000005"] {
            self.posted(format!("length {value:?}"), format!("{POST}Content-Length:{value}\r\n\r\nhello"), "hello");
        }
    }

    fn codings(&mut self) {
        const WRONG: [&str; 26] = [
            "xchunked",
            "chunkedx",
            "chunked, chunked",
            "gzip, chunked",
            "chunked, gzip",
            "identity",
            "",
            "chunked;q=1",
            "\"chunked\"",
            "chunked ,",
            ", chunked",
            "chunk",
            "cow",
            "deflate",
            "compress",
            "trailers",
            "chunked identity",
            "identity, chunked",
            "chunked\u{a0}",
            "\u{a0}chunked",
            "chun ked",
            "chunked;",
            "chunked=1",
            "(chunked)",
            "x-chunked",
            "chunked, ",
        ];
        for value in WRONG {
            for name in ["Transfer-Encoding", "transfer-encoding"] {
                let bytes = latin(&format!("{POST}{name}: {value}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
                self.refused(format!("{name} {value:?}"), bytes);
            }
        }
        for (first, second) in
            [("chunked", "chunked"), ("identity", "chunked"), ("chunked", "identity"), ("", "chunked")]
        {
            let fields = format!("Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}\r\n");
            self.refused(format!("two codings {first:?} {second:?}"), format!("{POST}{fields}\r\n0\r\n\r\n"));
        }
        for more in ["", "Connection: keep-alive\r\n", "Content-Length: 5\r\n"] {
            let head =
                format!("POST /a/v1/messages HTTP/1.0\r\nHost: pixy\r\nTransfer-Encoding: chunked\r\n{more}\r\n");
            self.refused(format!("a coding in HTTP/1.0 {more:?}"), format!("{head}5\r\nhello\r\n0\r\n\r\n"));
        }
        for value in ["chunked", "Chunked", "CHUNKED", "  chunked", "chunked  ", "\tchunked\t"] {
            let head = format!("{POST}Transfer-Encoding:{value}\r\n\r\n");
            self.posted(format!("coding {value:?}"), format!("{head}5\r\nhello\r\n0\r\n\r\n"), "hello");
        }
    }

    fn lengths_and_codings(&mut self) {
        let smuggled = "GET /a/v1/models?smuggled HTTP/1.1\r\nHost: pixy\r\n\r\n";
        for length in ["0", "4", "5", "6", "1000", "abc"] {
            for coding in ["chunked", "Chunked", "gzip, chunked", "identity", "xchunked", ""] {
                let (length, coding) =
                    (format!("Content-Length: {length}\r\n"), format!("Transfer-Encoding: {coding}\r\n"));
                for (name, fields) in [("CL.TE", format!("{length}{coding}")), ("TE.CL", format!("{coding}{length}"))] {
                    let bytes = format!("{POST}{fields}\r\n0\r\n\r\n{smuggled}");
                    self.refused(format!("{name} {fields:?}"), bytes);
                }
            }
        }
    }

    fn names(&mut self) {
        const FIELDS: [(&str, &str); 5] = [
            ("Content-Length", "5"),
            ("Transfer-Encoding", "chunked"),
            ("Authorization", "Bearer x"),
            ("X-Anything", "1"),
            ("Connection", "close"),
        ];
        for (name, value) in FIELDS {
            let odd = [
                format!("{name} : {value}"),
                format!("{name}\t: {value}"),
                format!(" {name}: {value}"),
                format!("\t{name}: {value}"),
                format!("{name}\0: {value}"),
                format!("\0{name}: {value}"),
                format!("{name}\u{b}: {value}"),
                format!("{name}\u{7f}: {value}"),
                format!("\u{a0}{name}: {value}"),
                format!("{name}\u{85}: {value}"),
                format!("{name}\r: {value}"),
                format!("{name}\n: {value}"),
                format!("{name} {value}"),
                name.to_owned(),
                format!(": {value}"),
                format!("({name}): {value}"),
                format!("{name},x: {value}"),
                format!("{name}@: {value}"),
                format!("\"{name}\": {value}"),
                format!("{name}[]: {value}"),
                format!("{name}{{}}: {value}"),
                format!("{name}/: {value}"),
                format!("{name};: {value}"),
                format!("{name}=: {value}"),
                format!("X-Before: 1\r\n {name}: {value}"),
                format!("X-Before: 1\n{name}: {value}"),
                format!("X-Before: 1\r{name}: {value}"),
                format!("X-Before: 1\0\r\n{name}: {value}"),
            ];
            for line in odd {
                self.refused(format!("field line {line:?}"), latin(&format!("{GET}{line}\r\n\r\n")));
            }
        }
        for line in [
            "Content_Length: 5",
            "Transfer_Encoding: chunked",
            "Content-Length-: 5",
            "_Content-Length: 5",
            "X-Content-Length: 5",
        ] {
            self.got(format!("a lookalike {line:?}"), format!("{GET}{line}\r\n\r\n"));
        }
    }

    fn values(&mut self) {
        for byte in (0..0x20_u8).chain([0x7f]).filter(|&byte| byte != b'\t') {
            for (place, before, after) in [("start", "", "ab"), ("middle", "a", "b"), ("end", "ab", "")] {
                let line = [b"X-Value: ", before.as_bytes(), &[byte], after.as_bytes(), b"\r\n"].concat();
                // What ends a line too early may leave a line that is none, or one that is.
                if byte == b'\r' && place == "end" {
                    continue; // below, as a line end
                }
                self.refused(
                    format!("{byte:#04x} at the {place} of a value"),
                    [GET.as_bytes(), &line, b"\r\n"].concat(),
                );
            }
        }
        for value in ["a\tb", "\u{e9}t\u{e9}", "", " ", "a:b", "\"quoted\"", "a, b; c=d", "\u{ff}"] {
            self.got(format!("value {value:?}"), latin(&format!("{GET}X-Value: {value}\r\n\r\n")));
        }
    }

    fn line_ends(&mut self) {
        let lines = ["POST /a/v1/messages HTTP/1.1", "Host: pixy", "X-Value: 1", "Content-Length: 5", ""];
        for odd in 0..lines.len() {
            for end in ["\n", "\r", "\n\r", "\r\r\n", "\r\n ", "\r\n\t", "\r\n \r\n", "\n\n", " \n", "\u{b}\n"] {
                let mut bytes = String::new();
                for (number, line) in lines.iter().enumerate() {
                    bytes.push_str(line);
                    bytes.push_str(if number == odd { end } else { "\r\n" });
                }
                // After the last line, a blank is the body's.
                if odd + 1 < lines.len() || !end.starts_with("\r\n") {
                    self.refused(format!("line {odd} ends with {end:?}"), latin(&format!("{bytes}hello")));
                }
            }
        }
    }

    fn request_lines(&mut self) {
        for line in [
            "GET  /a/v1/models HTTP/1.1",
            "GET /a/v1/models  HTTP/1.1",
            " GET /a/v1/models HTTP/1.1",
            "GET /a/v1/models HTTP/1.1 ",
            "GET\t/a/v1/models HTTP/1.1",
            "GET /a/v1/models\tHTTP/1.1",
            "GET /a/v1/models",
            "GET /a/v1/models ",
            "GET HTTP/1.1",
            "GET",
            "",
            "/a/v1/models HTTP/1.1",
            "GET /a/v1/models HTTP/0.9",
            "GET /a/v1/models HTTP/1.2",
            "GET /a/v1/models HTTP/2.0",
            "GET /a/v1/models HTTP/3",
            "GET /a/v1/models HTTP/1.10",
            "GET /a/v1/models HTTP/01.1",
            "GET /a/v1/models http/1.1",
            "GET /a/v1/models HTTP/1",
            "GET /a/v1/models HTTPS/1.1",
            "GET /a/v1/models HTTP/1.1 x",
            "GET /a/v1/models HTTP 1.1",
            "GET /a/v1/models HTTP/1,1",
            "GET /a/v1/models HTTP/-1.1",
            "GET /a/v1/models ICY/1.1",
            "GET /a/v1/models HTTP/1.1\u{b}",
            "GET /a/v1/models /a/v1/messages HTTP/1.1",
            "GET /a/v1/models HTTP/1.1\r\n ",
            "\r\nGET /a/v1/models HTTP/1.1",
            "\r\n\r\nGET /a/v1/models HTTP/1.1",
            "\nGET /a/v1/models HTTP/1.1",
            "\rGET /a/v1/models HTTP/1.1",
            "\0GET /a/v1/models HTTP/1.1",
            "\u{ef}\u{bb}\u{bf}GET /a/v1/models HTTP/1.1",
            "G(T /a/v1/models HTTP/1.1",
            "GET\0 /a/v1/models HTTP/1.1",
            "G\u{e9}T /a/v1/models HTTP/1.1",
            "GET: /a/v1/models HTTP/1.1",
            "G/T /a/v1/models HTTP/1.1",
            "\"GET\" /a/v1/models HTTP/1.1",
            "GET, POST /a/v1/models HTTP/1.1",
            "HTTP/1.1 200 OK",
            "PRI * HTTP/2.0",
            "\u{16}\u{3}\u{1} / HTTP/1.1",
        ] {
            self.refused(format!("request line {line:?}"), latin(&format!("{line}\r\nHost: pixy\r\n\r\n")));
        }
        for rest in ["XX\r\n\r\n", "SM\r\n\n", "GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\n\r\n"] {
            self.refused(format!("a preface that is none {rest:?}"), format!("PRI * HTTP/2.0\r\n\r\n{rest}"));
        }
        for (method, target) in
            [("CONNECT", "/a/v1/models"), ("TRACE", "/a/v1/models"), ("CONNECT", "pixy:80"), ("TRACE", "*")]
        {
            let bytes = format!("{method} {target} HTTP/1.1\r\nHost: pixy\r\nContent-Length: 5\r\n\r\nhello");
            self.add(format!("{method} {target}"), bytes, Expected::Refused(405));
        }
    }

    fn targets(&mut self) {
        for target in [
            "*",
            "http://pixy/a/v1/models",
            "http://evil/a/v1/models",
            "HTTP://pixy/a/v1/models",
            "https://pixy/a/v1/models",
            "pixy:80",
            "pixy",
            "a/v1/models",
            "?x",
            "#",
            "/a/v1/models#fragment",
            "/a/v1/models?x#y",
            "\\a\\v1\\models",
            "/a\\v1\\models",
            "/a/v1/models?\"x\"",
            "/a/v1/models<x>",
            "/a/v1/models?<x>",
            "/a/v1/models|x",
            "/a/v1/{models}",
            "/a/v1/models^",
            "/a/v1/`models`",
            "/a/v1/[models]",
            "//",
            "http:/a/v1/models",
            "://",
            "file:///etc/passwd",
            "/a/v1/models/%2e%2e/x",
            "/a/v1//models",
            "/a/v1/models/../messages",
            "/a/v1/models%0d%0aX:y",
            "/a/v1/models;x",
        ] {
            let status = if target == "//" { 404 } else { 400 };
            // A rejection for the path alone leaves the connection open; these cases test what the upstream receives.
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n");
            self.add(format!("target {target:?}"), bytes, Expected::Refused(status));
        }
        for byte in (0..=0x20_u8).chain(0x7f..=0x81).chain([0xa0, 0xc0, 0xff]) {
            for place in ["/a/v1/mod", "/a/v1/models?after="] {
                let bytes = [b"GET ", place.as_bytes(), &[byte], b"els HTTP/1.1\r\nHost: pixy\r\n\r\n"].concat();
                self.refused(format!("{byte:#04x} after {place}"), bytes);
            }
        }
        for query in ["after=%0d%0a", "after={}", "after=[]|^", "after=?/:@", "limit=b&limit=c"] {
            let target = format!("/v1/models?{query}");
            let bytes = format!("GET /a{target} HTTP/1.1\r\nHost: pixy\r\n\r\n");
            self.add(
                format!("query {query:?}"),
                bytes,
                Expected::Forwarded { method: "GET", target, body: Vec::new() },
            );
        }
    }

    fn hosts(&mut self) {
        for version in ["1.0", "1.1"] {
            let line = format!("GET /a/v1/models HTTP/{version}\r\n");
            self.refused(format!("no Host in {version}"), format!("{line}X-Value: 1\r\n\r\n"));
            for (first, second) in [("pixy", "pixy"), ("pixy", "evil"), ("evil", "pixy"), ("", "pixy"), ("pixy", "")] {
                let fields = format!("Host: {first}\r\nX-Value: 1\r\nhost: {second}\r\n");
                self.refused(format!("Hosts {first:?} {second:?} in {version}"), format!("{line}{fields}\r\n"));
            }
        }
        for host in [
            "",
            "a b",
            "a/b",
            "me@pixy",
            "a,b",
            "a:b",
            "a:",
            "a:99999",
            "[::1",
            "[zz]",
            "a#b",
            "a?b",
            "a\\b",
            "a:80:80",
            ":80",
            "%zz",
            "%a",
            "[::1]x",
            "a;b",
            "http://pixy",
            "pixy\tx",
            "::1",
            "[127.0.0.1]",
            "a/#@b",
            "pixy:80@evil",
            "a=b",
            "(a)",
            "a:+80",
            "a:8 0",
            "[::1]:",
            "\u{e9}",
            "a\"b",
            "a'b",
            "<a>",
            "a&b",
            "a|b",
            "*",
            "{a}",
        ] {
            self.refused(
                format!("Host {host:?}"),
                latin(&format!("GET /a/v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n")),
            );
        }
        for host in ["pixy", "127.0.0.1:8700", "[::1]:8700", "PIXY", "pixy:1", "pixy.", "localhost:0"] {
            self.got(format!("Host {host:?}"), format!("GET /a/v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        }
    }

    fn expectations(&mut self) {
        for value in ["200-ok", "", "100-continue, 100-continue", "100", "continue", "100-continue;x", "nothing", "0"] {
            let bytes = format!("{POST}Content-Length: 5\r\nExpect: {value}\r\n\r\nhello");
            self.add(format!("Expect {value:?}"), bytes, Expected::Refused(417));
        }
        for value in ["100-continue", "100-Continue"] {
            let bytes = format!("{POST}Content-Length: 5\r\nExpect: {value}\r\n\r\nhello");
            self.posted(format!("Expect {value:?}"), bytes, "hello");
        }
    }

    fn refused_chunks(&mut self) {
        let head = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
        let long = format!("5;{}\r\n", "a".repeat(257));
        let sizes = [
            "\r\n",
            " 5\r\n",
            "5 \r\n",
            "\t5\r\n",
            "5\t\r\n",
            "+5\r\n",
            "-5\r\n",
            "0x5\r\n",
            "5x\r\n",
            "g\r\n",
            "5\0\r\n",
            "00000000000000005\r\n",
            "fffffffffffffffff\r\n",
            "5,5\r\n",
            "5.0\r\n",
            "5\n",
            "5\r",
            "5\n\r\n",
            "5\r\r\n",
            "5;\n",
            "5;a=\"b\"\r\n",
            "5;a=\"\r\n\"\r\n",
            "5;a\n\r\n",
            "5;a\rb\r\n",
            "5;\0\r\n",
            "5;\u{7f}\r\n",
            "5;\u{e9}\r\n",
            "5 ;a\r\n",
            "5\t;a\r\n",
            "5:a\r\n",
            "5;a=\u{1}\r\n",
            "\r\n5\r\n",
            "\n5\r\n",
            "'5'\r\n",
            "\u{665}\r\n",
            &long,
        ];
        for size in sizes {
            for before in ["", "3\r\nabc\r\n"] {
                let bytes = latin(&format!("{head}{before}{size}hello\r\n0\r\n\r\n"));
                self.broken(format!("after {before:?} a chunk size {size:?}"), bytes);
            }
        }
        for end in
            ["", "\n", "\r", "x\r\n", "\r\r\n", "\n\r", " \r\n", "hello\r\n", "\r\n\r\n", "\0", "\r\0", "\u{b}\r\n"]
        {
            self.broken(format!("chunk data ends with {end:?}"), format!("{head}5\r\nhello{end}0\r\n\r\n"));
        }
        for last in [
            "0\n\n",
            "0\r\r",
            "0 \r\n\r\n",
            "-0\r\n\r\n",
            "0x0\r\n\r\n",
            "0;\"\"\r\n\r\n",
            "0\r\n\n",
            "0\r\n\r\r\n",
            "0\r\n\rX",
            "0\n\r\n",
        ] {
            self.broken(format!("last chunk {last:?}"), format!("{head}5\r\nhello\r\n{last}"));
        }
    }

    fn accepted_chunks(&mut self) {
        let head = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
        let longest = format!("5;{}\r\n", "a".repeat(256));
        for size in [
            "5\r\n",
            "05\r\n",
            "0000000000000005\r\n",
            "5;a\r\n",
            "5;a=b\r\n",
            "5;a=b;c=d\r\n",
            "5;\r\n",
            "5; a = b\r\n",
            &longest,
        ] {
            self.posted(format!("chunk size {size:?}"), format!("{head}{size}hello\r\n0\r\n\r\n"), "hello");
        }
        for (size, length) in [("A", 10), ("a", 10), ("1f", 31), ("1F", 31)] {
            let body = "x".repeat(length);
            self.posted(format!("chunk size {size}"), format!("{head}{size}\r\n{body}\r\n0\r\n\r\n"), &body);
        }
        for last in ["0", "00", "0000000000000000", "0;a"] {
            self.posted(format!("last chunk {last:?}"), format!("{head}5\r\nhello\r\n{last}\r\n\r\n"), "hello");
        }
        self.posted("many chunks", format!("{head}{}0\r\n\r\n", "1\r\nx\r\n".repeat(200)), &"x".repeat(200));
        self.posted("no chunk", format!("{head}0\r\n\r\n"), "");
    }

    fn trailers(&mut self) {
        let body = format!("{POST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n");
        for trailer in [
            " folded: x\r\n",
            "a : b\r\n",
            "a\r\n",
            "a\0: b\r\n",
            ": b\r\n",
            "a: b\n",
            "a: \0\r\n",
            "a: b\rc\r\n",
            "\u{e9}: x\r\n",
            "a: b\r\n c\r\n",
            "a: b\r\r\n",
            "\n",
            "(a): b\r\n",
            "a: b\u{7f}\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            self.broken(format!("trailer {trailer:?}"), latin(&format!("{body}{trailer}\r\n")));
        }
        for trailer in [
            "Authorization: Bearer evil",
            "Host: evil",
            "Content-Length: 100",
            "Transfer-Encoding: chunked",
            "X-Api-Key: evil",
            "Connection: close",
            "X-Value:",
            "a: b\r\nc: d",
        ] {
            self.posted(format!("trailer {trailer:?}"), format!("{body}{trailer}\r\n\r\n"), "hello");
        }
    }

    /// Valid requests that contain other requests or look like upgrades.
    fn honest(&mut self) {
        let inner = "GET /a/v1/models?smuggled HTTP/1.1\r\nHost: pixy\r\n\r\n";
        let bytes = format!("{POST}Content-Length: {}\r\n\r\n{inner}", inner.len());
        self.posted("a request as a body", bytes, inner);
        let bytes = format!("{POST}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
        self.posted("a request as a chunk", bytes, inner);
        self.posted("a body that ends like chunks", format!("{POST}Content-Length: 5\r\n\r\n0\r\n\r\n"), "0\r\n\r\n");
        self.posted("an empty body", format!("{POST}Content-Length: 0\r\n\r\n"), "");
        self.posted("no body", format!("{POST}\r\n"), "");
        self.got("a plain GET", format!("{GET}\r\n"));
        for fields in [
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
            "Connection: Upgrade\r\nUpgrade: h2c\r\n",
            "Connection: Upgrade\r\nUpgrade: h2c, foo/2\r\n",
            "Upgrade: h2c\r\n",
            "Upgrade: TLS/1.0\r\nConnection: upgrade\r\n",
        ] {
            self.got(format!("an upgrade that is not taken {fields:?}"), format!("{GET}{fields}\r\n"));
        }
        let body = Expected::Forwarded { method: "GET", target: "/v1/models".to_owned(), body: b"hello".to_vec() };
        self.add("a GET with a body", format!("{GET}Content-Length: 5\r\n\r\nhello"), body);
    }
}

/// One byte a character.
fn latin(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(character).unwrap_or(b'?')).collect()
}

//! A batch of spans as OTLP writes it in JSON (OTLP 1.x, "JSON Protobuf Encoding": ids as hexadecimal, 64-bit numbers as text).

use serde_json::{Value, json};

use super::span::Record;

/// A span of a server (`SPAN_KIND_SERVER`).
const SERVER: u8 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;
/// The trace is recorded (W3C's flag), and whether the parent is another program's is known, and so (`SpanFlags`).
const FLAGS: u32 = 0x1 | 0x100;
const REMOTE: u32 = 0x200;

/// An `ExportTraceServiceRequest`.
pub(super) fn batch(spans: &[Record], service: &str) -> String {
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({
        "resourceSpans": [{
            "resource": { "attributes": [text("service.name", service), text("service.version", crate::VERSION)] },
            "scopeSpans": [{ "scope": { "name": "pixy", "version": crate::VERSION }, "spans": spans }],
        }],
    })
    .to_string()
}

fn span(record: &Record) -> Value {
    let Record { trace, id, parent, start, end, method, routed, account, status, code, request_id } = record;
    let mut attributes = vec![text("http.request.method", method), text("pixy.request_id", request_id)];
    // What the conventions call a method that they do not know, in a name.
    let mut name = if *method == "_OTHER" { "HTTP".to_owned() } else { (*method).to_owned() };
    if let Some(routed) = routed {
        name = format!("{name} {}", routed.shape);
        attributes.push(text("http.route", &routed.shape));
        // The server behind the intermediary, as the conventions say: the upstream's.
        attributes.push(text("server.address", &routed.host));
    }
    attributes.extend(account.iter().map(|account| text("pixy.account", account)));
    let failed = *status >= 500;
    if *status != 0 {
        attributes.push(json!({ "key": "http.response.status_code", "value": { "intValue": status.to_string() } }));
    }
    let error = match (*code, failed, *status) {
        ("", _, 0) => Some("client_gone".to_owned()),
        ("", true, status) => Some(status.to_string()),
        ("", false, _) => None,
        (code, ..) => Some(code.to_owned()),
    };
    attributes.extend(error.map(|error| text("error.type", &error)));
    let mut span = json!({
        "traceId": format!("{trace:032x}"),
        "spanId": format!("{id:016x}"),
        "flags": if parent.is_some() { FLAGS | REMOTE } else { FLAGS },
        "name": name,
        "kind": SERVER,
        "startTimeUnixNano": start.to_string(),
        "endTimeUnixNano": end.to_string(),
        "attributes": attributes,
        // An agent's fault is no error of the server.
        "status": if failed { json!({ "code": ERROR }) } else { json!({}) },
    });
    if let Some(parent) = parent {
        span["parentSpanId"] = json!(format!("{parent:016x}"));
    }
    span
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

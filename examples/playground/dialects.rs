//! Responses in the dialects of Anthropic and OpenAI, complete or as a stream of events.

use std::time::Duration;

use serde_json::{Value, json};

/// A streamed response: serialized events, each with the delay before it.
pub(crate) type Events = Vec<(Duration, String)>;

/// `POST /v1/messages`.
pub(crate) fn message(id: &str, model: &str) -> Value {
    json!({
        "id": format!("msg_{id}"), "type": "message", "role": "assistant", "model": model,
        "content": [{ "type": "text", "text": SENTENCE }],
        "stop_reason": "end_turn", "stop_sequence": null, "usage": { "input_tokens": INPUT, "output_tokens": output() },
    })
}

/// `POST /v1/messages` with `"stream": true`.
pub(crate) fn message_events(id: &str, model: &str) -> Events {
    let named = |event: Value| {
        let name = event["type"].as_str().unwrap_or_default().to_owned();
        format!("event: {name}\ndata: {event}\n\n")
    };
    let mut start = message(id, model);
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"] = json!({ "input_tokens": INPUT, "output_tokens": 1 });
    let text = json!({ "type": "text", "text": "" });
    let delta = |word: &str| {
        let text = json!({ "type": "text_delta", "text": word });
        named(json!({ "type": "content_block_delta", "index": 0, "delta": text }))
    };
    let end = json!({ "stop_reason": "end_turn", "stop_sequence": null });
    events(
        [
            named(json!({ "type": "message_start", "message": start })),
            named(json!({ "type": "content_block_start", "index": 0, "content_block": text })),
            named(json!({ "type": "ping" })),
        ],
        delta,
        [
            named(json!({ "type": "content_block_stop", "index": 0 })),
            named(json!({ "type": "message_delta", "delta": end, "usage": { "output_tokens": output() } })),
            named(json!({ "type": "message_stop" })),
        ],
    )
}

/// `POST /v1/chat/completions`.
pub(crate) fn completion(id: &str, model: &str, now: u64) -> Value {
    json!({
        "id": format!("chatcmpl-{id}"), "object": "chat.completion", "created": now, "model": model,
        "choices": [{
            "index": 0, "message": { "role": "assistant", "content": SENTENCE, "refusal": null },
            "logprobs": null, "finish_reason": "stop",
        }],
        "usage": completion_usage(),
    })
}

/// `POST /v1/chat/completions` with `"stream": true`; `usage` is `stream_options.include_usage`.
pub(crate) fn completion_events(id: &str, model: &str, now: u64, usage: bool) -> Events {
    let chunk = |choices: Value, usage: Value| {
        let id = format!("chatcmpl-{id}");
        let chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": now, "model": model, "choices": choices, "usage": usage,
        });
        format!("data: {chunk}\n\n")
    };
    let choice = |delta: Value, finish: Option<&str>| {
        chunk(json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }]), Value::Null)
    };
    let mut last = vec![choice(json!({}), Some("stop"))];
    if usage {
        last.push(chunk(json!([]), completion_usage()));
    }
    last.push("data: [DONE]\n\n".to_owned());
    let first = choice(json!({ "role": "assistant", "content": "", "refusal": null }), None);
    events([first], |word| choice(json!({ "content": word }), None), last)
}

/// `POST /v1/responses`.
pub(crate) fn response(id: &str, model: &str, now: u64) -> Value {
    json!({
        "id": format!("resp_{id}"), "object": "response", "created_at": now, "status": "completed", "model": model,
        "error": null, "incomplete_details": null, "instructions": null, "metadata": {}, "parallel_tool_calls": true,
        "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": [], "store": false,
        "output": [output_item(id, "completed", &json!([output_text(SENTENCE)]))],
        "usage": {
            "input_tokens": INPUT, "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": output(), "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": INPUT + output(),
        },
    })
}

/// `POST /v1/responses` with `"stream": true`.
pub(crate) fn response_events(id: &str, model: &str, now: u64) -> Events {
    let mut begun = response(id, model, now);
    begun["status"] = json!("in_progress");
    begun["output"] = json!([]);
    begun["usage"] = Value::Null;
    // Members of every text event.
    let about_text = |mut event: Value| {
        event["item_id"] = json!(format!("msg_{id}"));
        event["output_index"] = json!(0);
        event["content_index"] = json!(0);
        event
    };
    let item = |kind: &str, item: Value| json!({ "type": kind, "output_index": 0, "item": item });
    let part = |kind: &str, text: &str| about_text(json!({ "type": kind, "part": output_text(text) }));
    let whole = json!([output_text(SENTENCE)]);
    let first = [
        json!({ "type": "response.created", "response": begun }),
        json!({ "type": "response.in_progress", "response": begun }),
        item("response.output_item.added", output_item(id, "in_progress", &json!([]))),
        part("response.content_part.added", ""),
    ];
    let delta = |word: &str| about_text(json!({ "type": "response.output_text.delta", "delta": word, "logprobs": [] }));
    let last = [
        about_text(json!({ "type": "response.output_text.done", "text": SENTENCE, "logprobs": [] })),
        part("response.content_part.done", SENTENCE),
        item("response.output_item.done", output_item(id, "completed", &whole)),
        json!({ "type": "response.completed", "response": response(id, model, now) }),
    ];
    // Serialized last, because the sequence number counts all events.
    let numbered = |(number, (pause, mut event)): (usize, (Duration, Value))| {
        event["sequence_number"] = json!(number);
        let name = event["type"].as_str().unwrap_or_default().to_owned();
        (pause, format!("event: {name}\ndata: {event}\n\n"))
    };
    events(first, delta, last).into_iter().enumerate().map(numbered).collect()
}

/// `GET /v1/models`, in a shape that is valid in both dialects.
pub(crate) fn models() -> Value {
    json!({ "object": "list", "data": [model(MODEL)], "has_more": false, "first_id": MODEL, "last_id": MODEL })
}

/// `GET /v1/models/{id}`.
pub(crate) fn model(id: &str) -> Value {
    json!({
        "id": id, "type": "model", "display_name": "Playground 1", "created_at": "2026-01-01T00:00:00Z",
        "object": "model", "created": 1_767_225_600, "owned_by": "playground",
    })
}

/// `POST /v1/messages/count_tokens`: estimated as four bytes per token.
pub(crate) fn count(body_length: usize) -> Value {
    json!({ "input_tokens": body_length.div_ceil(4) })
}

/// The listed model; requests for other names are answered too.
pub(crate) const MODEL: &str = "playground-1";

/// `first` without delay, the sentence word by word, `last` without delay.
fn events<T>(
    first: impl IntoIterator<Item = T>,
    word: impl Fn(&str) -> T,
    last: impl IntoIterator<Item = T>,
) -> Vec<(Duration, T)> {
    let at_once = |event| (Duration::ZERO, event);
    let words = SENTENCE.split_inclusive(' ').map(|text| (PAUSE, word(text)));
    first.into_iter().map(at_once).chain(words).chain(last.into_iter().map(at_once)).collect()
}

fn output_item(id: &str, status: &str, content: &Value) -> Value {
    let id = format!("msg_{id}");
    json!({ "id": id, "type": "message", "status": status, "role": "assistant", "content": content })
}

fn output_text(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn completion_usage() -> Value {
    json!({ "prompt_tokens": INPUT, "completion_tokens": output(), "total_tokens": INPUT + output() })
}

fn output() -> usize {
    SENTENCE.split(' ').count()
}

const SENTENCE: &str = "Hello! I am the playground, a very small model that knows one friendly sentence, and you reached \
me without holding any credential of mine.";
const INPUT: usize = 12;
const PAUSE: Duration = Duration::from_millis(80);

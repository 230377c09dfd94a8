//! `GET /api/openapi.json`: the routes and their types as an OpenAPI 3.1 document.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::routes::split_path;
use super::{Access, Operation, Problem, ROUTES, Route};

/// The document. Requests and answers are described as they are on the wire: an answer always has every field, a request
/// may leave out what may be null.
pub fn document() -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut requests = settings.clone().into_generator();
    let mut answers = settings.for_serialize().into_generator();
    let problem = answers.subschema_for::<Problem>();
    let problem = json!({
        "description": "A problem (RFC 9457).",
        "content": { "application/problem+json": { "schema": problem } },
    });
    let mut paths = Map::new();
    for route in ROUTES {
        let operation = operation(route, &mut requests, &mut answers);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    let mut schemas = requests.take_definitions(true);
    schemas.extend(answers.take_definitions(true));
    let document = json!({
        "openapi": "3.1.0",
        "info": { "title": "Pixy", "version": crate::VERSION, "description": DESCRIPTION },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": { "Problem": problem },
            "securitySchemes": { "session": { "type": "http", "scheme": "bearer" } },
        },
    });
    match document {
        Value::Object(document) => document,
        _ => Map::new(), // `json!({})` makes an object
    }
}

fn operation(route: &Route, requests: &mut SchemaGenerator, answers: &mut SchemaGenerator) -> Value {
    let content_type =
        if route.operation == Operation::StreamAccounts { "text/event-stream" } else { "application/json" };
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary.trim(),
        "responses": {
            "200": { "description": "Success.", "content": { content_type: { "schema": (route.answer)(answers) } } },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    });
    if let Some((_, name, _)) = split_path(route.path) {
        operation["parameters"] =
            json!([{ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }]);
    }
    let request = (route.request)(requests).to_value();
    if request["type"] != "null" {
        let required = !(route.request_is_optional)();
        operation["requestBody"] =
            json!({ "required": required, "content": { "application/json": { "schema": request } } });
    }
    match route.access {
        Access::Open => {}
        Access::Session => operation["security"] = json!([{ "session": [] }]),
        Access::ControlSocket => operation["description"] = json!("Served on the control socket alone."),
    }
    operation
}

const DESCRIPTION: &str = "The JSON API of Pixy's page and control socket. On the control socket the kernel proves the \
    caller's user and no session is needed.";

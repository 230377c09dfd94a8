//! Traces: what an agent says of its trace goes on as it is; with the feature `otlp`, what a collector hears of a request.

use crate::support::{Pixy, TokenEndpoint, Upstream, within};

#[tokio::test]
async fn what_an_agent_says_of_its_trace_reaches_the_upstream_as_it_was_sent() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    for (parent, state) in [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "a=b"),
        ("not valid", "at all"), // not ours to judge
    ] {
        let request = format!(
            "GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\ntraceparent: {parent}\r\nTraceState: {state}\r\n\
             baggage: k=v\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(within(pixy.send(&request)).await.status, 200);
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(
            (seen.header("traceparent"), seen.header("tracestate"), seen.header("baggage")),
            (vec![parent], vec![state], vec!["k=v"])
        );
    }
}

/// The binary, which closes itself to what it does not need, with a collector's address in its environment.
#[cfg(feature = "otlp")]
mod exported {
    use std::time::Duration;

    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use crate::support::{Pixy, Program, RawClient, Reply, Scratch, TokenEndpoint, Upstream, within};

    struct Stage {
        program: Program,
        token: String,
        upstream: Upstream,
        _endpoint: TokenEndpoint,
        _scratch: Scratch,
    }

    impl Stage {
        async fn new(environment: &[(&str, &str)]) -> Self {
            let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
            let pixy = Pixy::linked(&endpoint, &upstream).await;
            assert_eq!(pixy.get("/a/v1/models").await.status, 200);
            let token = upstream.requests()[0].header("authorization")[0].replace("Bearer ", "");
            let (scratch, config) = pixy.dismantle().await;
            let program = Program::start_in(&scratch, &config, environment).await;
            Self { program, token, upstream, _endpoint: endpoint, _scratch: scratch }
        }

        async fn ask(&self, line: &str, fields: &str) -> u16 {
            let request = format!("{line} HTTP/1.1\r\nHost: pixy\r\n{fields}Connection: close\r\n\r\n");
            RawClient::once(self.program.agents(), request).await.unwrap().status
        }

        async fn metrics(&self) -> String {
            let ops = self.program.told().split("  probes   http://").nth(1).unwrap().split('/').next().unwrap();
            let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            RawClient::once(ops.parse().unwrap(), request).await.unwrap().text()
        }

        /// SIGTERM, and its end.
        async fn stop(self) -> Upstream {
            let id = rustix::process::Pid::from_raw(self.program.id().cast_signed()).unwrap();
            rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
            assert!(self.program.ended().await.success());
            self.upstream
        }
    }

    /// Every span that a collector was sent, in its order.
    fn spans(collector: &Upstream) -> Vec<Value> {
        let mut spans = Vec::new();
        for seen in collector.requests() {
            assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/v1/traces"));
            assert_eq!(seen.header("content-type"), ["application/json"]);
            let body: Value = serde_json::from_slice(&seen.body).unwrap();
            let resource = &body["resourceSpans"][0];
            assert_eq!(
                resource["resource"]["attributes"][0],
                json!({ "key": "service.name", "value": { "stringValue": "named" } })
            );
            spans.extend(resource["scopeSpans"][0]["spans"].as_array().unwrap().clone());
        }
        spans
    }

    fn attribute<'a>(span: &'a Value, key: &str) -> &'a str {
        let found = span["attributes"].as_array().unwrap().iter().find(|attribute| attribute["key"] == key);
        found.map_or("", |found| found["value"].as_object().unwrap().values().next().unwrap().as_str().unwrap())
    }

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[tokio::test]
    async fn attack_53_a_request_is_a_span_below_the_agents_and_holds_nothing_of_it() {
        let collector = Upstream::answering(|_| Reply::json(200, &json!({}))).await;
        let url = collector.url();
        let stage = Stage::new(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("OTEL_SERVICE_NAME", "named")]).await;
        let parent =
            |flags: &str| format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-{flags}\r\ntracestate: marked=1\r\n");
        let fields = parent("01") + "User-Agent: marked\r\nAuthorization: Bearer marked\r\nX-Marked: marked\r\n";
        assert_eq!(stage.ask("GET /a/v1/models/marked?key=marked&marked=1", &fields).await, 200);
        assert_eq!(stage.ask("GET /a/marked", "traceparent: 00-marked\r\n").await, 403);
        assert_eq!(stage.ask("GET /a/v1/models", &parent("00")).await, 200); // the agent records nothing
        stage.upstream.answer(Reply::new(529));
        assert_eq!(stage.ask("MARKED /marked/x", "").await, 404);
        assert_eq!(stage.ask("GET /a/v1/models", "").await, 529);
        let token = stage.token.clone();
        let sent_on = stage.stop().await.requests().len();
        assert_eq!(sent_on, 4, "the first was before this Pixy");
        let spans = spans(&collector);
        let told: Vec<_> = spans
            .iter()
            .map(|span| {
                assert_eq!((span["kind"].as_u64(), attribute(span, "pixy.request_id").len()), (Some(2), 16));
                let time = |key: &str| span[key].as_str().unwrap().parse::<u128>().unwrap();
                let took = time("endTimeUnixNano") - time("startTimeUnixNano");
                assert!((1..20_000_000_000).contains(&took), "{took} ns");
                let error = (attribute(span, "error.type"), span["status"]["code"].as_u64());
                let status = attribute(span, "http.response.status_code");
                (span["name"].as_str().unwrap(), attribute(span, "pixy.account"), status, error)
            })
            .collect();
        assert_eq!(
            told,
            [
                ("GET /a/v1/models/*", "a", "200", ("", None)),
                ("GET", "a", "403", ("path_not_allowed", None)),
                ("HTTP", "", "404", ("no_route", None)),
                ("GET /a/v1/models", "a", "529", ("529", Some(2))),
            ]
        );
        let first = &spans[0];
        assert_eq!((&first["traceId"], &first["parentSpanId"]), (&json!(TRACE), &json!("00f067aa0ba902b7")));
        assert_eq!(
            (attribute(first, "http.route"), attribute(first, "server.address")),
            ("/a/v1/models/*", "127.0.0.1")
        );
        for span in &spans[1..] {
            assert!(span["parentSpanId"].is_null() && span["traceId"] != TRACE, "a trace of its own: {span}");
        }
        let all = json!(spans).to_string().to_lowercase();
        assert!(!all.contains("marked") && !all.contains(&token.to_lowercase()), "{all}");
    }

    #[tokio::test]
    async fn a_span_is_over_when_its_stream_is() {
        let collector = Upstream::answering(|_| Reply::json(200, &json!({}))).await;
        let url = format!("{}/v1/traces", collector.url());
        let stage = Stage::new(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &url), ("OTEL_SERVICE_NAME", "named")]).await;
        let (reply, chunks) = Reply::stream(200);
        stage.upstream.answer(reply);
        let mut agent = RawClient::connect(stage.program.agents()).await;
        agent
            .send("POST /a/v1/messages HTTP/1.1\r\nHost: pixy\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            .await;
        chunks.send("data: 1\n\n");
        assert_eq!(within(agent.head()).await.unwrap().status, 200);
        assert_eq!(stage.ask("GET /a/v1/models", "").await, 200);
        chunks.finish();
        within(agent.rest()).await;
        stage.stop().await;
        let names: Vec<_> = spans(&collector).iter().map(|span| span["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["GET /a/v1/models", "POST /a/v1/messages"], "in the order of their ends");
    }

    #[tokio::test]
    async fn a_collector_that_refuses_or_says_nothing_holds_nobody_up() {
        let collector = Upstream::answering(|_| Reply::new(503)).await;
        let stage = Stage::new(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())]).await;
        assert_eq!(stage.ask("GET /a/v1/models", "").await, 200);
        let dropped = async {
            while !stage.metrics().await.contains("\npixy_spans_total{outcome=\"dropped\"} 1\n") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        within(dropped).await;
        assert_eq!(collector.requests().len(), 1, "it is not asked again");
        stage.stop().await;

        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let stage = Stage::new(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]).await;
        assert_eq!(stage.ask("GET /a/v1/models", "").await, 200);
        let began = tokio::time::Instant::now();
        stage.stop().await;
        let took = began.elapsed();
        assert!((Duration::from_secs(1)..Duration::from_secs(6)).contains(&took), "it waits for two seconds: {took:?}");
    }

    #[tokio::test]
    async fn without_an_address_or_with_traces_switched_off_nothing_is_sent() {
        let collector = Upstream::start().await;
        let url = collector.url();
        for off in [[("OTEL_SDK_DISABLED", "true")], [("OTEL_TRACES_EXPORTER", "none")]] {
            let stage = Stage::new(&[off[0], ("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]).await;
            assert_eq!(stage.ask("GET /a/v1/models", "").await, 200);
            stage.stop().await;
        }
        let stage = Stage::new(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "no address")]).await;
        assert_eq!(stage.ask("GET /a/v1/models", "").await, 200);
        stage.stop().await;
        assert_eq!(collector.connections(), 0);
    }
}

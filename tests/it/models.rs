//! The providers of models against a server that is as strict as they are.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use matins::agentloop::brief::{Candidate, Price};
use matins::agentloop::model::{
    Arguments, ErrorKind, Message, Model, ModelError, Request, Said, Stop, ToolResult, ToolSpec, Turn,
};
use matins::agentloop::providers::{ANSWER_MAX, CONNECT_TIMEOUT, Remote};
use matins::agentloop::retry::{Backoff, Next, Retrying, Tried};
use matins::ids::SystemEntropy;
use matins::net::{self, Reach};
use matins::secret::SecretString;
use matins::time::{TestClock, from_ms};
use serde_json::{Value, json};

use crate::support::model_server::{KEY, KEY_ENV, Tokens};
use crate::support::{Http, ModelServer, Reply};

/// All that wants a key; `local` is one of them that wants none.
const ALL: [&str; 8] = ["openai", "deepseek", "groq", "mistral", "together", "local", "anthropic", "google"];

fn remote(server: &ModelServer, provider: &str, model: &str) -> Remote {
    let keyless = provider == "local";
    let candidate = Candidate {
        provider: provider.to_owned(),
        wire: provider.to_owned(),
        model: model.to_owned(),
        base_url: server.base(provider),
        key_env: (!keyless).then(|| "MODEL_KEY".to_owned()),
        price: Some(Price { input: 10.0, output: 100.0, cached_input: 1.0, cache_write: 20.0 }),
        context: None,
    };
    let key = (!keyless).then(|| SecretString::from(KEY));
    let http = net::client(Reach::PrivateToo, CONNECT_TIMEOUT).unwrap();
    let clock = TestClock::new(from_ms(1_790_000_000_000));
    Remote::new(candidate, key, "the-agent", http, Arc::new(clock)).unwrap()
}

fn tool(name: &str) -> ToolSpec {
    let parameters = json!({"type": "object", "properties": {"path": {"type": "string"}}});
    ToolSpec { name: name.to_owned(), description: format!("does {name}"), parameters }
}

/// A conversation of one message with two tools.
fn request() -> Request {
    Request {
        system: vec!["You are an agent.".to_owned(), "You have skills.".to_owned()],
        messages: vec![Message::User { text: "Compare the prices.".to_owned() }],
        tools: vec![tool("finish"), tool("read_file")],
        must_call: true,
        max_output: 500,
        calls_max: None,
    }
}

/// The conversation goes on: what the model said, and what its calls gave.
fn go_on(request: &mut Request, said: &Said, content: &str, is_error: bool) {
    request.messages.push(Message::Assistant(said.clone()));
    let results = said.calls.iter().map(|call| ToolResult {
        call: call.id.clone(),
        name: call.name.clone(),
        content: content.to_owned(),
        is_error,
    });
    let results: Vec<ToolResult> = results.collect();
    if !results.is_empty() {
        request.messages.push(Message::Tools { results });
    }
}

async fn good(server: &ModelServer, remote: &Remote, request: &Request, reply: Reply) -> Turn {
    server.script([reply]);
    let turn = remote.turn(request).await;
    assert_eq!(server.complaints(), Vec::<String>::new());
    turn.unwrap()
}

async fn bad(server: &ModelServer, remote: &Remote, reply: Reply) -> ModelError {
    server.script([reply]);
    remote.turn(&request()).await.unwrap_err()
}

fn object(value: &Value) -> Arguments {
    Arguments::Object(value.as_object().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_provider_carries_a_conversation_with_calls_to_its_end() {
    let server = ModelServer::start();
    for provider in ALL {
        let remote = remote(&server, provider, "a-model-high");
        let mut request = request();
        let call = Reply::call("read_file", &json!({"path": "a"}))
            .and_call("read_file", &json!({"path": "b"}))
            .saying("I read both.");
        let turn = good(&server, &remote, &request, call).await;
        assert_eq!(turn.said.text.as_deref(), Some("I read both."), "{provider}");
        let calls: Vec<_> = turn.said.calls.iter().map(|c| (c.name.as_str(), c.arguments.clone())).collect();
        let expected =
            [("read_file", object(&json!({"path": "a"}))), ("read_file", object(&json!({"path": "b"})))];
        assert_eq!(calls, expected, "{provider}");
        assert_ne!(turn.said.calls[0].id, turn.said.calls[1].id, "{provider}");
        assert_eq!((turn.stop, turn.model.as_str()), (Stop::End, "a-model-high"), "{provider}");

        go_on(&mut request, &turn.said, "it holds 3", true);
        let turn = good(&server, &remote, &request, Reply::call("read_file", &json!({}))).await;
        go_on(&mut request, &turn.said, "it is empty", false);
        request.messages.push(Message::User { text: "This is the last step.".to_owned() });
        let turn = good(&server, &remote, &request, Reply::text("  Done.")).await;
        assert_eq!((turn.said.text.as_deref(), turn.said.calls.len()), (Some("  Done."), 0), "{provider}");
        let bodies: Vec<String> = server.asked().iter().map(|asked| asked.body.to_string()).collect();
        let last = bodies.last().unwrap();
        for word in ["You are an agent.", "You have skills.", "it holds 3", "This is the last step."] {
            assert!(last.contains(word), "{provider} was not told {word:?}: {last}");
        }
        for sampling in ["temperature", "top_p", "topP", "reasoning_effort", "thinkingBudget", "seed"] {
            assert!(!last.contains(sampling), "{provider} was told {sampling}: {last}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_means_the_same_for_every_provider() {
    let server = ModelServer::start();
    for provider in ALL {
        let remote = remote(&server, provider, "m");
        let written = if provider == "anthropic" { 100 } else { 0 };
        let tokens = Tokens { input: 1000, cached: 600, written, output: 90, reasoning: 40 };
        let turn = good(&server, &remote, &request(), Reply::text("x").tokens(tokens)).await;
        let usage = turn.usage;
        assert_eq!((usage.input_tokens, usage.output_tokens), (Some(1000), Some(90)), "{provider}");
        assert_eq!((usage.reasoning_tokens, usage.model_calls), (Some(40), Some(1)), "{provider}");
        // Two of them say nothing of their cache.
        let cached = (!matches!(provider, "mistral" | "local")).then_some(600);
        assert_eq!(usage.cached_input_tokens, cached, "{provider}");
        assert_eq!(usage.cache_write_tokens, (provider == "anthropic").then_some(100), "{provider}");
        let micros = match provider {
            "anthropic" => 300 * 10 + 600 + 100 * 20 + 90 * 100,
            "mistral" | "local" => 1000 * 10 + 90 * 100,
            _ => 400 * 10 + 600 + 90 * 100,
        };
        let cost = turn.cost_usd.unwrap();
        assert!((cost - f64::from(micros) / 1e6).abs() < 1e-9, "{provider}: {cost}");
    }
    let remote = remote(&server, "local", "m");
    let bare = json!({"choices": [{"message": {"role": "assistant", "content": "x"}}]});
    let turn = good(&server, &remote, &request(), Reply::raw(200, "text/plain", &bare.to_string())).await;
    assert_eq!((turn.usage.input_tokens, turn.usage.output_tokens), (None, None), "unknown is not 0");
    assert_eq!(turn.cost_usd, None);
    assert_eq!(turn.model, "m");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_arguments_cost_neither_the_turn_nor_its_siblings() {
    let server = ModelServer::start();
    for provider in ["openai", "deepseek", "groq", "mistral", "together", "local"] {
        let remote = remote(&server, provider, "m");
        let mut request = request();
        let reply =
            Reply::raw_call("read_file", "{\"path\": \"a").and_raw_call("read_file", "{\"path\":\"b\"}");
        let turn = good(&server, &remote, &request, reply.and_raw_call("finish", "")).await;
        let calls = &turn.said.calls;
        let Arguments::Malformed { raw, why } = &calls[0].arguments else { panic!("{provider}: {calls:?}") };
        assert_eq!(raw, "{\"path\": \"a", "{provider}");
        assert!(why.contains("at line 1 column 11"), "{provider}: {why}");
        assert_eq!(calls[1].arguments, object(&json!({"path": "b"})), "{provider}");
        assert_eq!(calls[2].arguments, object(&json!({})), "{provider}");
        assert_eq!(turn.usage.input_tokens, Some(120), "{provider}: what it cost is known");
        // The model sees again what it wrote, in a form that the provider takes.
        go_on(&mut request, &turn.said, "not valid JSON", true);
        good(&server, &remote, &request, Reply::text("I see.")).await;
        assert!(server.asked().last().unwrap().body.to_string().contains("malformed_arguments"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ends_of_a_turn_are_told_apart() {
    let server = ModelServer::start();
    for provider in ALL {
        let remote = remote(&server, provider, "m");
        let long = Reply::call("read_file", &json!({})).cut_short();
        assert_eq!(good(&server, &remote, &request(), long).await.stop, Stop::Length, "{provider}");
        let filtered = good(&server, &remote, &request(), Reply::filtered()).await.stop;
        assert!(matches!(filtered, Stop::Refused(_)), "{provider}: {filtered:?}");
        let refused = good(&server, &remote, &request(), Reply::refusal("I will not.")).await.stop;
        match provider {
            "google" => assert_eq!(refused, Stop::Refused("SAFETY".to_owned())),
            _ => assert_eq!(refused, Stop::Refused("I will not.".to_owned()), "{provider}"),
        }
        let nothing = good(&server, &remote, &request(), Reply::nothing()).await;
        assert_eq!((nothing.stop, nothing.said.text), (Stop::End, None), "{provider}");
    }
    let google = remote(&server, "google", "m");
    let stop = good(&server, &google, &request(), Reply::malformed_call()).await.stop;
    assert_eq!(stop, Stop::MalformedCall("Malformed function call: print(default_api.finish(".to_owned()));
    let groq = remote(&server, "groq", "m");
    let turn = good(&server, &groq, &request(), Reply::tool_use_failed("<function=finish{oops")).await;
    assert_eq!(turn.stop, Stop::MalformedCall("<function=finish{oops".to_owned()));
    let anthropic = remote(&server, "anthropic", "m");
    let mut request = request();
    let turn = good(&server, &anthropic, &request, Reply::text("Wait ").paused()).await;
    assert_eq!(turn.stop, Stop::Paused);
    go_on(&mut request, &turn.said, "", false);
    good(&server, &anthropic, &request, Reply::text("Done.")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_provider_is_told_what_only_it_wants() {
    let server = ModelServer::start();
    let mut bodies = std::collections::BTreeMap::new();
    for provider in ALL {
        good(&server, &remote(&server, provider, "gpt-5-max"), &request(), Reply::text("x")).await;
        bodies.insert(provider, server.asked().last().unwrap().body.clone());
    }
    let keys = |provider: &str| {
        let mut keys: Vec<&str> = bodies[provider].as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys.join(" ")
    };
    assert_eq!(
        keys("openai"),
        "max_completion_tokens messages model prompt_cache_key stream tool_choice tools"
    );
    assert_eq!(bodies["openai"]["prompt_cache_key"], "the-agent");
    assert_eq!(
        keys("deepseek"),
        "max_tokens messages model stream tools",
        "its thinking refuses a forced call"
    );
    assert_eq!(bodies["mistral"]["tool_choice"], "any");
    for provider in ["groq", "mistral", "together", "local"] {
        assert_eq!(keys(provider), "max_tokens messages model stream tool_choice tools", "{provider}");
    }
    for provider in ["openai", "deepseek", "groq", "mistral", "together", "local", "anthropic"] {
        assert_eq!(bodies[provider]["model"], "gpt-5-max", "the name goes as it stands");
    }
    assert!(server.asked().last().unwrap().path.contains("models/gpt-5-max:"));
    assert_eq!(bodies["google"]["toolConfig"]["functionCallingConfig"]["mode"], "ANY");
    assert_eq!(bodies["google"]["generationConfig"], json!({"maxOutputTokens": 500}));
    // The cache is marked for Anthropic alone: at the end of the system and of the conversation.
    for (provider, body) in &bodies {
        let marks = body.to_string().matches("cache_control").count();
        assert_eq!(marks, if *provider == "anthropic" { 2 } else { 0 }, "{provider}");
    }
    assert_eq!(bodies["anthropic"]["system"][1]["cache_control"]["type"], "ephemeral");
    assert_eq!(bodies["anthropic"]["messages"][0]["content"][0]["cache_control"]["type"], "ephemeral");
}

#[tokio::test(flavor = "multi_thread")]
async fn reasoning_is_shown_again_to_whoever_wants_it_and_to_nobody_else() {
    let server = ModelServer::start();
    let models = [("deepseek", "m"), ("anthropic", "m"), ("google", "gemini-3-pro"), ("google", "with-ids")];
    for (provider, model) in models {
        let remote = remote(&server, provider, model);
        let mut request = request();
        let reply = Reply::call("read_file", &json!({"path": "a"})).thinking("First I read.");
        let turn = good(&server, &remote, &request, reply).await;
        assert!(turn.said.echo.is_some(), "{provider}");
        // The conversation survives being stored.
        let stored = serde_json::to_string(&turn.said).unwrap();
        go_on(&mut request, &serde_json::from_str(&stored).unwrap(), "3", false);
        good(&server, &remote, &request, Reply::text("x")).await;

        // Every other provider takes it over, without what was that one's own.
        for other in ALL.iter().filter(|other| **other != provider) {
            let other = self::remote(&server, other, "gemini-3-pro");
            good(&server, &other, &request, Reply::text("x")).await;
            let body = server.asked().last().unwrap().body.to_string();
            assert!(!body.contains("First I read.") && !body.contains("sig-"), "{body}");
        }
    }
    for provider in ["groq", "mistral", "together", "local"] {
        let remote = remote(&server, provider, "m");
        let mut request = request();
        let reply = Reply::call("read_file", &json!({"path": "a"})).thinking("First I read.").saying("So.");
        let turn = good(&server, &remote, &request, reply).await;
        assert_eq!(turn.said.text.as_deref(), Some("So."), "{provider}");
        go_on(&mut request, &turn.said, "3", false);
        good(&server, &remote, &request, Reply::text("x")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_fit_whoever_takes_the_conversation_over() {
    let server = ModelServer::start();
    for first in ALL {
        let mut request = request();
        for _ in 0..2 {
            let reply = Reply::call("read_file", &json!({"path": "a"})).and_call("finish", &json!({}));
            let turn = good(&server, &remote(&server, first, "m"), &request, reply).await;
            go_on(&mut request, &turn.said, "3", false);
        }
        let mut ids: Vec<&str> = Vec::new();
        for message in &request.messages {
            if let Message::Assistant(said) = message {
                ids.extend(said.calls.iter().map(|call| call.id.as_str()));
            }
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((count, ids.len()), (4, 4), "{first}: {ids:?}");
        for second in ALL {
            good(&server, &remote(&server, second, "m"), &request, Reply::text("x")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_grows_keeps_its_beginning_byte_for_byte() {
    let server = ModelServer::start();
    for provider in ALL {
        let remote = remote(&server, provider, "m");
        let mut request = request();
        let turn = good(&server, &remote, &request, Reply::call("read_file", &json!({"path": "a"}))).await;
        go_on(&mut request, &turn.said, "3", false);
        good(&server, &remote, &request, Reply::text("x")).await;
        let asked = server.asked();
        let [.., before, after] = asked.as_slice() else { panic!() };
        for name in ["tools", "system", "systemInstruction"] {
            assert_eq!(before.body[name].to_string(), after.body[name].to_string(), "{provider} {name}");
        }
        let list = if provider == "google" { "contents" } else { "messages" };
        let messages = |body: &Value| body[list].as_array().unwrap().clone();
        let (before, after) = (messages(&before.body), messages(&after.body));
        for (before, after) in before.iter().zip(&after) {
            // A mark of the cache moves on; it is no part of what is cached.
            let text = |message: &Value| match &message["content"] {
                Value::Array(blocks) => blocks[0]["text"].to_string(),
                _ => message.to_string(),
            };
            if provider == "anthropic" && after["content"].is_string() {
                assert_eq!(text(before), after["content"].to_string());
            } else {
                assert_eq!(text(before), text(after), "{provider}");
            }
        }
        assert!(after.len() > before.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_apart_by_status() {
    use ErrorKind::{Auth, Invalid, Quota, RateLimited, TooLong, Transient};
    let server = ModelServer::start();
    for provider in ALL {
        let remote = remote(&server, provider, "m");
        for (status, kind) in [
            (400, Invalid),
            (401, Auth),
            (402, Quota),
            (403, Auth),
            (404, Invalid),
            (408, Transient),
            (409, Transient),
            (413, TooLong),
            (422, Invalid),
            (429, RateLimited),
            (500, Transient),
            (502, Transient),
            (503, Transient),
            (504, Transient),
            (529, Transient),
        ] {
            let error = bad(&server, &remote, Reply::status(status)).await;
            assert_eq!((error.kind, error.status), (kind, Some(status)), "{provider} {status}: {error}");
            assert!(
                error.message.contains(provider) && error.message.contains(&status.to_string()),
                "{error}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hint_of_when_to_come_back_is_heard() {
    let server = ModelServer::start();
    for provider in ALL {
        let remote = remote(&server, provider, "m");
        let second = Some(Duration::from_secs(1));
        let limited = Reply::rate_limited;
        let hints = [
            (limited().header("retry-after", "1"), second),
            (limited().header("retry-after-ms", "1000").header("retry-after", "9"), second),
            (limited().header("retry-after", "Mon, 21 Sep 2026 14:13:21 GMT"), second),
            (limited().header("retry-after", "Mon, 21 Sep 2026 14:13:19 GMT"), Some(Duration::ZERO)),
            (limited().header("retry-after", "soon"), None),
            (Reply::status(529).header("retry-after", "1.0"), second),
            (limited(), None),
        ];
        for (at, (reply, expected)) in hints.into_iter().enumerate() {
            assert_eq!(bad(&server, &remote, reply).await.retry_after, expected, "{provider} {at}");
        }
    }
    let google = remote(&server, "google", "m");
    let error = bad(&server, &google, Reply::rate_limited().retry_info("43s")).await;
    assert_eq!((error.kind, error.retry_after), (ErrorKind::RateLimited, Some(Duration::from_secs(43))));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_status_that_means_two_things_is_told_apart_by_words() {
    use ErrorKind::{Auth, Quota, TooLong};
    let server = ModelServer::start();
    for provider in ["openai", "google"] {
        let error =
            bad(&server, &remote(&server, provider, "m"), Reply::out_of_quota().retry_info("43s")).await;
        assert_eq!(error.kind, Quota, "{provider}: {error}");
    }
    for (provider, status, word, sentence, kind) in [
        ("openai", 400, "context_length_exceeded", "Too long.", TooLong),
        (
            "anthropic",
            400,
            "invalid_request_error",
            "prompt is too long: 210000 tokens > 200000 maximum",
            TooLong,
        ),
        (
            "anthropic",
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the API.",
            Quota,
        ),
        (
            "google",
            400,
            "INVALID_ARGUMENT",
            "The input token count (9) exceeds the maximum number of tokens",
            TooLong,
        ),
        (
            "mistral",
            400,
            "invalid_request_error",
            "too large for model with 9 maximum context length",
            TooLong,
        ),
        ("google", 400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", Auth),
    ] {
        let error = bad(&server, &remote(&server, provider, "m"), Reply::error(status, word, sentence)).await;
        assert_eq!(error.kind, kind, "{provider}: {error}");
        assert!(error.message.contains(sentence), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_and_a_broken_one_are_worth_another_try() {
    use ErrorKind::{Lost, Transient};

    let server = ModelServer::start();
    for provider in ALL {
        let remote = remote(&server, provider, "m");
        // The last: whether the call may have cost something.
        for (reply, part, kind, cost) in [
            (Reply::cut_off(), "broke off", Lost, true),
            (Reply::raw(200, "text/html", "<html>busy</html>"), "no JSON", Transient, true),
            (Reply::raw(200, "application/json", "{\"a\":"), "no JSON", Transient, true),
            (Reply::raw(200, "application/json", "{}"), "no usable answer", Transient, true),
            (Reply::raw(502, "text/html", "<html>bad gateway</html>"), "HTTP 502", Transient, false),
            (
                Reply::raw(200, "application/json", "{\"error\":{\"message\":\"overloaded\",\"code\":503}}"),
                "503",
                Transient,
                false,
            ),
        ] {
            let error = bad(&server, &remote, reply).await;
            assert_eq!((error.kind, error.may_have_cost()), (kind, cost), "{provider}: {error}");
            assert!(error.message.contains(part) && error.message.contains(provider), "{error}");
        }
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let candidate = |base_url: String| Candidate {
        provider: "openai".to_owned(),
        wire: "openai".to_owned(),
        model: "m".to_owned(),
        base_url,
        key_env: Some("MODEL_KEY".to_owned()),
        price: None,
        context: None,
    };
    let http = net::client(Reach::PrivateToo, CONNECT_TIMEOUT).unwrap();
    let clock = || Arc::new(TestClock::new(from_ms(0)));
    let key = || Some(SecretString::from(KEY));
    let gone = Remote::new(candidate(format!("http://{free}")), key(), "a", http.clone(), clock()).unwrap();
    let error = gone.turn(&request()).await.unwrap_err();
    assert_eq!((error.kind, error.may_have_cost()), (Transient, false));
    assert!(error.message.starts_with("openai cannot be reached: "), "{error}");

    let odd = Some(SecretString::from("two\nlines"));
    let odd = Remote::new(candidate(server.base("openai")), odd, "a", http.clone(), clock()).unwrap();
    let error = odd.turn(&request()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Auth, "{error}");
    assert!(!error.message.contains("two") && error.message.contains("line break"), "{error}");

    let refused = |base: &str, key| {
        Remote::new(candidate(base.to_owned()), key, "a", http.clone(), clock()).err().unwrap()
    };
    let error = refused("http://169.254.169.254/v1/", key());
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.starts_with("the base URL of openai cannot be asked: "), "{error}");
    let error = refused("http://127.0.0.1/", None);
    assert_eq!(error.kind, ErrorKind::Auth);
    assert_eq!(error.message, "there is no API key for openai: set the environment variable MODEL_KEY");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_an_end_is_given_up_at_its_bound() {
    for provider in ALL {
        let server = ModelServer::start();
        let error = bad(&server, &remote(&server, provider, "m"), Reply::endless()).await;
        assert_eq!(error.kind, ErrorKind::Invalid, "{provider}: nobody asks again");
        assert_eq!(error.message, format!("the answer of {provider} is larger than 8 MiB"));
        // What lies in the buffers of two sockets was sent, too.
        assert!((ANSWER_MAX..ANSWER_MAX + (16 << 20)).contains(&server.poured()), "{}", server.poured());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_tells_neither_the_key_nor_the_request() {
    let server = ModelServer::start();
    let secret = "the launch of the new product is on the fourth of May";
    for provider in ALL.into_iter().filter(|provider| *provider != "local") {
        let remote = remote(&server, provider, "m");
        let mut request = request();
        request.messages.push(Message::User { text: secret.to_owned() });
        for sentence in [format!("your key {KEY} is odd"), format!("messages.1: {secret} is not allowed")] {
            for reply in [
                Reply::error(400, "invalid_request_error", &sentence),
                Reply::error(500, "server_error", &sentence),
                Reply::raw(200, "application/json", &json!({ "echo": sentence }).to_string()),
                Reply::raw(200, "text/html", &sentence),
            ] {
                server.script([reply]);
                let error = remote.turn(&request).await.unwrap_err();
                let shown = format!("{error} {error:?}");
                assert!(!shown.contains(KEY) && !shown.contains("launch"), "{shown}");
            }
        }
    }
}

fn ask_in_order(
    server: &ModelServer,
    providers: &[&str],
    call_timeout: Duration,
) -> (Retrying, Arc<Mutex<Vec<Tried>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&heard);
    let candidates =
        providers.iter().map(|provider| Arc::new(remote(server, provider, "m")) as Arc<dyn Model>);
    let listener = Box::new(move |tried: &Tried| ear.lock().unwrap().push(tried.clone()));
    let retrying = Retrying::new(candidates.collect(), call_timeout, None, Arc::new(SystemEntropy), listener);
    let backoff = Backoff { first: Duration::from_millis(1), most: Duration::from_millis(2) };
    (retrying.with_backoff(backoff), heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_with_another_provider_in_the_middle_of_it() {
    let server = ModelServer::start();
    let (models, heard) = ask_in_order(&server, &["groq", "anthropic", "mistral"], Duration::from_secs(30));
    let mut request = request();
    for (provider, failure) in [("groq", Reply::out_of_quota()), ("anthropic", Reply::status(413))] {
        let reply = Reply::call("read_file", &json!({"path": "a"})).thinking("So.").by("a-model-of-today");
        server.script_of(provider, [reply, failure]);
    }
    server.script_of("mistral", [Reply::finish(&json!({"cheapest": "x"}))]);
    for (expected, model) in
        [("groq", "a-model-of-today"), ("anthropic", "a-model-of-today"), ("mistral", "m")]
    {
        let turn = models.turn(&request).await.unwrap();
        assert_eq!(turn.model, model);
        assert_eq!(server.asked().last().unwrap().provider, expected);
        go_on(&mut request, &turn.said, "3", false);
    }
    assert_eq!((server.left(), server.complaints()), (0, Vec::new()));
    let next: Vec<Next> = heard.lock().unwrap().iter().map(|tried| tried.next).collect();
    assert_eq!(next, [Next::Instead(1), Next::Instead(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_silent_or_slow_is_asked_again() {
    let server = ModelServer::start();
    let (models, heard) = ask_in_order(&server, &["openai"], Duration::from_millis(500));
    let long = Duration::from_secs(3600);
    server.script([
        Reply::silence(),
        Reply::text("late").after(long),
        Reply::rate_limited(),
        Reply::status(529),
    ]);
    server.answer_with(|asked| Reply::text(&asked.path));
    let turn = models.turn(&request()).await.unwrap();
    assert_eq!(turn.said.text.as_deref(), Some("v1/chat/completions"));
    let heard = heard.lock().unwrap();
    let kinds: Vec<ErrorKind> = heard.iter().map(|tried| tried.error.kind).collect();
    let [busy, lost, limited] = [ErrorKind::Transient, ErrorKind::Lost, ErrorKind::RateLimited];
    assert_eq!(kinds, [lost, lost, limited, busy]);
    assert!(heard.iter().all(|tried| matches!(tried.next, Next::Again(_))));
}

#[test]
fn the_server_refuses_what_the_real_ones_refuse() {
    let server = ModelServer::start();
    let address = server.url.trim_start_matches("http://").parse().unwrap();
    let http = Http { address, token: KEY.to_owned() };
    let user = json!({"role": "user", "content": "x"});
    let called = json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let call = json!({"role": "assistant", "content": "", "tool_calls": [called]});
    for (provider, body, part) in [
        ("mistral", json!({"model": "m", "messages": [user], "max_completion_tokens": 1}), "extra_forbidden"),
        ("mistral", json!({"model": "m", "messages": [user, call]}), "with a length of 9"),
        ("openai", json!({"model": "gpt-5", "messages": [user], "max_tokens": 1}), "max_completion_tokens"),
        (
            "openai",
            json!({"model": "m", "messages": [user, call, user]}),
            "must be followed by tool messages",
        ),
        ("deepseek", json!({"model": "m", "messages": [user], "tools": []}), "empty array"),
        ("groq", json!({"model": "m", "messages": [user], "prompt_cache_key": "x"}), "unsupported"),
    ] {
        let path = format!("/{provider}/v1/chat/completions");
        let answer = http.post(&path, &body);
        assert!(matches!(answer.status, 400 | 422), "{provider}: {}", answer.text());
        assert!(answer.text().contains(part), "{provider}: {}", answer.text());
    }
    let anthropic = |key: &str, body: &Value| {
        let headers =
            [("content-type", "application/json"), ("x-api-key", key), ("anthropic-version", "2023-06-01")];
        http.send("POST", "/anthropic/v1/messages", &headers, body.to_string().as_bytes()).status
    };
    assert_eq!(anthropic(KEY, &json!({"model": "m", "messages": [user]})), 400, "max_tokens is required");
    assert_eq!(anthropic("no", &json!({})), 401);
    assert_eq!(server.complaints().len(), 8);
    assert!(server.settings().contains(&format!("key: {{ env: {KEY_ENV} }}")));
}

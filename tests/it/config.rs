//! The configuration file: what it means, and how its faults are reported.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pixy::config::{Config, Env, Faults, load_with, parse, schema};
use pixy::server::{Access, Address};
use pixy::vault::KeySettings;
use proptest::prelude::*;
use serde_json::Value;

const REFERENCE: &str = include_str!("../../config/pixy.yaml");

fn env() -> Env {
    Env { home: Some("/home/me".into()), config: None, secret_directories: Vec::new() }
}

fn read(text: &str) -> Result<Config, Faults> {
    parse(text, Some("pixy.yaml".into()), &env())
}

/// The report of faults.
fn report(text: &str) -> String {
    read(text).expect_err("faults").to_string()
}

/// The reference with the lines of these marks uncommented.
fn uncommented(marks: &[&str]) -> String {
    let line = |line: &str| {
        let body = line.trim_start();
        match marks.iter().find_map(|mark| body.strip_prefix(mark)) {
            Some(active) => format!("{}{active}\n", &line[..line.len() - body.len()]),
            None => format!("{line}\n"),
        }
    };
    REFERENCE.lines().map(line).collect()
}

fn as_json(yaml: &str) -> Value {
    serde_yaml::from_str(yaml).expect("YAML")
}

#[test]
fn an_unknown_key_is_reported_with_what_is_allowed() {
    assert_eq!(
        report("# mine\nagent:\n  lissten: 127.0.0.1:8700\n"),
        "pixy.yaml:3:3: unknown key `lissten`; allowed here: listen, keys. Did you mean `listen`?\n  \
         3 |   lissten: 127.0.0.1:8700\n    |   ^^^^^^^\n1 fault; nothing was started"
    );
}

#[test]
fn all_faults_are_reported_in_one_run_in_file_order() {
    let report = report(
        "link: { listen: 0.0.0.0 }\nupstream: { idle_timeout: 10 }\naccounts:\n  a: { provider: cluade }\n  b:\n    \
         provider: oauth\n    profile:\n      link: { issuer: http://login.example.com, client_id: x }\n      api: { base_url: \
         https://me:pw@x.example, allow: [post /x] }\n  B: { provider: openai, accept_terms: maybe }\n",
    );
    let places: Vec<&str> = report.lines().filter_map(|line| line.strip_prefix("pixy.yaml:")).collect();
    let starts = ["1:17: ", "2:27: ", "4:18: ", "8:23: ", "9:24: ", "9:57: ", "10:3: ", "10:40: "];
    assert_eq!(places.len(), starts.len(), "{report}");
    for (place, start) in places.iter().zip(starts) {
        assert!(place.starts_with(start), "{start} {report}");
    }
    assert!(
        report.contains("Did you mean `claude`?")
            && report.contains("10:40: `accounts.B.accept_terms` must be true or false")
    );
    assert!(report.contains("Write it with a unit, like 90s.") && !report.contains("me:pw"), "{report}");
    assert!(report.ends_with("\n8 faults; nothing was started"), "{report}");
}

#[test]
fn faults_are_reported_as_sentences() {
    for (text, expected) in [
        (
            "agent: { listen: 0.0.0.0:8700 }",
            "`agent.listen` can be reached from other machines, but there are no `agent.keys`",
        ),
        (
            "agent: { listen: [{ address: 127.0.0.1:1, account: x }] }",
            "names the account `x`, which is not below `accounts`",
        ),
        ("agent: { listen: [] }", "`agent.listen` is empty"),
        ("agent: { listen: 127.0.0.1:8702 }", "127.0.0.1:8702 is used twice"),
        ("agent: { listen: 7 }", "`agent.listen` must be text or a list, but is a number. Put it in quotes."),
        ("agent: { keys: [{ name: a, accounts: [] }] }", "`agent.keys.0` has no key; set key_file or sha256"),
        ("agent: { keys: [{ sha256: x, key_file: /x }] }", "`agent.keys.0.name` is missing"),
        ("agent: { keys: [{ sha256: x, key_file: /x }] }", "contains both key_file and sha256"),
        (
            "agent: { keys: [{ limits: { concurrent: 0 } }] }",
            "`agent.keys.0.limits.concurrent` must be from 1 to 4294967295",
        ),
        ("link: on", "`link` cannot be `on`; allowed here: off or a map (listen, hosts)"),
        ("ops: { listen: off }", "`ops.listen` is not an address"),
        ("ops: { hosts: [a, \"*.b\"] }", "`ops.hosts.1` is not the name of a host"),
        ("link: { hosts: [10.0.0.1] }", "`link.hosts.0` is an IP address, which is always allowed"),
        (
            "agent: { listen: [{ address: \"unix:/s\", hosts: [a] }] }",
            "`agent.listen.0.hosts` is only for TCP; on a Unix socket no host is checked",
        ),
        ("vault: { key_file: /a, passphrase_file: /b }", "`vault` contains both key_file and passphrase_file"),
        ("vault: { dir: data }", "`vault.dir` is not an absolute path"),
        ("upstream: { head_timeout: 0s }", "`upstream.head_timeout` is zero; write at least 1ms"),
        ("accounts: [a]", "`accounts` must be a map, but is a list"),
        ("accounts: { a: {} }", "`accounts.a.provider` is missing"),
        ("accounts: { a_b: { provider: openai } }", "`a_b` cannot be the name of an account; a name is 1 to 32"),
        (
            "accounts:\n  a: { provider: openai }\n  a: { provider: gemini }",
            "`accounts.a` is given twice; the first is in line 2",
        ),
        ("accounts: { a: { provider: oauth } }", "`accounts.a.profile.link.client_id` is missing"),
        ("accounts: { a: { provider: oauth } }", "`accounts.a.profile.link.issuer` is missing"),
        ("accounts: { a: { provider: oauth } }", "`accounts.a.profile.api.base_url` is missing"),
        ("accounts: { a: { provider: oauth } }", "`accounts.a.profile.api.allow` is missing"),
        (
            "accounts: { a: { provider: claude, profile: { token: { url: null } } } }",
            "`accounts.a.profile.token.url` is missing",
        ),
        (
            "accounts: { a: { provider: claude, profile: { api: { headers: { set: { host: x } } } } } }",
            "belongs to the connection",
        ),
        (
            "accounts: { a: { provider: claude, profile: { link: { flow: pkce } } } }",
            "cannot be `pkce`; allowed here: authorization_code, ",
        ),
        ("- a", "the file` must be a map"),
        ("a: [", "this is not YAML that Pixy can read"),
        ("a: 1\n---\nb: 2", "a configuration is one YAML document"),
    ] {
        let report = report(text);
        assert!(report.contains(expected), "{text}\n{report}");
    }
}

#[test]
fn a_removed_key_is_ignored_with_a_warning() {
    let config = read("limits:\n  connections: 7\n  streams: 8\n").unwrap();
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "pixy.yaml:3:3: `limits.streams` was removed and is ignored: agents connect by HTTP/1.1 only. Delete the key.\n  \
          3 |   streams: 8\n    |   ^^^^^^^"
        ]
    );
    assert_eq!(config.limits.connections, 7);
    assert!(read("").unwrap().warnings.is_empty());
    assert!(!schema().to_string().contains("\"streams\"") && !REFERENCE.contains("streams: 100"));
}

#[test]
fn a_reserved_key_is_refused_with_its_place() {
    let report = report("vault:\n  postgres: { url_file: /run/secrets/database_url }\n");
    let expected = "pixy.yaml:2:3: `vault.postgres` is reserved for a later version: this version stores logins in files only; \
                    set vault.dir to a directory.\n";
    assert!(report.starts_with(expected) && report.ends_with("\n1 fault; nothing was started"), "{report}");
}

#[test]
fn attack_85_an_account_cannot_name_former_origins() {
    let text = "accounts:\n  a:\n    provider: claude\n    profile:\n      formerly: [https://api.anthropic.com]\n      api: { base_url: https://evil.example }\n";
    let report = report(text);
    assert!(report.contains("pixy.yaml:5:7: `accounts.a.profile.formerly` is for shipped profiles"), "{report}");
    assert!(report.contains("pixy link NAME --moved"), "{report}");
}

#[test]
fn a_profile_reports_all_invalid_values_in_one_run() {
    let report = report(
        "accounts:\n  a:\n    provider: claude\n    profile:\n      terms: { url: ftp://x }\n      link:\n        redirect: { \
         paste: x, loopback: { ports: [0, 7], path: /* } }\n        scopes: [a b, 7, c d]\n      identity: [[token], [x, y]]\n      api:\n        \
         base_url: http://x.example\n        allow: [GET /a, get /b, GET c]\n        headers: { set: { Host: x, x-a: é, authorization: y } }\n      \
         revoke: { url: https://x.example/#f }\n",
    );
    let places: Vec<&str> = report.lines().filter_map(|line| line.strip_prefix("pixy.yaml:")).collect();
    let expected = [
        "5:21: `accounts.a.profile.terms.url` has a scheme",
        "7:28: `accounts.a.profile.link.redirect.paste` is not a URL",
        "7:50: `accounts.a.profile.link.redirect.loopback.ports` must name ports",
        "7:64: `accounts.a.profile.link.redirect.loopback.path` is not a plain path",
        "8:18: `accounts.a.profile.link.scopes.0` is not one word",
        "8:23: `accounts.a.profile.link.scopes.1` must be text, but is a number. Put it in quotes.",
        "8:26: `accounts.a.profile.link.scopes.2` is not one word",
        "9:18: `accounts.a.profile.identity.0` names no member",
        "9:27: `accounts.a.profile.identity.1` must start with token or id_token",
        "11:19: `accounts.a.profile.api.base_url` would send credentials unencrypted",
        "12:25: `accounts.a.profile.api.allow.1` has a method that is not allowed",
        "12:33: `accounts.a.profile.api.allow.2` has a path that is not allowed",
        "13:33: `accounts.a.profile.api.headers.set.Host` belongs to the connection",
        "13:41: `accounts.a.profile.api.headers.set.x-a` is not a header value",
        "13:59: `accounts.a.profile.api.headers.set.authorization` carries a credential",
        "14:22: `accounts.a.profile.revoke.url` contains a fragment",
    ];
    assert_eq!(places.len(), expected.len(), "{report}");
    for (place, expected) in places.iter().zip(expected) {
        assert!(place.starts_with(expected), "{expected}\n{report}");
    }
}

#[test]
fn a_misspelled_key_is_not_also_reported_as_missing() {
    let report =
        report("accounts: { a: { provider: openai-compatible, profile: { api: { base-url: https://x.example } } } }");
    assert!(
        report.contains("Did you mean `base_url`?") && report.ends_with("\n1 fault; nothing was started"),
        "{report}"
    );
    let report =
        self::report("agent: { listen: 0.0.0.0:1, keys: [{ nmae: a, sha256: x, accounts: [b] }] }\naccounts: { b: 7 }");
    assert!(report.ends_with("\n3 faults; nothing was started"), "{report}");
}

#[test]
fn faults_of_a_profile_point_at_the_account() {
    let report = report("accounts:\n  a:\n    provider: oauth\n    profile: { link: { issuer: https://x.example } }\n");
    assert!(report.contains("pixy.yaml:2:3: `accounts.a.profile.link.client_id` is missing"), "{report}");
    let report = self::report(
        "accounts: { a: { provider: claude, profile: { link: { redirect: { loopback: { host: evil.example } } } } } }",
    );
    assert!(report.contains("allowed here: 127.0.0.1, localhost"), "{report}");
}

#[test]
fn without_home_a_tilde_is_a_fault() {
    let without = Env { home: None, ..env() };
    let report = parse("vault: { dir: ~/v }\nstate_dir: /s", None, &without).unwrap_err().to_string();
    assert!(report.contains("config/pixy.yaml:1:15: `vault.dir` starts with `~`, but HOME is not set"), "{report}");
    assert!(
        report.contains("`vault.key_file` is not given, and its default ~/.config/pixy/key needs HOME"),
        "{report}"
    );
    parse("vault: { dir: /v, key_file: /k }\nstate_dir: /s", None, &without).unwrap();
}

#[test]
fn defaults_are_those_of_the_reference() {
    let config = read("").unwrap();
    assert_eq!(config.agent_listeners[0].address.to_string(), "127.0.0.1:8700");
    assert_eq!(config.link_listen.unwrap().to_string(), "127.0.0.1:8701");
    assert_eq!(config.ops_listen.to_string(), "127.0.0.1:8702");
    assert_eq!(config.state_dir, Path::new("/home/me/.local/state/pixy"));
    assert_eq!(config.vault.directory, Path::new("/home/me/.local/state/pixy/vault"));
    assert_eq!(config.vault.key, KeySettings::File("/home/me/.config/pixy/key".into()));
    assert_eq!(config.vault.state_dir, config.state_dir);
    assert_eq!(config.upstream.connect_timeout, Duration::from_secs(10));
    for off in ["link: off", "link: { listen: off }"] {
        assert_eq!(read(off).unwrap().link_listen, None);
    }
    let text = "agent: { listen: [unix:~/a.sock, { address: \"[::1]:0\", account: x }] }\naccounts: { x: { provider: openai } }";
    let listeners = read(text).unwrap().agent_listeners;
    assert_eq!(listeners[0].address, Address::Unix("/home/me/a.sock".into()));
    assert_eq!(listeners[1].account.as_ref().unwrap().as_str(), "x");
}

#[test]
fn limits_default_to_those_of_the_reference() {
    let (empty, reference) = (read("").unwrap(), read(&uncommented(&["#: "])).unwrap());
    let all =
        |config: &Config| (config.limits, config.body_bytes, config.replay_bytes, config.memory, config.io_threads);
    assert_eq!(all(&empty), (pixy::server::ServerLimits::default(), 64 << 20, 1 << 20, 128 << 20, 1));
    assert_eq!(all(&reference), all(&empty), "the reference states the defaults");
    let config = read("limits: { connections: 7, header_bytes: 2048, header_fields: 12, uri_bytes: 70, body_bytes: 9, replay_bytes: 64 KiB, memory: 2GiB, header_time: 1s, idle_time: 2s, drain_time: 0s, io_threads: 64 }").unwrap();
    let seconds = Duration::from_secs;
    let expected = pixy::server::ServerLimits {
        connections: 7,
        header_bytes: 2048,
        header_fields: 12,
        uri_bytes: 70,
        header_time: seconds(1),
        idle_time: seconds(2),
        drain_time: seconds(0),
    };
    assert_eq!(all(&config), (expected, 9, 64 << 10, 2 << 30, 64));
    for (text, expected) in [
        ("limits: { connections: 0 }", "`limits.connections` must be from 1"),
        ("limits: { header_bytes: 9999999 }", "`limits.header_bytes` must be from 1024 to 1048576."),
        ("limits: { header_fields: 5 }", "`limits.header_fields` must be from 10 to 1000."),
        ("limits: { header_fields: 5000 }", "`limits.header_fields` must be from 10 to 1000."),
        ("limits: { uri_bytes: 65001 }", "`limits.uri_bytes` must be from 64 to 65000."),
        ("limits: { replay_bytes: 67108865 }", "`limits.replay_bytes` must be from 0 to 64MiB."),
        ("limits: { replay_bytes: -1 }", "`limits.replay_bytes` must be 0 or more"),
        ("limits: { replay_bytes: 1MB }", "`limits.replay_bytes` is not a size; write a number of bytes"),
        ("limits: { replay_bytes: true }", "`limits.replay_bytes` must be a whole number or text"),
        ("limits: { memory: 39MiB }", "`limits.memory` must be 40MiB or more."),
        ("limits: { memory: 1000 }", "`limits.memory` must be 40MiB or more."),
        ("limits: { body_bytes: 0 }", "`limits.body_bytes` must be 1 or more."),
        ("limits: { io_threads: 0 }", "`limits.io_threads` must be from 1 to 64."),
        ("limits: { io_threads: 65 }", "`limits.io_threads` must be from 1 to 64."),
        ("limits: { header_time: 0s }", "`limits.header_time` is zero"),
        ("limits: { idle_time: soon }", "`limits.idle_time` is not a duration"),
    ] {
        assert!(report(text).contains(expected), "{text}\n{}", report(text));
    }
}

#[test]
fn the_mode_of_a_socket_decides_who_may_connect() {
    let keys = "keys: [{ name: a, sha256: 97b2173c4f5d679e391a4dc4abfeb971a53b80d7bea16a92216fdc74a428905d, accounts: [x] }], ";
    let listening = |keys: &str, entry: &str| {
        format!("agent: {{ {keys}listen: [{entry}] }}\naccounts: {{ x: {{ provider: openai }} }}")
    };
    for (keys, entry, expected) in [
        ("", "unix:/run/a.sock", Access::Owner),
        ("", "{ address: unix:/run/a.sock }", Access::Owner),
        ("", "{ address: unix:/run/a.sock, mode: \"0600\" }", Access::Owner),
        ("", "{ address: unix:/run/a.sock, mode: \"0660\" }", Access::Group),
        ("", "{ address: unix:/run/a.sock, mode: \"660\" }", Access::Group),
        (keys, "{ address: unix:/run/a.sock, mode: \"0666\" }", Access::Everybody),
        ("", "127.0.0.1:1", Access::Owner),
    ] {
        let config = read(&listening(keys, entry)).unwrap_or_else(|faults| panic!("{entry}: {faults}"));
        assert_eq!(config.agent_listeners[0].access, expected, "{entry}");
    }
    let not_a_mode = "is not a mode of a socket; write \"0600\" (";
    for (entry, expected) in [
        (
            "{ address: unix:/run/a.sock, mode: 0660 }",
            "`agent.listen.0.mode` must be text, but is a number. Put it in quotes.",
        ),
        ("{ address: unix:/run/a.sock, mode: \"0640\" }", not_a_mode), // connecting needs write permission
        ("{ address: unix:/run/a.sock, mode: \"0620\" }", not_a_mode),
        ("{ address: unix:/run/a.sock, mode: \"0670\" }", not_a_mode),
        ("{ address: unix:/run/a.sock, mode: \"0777\" }", not_a_mode),
        ("{ address: unix:/run/a.sock, mode: \"0060\" }", not_a_mode), // Pixy itself connects
        ("{ address: unix:/run/a.sock, mode: \"2660\" }", not_a_mode),
        ("{ address: unix:/run/a.sock, mode: \"g+rw\" }", not_a_mode),
        ("{ address: unix:/run/a.sock, mode: \"\" }", not_a_mode),
        (
            "{ address: unix:/run/a.sock, mode: \"0666\" }",
            "`agent.listen.0.mode` admits every user who can reach the directory, but there are no `agent.keys`",
        ),
        ("{ address: 127.0.0.1:1, mode: \"0600\" }", "`agent.listen.0.mode` is only for Unix sockets"),
    ] {
        let report = report(&listening("", entry));
        assert!(report.contains(expected) && report.ends_with("\n1 fault; nothing was started"), "{entry}\n{report}");
    }
    let judge = jsonschema::validator_for(&schema()).unwrap();
    for (mode, valid) in [("0660", true), ("666", true), ("0640", false), ("0777", false)] {
        let entry = format!("{{ address: unix:/run/a.sock, mode: \"{mode}\" }}");
        assert_eq!(judge.is_valid(&as_json(&listening("", &entry))), valid, "{mode}");
    }
}

#[test]
fn only_the_digest_of_an_agent_key_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("coder");
    let text = format!(
        "agent:\n  listen: 0.0.0.0:8700\n  keys: [{{ name: coder, key_file: {}, accounts: [a], limits: {{ concurrent: 2 }} }}]\naccounts: \
         {{ a: {{ provider: openai }} }}\n",
        file.display()
    );
    let write = |content: &str, mode| {
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    assert!(report(&text).contains("cannot be read"), "{}", report(&text));
    for (content, mode, expected) in [
        ("key-0123456789abcdef\n", 0o644, "readable by every user"),
        (" \n", 0o600, "is an empty file"),
        ("canary\n", 0o600, "contains a key of 6 characters"),
    ] {
        write(content, mode);
        let report = report(&text);
        assert!(report.contains(expected) && report.ends_with("1 fault; nothing was started"), "{report}");
        assert!(!report.contains("canary") && !report.contains("0123456789"), "{report}");
    }
    write("key-0123456789abcdef\n", 0o640);
    let by_file = &read(&text).unwrap().agent_keys[0];
    let digest = "sha256: 97b2173c4f5d679e391a4dc4abfeb971a53b80d7bea16a92216fdc74a428905d";
    let by_digest = &read(&text.replace(&format!("key_file: {}", file.display()), digest)).unwrap().agent_keys[0];
    assert_eq!(by_file.key_file.as_deref(), Some(file.as_path()));
    assert_eq!(
        (by_file.name.as_str(), by_file.limits.concurrent, by_file.limits.tokens_per_day),
        ("coder", Some(2), None)
    );
    assert_eq!((by_digest.sha256, &by_digest.key_file), (by_file.sha256, &None));
    let twice =
        text.replace("limits: { concurrent: 2 } }]", &format!("}}, {{ name: coder, {digest}, accounts: [a] }}]"));
    assert!(report(&twice).contains("two agents are called `coder`"));
}

#[test]
fn a_pasted_key_is_not_printed() {
    let report = report("agent: { keys: [{ name: a, sha256: sk-canary, accounts: [b], key: sk-canary2, nme: x }] }");
    assert!(report.contains("is not a SHA-256 digest") && !report.contains("canary"), "{report}");
}

#[test]
fn configuration_files_are_searched_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, port: u16| -> PathBuf {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, format!("ops: {{ listen: 127.0.0.1:{port} }}")).unwrap();
        file
    };
    let mut env = Env { home: Some(dir.path().into()), ..Env::default() };
    let own = write(".config/pixy/pixy.yaml", 1);
    let named = write("named.yaml", 2);
    let asked = write("asked.yaml", 3);
    assert_eq!(load_with(None, &env).unwrap().file, Some(own));
    env.config = Some(named);
    assert_eq!(load_with(None, &env).unwrap().ops_listen.to_string(), "127.0.0.1:2");
    assert_eq!(load_with(Some(&asked), &env).unwrap().ops_listen.to_string(), "127.0.0.1:3");
    let report = load_with(Some(Path::new("/nowhere/pixy.yaml")), &env).unwrap_err().to_string();
    assert!(report.starts_with("/nowhere/pixy.yaml: the configuration cannot be read"), "{report}");
    let mounted = dir.path().join("pixy-key");
    fs::write(&mounted, "k").unwrap();
    env.secret_directories = vec![dir.path().into()];
    assert_eq!(load_with(Some(&asked), &env).unwrap().vault.key, KeySettings::File(mounted));
}

#[test]
fn the_reference_works_as_shipped_and_with_every_option() {
    let shipped = parse(REFERENCE, None, &env()).unwrap_or_else(|faults| panic!("{faults}"));
    let names: Vec<&str> = shipped.accounts.iter().map(|account| account.name.as_str()).collect();
    assert_eq!(names, ["openrouter", "anthropic", "openai", "gemini", "claude", "chatgpt", "codex"]);
    assert!(shipped.accounts.iter().all(|account| !account.accept_terms));
    assert!(shipped.agent_listeners.iter().all(|listener| listener.address.is_local()));

    let full = uncommented(&["#: "]);
    assert!(full.len() < REFERENCE.len() - 40, "nothing was uncommented");
    let full = read(&full).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!((full.agent_keys.len(), full.accounts.len()), (1, 10));
    let work = full.accounts.iter().find(|account| account.name.as_str() == "work").unwrap();
    assert_eq!((work.profile.title.as_str(), work.profile.api.allow.len()), ("LLM gateway at work", 2));
}

#[test]
fn the_schema_agrees_with_the_reference() {
    let schema = schema();
    let judge = jsonschema::validator_for(&schema).unwrap();
    for marks in [&[][..], &["#: "], &["#: ", "#| "]] {
        let faults: Vec<String> =
            judge.iter_errors(&as_json(&uncommented(marks))).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?}");
    }
    assert!(!judge.is_valid(&as_json("agent: { lissten: x }")));
    assert!(!judge.is_valid(&as_json("upstream: { idle_timeout: soon }")));
}

#[test]
fn the_reference_contains_every_key() {
    let schema = schema();
    let all = uncommented(&["#: ", "#| "]);
    let mut checked = 0;
    for (kind, definition) in [("File", &schema)]
        .into_iter()
        .chain(schema["$defs"].as_object().unwrap().iter().map(|(kind, d)| (kind.as_str(), d)))
    {
        // The shipped profiles describe the keys below `profile`.
        if ![
            "File",
            "Agent",
            "BoundListener",
            "AgentKey",
            "Limits",
            "LinkSurface",
            "Ops",
            "Vault",
            "Account",
            "Upstream",
            "Intake",
        ]
        .contains(&kind)
        {
            continue;
        }
        for key in definition["properties"].as_object().unwrap().keys() {
            assert!(all.contains(&format!("{key}:")), "{kind}.{key}");
            checked += 1;
        }
    }
    assert_eq!(checked, 49);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*|[a-z:{}\\[\\]&*!|>'\"#%@`,?\\- \n\t~0-9]{0,200}") {
        let _ = read(&text).map_err(|faults| faults.to_string());
    }

    #[test]
    fn no_damage_to_the_reference_makes_it_panic(at in 0..REFERENCE.len(), length in 0_usize..30, put in "[a-z:{}\\[\\]&* \n\t~0-9é-]{0,10}") {
        let mut text = uncommented(&["#: ", "#| "]);
        let start = (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap();
        let end = (start..=(start + length).min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap();
        text.replace_range(start..end, &put);
        let _ = read(&text).map_err(|faults| faults.to_string());
    }
}

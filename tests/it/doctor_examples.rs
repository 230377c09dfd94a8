//! The examples for Compose, Kubernetes and systemd parse, and isolate Pixy from the agent as `pixy doctor` requires.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pixy::config::{self, Env};
use pixy::server::Address;
use serde_json::Value;

fn examples(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(directory)
}

fn yaml(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Parses a configuration of Pixy, as in the image.
fn pixy_config(path: &Path) -> config::Config {
    let env = Env { home: Some("/var/lib/pixy".into()), ..Env::default() };
    let text = fs::read_to_string(path).unwrap();
    config::parse(&text, Some(path.to_owned()), &env).unwrap_or_else(|faults| panic!("{faults}"))
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn the_compose_files_keep_pixy_and_the_agent_apart() {
    let directory = examples("compose");
    for name in ["separate", "shared", "socket"] {
        let file = yaml(&directory.join(format!("{name}.yaml")));
        let (pixy, agent) = (&file["services"]["pixy"], &file["services"]["agent"]);
        assert_eq!(pixy["read_only"], true, "{name}");
        assert_eq!((list(&pixy["cap_drop"]), list(&agent["cap_drop"])), (vec!["ALL"], vec!["ALL"]), "{name}");
        assert_eq!(agent["user"], "1000:1000", "{name}: another user than the image's 65532");
        assert!(pixy["pid"].is_null() && agent["pid"].is_null(), "{name}: no shared processes");
        let of_pixy = list(&pixy["volumes"]);
        let of_agent = list(&agent["volumes"]);
        assert!(of_pixy.contains(&"pixy:/var/lib/pixy"), "{name}");
        assert!(of_agent.iter().all(|volume| volume.ends_with("sockets:/run/pixy:ro")), "{name}: {of_agent:?}");
        let config = of_pixy.iter().find_map(|volume| volume.strip_suffix(":/etc/pixy/pixy.yaml:ro")).unwrap();
        assert_eq!(pixy["environment"]["PIXY_CONFIG"], "/etc/pixy/pixy.yaml", "for `exec pixy pixy link`");
        let config = pixy_config(&directory.join(config));
        let url = agent["environment"]["ANTHROPIC_BASE_URL"].as_str().unwrap_or_default();
        let account = url.rsplit('/').next().unwrap_or_default();
        match name {
            "socket" => {
                assert_eq!(config.agent_listeners[0].address, Address::Unix("/run/pixy/agent.sock".into()));
                assert_eq!(agent["network_mode"], "none");
                assert_eq!(list(&agent["group_add"]), ["65532"]);
            }
            "shared" => {
                let network = "service:network"; // a network of Pixy's own would end with Pixy
                assert_eq!((&agent["network_mode"], &pixy["network_mode"]), (&network.into(), &network.into()));
                assert!(config.link_listen.is_none(), "no page on a loopback that the agent shares");
                assert!(config.accounts.iter().any(|known| known.name.as_str() == account), "{url}");
            }
            _ => {
                assert_eq!(config.agent_keys.len(), 1, "clients that are not on loopback need a key");
                assert_eq!(list(&pixy["ports"]), ["127.0.0.1:8701:8701"], "the page is for this machine alone");
                assert!(config.accounts.iter().any(|known| known.name.as_str() == account), "{url}");
            }
        }
    }
}

#[test]
fn the_pod_is_a_native_sidecar_with_a_hidden_key() {
    let base = examples("kubernetes/base");
    let kustomization = yaml(&base.join("kustomization.yaml"));
    let resources = list(&kustomization["resources"]);
    assert!(!resources.is_empty());
    for resource in resources {
        assert!(yaml(&base.join(resource))["kind"].is_string(), "{resource}");
    }
    let config = pixy_config(&base.join(list(&kustomization["configMapGenerator"][0]["files"])[0]));
    assert!(config.link_listen.is_none(), "loopback is shared by the pod, and so by the agent");
    assert!(!config.ops_listen.is_local(), "the kubelet connects from outside");

    let deployment = yaml(&base.join("deployment.yaml"));
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!((&pod["shareProcessNamespace"], &pod["automountServiceAccountToken"]), (&false.into(), &false.into()));
    let (pixy, agent) = (&pod["initContainers"][0], &pod["containers"][0]);
    assert_eq!((&pixy["name"], &pixy["restartPolicy"]), (&"pixy".into(), &"Always".into()));
    assert_ne!(pixy["securityContext"]["runAsUser"], agent["securityContext"]["runAsUser"]);
    assert!(agent["volumeMounts"].is_null(), "nothing of Pixy is mounted into the agent");
    for probe in ["startupProbe", "livenessProbe"] {
        assert_eq!(pixy[probe]["httpGet"]["path"], "/livez", "an unlinked account is no reason to restart");
    }
    let volumes = pod["volumes"].as_array().unwrap();
    for mount in pixy["volumeMounts"].as_array().unwrap() {
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
    }
    assert!(volumes.iter().any(|volume| volume["secret"]["defaultMode"] == 0o440));
}

#[test]
fn the_systemd_unit_is_confined_and_stops_on_faults() {
    let unit = fs::read_to_string(examples("systemd/pixy.service")).unwrap();
    let mut section = "";
    let mut settings = Vec::new();
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(name) => section = name,
            None => settings.push((section, line.split_once('=').unwrap_or_else(|| panic!("{line}")))),
        }
    }
    let is = |key: &str, value: &str| settings.contains(&("Service", (key, value)));
    assert!(is("DynamicUser", "yes") && is("LoadCredentialEncrypted", "pixy-key") && is("UMask", "0077"));
    assert!(is("NoNewPrivileges", "yes") && is("ProtectSystem", "strict") && is("CapabilityBoundingSet", ""));
    assert!(is("RestartPreventExitStatus", "64"));
    let config = pixy_config(&examples("systemd/pixy.yaml"));
    assert!(config.state_dir.starts_with("/var/lib/pixy"), "the StateDirectory");

    // systemd holds exactly the addresses of the configuration.
    assert!(unit.contains("\nRequires=pixy.socket\n") && unit.contains("\nAlso=pixy.socket\n"));
    let socket = fs::read_to_string(examples("systemd/pixy.socket")).unwrap();
    let held: BTreeSet<String> =
        socket.lines().filter_map(|line| line.strip_prefix("ListenStream=")).map(str::to_owned).collect();
    let agents = config.agent_listeners.iter().map(|listener| &listener.address);
    let listeners = agents.chain(&config.link_listen).chain([&config.ops_listen]);
    assert_eq!(held, listeners.map(ToString::to_string).collect());
}

#[test]
fn the_socket_examples_give_agents_a_read_only_directory() {
    let patch = yaml(&examples("kubernetes/socket/deployment.yaml"));
    let pod = &patch["spec"]["template"]["spec"];
    let mount = |container: &Value| {
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        mounts.filter(|mount| mount["name"] == "sockets").map(|mount| mount["readOnly"] == true).collect::<Vec<_>>()
    };
    assert_eq!((mount(&pod["initContainers"][0]), mount(&pod["containers"][0])), (vec![false], vec![true]));
    let volumes = pod["volumes"].as_array().unwrap();
    assert!(volumes.iter().any(|volume| volume["name"] == "sockets" && volume["emptyDir"].is_object()));
    let config = pixy_config(&examples("kubernetes/socket/pixy.yaml"));
    let [agents] = &config.agent_listeners[..] else { panic!("one listener") };
    assert_eq!(agents.address, Address::Unix("/run/pixy/agent.sock".into()));
    assert_eq!(agents.access, pixy::server::Access::Group);
    let groups = &pod["containers"][0]["securityContext"];
    assert_eq!(groups["runAsGroup"], 65532, "the socket's group");
    let kustomization = yaml(&examples("kubernetes/socket/kustomization.yaml"));
    assert_eq!(list(&kustomization["resources"]), ["../base"]);
    assert_eq!(kustomization["configMapGenerator"][0]["behavior"], "replace");
}

#[test]
fn alerts_and_dashboard_use_existing_metrics() {
    // By their registration: a metric without a sample is not exposed.
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics.rs")).unwrap();
    let calls = source.split("metric(").flat_map(|rest| rest.split("in_seconds(")).skip(1);
    let registered = calls.filter_map(|call| call.split('"').nth(1));
    let known: BTreeSet<&str> = registered.collect();
    let mut checked = 0;
    for file in ["alerts.yaml", "dashboard.json"] {
        let text = fs::read_to_string(examples("monitoring").join(file)).unwrap();
        for (at, _) in text.match_indices("pixy_") {
            let name: String = text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let name = name.trim_start_matches("pixy_").trim_end_matches("_total").trim_end_matches("_bucket");
            let family = name.trim_end_matches("_seconds");
            assert!(known.contains(family), "{file}: {name} is not one of {known:?}");
            checked += 1;
        }
    }
    assert!(checked > 12, "{checked}");
    assert!(yaml(&examples("monitoring/dashboard.json"))["panels"].is_array());
}

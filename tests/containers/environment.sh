# The steps of tests/containers/run with an OAuth server, an API and agents, all of which run on this machine's Node.

agents=localhost/$own-agents
hello='{"model": "small", "max_tokens": 100, "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
key=key-of-the-quick-start-0123456789

# Builds an image of Node, curl and their shared libraries without a registry. Its command sleeps until SIGTERM.
agents_image() {
    local node curl files wait='process.on("SIGTERM", () => process.exit()); setInterval(() => {}, 1e6)'
    node=$(readlink -f "$(type -P node)") curl=$(readlink -f "$(type -P curl)")
    mapfile -t files < <(ldd "$node" "$curl" | grep -oP '\s\K/[^ ]*(?= \()' | sort -u)
    tar -chP --transform "s|^$node\$|/usr/bin/node|" --transform "s|^$curl\$|/usr/bin/curl|" "$node" "$curl" "${files[@]}" |
        "${engine[@]}" import --change 'ENV PATH=/usr/bin' --change "CMD $(node -p 'JSON.stringify(process.argv.slice(1))' -- node -e "$wait")" \
            - "$agents" >/dev/null 2>&1
    images+=("$agents")
}

# node_in FLAG… -- SCRIPT ARGUMENT…: runs a script of this directory in a container as user 1000, with only the tests mounted.
node_in() {
    local flags=()
    while [[ $1 != -- ]]; do flags+=("$1") && shift; done
    timeout 60 "${engine[@]}" run --user 1000:1000 --cap-drop all --security-opt no-new-privileges --read-only -v "$PWD/tests:/tests:ro" \
        "${flags[@]}" "$agents" node "/tests/containers/$2" "${@:3}" 2>"$scratch/node" || { cat "$scratch/node" >&2; false; }
}

# The container of the OAuth server and the API owns the network, so that Pixy can restart; in examples/compose/shared.yaml a separate service does.
linked_by_exec() {
    mkdir -p "$scratch/services" && chmod 777 "$scratch/services"
    containers+=("$own-services")
    node_in -d --name "$own-services" --network none -v "$scratch/services:/services" -- environment.mjs /services "$key" >/dev/null
    local try
    for try in {1..100}; do [[ ! -s $scratch/services/accounts ]] || break; sleep 0.1; done
    settings "$own-linked" shared-pixy <"$scratch/services/accounts"
    start_linked
    link_by_exec
    agent_on_loopback
    exec_in "$own-linked" pixy doctor >"$scratch/doctor" || { cat "$scratch/doctor"; false; }
    agent_doctor healthy --network "container:$own-services" --user 1000:1000
}

start_linked() {
    pixy "$own-linked" --network "container:$own-services" -v "$own-services:/var/lib/pixy" -v "$own-linked:/run/pixy"
    healthy "$own-linked"
}

# Runs `pixy link` in Pixy's container and the browser in another one; the code that the browser shows is piped to `pixy link`.
link_by_exec() {
    local address='' shown="$scratch/shown" pid try
    mkfifo "$scratch/typed"
    exec_in -i "$own-linked" pixy link anthropic --yes <"$scratch/typed" >"$shown" &
    pid=$!
    exec 3>"$scratch/typed"
    for try in {1..100}; do
        address=$(grep -om1 'http://127[^ ]*/auth?[^ ]*' "$shown") && break
        sleep 0.1
    done
    node_in --rm --network "container:$own-services" -- browser_login.mjs "$address" >&3
    exec 3>&-
    wait "$pid" || { cat "$shown"; false; }
}

# The environment variables are those of the examples.
agent_on_loopback() { assert_answer --network "container:$own-services" -e ANTHROPIC_BASE_URL="$url" -- agent.mjs; }

agent_on_socket() {
    assert_answer --network none --group-add 65532 -v "$own-linked:/run/pixy:ro" -e ANTHROPIC_BASE_URL=http://127.0.0.1:8700 -- agent.mjs /run/pixy/agent.sock
}

assert_answer() {
    node_in --rm -e ANTHROPIC_AUTH_TOKEN=pixy "$@" >"$scratch/answer" && [[ $(<"$scratch/answer") == '5 words: Hello from the small API.' ]] ||
        { cat "$scratch/answer"; "${engine[@]}" logs "$own-linked" 2>&1 | tail -5; false; }
}

linked_over_socket() {
    "${engine[@]}" rm -fv "$own-linked" >/dev/null 2>&1
    settings "$own-linked" socket-pixy <"$scratch/services/accounts"
    start_linked
    agent_on_socket
    "${engine[@]}" run --rm --network none --user 1000:1000 --group-add 65532 -v "$own-linked:/run/pixy:ro" "$agents" \
        curl -sN --unix-socket /run/pixy/agent.sock http://localhost/v1/messages --json "$hello" >"$scratch/answer" 2>/dev/null
    assert_streamed
}

assert_streamed() { [[ $(grep -c '^event: content_block_delta' "$scratch/answer") -eq 5 ]] || { cat "$scratch/answer"; false; }; }

restarted_and_upgraded() {
    "${engine[@]}" kill -s KILL "$own-linked" >/dev/null 2>&1 && "${engine[@]}" start "$own-linked" >/dev/null 2>&1
    healthy "$own-linked"
    agent_on_socket
    "${engine[@]}" restart "$own-linked" >/dev/null 2>&1
    healthy "$own-linked"
    agent_on_socket
    "${engine[@]}" rm -fv "$own-linked" >/dev/null 2>&1
    printf 'FROM %s\nLABEL org.opencontainers.image.revision=next\n' "$image" >"$scratch/Dockerfile"
    "${engine[@]}" build "${build_flags[@]}" -t "$own-next" -f "$scratch/Dockerfile" "$scratch/services" >"$scratch/build" 2>&1
    images+=("$own-next")
    settings "$own-linked" shared-pixy <"$scratch/services/accounts"
    from_image=$own-next start_linked
    agent_on_loopback
    [[ $("${engine[@]}" inspect --format '{{index .Config.Labels "org.opencontainers.image.revision"}}' "$own-linked") == next ]]
    exec_in "$own-linked" pixy status | grep -q '^anthropic .* ✓ working'
    # There was one login, and expired tokens were refreshed.
    tail -1 "$scratch/services/calls" >"$scratch/last" && grep -q '"authorization_code":1,"refresh_token":[1-9]' "$scratch/last" ||
        { cat "$scratch/last"; false; }
}

# Runs the commands of README.md. `docker` below replaces the names, the provider's address and the network.
quick_start() {
    sed -n '/^### In a container/,/^```$/p' README.md | sed '1,/^```sh/d; /^```/d' >"$scratch/quick"
    "${engine[@]}" rm -fv "$own-linked" >/dev/null 2>&1 # frees the port
    settings "$own-quick" shared-pixy <"$scratch/services/with_a_key"
    containers+=("$own-quick")
    [[ $(grep -c '^docker ' "$scratch/quick") -ge 4 ]]
    (set -Eeuo pipefail; . "$scratch/quick") >"$scratch/answer" 2>&1 || { cat "$scratch/answer"; false; }
    assert_streamed
}

docker() {
    local verb=$1 typed='' word words=() first=$own-quick network=(--network "container:$own-services")
    for word in "${@:2}"; do
        case $word in
            pixy) words+=("${first:-pixy}") && first='' ;;
            pixy:*) words+=("$own-quick$word") ;;
            */shared-pixy.yaml:*) words+=("$scratch/$own-quick.yaml:${word#*:}") ;;
            container:pixy) words+=("container:$own-quick") && network=() ;;
            curlimages/curl) words+=("$agents" curl) ;;
            -it) words+=(-i) && typed=$key$'\n'y ;;
            *) words+=("$word") ;;
        esac
    done
    case $verb in
        build) ;; # the image is built already
        run)
            [[ ${words[-1]} != pixy ]] || words[-1]=$image
            timeout 60 "${engine[@]}" run "${network[@]}" "${words[@]}" 2>&1
            healthy "$own-quick"
            ;;
        *) timeout 60 "${engine[@]}" "$verb" "${words[@]}" <<<"$typed" 2>&1 ;;
    esac
}

# The example's pod without what podman lacks: native sidecars (Pixy becomes an ordinary container), NetworkPolicy, named ports, and
# probes in an image without a shell. Volumes and secrets are global to the machine and get unique names.
pod() {
    local file=$scratch/pod.yaml
    {
        printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: pixy }\ndata:\n  pixy.yaml: |\n'
        sed 's/^/    /' examples/kubernetes/base/pixy.yaml
        printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: { name: pixy-key }\nstringData: { pixy-key: "%s" }\n---\n' \
            "$("${engine[@]}" run --rm --network none "$image" key new 2>/dev/null)"
        sed "s/name: pixy /name: $own-claim /" examples/kubernetes/base/volume.yaml
        echo ---
        sed -e "s/claimName: pixy /claimName: $own-claim /; s|image: pixy\$|image: $image|; s|image: agent\$|image: $agents|" \
            -e "s/metadata: { name: agent,/metadata: { name: $own,/; s/defaultMode: 288/&, optional: false/" \
            -e '/^      containers:/d; s/^      initContainers:/      containers:/; /^          restartPolicy: Always/d; /Probe: /d; /^          ports: /d' \
            examples/kubernetes/base/deployment.yaml
    } | sed "s/name: pixy-key /name: $own-key /; s/secretName: pixy-key,/secretName: $own-key,/
             s/^metadata: { name: pixy }/metadata: { name: $own-config }/; s/configMap: { name: pixy }/configMap: { name: $own-config }/" >"$file"
    # The default infra image is built from a program that not every machine has, and the default limits may exceed the permitted ones.
    printf '[engine]\ninfra_image = "%s"\n[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n' "$agents" >"$scratch/containers.conf"
    CONTAINERS_CONF=$scratch/containers.conf timeout 60 "${engine[@]}" kube play --network none "$file" >"$scratch/play" 2>&1 ||
        { cat "$scratch/play"; false; }
    local in_pod
    in_pod=$("${engine[@]}" ps --format '{{.Names}}' | grep "^$own-pod.*-pixy\$")
    healthy "$in_pod"
    exec_in "$in_pod" pixy status | grep -q '^anthropic .*not linked'
    "${engine[@]}" exec "${in_pod%-pixy}-agent" curl -s http://127.0.0.1:8700/anthropic/v1/models | grep -q 'is not linked'
    sleep 3 # a restart within this time would increase RestartCount
    [[ $("${engine[@]}" inspect --format '{{.State.Running}} {{.RestartCount}}' "$in_pod") == 'true 0' ]]
}

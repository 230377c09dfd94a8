# The steps of tests/containers/run that need only Pixy's image.

# With PIXY_LONG=1 the release profile; otherwise a profile that builds in half the time.
build() {
    local profile=quick
    [[ ${PIXY_LONG:-0} -eq 0 ]] || profile=dist
    build_image "$image" --build-arg "PROFILE=$profile"
}

# build_image TAG FLAG…: builds an image of this tree.
build_image() {
    timeout 3600 "${engine[@]}" build "${build_flags[@]}" -t "$@" . >"$scratch/build" 2>&1 || { tail -20 "$scratch/build"; false; }
    images+=("$1")
}

reproducible() {
    build_image "$image-again" --no-cache --target build
    local one other
    one=$(program_digest "$image" /usr/local/bin/pixy) other=$(program_digest "$image-again" /image/usr/local/bin/pixy)
    [[ -n $one && $one == "$other" ]] || { echo "$one and $other"; false; }
}

# program_digest IMAGE PATH: prints the SHA-256 of a file in an image.
program_digest() {
    local copy=$scratch/program
    copy_from "$1" "$2" "$copy" && sha256sum <"$copy" | cut -d' ' -f1
}

copy_from() {
    "${engine[@]}" rm -fv "$own-copy" >/dev/null 2>&1 || true
    "${engine[@]}" create --name "$own-copy" "$1" none >/dev/null 2>&1 # not every image has a command
    containers+=("$own-copy")
    "${engine[@]}" cp "$own-copy:$2" "$3" >/dev/null
}

holds_only_pixy() {
    copy_from "$image" /etc/passwd "$scratch/passwd"
    "${engine[@]}" export "$own-copy" | tar -tv >"$scratch/list"
    ! grep -Eq '(^|/)(sh|bash|busybox|apt|ld\.so\.conf)$' "$scratch/list" &&
        [[ $(cat "$scratch/passwd") == pixy:x:65532:65532:* && $(wc -l <"$scratch/passwd") -eq 1 ]] &&
        [[ $(grep -c '^-..x' "$scratch/list") -ge 1 ]] && ! grep -q '^-..s' "$scratch/list" &&
        [[ $("${engine[@]}" image inspect --format '{{.Config.User}}' "$image") == 65532:65532 ]] &&
        (($("${engine[@]}" image inspect --format '{{.Size}}' "$image") < 30 * 1024 * 1024))
}

# The SBOM and the list that `cargo audit` reads from the binary name every compiled crate. Both come from Cargo's metadata, which
# includes crates of disabled features: a few are listed needlessly, but no development dependency is.
bill_of_materials() {
    copy_from "$image" /usr/share/doc/pixy/sbom.cdx.json "$scratch/sbom"
    node -e '
        const { bomFormat, metadata, components } = JSON.parse(require("fs").readFileSync(0));
        if (bomFormat !== "CycloneDX") throw new Error(bomFormat);
        for (const { name, version } of [metadata.component, ...components]) console.log(name, version);
    ' <"$scratch/sbom" | LC_ALL=C sort -u >"$scratch/named"
    crates >"$scratch/compiled"
    awk -F'"' '/^name = / { name = $2 } /^version = / { print name, $2 }' Cargo.lock | LC_ALL=C sort -u >"$scratch/locked"
    [[ $(wc -l <"$scratch/compiled") -gt 50 && $(LC_ALL=C comm -23 "$scratch/compiled" "$scratch/named") == '' &&
        $(LC_ALL=C comm -13 "$scratch/compiled" "$scratch/named" | wc -l) -lt 10 &&
        $(LC_ALL=C comm -13 "$scratch/locked" "$scratch/named") == '' ]] || { diff "$scratch/compiled" "$scratch/named"; false; }
    ! grep -E '^(insta|proptest|rcgen) ' "$scratch/named"
    copy_from "$image" /usr/local/bin/pixy "$scratch/program" && grep -q '\.dep-v0' "$scratch/program"
}

# Names and versions, for this system.
crates() {
    cargo tree --locked --edges normal,build --prefix none --format '{p}' | awk '{ print $1, substr($2, 2) }' | LC_ALL=C sort -u
}

shared_starts() {
    # Its provider is this Pixy itself, because the container has no network but loopback.
    settings "$own-shared" shared-pixy <<'YAML'
accounts:
  local: { provider: openai-compatible, profile: { api: { base_url: "http://127.0.0.1:8702/v1" } } }
YAML
    pixy "$own-shared" --network none -v "$own-pixy:/var/lib/pixy"
    healthy "$own-shared" && echo key-of-the-test-0123456789 | exec_in -i "$own-shared" pixy link local --yes >/dev/null &&
        exec_in "$own-shared" pixy doctor >"$scratch/doctor" || { cat "$scratch/doctor"; false; }
}

shared_agent() { url=http://127.0.0.1:8700/local agent_doctor healthy --network "container:$own-shared" --user 1000:1000; }

shared_killed() {
    "${engine[@]}" kill -s KILL "$own-shared" >/dev/null 2>&1 && "${engine[@]}" start "$own-shared" >/dev/null 2>&1
    healthy "$own-shared" && exec_in "$own-shared" pixy status | grep -q '^local .* ✓ working'
}

# Runs the image's HEALTHCHECK as the engine does; three failures make a container unhealthy.
health_check() {
    [[ ${engine[*]} == *podman* ]] || return 0 # Docker has no command for it
    check && [[ $(health) == healthy ]]
    "${engine[@]}" kill -s STOP "$own-shared" >/dev/null 2>&1
    local try
    for try in {1..8}; do # those within the start period do not count
        ! check && [[ $(health) == unhealthy ]] && break
        sleep 1
    done
    [[ $(health) == unhealthy ]]
    "${engine[@]}" kill -s CONT "$own-shared" >/dev/null 2>&1
    check && [[ $(health) == healthy ]]
}

check() { timeout 30 "${engine[@]}" healthcheck run "$own-shared" >/dev/null 2>&1; }

health() { "${engine[@]}" inspect --format '{{.State.Health.Status}}' "$own-shared"; }

key_mounted() {
    exec_in "$own-shared" pixy key new >"$scratch/pixy-key" && chmod 644 "$scratch/pixy-key"
    agent_doctor '✗ key' --network "container:$own-shared" --user 1000:1000 -v "$scratch/pixy-key:/run/secrets/pixy-key:ro"
}

same_user() {
    agent_doctor '✗ separate users' --network "container:$own-shared" --user 65532:65532
    agent_doctor ' process list ' --network "container:$own-shared" --user 1000:1000 --pid "container:$own-shared" &&
        grep -q "is in the agent's process list" "$scratch/agent"
}

socket() {
    settings "$own-socket" socket-pixy <<<'accounts: { anthropic: { provider: anthropic } }'
    pixy "$own-socket" --network none -v "$own-sockets:/run/pixy" -v "$own-other:/var/lib/pixy"
    healthy "$own-socket"
    url=unix:/run/pixy/agent.sock agent_doctor 'Pixy answers on unix:/run/pixy/agent.sock' --network none --user 1000:1000 \
        --group-add 65532 -v "$own-sockets:/run/pixy:ro"
    # An agent outside the socket's group has no access.
    url=unix:/run/pixy/agent.sock agent_doctor '✗ base url' --network none --user 1000:1000 -v "$own-sockets:/run/pixy:ro"
}

# settings NAME EXAMPLE <ACCOUNTS: writes a configuration: the example's, with these accounts.
settings() {
    { sed '/^accounts:/,$d' "examples/compose/$2.yaml" && cat; } >"$scratch/$1.yaml"
    chmod 644 "$scratch/$1.yaml"
}

# pixy NAME FLAG…: starts a container as the examples do; `from_image` overrides the image.
pixy() {
    local name=$1
    shift
    containers+=("$name")
    "${engine[@]}" run -d --name "$name" --read-only --cap-drop all --security-opt no-new-privileges \
        -e PIXY_CONFIG=/etc/pixy/pixy.yaml -v "$scratch/$name.yaml:/etc/pixy/pixy.yaml:ro" "$@" "${from_image:-$image}" >"$scratch/run" 2>&1 ||
        { cat "$scratch/run"; false; }
}

exec_in() { timeout 60 "${engine[@]}" exec "$@" 2>/dev/null; }

healthy() {
    local try
    for try in {1..50}; do
        exec_in "$1" pixy health >/dev/null && return
        sleep 0.2
    done
    "${engine[@]}" logs "$1" 2>&1 | tail -5
    return "$((try > 0))"
}

# agent_doctor WANTED FLAG…: runs the doctor as the agent; its output must contain WANTED, or with `healthy` it must find no fault.
agent_doctor() {
    local wanted=$1 status=0
    shift
    timeout 60 "${engine[@]}" run --rm --cap-drop all --security-opt no-new-privileges -e HOME=/tmp "$@" "$image" \
        doctor --as-agent --base-url "$url" --provider http://127.0.0.1:1 >"$scratch/agent" 2>"$scratch/agent.err" || status=$?
    if [[ $wanted == healthy ]]; then [[ $status -eq 0 ]]; else grep -q -- "$wanted" "$scratch/agent"; fi ||
        { cat "$scratch/agent" "$scratch/agent.err"; false; }
}

# The binary, its shared libraries, CA roots and one line of passwd. No shell.
#
#   docker build -t pixy .          podman build --format docker -t pixy .     (the OCI format has no HEALTHCHECK)
#
# Base images are arguments, so that a mirror or a pinned digest can replace them. RUN_IMAGE may also be
# gcr.io/distroless/cc-debian12 or debian:bookworm-slim.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUN_IMAGE=scratch

# Tools that write the list of crates into the binary and the bill of materials. A layer that is rarely rebuilt.
FROM ${BUILD_IMAGE} AS tools
RUN cargo install --locked --root /tools --target-dir /tmp/target cargo-auditable@0.7.7 auditable2cdx@0.1.0 && rm -r /tmp/target

FROM ${BUILD_IMAGE} AS build
# The cargo profile; `quick` builds in half the time, for a test.
ARG PROFILE=dist
WORKDIR /pixy
COPY --from=tools /tools/bin/ /usr/local/bin/
# Keeps paths of the build out of the binary: two builds of one source produce the same bytes.
ENV RUSTFLAGS="--remap-path-prefix=/pixy=. --remap-path-prefix=/usr/local/cargo=cargo" CARGO_INCREMENTAL=0 SOURCE_DATE_EPOCH=0

# A `quick` build writes the list of crates. `dist` is optimised by the profile of benches/train, without the compiler wrapper that
# writes the list: the wrapper would change the symbol names that the profile refers to.
RUN printf '%s\n' '#!/bin/sh -eu' 'cargo auditable build --locked --profile quick --bin pixy' \
    'if [ "$PROFILE" != dist ]; then exit; fi' \
    'RUSTFLAGS="$RUSTFLAGS -Cprofile-use=/pixy/benches/pixy.profdata" cargo build --locked --profile dist --bin pixy' \
    'objcopy --dump-section .dep-v0=target/crates target/quick/pixy' \
    'objcopy --add-section .dep-v0=target/crates target/dist/pixy' > /usr/local/bin/build-pixy && chmod +x /usr/local/bin/build-pixy

# The dependencies are a layer of their own, rebuilt only when the lock file changes. A pattern beside a file may match nothing.
COPY Cargo.toml Cargo.lock build.rs* ./
COPY Cargo.toml .cargo* .cargo/
COPY benches/pixy.profdata benches/
RUN mkdir src && touch src/lib.rs benches/micro.rs && echo 'fn main() {}' > src/main.rs \
 && PROFILE=${PROFILE} build-pixy \
 && rm -rf src target/*/pixy target/*/deps/*pixy* target/*/build/pixy-* target/*/.fingerprint/pixy-*
COPY src src
COPY config config
COPY LICENSE-* ./
ARG REVISION=unknown
RUN PIXY_COMMIT="$REVISION" PROFILE=${PROFILE} build-pixy

# The contents of the image. `files dns` makes the resolver read /etc/hosts.
RUN set -eu; mkdir -p /image/usr/local/bin /image/usr/share/doc/pixy /image/etc/ssl/certs /image/tmp /home-of-pixy/pixy /run-of-pixy/pixy; \
    cp target/${PROFILE}/pixy /image/usr/local/bin/; \
    auditable2cdx target/${PROFILE}/pixy > /image/usr/share/doc/pixy/sbom.cdx.json; \
    cp LICENSE-* /image/usr/share/doc/pixy/; \
    for library in $(ldd target/${PROFILE}/pixy | grep -o '/[^ ]*'); do mkdir -p "/image$(dirname "$library")"; cp -L "$library" "/image$library"; done; \
    cp -L /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/; \
    echo 'pixy:x:65532:65532:Pixy:/var/lib/pixy:/sbin/nologin' > /image/etc/passwd; \
    echo 'pixy:x:65532:' > /image/etc/group; \
    echo 'hosts: files dns' > /image/etc/nsswitch.conf; \
    chmod 1777 /image/tmp; chmod 0700 /home-of-pixy/pixy; chmod 0750 /run-of-pixy/pixy

FROM ${RUN_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Pixy" \
      org.opencontainers.image.description="Holds a person's LLM logins so that the agent beside it never does" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
COPY --from=build --chown=65532:65532 /home-of-pixy/ /var/lib/
# For a volume with an agent's socket: it inherits owner and mode from here.
COPY --from=build --chown=65532:65532 /run-of-pixy/ /run/
# A user of its own: the agent's container must run as another one.
USER 65532:65532
ENV HOME=/var/lib/pixy
WORKDIR /var/lib/pixy
VOLUME /var/lib/pixy
EXPOSE 8700
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/usr/local/bin/pixy", "health"]
ENTRYPOINT ["/usr/local/bin/pixy"]

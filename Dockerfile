# Base images are arguments, so that a mirror or a pinned digest can take their place.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUN_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
WORKDIR /pixy
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY config config
RUN cargo build --locked --profile dist --bin pixy

FROM ${RUN_IMAGE}
COPY --from=build /pixy/target/dist/pixy /usr/local/bin/pixy
# A user of its own: the agent's container must run as another one.
RUN mkdir -p /var/lib/pixy /etc/pixy && chown 65532:65532 /var/lib/pixy && chmod 0700 /var/lib/pixy
USER 65532:65532
ENV HOME=/var/lib/pixy
VOLUME /var/lib/pixy
HEALTHCHECK CMD ["/usr/local/bin/pixy", "health"]
ENTRYPOINT ["/usr/local/bin/pixy"]

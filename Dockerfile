# The images of Weft by a container engine, for those who want one; `make images` makes the same files without. What is in them and how
# they start is said once, in crates/image/src/recipes.rs: the first stage asks `weft-image` for the files.
#
#   docker build --target xds-server -t REGISTRY/PATH/xds-server:TAG --build-arg VERSION=TAG --build-arg REVISION=$(git rev-parse HEAD) .
#   docker build --target node-agent -t REGISTRY/PATH/node-agent:TAG --build-arg VERSION=TAG --build-arg REVISION=$(git rev-parse HEAD) .
#
# For several architectures: docker buildx build --platform linux/amd64,linux/arm64 --push ... (each is built by its own compiler).

FROM docker.io/library/rust:1.95-bookworm AS build
# readelf (which the compiler brings along) finds what a program loads; the packet filter's programs go into the image of the agent.
RUN apt-get update \
 && apt-get install -y --no-install-recommends iptables nftables \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /weft
COPY . .
RUN cargo build --release --locked \
      --bin weft-xds-server --bin weft \
      --bin weft-node-agent --bin weft-node-agent-capture --bin weft-node-agent-watch --bin weft-cni \
      --bin weft-image \
 && target/release/weft-image --programs target/release --layers --output /layers \
 && for image in xds-server node-agent; do \
      mkdir -p /files/$image && tar -xf /layers/$image.layer.tar -C /files/$image; \
    done

FROM scratch AS xds-server
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="weft xds-server" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /files/xds-server/ /
ENV GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1000000000
USER 65534:65534
ENTRYPOINT ["/usr/bin/weft-xds-server"]

# Root, for the capture half alone: manifests/base says the user, the capabilities and the mounts of each container.
FROM scratch AS node-agent
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="weft node-agent" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /files/node-agent/ /
ENV GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1000000000
USER 0:0
ENTRYPOINT ["/usr/bin/weft-node-agent"]

# Pillion's image has one static binary and the system's CA certificates, and nothing else.
#
#   docker build -t pillion .
#   docker run --rm --read-only --cap-drop=all -p 8080:8080 -v ./pillion.toml:/etc/pillion/pillion.toml:ro pillion
#
# A single mounted file never changes inside the container when it is replaced outside; mount its folder for reloads.
# A bridge or an ingress is not loopback: set server.trusted_proxies to what stands in front.
ARG RUST_IMAGE=docker.io/library/rust:1.95-bookworm
# hadolint ignore=DL3006
FROM ${RUST_IMAGE} AS build
WORKDIR /build
# This layer has the dependencies alone, so it is built again only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches \
    && for file in src/main.rs build.rs benches/engines.rs benches/hit_ratio.rs; do echo 'fn main() {}' > "$file"; done \
    && touch src/lib.rs
# The C library is linked in, because the image has none. Names are resolved by /etc/hosts and DNS, which glibc has built in.
ENV RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs" CARGO_PROFILE_RELEASE_STRIP=symbols
RUN cargo build --release --locked --target "$(rustc --print host-tuple)" --bin pillion
COPY build.rs build.rs
COPY src src
COPY config config
COPY examples examples
ARG VERSION
# The sources are made newer than the files whose place they take, whatever the time of the checkout.
RUN find src build.rs -name '*.rs' -exec touch {} + \
    && if [ -n "$VERSION" ]; then export PILLION_VERSION="$VERSION"; fi \
    && cargo build --release --locked --target "$(rustc --print host-tuple)" --bin pillion \
    && mkdir -p /image/etc/ssl/certs /image/etc/pillion \
    && cp target/*/release/pillion /image/pillion \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo 'pillion:x:65532:65532:Pillion:/:/pillion' > /image/etc/passwd \
    && /image/pillion --version

FROM scratch
LABEL org.opencontainers.image.title="Pillion" \
      org.opencontainers.image.description="A reverse-proxy sidecar: one binary and one TOML file in front of any HTTP app" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /image /
USER 65532:65532
# The port is for requests. The admin listener is on loopback unless the configuration says otherwise.
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/pillion", "health", "--live"]
ENTRYPOINT ["/pillion"]
CMD ["run"]

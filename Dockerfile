# syntax=docker/dockerfile:1

# Two images, each a static program and nothing else: a speaker's privileges are for what it needs. For
# one architecture, or both (--platform linux/amd64,linux/arm64 with buildx):
#
#   docker build --target controller -t herald-controller:0.1.0 .
#   docker build --target speaker -t herald-speaker:0.1.0 .
#
# The build itself always runs on the builder's own architecture; rustc and clang cross-compile.

FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build

RUN apt-get update \
 && apt-get install -y --no-install-recommends clang llvm \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY rust-toolchain.toml ./
RUN rustup target add x86_64-unknown-linux-musl aarch64-unknown-linux-musl

# ring's C and assembly by clang for either target; it needs no header of the target's libc. rustc
# brings musl itself and its own linker.
ENV CC_x86_64_unknown_linux_musl=clang \
    CC_aarch64_unknown_linux_musl=clang \
    AR_x86_64_unknown_linux_musl=llvm-ar \
    AR_aarch64_unknown_linux_musl=llvm-ar \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS="-Clink-self-contained=yes -Clinker=rust-lld" \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUSTFLAGS="-Clink-self-contained=yes -Clinker=rust-lld"

COPY . .
ARG TARGETARCH
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,id=target-$TARGETARCH \
    case "$TARGETARCH" in \
      amd64) target=x86_64-unknown-linux-musl ;; \
      arm64) target=aarch64-unknown-linux-musl ;; \
      *) echo "no build for $TARGETARCH" >&2; exit 1 ;; \
    esac \
 && cargo build --release --locked --target "$target" -p herald-controller -p herald-speaker \
 && mkdir /out \
 && cp "target/$target/release/herald-controller" "target/$target/release/herald-speaker" /out \
 && llvm-strip /out/*

FROM scratch AS controller
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="herald-controller" \
      org.opencontainers.image.description="Gives Services of type LoadBalancer on bare metal their addresses" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/herald-controller /
USER 65532:65532
ENTRYPOINT ["/herald-controller"]

FROM scratch AS speaker
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="herald-speaker" \
      org.opencontainers.image.description="Announces the addresses of Services of type LoadBalancer on bare metal" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/herald-speaker /
# Kubernetes gives added capabilities to uid 0 only.
USER 0:0
ENTRYPOINT ["/herald-speaker"]

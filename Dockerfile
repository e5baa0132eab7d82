# syntax=docker/dockerfile:1

# Both programs, static, and nothing else. For one architecture or both:
#
#   docker build -t herald:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/herald:0.1.0 --push .
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

FROM scratch
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="herald" \
      org.opencontainers.image.description="Addresses for Services of type LoadBalancer on bare metal" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/ /
# The controller's. The chart says which program runs, and as whom: a speaker needs uid 0.
USER 65532:65532
ENTRYPOINT ["/herald-controller"]

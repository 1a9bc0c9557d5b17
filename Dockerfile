# syntax=docker/dockerfile:1
# One image with the three programs; the command says which: runlog-ingest, runlog-projectors, runlog.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches keep crates and objects between builds; they are not part of the image, so the programs are copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bins -p runlog -p runlog-ingest -p runlog-projectors && \
    mkdir /out && \
    cp target/release/runlog target/release/runlog-ingest target/release/runlog-projectors /out/ && \
    strip --strip-debug /out/*

FROM debian:bookworm-slim
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /out/ /usr/local/bin/
# A number, so that a cluster that refuses root can see it is none.
USER 65532:65532
WORKDIR /tmp
EXPOSE 9600 9601
CMD ["runlog", "--help"]

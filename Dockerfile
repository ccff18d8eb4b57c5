# The image holds one static binary and one properties file.
#   docker build -t klamm . && docker run -p 9092:9092 -v klamm:/data klamm
# Configure it like Kafka's image: KAFKA_FOO_BAR or KAFKA_CFG_FOO_BAR set foo.bar, or mount a file and name it:
#   docker run -p 9092:9092 -v ./server.properties:/server.properties klamm /server.properties
# The file has to name its listeners, as klamm.properties does: without, only the container itself is served.

FROM rust:1.95-alpine AS build
# The C compiler is for zstd, lz4 and the allocator. Alpine's Rust links everything into the binary.
RUN apk add --no-cache build-base
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package klamm
RUN mkdir /data

FROM scratch
COPY --from=build /src/target/release/klamm /klamm
COPY --from=build /src/crates/klamm/image.properties /klamm.properties
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
# The default data directory, ./data, is /data from here.
WORKDIR /
VOLUME ["/data"]
EXPOSE 9092 9644
STOPSIGNAL SIGTERM
ENTRYPOINT ["/klamm"]
# Used only where no other file is named and the environment says nothing of where to listen.
CMD ["--default-config", "/klamm.properties"]

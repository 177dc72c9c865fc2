# An image with the service's binary, its data directory and CA certificates.
ARG GO_IMAGE=golang:1.26.8-bookworm
FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=0.1.0-dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/streamcount ./cmd/streamcount
RUN mkdir -p /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/streamcount /streamcount
# The data of the embedded etcd, if no other etcd is configured. The directory exists in
# the image so that a volume mounted here belongs to the user.
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
# All addresses of the container. The node then refuses to start without credentials,
# unless auth-none is set: see docs/access.md.
ENV STREAMCOUNT_LISTEN=:3000
WORKDIR /data
VOLUME /data
EXPOSE 3000
# Liveness of the process, independent of etcd: otherwise an orchestrator would restart
# all nodes when etcd is unavailable.
HEALTHCHECK --interval=5s --timeout=8s --start-period=5s --retries=3 CMD ["/streamcount", "health", "--live"]
ENTRYPOINT ["/streamcount"]
CMD ["serve"]

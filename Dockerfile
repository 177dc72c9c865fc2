# The service in an image of nothing but its binary, its user's data folder and
# the authorities whose certificates it trusts.
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
# Of the embedded etcd, where no other is named. A folder, so that a volume that
# is mounted here belongs to the user as well.
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
# Every address of the container. The node refuses to start there unless it has
# credentials or is told that it needs none: see docs/access.md.
ENV STREAMCOUNT_LISTEN=:3000
WORKDIR /data
VOLUME /data
EXPOSE 3000
# Whether the process is well, not whether etcd is: what restarts unhealthy
# containers would otherwise restart every node when etcd is away.
HEALTHCHECK --interval=5s --timeout=8s --start-period=5s --retries=3 CMD ["/streamcount", "health", "--live"]
ENTRYPOINT ["/streamcount"]
CMD ["serve"]

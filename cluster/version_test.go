package cluster

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/version"
	"google.golang.org/grpc"
)

func TestTooOld(t *testing.T) {
	for v, want := range map[string]string{ // the minimum; "" passes
		"2.3.8": "3.5.33", "3.0.0": "3.5.33", "3.4.99": "3.5.33",
		"3.5.0": "3.5.33", "3.5.32": "3.5.33", "3.5.33": "", "3.5.34": "", "3.5.100": "",
		"3.6.0": "3.6.14", "3.6.13": "3.6.14", "3.6.14": "",
		"3.7.0": "3.7.1", "3.7.1": "", "3.7.3": "",
		"3.8.0": "", "3.10.0": "", "4.0.0": "", "4.5.0": "",
		"3.7.1-rc.0": "3.7.1", "3.7.0-alpha.1": "3.7.1", "3.7.2-rc.0": "", "3.8.0-alpha.0": "",
		"3.5.33-vendor.4": "", "3.5.33+git": "", "3.6.2-vendor": "3.6.14",
		"": "3.5.33", "3": "3.5.33", "3.7": "3.5.33", "3.7.x": "3.5.33", "3.-7.1": "3.5.33",
		"not_decided": "3.5.33",
	} {
		minimum, old := tooOld(v)
		assert.Equal(t, want != "", old, "%q", v)
		if old {
			assert.Equal(t, want, minimum, "%q", v)
		}
	}
	_, old := tooOld(version.Version)
	assert.False(t, old, "the etcd that this binary embeds")
}

func TestConnect_RefusesOldEtcd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	endpoint := serveVersion(t, "3.5.12")
	_, err := Connect(ctx, ClientConfig{Endpoints: []string{endpoint}})
	require.ErrorContains(t, err, endpoint)
	require.ErrorContains(t, err, `"3.5.12"`)
	require.ErrorContains(t, err, "3.5.33")
	require.NoError(t, ctx.Err(), "at once")

	c, err := Connect(ctx, ClientConfig{Endpoints: []string{serveVersion(t, "3.9.0")}})
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

// oldEtcd answers what Connect asks, as an etcd of another version would.
type oldEtcd struct {
	pb.UnimplementedKVServer
	pb.UnimplementedMaintenanceServer
	version string
}

func (*oldEtcd) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	return &pb.RangeResponse{Header: &pb.ResponseHeader{}}, nil
}

func (o *oldEtcd) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Version: o.version}, nil
}

func serveVersion(t *testing.T, v string) (endpoint string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer()
	pb.RegisterKVServer(s, &oldEtcd{version: v})
	pb.RegisterMaintenanceServer(s, &oldEtcd{version: v})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		assert.NoError(t, <-done)
	})
	return "http://" + l.Addr().String()
}

package cluster

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
)

// The benchmarks compare the ways to the embedded server, with fsync, as a
// node runs it:
//
//	go test -run '^$' -bench . -benchtime 3s ./cluster
const (
	benchCallers = 256
	benchNested  = 60  // slot transactions in one
	benchStreams = 4   // of keep-alives
	benchFlying  = 256 // renewals on their way on each
)

func BenchmarkPut(b *testing.B) {
	value := []byte(strings.Repeat("v", 100))
	eachWay(b, func(b *testing.B, c Calls) {
		b.Helper()
		perSecond(b, 1, func(i int64) error {
			_, err := c.KV.Put(b.Context(), &pb.PutRequest{Key: benchKey(i), Value: value})
			return err
		})
	})
}

func BenchmarkTxnOf60(b *testing.B) {
	eachWay(b, func(b *testing.B, c Calls) {
		b.Helper()
		perSecond(b, benchNested, func(i int64) error {
			resp, err := c.KV.Txn(b.Context(), slotBatch(i))
			if err == nil && !resp.GetResponses()[0].GetResponseTxn().GetSucceeded() {
				err = fmt.Errorf("batch %d found its slots taken", i)
			}
			return err
		})
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/1e6, "heap-MB") // etcd's log is most of it
	})
}

func BenchmarkRange(b *testing.B) {
	eachWay(b, func(b *testing.B, c Calls) {
		b.Helper()
		perSecond(b, 1, func(i int64) error {
			_, err := c.KV.Range(b.Context(), &pb.RangeRequest{Key: benchKey(i)})
			return err
		})
	})
}

func BenchmarkGrant(b *testing.B) {
	eachWay(b, func(b *testing.B, c Calls) {
		b.Helper()
		perSecond(b, 1, func(int64) error {
			_, err := c.Lease.LeaseGrant(b.Context(), &pb.LeaseGrantRequest{TTL: 600})
			return err
		})
	})
}

func BenchmarkKeepAlive(b *testing.B) {
	eachWay(b, func(b *testing.B, c Calls) {
		b.Helper()
		renewAll(b, c.Lease)
	})
}

// BenchmarkKeepAliveOfThree renews in a cluster of three, through a follower
// and through the leader.
func BenchmarkKeepAliveOfThree(b *testing.B) {
	cl := etcdtest.StartCluster(b, 3)
	leader := cl.Leader(b)
	b.Run("follower", func(b *testing.B) {
		c, err := Dial(b.Context(), ClientConfig{Endpoints: cl.Endpoints((leader + 1) % 3)})
		require.NoError(b, err)
		defer c.Close()
		renewAll(b, clientv3.RetryLeaseClient(c))
	})
	b.Run("leader", func(b *testing.B) {
		cfg := ClientConfig{Endpoints: cl.Endpoints()}
		c, err := Dial(b.Context(), cfg)
		require.NoError(b, err)
		defer c.Close()
		l := NewLeaderLease(c, cfg)
		ctx, cancel := context.WithCancel(b.Context())
		var run sync.WaitGroup
		run.Go(func() { _ = l.Run(ctx) }) // never an error
		defer run.Wait()
		defer cancel()
		require.Eventually(b, func() bool { _, a := l.Leader(); return a != "" }, soon, time.Millisecond)
		renewAll(b, l)
	})
}

// renewAll makes b.N renewals on all streams together.
func renewAll(b *testing.B, c pb.LeaseClient) {
	b.Helper()
	var ids []int64
	for range benchStreams * benchFlying {
		resp, err := c.LeaseGrant(b.Context(), &pb.LeaseGrantRequest{TTL: 600})
		require.NoError(b, err)
		ids = append(ids, resp.ID)
	}
	b.ResetTimer()
	began := time.Now()
	var wg sync.WaitGroup
	for s := range benchStreams {
		wg.Go(func() { pipeline(b, c, ids[s*benchFlying:(s+1)*benchFlying], b.N/benchStreams+1) })
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "renewals/s")
}

// pipeline renews n times on a separate stream, with all ids in flight.
func pipeline(b *testing.B, c pb.LeaseClient, ids []int64, n int) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	stream, err := c.LeaseKeepAlive(ctx)
	if err != nil {
		b.Error(err)
		return
	}
	tokens := make(chan struct{}, len(ids))
	go func() {
		for i := range n {
			tokens <- struct{}{}
			if stream.Send(&pb.LeaseKeepAliveRequest{ID: ids[i%len(ids)]}) != nil {
				return // Recv returns the error
			}
		}
	}()
	for range n {
		resp, err := stream.Recv()
		if err != nil || resp.TTL <= 0 {
			b.Errorf("renewal: %v, %v", resp, err)
			return
		}
		<-tokens
	}
}

// eachWay runs a benchmark through gRPC and in process, on a new server each.
func eachWay(b *testing.B, run func(*testing.B, Calls)) {
	b.Helper()
	for _, way := range []string{"grpc", "inprocess"} {
		b.Run(way, func(b *testing.B) {
			e, err := StartEmbedded(b.Context(), EmbedConfig{DataDir: b.TempDir()})
			require.NoError(b, err)
			defer e.Close()
			calls := e.InProcess()
			if way == "grpc" {
				c, err := Dial(b.Context(), e.ClientConfig())
				require.NoError(b, err)
				defer c.Close()
				calls = Calls{KV: clientv3.RetryKVClient(c), Lease: clientv3.RetryLeaseClient(c), Watch: c.Watcher}
			}
			run(b, calls)
		})
	}
}

// perSecond lets the callers share b.N calls, each worth some operations.
func perSecond(b *testing.B, worth int, do func(i int64) error) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	began := time.Now()
	for range benchCallers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N*worth)/time.Since(began).Seconds(), "ops/s")
}

func benchKey(i int64) []byte { return fmt.Appendf(nil, "/bench/%09d", i) }

// slotBatch is benchNested starts of users without other starts: the
// first free one of three slots.
func slotBatch(i int64) *pb.TxnRequest {
	value := []byte(strings.Repeat("v", 100))
	batch := &pb.TxnRequest{}
	for n := range benchNested {
		user := fmt.Sprintf("/bench/users/%09d-%02d/", i, n)
		chain := &pb.TxnRequest{Success: []*pb.RequestOp{rangeOp(user)}}
		for slot := 2; slot >= 0; slot-- {
			key := fmt.Appendf(nil, "%s%03d", user, slot)
			free := &pb.Compare{
				Key: key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL,
				TargetUnion: &pb.Compare_CreateRevision{},
			}
			put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
				RequestPut: &pb.PutRequest{Key: key, Value: value},
			}}
			chain = &pb.TxnRequest{
				Compare: []*pb.Compare{free},
				Success: []*pb.RequestOp{put},
				Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: chain}}},
			}
		}
		batch.Success = append(batch.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: chain}})
	}
	return batch
}

func rangeOp(prefix string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{
		Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), CountOnly: true,
	}}}
}

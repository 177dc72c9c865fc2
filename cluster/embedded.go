package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"

	"streamcount/cluster/internal/datadir"
	"streamcount/cluster/internal/etcdlog"
)

const (
	defaultQuota = 8 << 30
	// defaultCompactEvery keeps the history within the quota: a revision of a
	// key takes about 200 bytes, and 25,000 starts and stops a second make
	// 10 MB of them.
	defaultCompactEvery = 2 * time.Minute
	// memberName and memberURL identify the only member in its own data. No client connects to
	// the URL; it is the same at every start, so that the data can be used again.
	memberName = "streamcount"
	memberURL  = "http://127.0.0.1:2380"
	// maxTxnOps allows many small transactions to share one. The size of a request, etcd's
	// default of 1.5 MiB, bounds the duration of one.
	maxTxnOps = 2048
	// catchUpEntries is the number of log entries that etcd keeps in memory for lagging members.
	// A single member has none, and etcd's default of 5,000 large transactions would take more
	// than a hundred MB.
	catchUpEntries = 100
	// pipeBytes is the buffer of a connection inside the process, in each direction.
	pipeBytes = 64 << 10
)

// EmbedConfig configures the etcd server inside a single node. Only DataDir is required.
type EmbedConfig struct {
	// DataDir is the directory of etcd's data. It is created if it does not exist, and locked,
	// so that only one process uses it.
	DataDir string
	// QuotaBytes is the size of the database at which etcd rejects writes. 0 means 8 GiB.
	QuotaBytes int64
	// CompactEvery is how much history etcd keeps at least; it keeps up to
	// twice as much. 0 means two minutes.
	CompactEvery time.Duration
	// Log receives etcd's warnings and errors. nil discards them.
	Log *zap.Logger
}

// Embedded is a running etcd server of one member. It has no authentication
// and no TCP port: clients of this process use memory, and etcdctl a Unix
// socket in a directory that only the process's own user may enter.
type Embedded struct {
	etcd   *embed.Etcd
	lock   *fileutil.LockedFile
	local  *inProcess // set once the server is ready
	socket string     // path of the Unix socket

	serving sync.WaitGroup    // of the listeners
	server  *grpc.Server      // nil until the server is ready
	memory  *bufconn.Listener // for clients of this process

	died    chan error    // at most one error, then closed
	closing chan struct{} // closed by Close
	watched chan struct{} // closed when watch has returned
	once    sync.Once     // of Close
}

// StartEmbedded starts an etcd server and waits until it serves or ctx ends.
// Data that cannot be read is an error; nothing is ever deleted.
func StartEmbedded(ctx context.Context, cfg EmbedConfig) (*Embedded, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.DataDir, context.Cause(ctx))
	}
	lock, err := datadir.Lock(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	datadir.WarnIfAccessible(cfg.DataDir, cfg.Log)
	e := &Embedded{
		lock:    lock,
		socket:  socketPath(cfg.DataDir),
		memory:  bufconn.Listen(pipeBytes),
		died:    make(chan error, 1),
		closing: make(chan struct{}),
		watched: make(chan struct{}),
	}
	if err := e.start(ctx, cfg); err != nil {
		return nil, err
	}
	go e.watch()
	return e, nil
}

// Endpoints returns the address for clients of other processes, such as
// etcdctl. It is a Unix socket, which some systems and directories do not have.
func (e *Embedded) Endpoints() []string {
	u := e.url()
	return []string{u.String()}
}

func (e *Embedded) url() url.URL { return url.URL{Scheme: unixScheme, Path: e.socket} }

// ClientConfig returns the configuration of a client in this process. It needs
// no socket.
func (e *Embedded) ClientConfig() ClientConfig {
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return e.memory.DialContext(ctx) }
	return ClientConfig{Endpoints: e.Endpoints(), DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)}}
}

// Err returns a channel that receives an error if the server ends without Close. The channel is
// closed when the server has ended.
func (e *Embedded) Err() <-chan error { return e.died }

// Close stops the server, disconnects its clients, and unlocks the data directory.
func (e *Embedded) Close() error {
	var err error
	e.once.Do(func() {
		e.stop()
		<-e.watched
		err = e.lock.Close()
	})
	return err
}

// start starts the server. After an error nothing is running, except for goroutines of etcd
// after a panic. If ctx ends while etcd opens its data, which cannot be interrupted, the
// clean-up happens later.
func (e *Embedded) start(ctx context.Context, cfg EmbedConfig) error {
	started := make(chan error, 1)
	go func() { started <- e.launch(cfg) }()
	select {
	case err := <-started:
		if err != nil {
			return errors.Join(err, e.lock.Close())
		}
	case <-ctx.Done():
		go func() {
			if <-started == nil {
				e.stop()
			}
			_ = e.lock.Close() // start has returned
		}()
		return fmt.Errorf("start etcd in %s: %w", cfg.DataDir, context.Cause(ctx))
	}
	if err := e.awaitReady(ctx); err != nil {
		e.stop()
		return errors.Join(fmt.Errorf("start etcd in %s: %w", cfg.DataDir, err), e.lock.Close())
	}
	e.local = serverCalls(e.etcd.Server)
	e.serve(cfg)
	return nil
}

// serve accepts clients of this process and, through a Unix socket if there is one, others.
func (e *Embedded) serve(cfg EmbedConfig) {
	e.server = v3rpc.Server(e.etcd.Server, nil, nil,
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: embed.DefaultGRPCKeepAliveMinTime}))
	listeners := []net.Listener{e.memory}
	socket, err := listenPrivately(e.socket)
	switch {
	case err == nil:
		listeners = append(listeners, socket)
	case cfg.Log != nil && !errors.Is(err, errors.ErrUnsupported):
		cfg.Log.Warn("cannot create the Unix socket for etcdctl; the service does not need it",
			zap.String("socket", e.socket), zap.Error(err))
	}
	for _, l := range listeners {
		e.serving.Go(func() { _ = e.server.Serve(l) }) // until stop
	}
}

func (e *Embedded) awaitReady(ctx context.Context) error {
	select {
	case <-e.etcd.Server.ReadyNotify():
		return nil
	case err := <-e.etcd.Err():
		return err
	case <-e.etcd.Server.StopNotify():
		return errors.New("the server ended before it was ready")
	case <-ctx.Done():
		return fmt.Errorf("not ready: %w", context.Cause(ctx))
	}
}

// launch starts etcd. etcd panics if it cannot read its data.
func (e *Embedded) launch(cfg EmbedConfig) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = datadir.UnreadableError(cfg.DataDir, fmt.Errorf("%v", r))
		}
	}()
	hasData := fileutil.Exist(filepath.Join(cfg.DataDir, "member"))
	if err := datadir.Check(cfg.DataDir); err != nil {
		return datadir.UnreadableError(cfg.DataDir, err)
	}
	e.etcd, err = embed.StartEtcd(e.embedConfig(cfg))
	if err != nil && hasData {
		return datadir.UnreadableError(cfg.DataDir, err)
	}
	if err != nil {
		return fmt.Errorf("start etcd in %s: %w", cfg.DataDir, err)
	}
	return nil
}

// embedConfig returns etcd's configuration, without listeners, because etcd's own would also
// serve HTTP.
func (e *Embedded) embedConfig(cfg EmbedConfig) *embed.Config {
	ec := embed.NewConfig()
	ec.Name, ec.Dir = memberName, cfg.DataDir
	ec.ListenClientUrls, ec.ListenPeerUrls = nil, nil
	ec.AdvertiseClientUrls = []url.URL{e.url()}
	peer, _ := url.Parse(memberURL)
	ec.AdvertisePeerUrls = []url.URL{*peer}
	ec.InitialCluster = ec.InitialClusterFromName(memberName)
	ec.MaxTxnOps = maxTxnOps
	ec.SnapshotCatchUpEntries = catchUpEntries
	ec.QuotaBackendBytes = cmp.Or(cfg.QuotaBytes, defaultQuota)
	ec.AutoCompactionMode = embed.CompactorModePeriodic
	ec.AutoCompactionRetention = cmp.Or(cfg.CompactEvery, defaultCompactEvery).String()
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(etcdlog.Server(cfg.Log, e.closing))
	ec.EnableGRPCGateway = false
	return ec
}

// stop ends etcd immediately. Without stopping its server first, etcd waits seconds for open
// watches.
func (e *Embedded) stop() {
	close(e.closing)
	if e.server != nil {
		e.server.Stop()
	}
	e.serving.Wait()
	_ = e.memory.Close() // its server has stopped
	if e.local != nil {
		e.local.close()
	}
	e.etcd.Close()
}

func (e *Embedded) watch() {
	defer close(e.watched)
	defer close(e.died)
	var err error
	select {
	case <-e.closing:
		return
	case err = <-e.etcd.Err():
	case <-e.etcd.Server.StopNotify():
	}
	select {
	case <-e.closing: // closing makes etcd report errors, too
		return
	default:
	}
	e.local.close() // its callers need not wait for Close
	if err == nil {
		err = errors.New("the server ended unexpectedly")
	}
	e.died <- fmt.Errorf("embedded etcd: %w", err)
}

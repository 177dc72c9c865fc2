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
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

const (
	defaultQuota = 8 << 30
	// defaultCompactEvery keeps the history within the quota: a revision of a
	// key takes about 200 bytes, and 25,000 starts and stops a second make
	// 10 MB of them.
	defaultCompactEvery = 2 * time.Minute
	// memberName and memberURL are how the only member is known in its own
	// data. Nobody connects to the URL; it is the same at every start, so that
	// the data can be used again.
	memberName = "streamcount"
	memberURL  = "http://127.0.0.1:2380"
	// maxTxnOps lets many small transactions share one. The size of a request,
	// which stays at etcd's 1.5 MiB, bounds what one may hold up.
	maxTxnOps = 2048
	// catchUpEntries is how much of its log etcd keeps in memory for members
	// that lag behind. A single member has none, and etcd's 5,000 large
	// transactions would take a hundred MB and more.
	catchUpEntries = 100
	// bindTries bounds how often a port is chosen again that another process
	// took between choosing and listening.
	bindTries = 10
)

// EmbedConfig configures the etcd server that a single node runs in its own
// process. Only DataDir is required.
type EmbedConfig struct {
	// DataDir holds etcd's data. It is created if need be, and locked: one
	// process at a time uses it.
	DataDir string
	// QuotaBytes is the size of the database at which etcd refuses writes.
	// 0 means 8 GiB.
	QuotaBytes int64
	// CompactEvery is how much history etcd keeps at least; it keeps up to
	// twice as much. 0 means two minutes.
	CompactEvery time.Duration
	// Log gets etcd's warnings and errors. nil means none of them.
	Log *zap.Logger
}

// Embedded is a running etcd server of one member. It listens on loopback
// only, without authentication: every process of this machine can reach it.
type Embedded struct {
	etcd     *embed.Etcd
	lock     *fileutil.LockedFile
	endpoint string
	local    *inProcess // set once the server is ready

	died    chan error    // at most one error, then closed
	closing chan struct{} // closed by Close
	watched chan struct{} // closed when watch has returned
	once    sync.Once     // of Close

	mu    sync.Mutex // guards grpcs, which etcd fills from its own goroutine
	grpcs []*grpc.Server
}

// StartEmbedded starts an etcd server and waits until it serves or ctx ends.
// Data that cannot be read is an error; nothing is ever deleted.
func StartEmbedded(ctx context.Context, cfg EmbedConfig) (*Embedded, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.DataDir, context.Cause(ctx))
	}
	lock, err := lockDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	e := &Embedded{
		lock:    lock,
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

// Endpoints returns the addresses for clients.
func (e *Embedded) Endpoints() []string { return []string{e.endpoint} }

// Err delivers one error if the server ends by itself. The channel is closed
// when the server has ended, for whatever reason.
func (e *Embedded) Err() <-chan error { return e.died }

// Close stops the server, cuts its clients off, and frees the data directory.
func (e *Embedded) Close() error {
	var err error
	e.once.Do(func() {
		e.stop()
		<-e.watched
		err = e.lock.Close()
	})
	return err
}

// start leaves nothing running when it returns an error, except what a panic
// inside etcd has left behind. If ctx ends while etcd opens its data, which
// nothing can interrupt, the tidying up happens later.
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
			_ = e.lock.Close() // nobody is left to be told
		}()
		return fmt.Errorf("start etcd in %s: %w", cfg.DataDir, context.Cause(ctx))
	}
	if err := e.awaitReady(ctx); err != nil {
		e.stop()
		return errors.Join(fmt.Errorf("start etcd in %s: %w", cfg.DataDir, err), e.lock.Close())
	}
	e.local = serverCalls(e.etcd.Server)
	return nil
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

// launch starts etcd. etcd panics over data that it cannot read.
func (e *Embedded) launch(cfg EmbedConfig) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = unreadable(cfg.DataDir, fmt.Errorf("%v", r))
		}
	}()
	hasData := fileutil.Exist(filepath.Join(cfg.DataDir, "member"))
	if err := checkLog(cfg.DataDir); err != nil {
		return unreadable(cfg.DataDir, err)
	}
	for range bindTries {
		if err = e.listen(cfg); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	if err != nil && hasData && !errors.Is(err, syscall.EADDRINUSE) {
		return unreadable(cfg.DataDir, err)
	}
	if err != nil {
		return fmt.Errorf("start etcd in %s: %w", cfg.DataDir, err)
	}
	return nil
}

// listen starts etcd on a free port. etcd itself could choose one, but would
// then tell its clients to come to port 0.
func (e *Embedded) listen(cfg EmbedConfig) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	client := url.URL{Scheme: "http", Host: l.Addr().String()}
	if err := l.Close(); err != nil {
		return err
	}
	e.endpoint = client.String()
	e.etcd, err = embed.StartEtcd(e.embedConfig(cfg, client))
	return err
}

func (e *Embedded) embedConfig(cfg EmbedConfig, client url.URL) *embed.Config {
	ec := embed.NewConfig()
	ec.Name, ec.Dir = memberName, cfg.DataDir
	ec.ListenClientUrls = []url.URL{client}
	ec.AdvertiseClientUrls = ec.ListenClientUrls
	ec.ListenPeerUrls = nil // a single member has no peers
	peer, _ := url.Parse(memberURL)
	ec.AdvertisePeerUrls = []url.URL{*peer}
	ec.InitialCluster = ec.InitialClusterFromName(memberName)
	ec.MaxTxnOps = maxTxnOps
	ec.SnapshotCatchUpEntries = catchUpEntries
	ec.QuotaBackendBytes = cmp.Or(cfg.QuotaBytes, defaultQuota)
	ec.AutoCompactionMode = embed.CompactorModePeriodic
	ec.AutoCompactionRetention = cmp.Or(cfg.CompactEvery, defaultCompactEvery).String()
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(serverLog(cfg.Log, e.closing))
	// A web page must not reach the keys through the visitor's browser.
	ec.EnableGRPCGateway = false
	ec.CORS = map[string]struct{}{}
	ec.HostWhitelist = map[string]struct{}{"127.0.0.1": {}, "localhost": {}}
	ec.ServiceRegister = func(s *grpc.Server) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.grpcs = append(e.grpcs, s)
	}
	return ec
}

// stop ends etcd at once. By itself it waits seconds for open watches.
func (e *Embedded) stop() {
	close(e.closing)
	e.mu.Lock()
	grpcs := e.grpcs
	e.mu.Unlock()
	for _, s := range grpcs {
		s.Stop()
	}
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
		err = errors.New("the server ended by itself")
	}
	e.died <- fmt.Errorf("embedded etcd: %w", err)
}

package replica

import (
	"os"
	"testing"

	"streamcount/internal/testing/etcdtest"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m)) }

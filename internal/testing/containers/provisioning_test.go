package containers

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// TestGrafanaProvisioning checks Grafana's files without Grafana: they have only fields in
// Grafana's documentation, refer to services and mounts of docker-compose.yml, and each
// dashboard uses the existing data source.
func TestGrafanaProvisioning(t *testing.T) {
	var compose struct {
		Services map[string]struct {
			Volumes     []any // a string or a map each
			Environment any
		}
	}
	read(t, "docker-compose.yml", false, &compose)
	mounts := map[string]string{} // by mount point
	for _, v := range compose.Services["grafana"].Volumes {
		text, ok := v.(string)
		require.True(t, ok, v)
		parts := strings.Split(text, ":")
		if strings.HasPrefix(parts[0], "./") {
			mounts[parts[1]] = parts[0]
			assert.DirExists(t, filepath.Join(root, parts[0]))
		}
	}

	var sources struct {
		APIVersion  int `json:"apiVersion"`
		Datasources []struct {
			Name, UID, Type, Access, URL string
			IsDefault                    bool `json:"isDefault"`
			Editable                     bool
			JSONData                     struct {
				TimeInterval string `json:"timeInterval"`
			} `json:"jsonData"`
		}
	}
	read(t, filepath.Join(mounts["/etc/grafana/provisioning/datasources"], "prometheus.yml"), true, &sources)
	require.Len(t, sources.Datasources, 1)
	source := sources.Datasources[0]
	at, err := url.Parse(source.URL)
	require.NoError(t, err)
	assert.Contains(t, compose.Services, at.Hostname())
	assert.Equal(t, "9090", at.Port())
	assert.Equal(t, "prometheus", source.Type)

	var dashboards struct {
		APIVersion int `json:"apiVersion"`
		Providers  []struct {
			Name, Type      string
			DisableDeletion bool `json:"disableDeletion"`
			AllowUIUpdates  bool `json:"allowUiUpdates"`
			Options         struct{ Path string }
		}
	}
	read(t, filepath.Join(mounts["/etc/grafana/provisioning/dashboards"], "streamcount.yml"), true, &dashboards)
	require.Len(t, dashboards.Providers, 1)
	folder := mounts[dashboards.Providers[0].Options.Path]
	require.NotEmpty(t, folder, "the dashboards' folder is mounted")
	files, err := filepath.Glob(filepath.Join(root, folder, "*.json"))
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var dashboard map[string]any
		require.NoError(t, json.Unmarshal(text, &dashboard), file)
		assert.NotEmpty(t, dashboard["title"], file)
		for _, uid := range datasources(dashboard) {
			assert.Contains(t, []string{source.UID, "-- Grafana --", "${datasource}", "$datasource"}, uid, file)
		}
	}
}

// read decodes a YAML file of the repository. If it is strict, unknown fields fail the test.
func read(t *testing.T, path string, strict bool, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	if strict {
		require.NoError(t, yaml.UnmarshalStrict(text, into), path)
		return
	}
	require.NoError(t, yaml.Unmarshal(text, into), path)
}

// datasources returns the ids of all data sources that a dashboard names.
func datasources(in any) []string {
	var all []string
	switch v := in.(type) {
	case map[string]any:
		if source, ok := v["datasource"].(map[string]any); ok {
			if uid, ok := source["uid"].(string); ok {
				all = append(all, uid)
			}
		}
		for _, each := range v {
			all = append(all, datasources(each)...)
		}
	case []any:
		for _, each := range v {
			all = append(all, datasources(each)...)
		}
	}
	return all
}

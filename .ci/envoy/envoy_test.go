// Package envoy checks deploy/edge/envoy.yaml against the types of Envoy's API: every field must
// exist in its type and have a valid value.
//
// It is a separate module, so that the service does not depend on Envoy.
package envoy

import (
	"errors"
	"os"
	"strings"
	"testing"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	extauthz "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"
)

func parse(text string) (*extauthz.ExtAuthz, error) {
	content, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return nil, err
	}
	var config bootstrap.Bootstrap
	if err := protojson.Unmarshal(content, &config); err != nil {
		return nil, err
	}
	if err := config.ValidateAll(); err != nil {
		return nil, err
	}
	var manager hcm.HttpConnectionManager
	if err := config.StaticResources.Listeners[0].FilterChains[0].Filters[0].GetTypedConfig().UnmarshalTo(&manager); err != nil {
		return nil, err
	}
	var filter extauthz.ExtAuthz
	err = manager.HttpFilters[0].GetTypedConfig().UnmarshalTo(&filter)
	return &filter, errors.Join(err, manager.ValidateAll(), filter.ValidateAll())
}

func TestConfiguration(t *testing.T) {
	content, err := os.ReadFile("../../deploy/edge/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("${SC_NODE}", "node", "${SC_NODE_PORT}", "3002", "${SC_KEY}", "sck_key",
		"${SC_ORIGIN}", "origin", "${SC_ORIGIN_PORT}", "8080").Replace(string(content))
	filter, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := filter.GetHttpService().PathPrefix; got != "/edge/v1/vod-request/uri" {
		t.Errorf("path_prefix is %s", got)
	}
	for _, field := range []string{"path_prefix", "failure_mode_allow", "allowed_client_headers_on_success", "load_assignment"} {
		if _, err := parse(strings.ReplaceAll(text, field, field+"s")); err == nil {
			t.Errorf("the misspelt field %ss is accepted", field)
		}
	}
	if _, err := parse(strings.Replace(text, "timeout: 1s", "timeout: 1x", 1)); err == nil {
		t.Error("a bad duration is accepted")
	}
}

// Package envoy checks deploy/edge/envoy.yaml, and the part of a configuration in
// docs/playback-tokens.md, against the types of Envoy's API: every field must exist in its type and
// have a valid value.
//
// It is a separate module, so that the service does not depend on Envoy.
package envoy

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	extauthz "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	jwtauthn "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"
)

// parse decodes and validates a configuration with all messages in it. It returns the messages
// that typed_config has.
func parse(text string) (*bootstrap.Bootstrap, []proto.Message, error) {
	content, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return nil, nil, err
	}
	var config bootstrap.Bootstrap
	if err := protojson.Unmarshal(content, &config); err != nil {
		return nil, nil, err
	}
	typed, err := validate(&config)
	return &config, typed, err
}

// validate checks a message, and the messages in its fields of type Any.
func validate(message proto.Message) (typed []proto.Message, err error) {
	checked, ok := message.(interface{ ValidateAll() error })
	if !ok {
		return nil, fmt.Errorf("%T has no rules", message)
	}
	errs := []error{checked.ValidateAll()}
	err = protorange.Range(message.ProtoReflect(), func(values protopath.Values) error {
		value, ok := values.Index(-1).Value.Interface().(protoreflect.Message)
		if !ok {
			return nil
		}
		content, ok := value.Interface().(*anypb.Any)
		if !ok {
			return nil
		}
		inner, err := content.UnmarshalNew()
		if err != nil {
			return err
		}
		more, err := validate(inner)
		typed = append(append(typed, inner), more...)
		errs = append(errs, err)
		return protorange.Break
	})
	return typed, errors.Join(append(errs, err)...)
}

func TestConfiguration(t *testing.T) {
	content, err := os.ReadFile("../../deploy/edge/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("${SC_NODE}", "node", "${SC_NODE_PORT}", "3002", "${SC_KEY}", "sck_key",
		"${SC_ORIGIN}", "origin", "${SC_ORIGIN_PORT}", "8080").Replace(string(content))
	config, typed, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	clusters := map[string]bool{}
	for _, cluster := range config.GetStaticResources().GetClusters() {
		clusters[cluster.GetName()] = cluster.GetName() == cluster.GetLoadAssignment().GetClusterName()
	}
	var filter *extauthz.ExtAuthz
	names := ""
	for _, message := range typed {
		names += string(message.ProtoReflect().Descriptor().Name()) + " "
		switch message := message.(type) {
		case *extauthz.ExtAuthz:
			filter = message
		case *hcm.HttpConnectionManager:
			if name := message.GetRouteConfig().GetVirtualHosts()[0].GetRoutes()[0].GetRoute().GetCluster(); !clusters[name] {
				t.Errorf("no cluster %s", name)
			}
		}
	}
	if names != "HttpConnectionManager ExtAuthz Router " {
		t.Fatalf("the filters are %s", names)
	}
	if name := filter.GetHttpService().GetServerUri().GetCluster(); !clusters[name] {
		t.Errorf("no cluster %s", name)
	}
	// The test of the edge sends these headers, and the Host and Authorization that Envoy sends
	// by itself.
	sent := ""
	for _, pattern := range filter.GetAllowedHeaders().GetPatterns() {
		sent += pattern.GetExact() + " "
	}
	if sent != "cookie user-agent x-forwarded-for " {
		t.Errorf("the headers of a check are %s", sent)
	}
	if added := filter.GetHttpService().GetAuthorizationRequest().GetHeadersToAdd(); len(added) != 1 ||
		added[0].GetKey() != "x-streamcount-key" || added[0].GetValue() != "sck_key" {
		t.Errorf("the headers that Envoy adds are %v", added)
	}
	if filter.GetWithRequestBody() != nil {
		t.Error("the body of a request is sent")
	}
	if got := filter.GetHttpService().PathPrefix; got != "/edge/v1/vod-request/uri" {
		t.Errorf("path_prefix is %s", got)
	}
	for _, field := range []string{"path_prefix", "failure_mode_allow", "allowed_client_headers_on_success", "load_assignment"} {
		if _, _, err := parse(strings.ReplaceAll(text, field, field+"s")); err == nil {
			t.Errorf("the misspelt field %ss is accepted", field)
		}
	}
	if _, _, err := parse(strings.Replace(text, "timeout: 1s", "timeout: 1x", 1)); err == nil {
		t.Error("a bad duration is accepted")
	}
	for _, wrong := range []string{"stat_prefix: media", "prefix: x-streamcount-", "key: x-streamcount-key"} {
		field, _, _ := strings.Cut(wrong, ":")
		if _, _, err := parse(strings.Replace(text, wrong, field+`: ""`, 1)); err == nil {
			t.Errorf("an empty value for %s is accepted", wrong)
		}
	}
}

// The filter jwt_authn in docs/playback-tokens.md is valid, and tolerates less than the 60 s of
// Envoy's default, because the page adds the tolerance to the time that an ended viewer can watch.
func TestPlaybackTokens(t *testing.T) {
	page, err := os.ReadFile("../../docs/playback-tokens.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "**Envoy**")
	_, rest, _ = strings.Cut(rest, "```yaml\n")
	text, _, _ := strings.Cut(rest, "```")
	content, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var filter jwtauthn.JwtAuthentication
	if err := protojson.Unmarshal(content, &filter); err != nil {
		t.Fatal(err)
	}
	if _, err := validate(&filter); err != nil {
		t.Fatal(err)
	}
	provider := filter.GetProviders()["streamcount"]
	if skew := provider.GetClockSkewSeconds(); skew == 0 || skew > 10 {
		t.Errorf("clock_skew_seconds is %d: want 1 to 10", skew)
	}
}

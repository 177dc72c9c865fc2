// Command manifests checks Kubernetes manifests against the types of the Kubernetes API:
// every field must exist in its type and have its kind. It reads files, or standard input.
//
// It is a separate module, so that the service does not depend on Kubernetes.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(files []string) error {
	if len(files) == 0 {
		return check(os.Stdin, "standard input")
	}
	var all []error
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		all = append(all, check(f, name))
		_ = f.Close() // it was opened for reading
	}
	return errors.Join(all...)
}

var separator = regexp.MustCompile(`(?m)^---.*$`)

// check checks a file with several objects.
func check(from io.Reader, name string) error {
	text, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	var all []error
	objects := 0
	for _, part := range separator.Split(string(text), -1) {
		kind, err := checkObject([]byte(part))
		if kind != "" {
			objects++
		}
		if err != nil {
			all = append(all, fmt.Errorf("%s: %s: %w", name, kind, err))
		}
	}
	if objects == 0 {
		all = append(all, fmt.Errorf("%s: there is no object in it", name))
	}
	if len(all) == 0 {
		fmt.Printf("%s: %d objects are as Kubernetes defines them\n", name, objects)
	}
	return errors.Join(all...)
}

// checkObject checks an object and returns its kind, or "" for an empty document.
func checkObject(text []byte) (string, error) {
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(text, &meta); err != nil {
		return "", err
	}
	if meta.Kind == "" {
		var anything any
		if err := yaml.Unmarshal(text, &anything); err != nil || anything != nil {
			return "", errors.Join(errors.New("an object without a kind"), err)
		}
		return "", nil
	}
	kind := meta.APIVersion + " " + meta.Kind
	object, known := newObject(kind)
	if !known {
		return kind, errors.New("no type is known for it: add it to newObject")
	}
	if err := yaml.UnmarshalStrict(text, object); err != nil {
		return kind, err
	}
	return kind, checkRules(object)
}

func newObject(kind string) (object any, known bool) {
	switch kind {
	case "v1 ConfigMap":
		return &corev1.ConfigMap{}, true
	case "v1 Service":
		return &corev1.Service{}, true
	case "v1 ServiceAccount":
		return &corev1.ServiceAccount{}, true
	case "v1 Secret":
		return &corev1.Secret{}, true
	case "apps/v1 Deployment":
		return &appsv1.Deployment{}, true
	case "policy/v1 PodDisruptionBudget":
		return &policyv1.PodDisruptionBudget{}, true
	case "autoscaling/v2 HorizontalPodAutoscaler":
		return &autoscalingv2.HorizontalPodAutoscaler{}, true
	case "networking.k8s.io/v1 NetworkPolicy":
		return &networkingv1.NetworkPolicy{}, true
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return &monitoringv1.ServiceMonitor{}, true
	}
	return nil, false
}

// checkRules checks rules of Kubernetes that its types do not express.
func checkRules(object any) error {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return errors.Join(selects(o.Spec.Selector, o.Spec.Template.Labels), checkMounts(o.Spec.Template.Spec))
	case *corev1.Service:
		if len(o.Spec.Selector) == 0 || len(o.Spec.Ports) == 0 {
			return errors.New("it needs a selector and a port")
		}
	case *policyv1.PodDisruptionBudget:
		if (o.Spec.MaxUnavailable == nil) == (o.Spec.MinAvailable == nil) {
			return errors.New("it needs one of maxUnavailable and minAvailable")
		}
	}
	return nil
}

func selects(s *metav1.LabelSelector, of map[string]string) error {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return err
	}
	if selector.Empty() || !selector.Matches(labels.Set(of)) {
		return fmt.Errorf("selector %q does not select its own pods", selector)
	}
	return nil
}

// probePort returns the name of the port that a probe uses.
func probePort(probe *corev1.Probe) (name string, ok bool) {
	switch {
	case probe == nil:
	case probe.HTTPGet != nil:
		return probe.HTTPGet.Port.StrVal, true
	case probe.TCPSocket != nil:
		return probe.TCPSocket.Port.StrVal, true
	}
	return "", false
}

// checkMounts checks that every mount has a volume, every volume a mount, and every volume one
// source.
func checkMounts(pod corev1.PodSpec) error {
	var all []error
	used := map[string]int{}
	for _, v := range pod.Volumes {
		used[v.Name] = 0
	}
	for _, c := range pod.Containers {
		ports := map[string]bool{}
		for _, p := range c.Ports {
			ports[p.Name] = true
		}
		for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe} {
			if name, ok := probePort(probe); ok && !ports[name] {
				all = append(all, fmt.Errorf("container %s: a probe uses port %q, which the container does not have", c.Name, name))
			}
		}
		for _, m := range c.VolumeMounts {
			if _, there := used[m.Name]; !there {
				all = append(all, fmt.Errorf("container %s mounts %q, which is no volume", c.Name, m.Name))
			}
			used[m.Name]++
		}
	}
	for name, times := range used {
		if times == 0 {
			all = append(all, fmt.Errorf("no container mounts volume %q", name))
		}
	}
	return errors.Join(all...)
}

package main

import (
	"strings"
	"testing"
)

const budget = `apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: x
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {app: x}
`

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: x}
spec:
  selector: {matchLabels: {app: x}}
  template:
    metadata: {labels: {app: x}}
    spec:
      containers:
        - name: x
          image: x
          ports: [{name: http, containerPort: 3000}]
          readinessProbe: {httpGet: {path: /, port: http}}
          volumeMounts: [{name: config, mountPath: /c}]
      volumes: [{name: config, configMap: {name: x}}]
`

func TestCheck(t *testing.T) {
	if err := check(strings.NewReader(budget+"---\n# nothing\n---\n"+deployment), "good"); err != nil {
		t.Error(err)
	}
	for name, wrong := range map[string]string{
		"misspelt":       strings.Replace(budget, "maxUnavailable", "maxUnavailabel", 1),
		"misplaced":      strings.Replace(budget, "  maxUnavailable: 1\n", "", 1) + "maxUnavailable: 1\n",
		"type":           strings.Replace(deployment, "3000", `"http"`, 1),
		"twice":          budget + "spec: {}\n",
		"kind":           strings.Replace(budget, "PodDisruptionBudget", "PodDisruptionBudgets", 1),
		"version":        strings.Replace(budget, "policy/v1", "policy/v1beta1", 1),
		"no_kind":        strings.Replace(budget, "kind: PodDisruptionBudget\n", "", 1),
		"neither":        strings.Replace(budget, "  maxUnavailable: 1\n", "", 1),
		"selector":       strings.Replace(deployment, "labels: {app: x}}", "labels: {app: y}}", 1),
		"volume":         strings.Replace(deployment, "volumes: [{name: config,", "volumes: [{name: confg,", 1),
		"probe":          strings.Replace(deployment, "port: http", "port: htp", 1),
		"probe_misspelt": strings.Replace(deployment, "httpGet", "httpget_", 1),
		"nothing":        "# nothing\n",
	} {
		if wrong == budget || wrong == deployment {
			t.Errorf("%s: nothing was changed", name)
		}
		if err := check(strings.NewReader(wrong), name); err == nil {
			t.Errorf("%s: it is accepted", name)
		} else {
			t.Log(err)
		}
	}
}

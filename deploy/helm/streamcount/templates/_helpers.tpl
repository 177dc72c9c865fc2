{{- define "streamcount.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "streamcount.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "streamcount.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "streamcount.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "streamcount.selector" -}}
app.kubernetes.io/name: {{ include "streamcount.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "streamcount.labels" -}}
{{ include "streamcount.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "streamcount.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "streamcount.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "streamcount.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- /* The arguments of "streamcount health" for nodes that require client certificates. */}}
{{- define "streamcount.probe" -}}
--cert, /etc/streamcount/tls-probe/tls.crt, --key, /etc/streamcount/tls-probe/tls.key
{{- end }}

{{- /* The node's settings, in the format of the --config file. */}}
{{- define "streamcount.config" -}}
{{- $c := deepCopy .Values.config }}
{{- $_ := set $c "listen" ":3000" }}
{{- $_ := set $c "etcd-prefix" .Values.etcd.prefix }}
{{- if and .Values.etcd.endpoints .Values.etcd.shards }}
{{- fail "set etcd.endpoints or etcd.shards, not both" }}
{{- end }}
{{- if not (or .Values.etcd.endpoints .Values.etcd.shards) }}
{{- fail "nodes need an etcd: set etcd.endpoints to the addresses of its members, or etcd.shards" }}
{{- end }}
{{- with .Values.etcd.endpoints }}{{ $_ := set $c "etcd-endpoints" . }}{{ end }}
{{- with .Values.etcd.near }}{{ $_ := set $c "etcd-near" . }}{{ end }}
{{- if .Values.etcd.shards }}
{{- $shards := list }}
{{- range $name, $addresses := .Values.etcd.shards }}
{{- $shards = append $shards (printf "%s=%s" $name (join "," $addresses)) }}
{{- end }}
{{- $_ := set $c "shard" $shards }}
{{- end }}
{{- if .Values.etcd.tlsSecret }}
{{- $_ := set $c "etcd-cert" "/etc/streamcount/etcd-tls/tls.crt" }}
{{- $_ := set $c "etcd-key" "/etc/streamcount/etcd-tls/tls.key" }}
{{- $_ := set $c "etcd-ca" "/etc/streamcount/etcd-tls/ca.crt" }}
{{- end }}
{{- if .Values.etcd.user }}
{{- $_ := set $c "etcd-user" .Values.etcd.user }}
{{- $_ := set $c "etcd-password-file" (printf "/etc/streamcount/etcd-password/%s" .Values.etcd.passwordSecret.key) }}
{{- end }}
{{- /* Without credentials a node answers to configured host names only. A web page
cannot have the host name of the Service. */}}
{{- if .Values.auth.none }}
{{- $_ := set $c "auth-none" true }}
{{- end }}
{{- if or .Values.auth.none $c.hosts }}
{{- $name := include "streamcount.fullname" . }}
{{- $ns := .Release.Namespace }}
{{- $hosts := concat ($c.hosts | default list) (list $name (printf "%s.%s" $name $ns) (printf "%s.%s.svc" $name $ns) (printf "%s.%s.svc.%s" $name $ns .Values.clusterDomain)) }}
{{- $_ := set $c "hosts" ($hosts | uniq) }}
{{- end }}
{{- if .Values.auth.fileSecret.name }}
{{- $_ := set $c "auth-file" (printf "/etc/streamcount/auth/%s" .Values.auth.fileSecret.key) }}
{{- end }}
{{- if .Values.auth.keysSecret.name }}
{{- $_ := set $c "auth-keys-file" (printf "/etc/streamcount/keys/%s" .Values.auth.keysSecret.key) }}
{{- end }}
{{- if .Values.tlsSecret }}
{{- $_ := set $c "tls-cert" "/etc/streamcount/tls/tls.crt" }}
{{- $_ := set $c "tls-key" "/etc/streamcount/tls/tls.key" }}
{{- end }}
{{- if .Values.tlsClientCA.secret }}
{{- if not .Values.tlsSecret }}{{ fail "tlsClientCA needs tlsSecret: client certificates are part of HTTPS" }}{{ end }}
{{- $_ := set $c "tls-client-ca" (printf "/etc/streamcount/tls-client-ca/%s" .Values.tlsClientCA.key) }}
{{- end }}
{{- with .Values.edge }}
{{- if .file }}
{{- if not (or .allow $.Values.auth.keysSecret.name .clientCA.secret) }}
{{- fail "no proxy could use the edge: set edge.allow, auth.keysSecret with a key of scope edge, or edge.clientCA" }}
{{- end }}
{{- $_ := set $c "edge-listen" ":3001" }}
{{- $_ := set $c "edge-file" "/etc/streamcount/config/edge.yaml" }}
{{- with .allow }}{{ $_ := set $c "edge-allow" . }}{{ end }}
{{- if .tlsSecret }}
{{- $_ := set $c "edge-tls-cert" "/etc/streamcount/edge-tls/tls.crt" }}
{{- $_ := set $c "edge-tls-key" "/etc/streamcount/edge-tls/tls.key" }}
{{- end }}
{{- if .clientCA.secret }}
{{- if not .tlsSecret }}{{ fail "edge.clientCA needs edge.tlsSecret: client certificates are part of HTTPS" }}{{ end }}
{{- $_ := set $c "edge-client-ca" (printf "/etc/streamcount/edge-client-ca/%s" .clientCA.key) }}
{{- end }}
{{- else if or .allow .tlsSecret .clientCA.secret }}
{{- fail "edge.allow, edge.tlsSecret and edge.clientCA need edge.file" }}
{{- end }}
{{- end }}
{{- toYaml $c }}
{{- end }}

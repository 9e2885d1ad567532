{{- define "wattscale.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Of objects without a namespace: two releases must not share one. */}}
{{- define "wattscale.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "wattscale.fullname" .) -}}
{{- end }}

{{/* (dict "root" $ "component" NAME) */}}
{{- define "wattscale.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "wattscale.labels" -}}
{{ include "wattscale.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* (dict "root" $ "image" .Values.images.planner) */}}
{{- define "wattscale.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "wattscale.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "wattscale.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "wattscale.natsServers" -}}
{{- if .Values.nats.enabled -}}
{{- $scheme := ternary "tls" "nats" .Values.nats.tls.enabled -}}
{{- list (printf "%s://%s-nats.%s.svc:4222" $scheme (include "wattscale.fullname" .) .Release.Namespace) | toJson -}}
{{- else -}}
{{- .Values.nats.servers | toJson -}}
{{- end -}}
{{- end }}

{{/* The name of a client's file of credentials. (dict "root" $ "client" FILE-STEM) */}}
{{- define "wattscale.busFile" -}}
{{- .client }}.{{ ternary "nk" "creds" (eq .root.Values.nats.auth.mode "nkey") -}}
{{- end }}

{{/* The section of the bus in a settings file. (dict "root" $ "role" ROLE "client" FILE-STEM, empty for an agent) */}}
{{- define "wattscale.bus" -}}
{{- $nats := .root.Values.nats -}}
{{- $bus := dict "servers" (include "wattscale.natsServers" .root | fromJsonArray) "prefix" $nats.prefix -}}
{{- if $nats.enabled -}}
{{- $_ := set $bus "replicas" (int $nats.replicas) -}}
{{- end -}}
{{- if and .client (ne $nats.auth.mode "none") -}}
{{- $_ := set $bus (ternary "nkey_seed_file" "creds_file" (eq $nats.auth.mode "nkey")) (printf "/etc/wattscale/bus/%s" (include "wattscale.busFile" .)) -}}
{{- $_ := set $bus "inbox_prefix" (printf "_INBOX_%s" .role) -}}
{{- end -}}
{{- if $nats.tls.enabled -}}
{{- $_ := set $bus "tls_ca_file" "/etc/wattscale/tls/ca.crt" -}}
{{- if $nats.tls.clientSecret -}}
{{- $_ := set $bus "tls_cert_file" "/etc/wattscale/tls/tls.crt" -}}
{{- $_ := set $bus "tls_key_file" "/etc/wattscale/tls/tls.key" -}}
{{- end -}}
{{- end -}}
{{- $bus | toJson -}}
{{- end }}

{{/* Volumes with the credentials of the bus: of planner and connectors each its own file, or a connector could write
decisions as the planner. A DaemonSet's pods share one template, so agents have one Secret, which holds files of agents
only. It is no subPath mount, because Kubernetes does not renew those. (dict "root" $ "client" FILE-STEM, empty for an agent) */}}
{{- define "wattscale.busVolumes" -}}
{{- $auth := .root.Values.nats.auth -}}
{{- $tls := .root.Values.nats.tls -}}
{{- if ne $auth.mode "none" }}
- name: bus
  secret:
    defaultMode: 0440
    {{- if .client }}
    secretName: {{ required "nats.auth.clientSecret: name the Secret with the files of planner and connectors" $auth.clientSecret }}
    items: [{key: {{ include "wattscale.busFile" . }}, path: {{ include "wattscale.busFile" . }}}]
    {{- else }}
    {{- if and $auth.agentSecret (eq $auth.agentSecret $auth.clientSecret) }}
    {{- fail "nats.auth.agentSecret: must be another Secret than nats.auth.clientSecret: every agent's pod can read all of it" }}
    {{- end }}
    secretName: {{ required "nats.auth.agentSecret: name the Secret with the agents' files and no others" $auth.agentSecret }}
    {{- end }}
{{- end }}
{{- if $tls.enabled }}
- name: tls
  secret:
    secretName: {{ required "nats.tls.serverSecret: name the Secret with tls.crt, tls.key and ca.crt" ($tls.clientSecret | default $tls.serverSecret) }}
    defaultMode: 0440
    items: {{ ternary (include "wattscale.tlsItems" .) "[{key: ca.crt, path: ca.crt}]" (not (empty $tls.clientSecret)) }}
{{- end }}
{{- end }}

{{/* The keys that are mounted of a Secret with a certificate: it may hold others, which concern its readers alone. */}}
{{- define "wattscale.tlsItems" -}}
[{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}, {key: ca.crt, path: ca.crt}]
{{- end }}

{{- define "wattscale.busMounts" -}}
{{- if ne .Values.nats.auth.mode "none" }}
- {name: bus, mountPath: /etc/wattscale/bus, readOnly: true}
{{- end }}
{{- if .Values.nats.tls.enabled }}
- {name: tls, mountPath: /etc/wattscale/tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "wattscale.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}

{{- define "wattscale.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "wattscale.operator" -}}
{{- $mode := .Values.monitoring.operator | toString -}}
{{- if or (eq $mode "true") (and (eq $mode "auto") (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}yes{{- end -}}
{{- end }}

{{- define "pillion.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "pillion.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "pillion.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pillion.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pillion.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "pillion.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "pillion.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "pillion.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "pillion.keysSecretName" -}}
{{- .Values.existingKeysSecret | default (printf "%s-pillion-keys" (include "pillion.fullname" .)) }}
{{- end }}

{{- define "pillion.config" -}}
{{- tpl .Values.config . }}
{{- if .Values.redis.enabled }}

{{- if not (contains "[identity]" .Values.config) }}

[identity]
hash_key = "${PILLION_HASH_KEY}"
{{- end }}

[redis]
url = {{ .Values.redis.url | quote }}
prefix = {{ .Values.redis.prefix | default .Release.Name | quote }}
{{- if .Values.redis.passwordKey }}
password_file = "/etc/pillion-redis/password"
{{- end }}
{{- with .Values.redis.settings }}
{{ . | trim }}
{{- end }}
{{- end }}
{{- end }}

{{/* The sleep action needs Kubernetes 1.30; before, the app's image needs a sleep command. */}}
{{- define "pillion.appLifecycle" -}}
{{- if .Values.app.lifecycle }}
{{- toYaml .Values.app.lifecycle }}
{{- else if .Values.app.sleep }}
preStop:
  {{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}
  sleep: { seconds: {{ .Values.app.sleep }} }
  {{- else }}
  exec: { command: [sleep, {{ .Values.app.sleep | quote }}] }
  {{- end }}
{{- end }}
{{- end }}

{{- define "pillion.container" -}}
name: pillion
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if eq .Values.form "native" }}
restartPolicy: Always
{{- end }}
args: [run, --config, /etc/pillion/pillion.toml]
{{- if or .Values.env .Values.redis.enabled }}
env:
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- if .Values.redis.enabled }}
  - name: PILLION_HASH_KEY
    valueFrom: { secretKeyRef: { name: {{ .Values.redis.existingSecret | quote }}, key: hash-key } }
  {{- end }}
{{- end }}
{{- with .Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - { name: http, containerPort: {{ .Values.ports.http }} }
  - { name: probes, containerPort: {{ .Values.ports.probes }} }
{{/* The startup probe asks for /live: with /ready, a native sidecar would wait for an app that starts after it. */ -}}
startupProbe:
  httpGet: { path: /live, port: probes }
  periodSeconds: 1
  failureThreshold: 30
livenessProbe:
  httpGet: { path: /live, port: probes }
  periodSeconds: 10
  failureThreshold: 3
readinessProbe:
  httpGet: { path: /ready, port: probes }
  periodSeconds: 2
  failureThreshold: 1
lifecycle:
  preStop:
    exec: { command: [/pillion, drain, --config, /etc/pillion/pillion.toml] }
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - { name: pillion, mountPath: /etc/pillion, readOnly: true }
  - { name: pillion-keys, mountPath: /etc/pillion-keys, readOnly: true }
  {{- if .Values.tlsSecret }}
  - { name: pillion-tls, mountPath: /etc/pillion-tls, readOnly: true }
  {{- end }}
  {{- if and .Values.redis.enabled .Values.redis.passwordKey }}
  - { name: pillion-redis, mountPath: /etc/pillion-redis, readOnly: true }
  {{- end }}
  {{- with .Values.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

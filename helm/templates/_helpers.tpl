{{/*
Names are fixed, not made from the release's: one cluster has one Herald. A second release fails
with Helm's "exists and cannot be imported", before it can fight the first one for addresses.
*/}}

{{- define "herald.selectorLabels" -}}
app.kubernetes.io/name: herald
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Those of an object; with more of its own in "labels", which go before everybody's. */}}
{{- define "herald.labels" -}}
app.kubernetes.io/name: herald
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with merge (dict) (default dict .labels) .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "herald.metadata" -}}
labels:
  {{- include "herald.labels" . | nindent 2 }}
{{- with .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* No version among a pod's labels: an upgrade that changes nothing of the pods restarts none. */}}
{{- define "herald.podMetadata" -}}
labels:
  {{- include "herald.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/instance: {{ .root.Release.Name }}
  {{- with merge (dict) .root.Values.podLabels .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: {{ .component }}
  {{- with merge (dict) .root.Values.podAnnotations .root.Values.commonAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "herald.image" -}}
{{ .root.Values.image.repository }}-{{ .component }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* The flags both programs share. */}}
{{- define "herald.sharedArgs" -}}
- {{ printf "--log-level=%s" .Values.logLevel | quote }}
- --log-format={{ .Values.logFormat }}
{{- range .Values.loadBalancerClasses }}
- {{ printf "--load-balancer-class=%s" . | quote }}
{{- end }}
{{- if .Values.ignoreExcludeLabel }}
- --ignore-exclude-label
{{- end }}
{{- end }}

{{- define "herald.env" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- end }}

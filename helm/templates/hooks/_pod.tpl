{{/* The spec of a Pod that runs a subcommand of the controller's program and ends; where controllers may run. */}}
{{- define "herald.hookPodSpec" -}}
serviceAccountName: herald-{{ .component }}
restartPolicy: Never
priorityClassName: {{ .root.Values.controller.priorityClassName }}
dnsPolicy: Default
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
containers:
  - name: {{ .component }}
    image: {{ include "herald.image" (dict "root" .root "component" "controller") }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [/herald-controller]
    args:
      - {{ .command }}
      - --timeout={{ .timeout }}
      - --namespace={{ .root.Release.Namespace }}
    resources:
      {{- toYaml .root.Values.controller.resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
{{- with .root.Values.controller.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
tolerations:
  {{- with .root.Values.controller.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  # Helm waits for it: of a node that is gone, the shortest time counts.
  {{- range list "not-ready" "unreachable" }}
  - key: node.kubernetes.io/{{ . }}
    operator: Exists
    effect: NoExecute
    tolerationSeconds: 5
  {{- end }}
{{- end }}

{{/* The account of such a Pod, and what binds its roles to it: there while it runs, and no longer. */}}
{{- define "herald.hookAccount" -}}
{{- $name := printf "herald-%s" .component -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  {{- include "herald.hookMetadata" (merge (dict "weight" "-1") .) | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  {{- include "herald.hookMetadata" (merge (dict "weight" "-1") .) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ .root.Release.Namespace }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  {{- include "herald.hookMetadata" (merge (dict "weight" "-1") .) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}

{{/* Those of a lower weight are made first. What failed stays, to be looked at. A Pod has "labels" and "annotations" of its own. */}}
{{- define "herald.hookMetadata" -}}
labels:
  {{- include "herald.labels" . | nindent 2 }}
annotations:
  helm.sh/hook: {{ .hook }}
  helm.sh/hook-weight: {{ .weight | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
  {{- if eq .weight "0" }}
  # Helm 4 then shows what it says.
  helm.sh/hook-output-log-policy: hook-succeeded,hook-failed
  {{- end }}
  {{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

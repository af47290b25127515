{{/*
An image of manifests/base, `localhost/weft/NAME:VERSION`, as the values say. Takes {image, root}.
*/}}
{{- define "weft.image" -}}
{{- $name := .image | trimPrefix "localhost/weft/" | splitList ":" | first -}}
{{- printf "%s/%s:%s" .root.Values.images $name (.root.Values.tag | default .root.Chart.AppVersion) -}}
{{- end }}

{{/*
Sets the values in a pod's specification, in place. Takes {pod, part, root}; `part` are the values of xdsServer or nodeAgent.
*/}}
{{- define "weft.pods" -}}
{{- $values := .root.Values -}}
{{- $pod := .pod -}}
{{- with $values.pullSecrets }}{{ $_ := set $pod "imagePullSecrets" . }}{{ end -}}
{{- with .part.nodeSelector }}{{ $_ := set $pod "nodeSelector" (mergeOverwrite (dict) ($pod.nodeSelector | default dict) .) }}{{ end -}}
{{- with .part.tolerations }}{{ $_ := set $pod "tolerations" . }}{{ end -}}
{{- /* What is as the programs have it by themselves is not said, as in manifests/base. */ -}}
{{- $settings := list (list "TRUST_DOMAIN" $values.trustDomain "cluster.local") (list "CLUSTER_DOMAIN" $values.clusterDomain "cluster.local") -}}
{{- $settings = concat $settings (list (list "CLUSTER_ID" $values.cluster "Kubernetes") (list "NETWORK" $values.network "")) -}}
{{- range $container := $pod.containers -}}
{{- $_ := set $container "image" (include "weft.image" (dict "image" $container.image "root" $.root)) -}}
{{- with $values.pullPolicy }}{{ $_ := set $container "imagePullPolicy" . }}{{ end -}}
{{- with index $.part.resources $container.name }}{{ $_ := set $container "resources" . }}{{ end -}}
{{- if has $container.name (list "xds-server" "proxy") -}}
{{- range $settings -}}
{{- if ne (index . 1) (index . 2) -}}
{{- $_ := set $container "env" (append $container.env (dict "name" (index . 0) "value" (index . 1))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $container.name "cni") (not $values.cni.enabled) -}}
{{- /* Off the node, and it stays off: to leave the container away would leave the plugin there. */ -}}
{{- $_ := set $container "args" (list "cni-install" "--remove" "--stay") -}}
{{- end -}}
{{- end -}}
{{- range $volume := $pod.volumes -}}
{{- if eq $volume.name "cni-configurations" }}{{ $_ := set $volume.hostPath "path" $values.cni.configurations }}{{ end -}}
{{- if eq $volume.name "cni-programs" }}{{ $_ := set $volume.hostPath "path" $values.cni.programs }}{{ end -}}
{{- end -}}
{{- end }}

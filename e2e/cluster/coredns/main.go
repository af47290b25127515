// CoreDNS with the plugins that a cluster needs, and one more: `template` answers what nobody else knows with "no such name", at
// once, where upstream's would ask a server outside.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/template"
)

func init() {
	// The order of plugins: in upstream's, a template that answers everything stands before `kubernetes`.
	dnsserver.Directives = []string{"reload", "errors", "health", "ready", "cache", "loop", "kubernetes", "template"}
}

func main() {
	coremain.Run()
}

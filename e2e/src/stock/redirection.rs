//! In-pod redirection as the stock agent (istio-cni) installs it: nat REDIRECT to 15001 and 15006, and
//! the connmark that brings the application's answers back to a proxy that speaks with the client's address.

use anyhow::{Context, Result};
use weft_testkit::netns::{Pod, run, run_with_input};

/// The text of one family for `iptables-restore --noflush`. `loopback`, `probe`: the family's own.
fn rules(loopback: &str, probe: &str) -> String {
    format!(
        "*mangle\n:ISTIO_PRERT - [0:0]\n:ISTIO_OUTPUT - [0:0]\n-A PREROUTING -j ISTIO_PRERT\n-A OUTPUT -j ISTIO_OUTPUT\n\
         -A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff\n\
         -A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark\nCOMMIT\n\
         *nat\n:ISTIO_PRERT - [0:0]\n:ISTIO_OUTPUT - [0:0]\n-A PREROUTING -j ISTIO_PRERT\n-A OUTPUT -j ISTIO_OUTPUT\n\
         -A ISTIO_PRERT -s {probe} -p tcp -j ACCEPT\n\
         -A ISTIO_PRERT ! -d {loopback} -p tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006\n\
         -A ISTIO_OUTPUT -d {probe} -p tcp -j ACCEPT\n\
         -A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT\n\
         -A ISTIO_OUTPUT ! -d {loopback} -o lo -j ACCEPT\n\
         -A ISTIO_OUTPUT ! -d {loopback} -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001\nCOMMIT\n"
    )
}

/// Installs rules and routes of both families in a pod.
///
/// # Errors
/// What iptables or ip say.
pub fn redirect(pod: &Pod) -> Result<()> {
    for (restore, family, loopback, probe) in [
        ("iptables-restore", "-4", "127.0.0.1/32", "169.254.7.127"),
        ("ip6tables-restore", "-6", "::1/128", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"),
    ] {
        let mut command = pod.command(restore);
        run_with_input(command.arg("--noflush"), &rules(loopback, probe)).with_context(|| pod.name.clone())?;
        let rule = "rule add fwmark 0x111/0xfff pref 32764 lookup 100";
        for words in [rule, "route add local default dev lo table 100"] {
            run(pod.command("ip").arg(family).args(words.split(' ')))?;
        }
    }
    Ok(())
}

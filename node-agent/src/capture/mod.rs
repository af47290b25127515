//! The privileged half: rules, routes and sockets inside the network namespaces of the pods of this node.
//!
//! `docs/capture.md` says what is put into a pod, and why.
//!
//! | module | does |
//! |---|---|
//! | [`mark`] | numbers that rules, routes and sockets share |
//! | [`rules`], [`ruleset`], [`compare`] | rules as values, which ones, what deviates (pure) |
//! | [`course`] | which act follows when a pod joins or leaves (pure) |
//! | [`program`], [`routes`], [`install`] | put them into the kernel, read them back |
//! | [`netns`], `placing` | a thread inside a pod's namespace; where that is, when nobody says it |
//! | `cni`, `told` | where the CNI plugin asks; what it told, and what it is answered (pure) |
//! | [`socket`], [`batch`], `adopt` | listeners and dial sockets; listeners that a proxy brings back |
//! | `farewell`, `closing` | when this half may end; listeners that let nobody in any more (pure, and not) |
//! | [`diag`], [`connections`], [`join`] | connections that are already there; joining and leaving |
//! | [`conntrack`], `netlink` | what conntrack must forget meanwhile; questions to the kernel |
//! | [`alarm`] | the kernel's word that rules or routes have changed |
//! | `held`, `order`, `pod` | one pod's namespace, what is told and told back, the task |
//! | `steward`, [`serve`], [`settings`] | what is in hand; the loop that joins source, pods and proxies |
//! | [`probes`] | whose the other end of a connection is: the kubelet's, or not |
//! | [`source`], [`status`], [`privileges`], [`command`] | directory of YAML; what is shown; what is given up; the program |

mod adopt;
pub mod alarm;
pub mod batch;
mod closing;
mod cni;
pub mod command;
pub mod compare;
pub mod connections;
pub mod conntrack;
pub mod course;
pub mod diag;
mod farewell;
pub mod guard;
mod held;
pub mod install;
pub mod join;
pub mod mark;
mod netlink;
pub mod netns;
mod order;
mod placing;
mod pod;
pub mod privileges;
pub mod probes;
pub mod program;
pub mod routes;
pub mod rules;
pub mod ruleset;
pub mod serve;
pub mod settings;
pub mod socket;
pub mod source;
pub mod status;
mod steward;
mod told;

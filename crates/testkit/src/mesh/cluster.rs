//! Lab, YAML and service addresses in step: making a pod makes its namespace and its file; a service gets its two
//! ClusterIPs, its file, and the nodes' DNAT to the pods that its selector matches.

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::directory::MeshDirectory;
use super::plan::{Pairs, PodPlan, ServicePlan};
use super::yaml;
use crate::netns::{ClusterService, Lab, Pod, cluster_ip};

/// The label that puts a namespace into the mesh.
const ENROL: (&str, &str) = ("weft.dev/mesh", "enabled");
/// The first service's number in its address; lower ones are left to fixed addresses (as .1 and .10 in Kubernetes).
const FIRST_SERVICE: u8 = 21;

/// A lab with its objects.
#[derive(Debug)]
pub struct Cluster {
    lab: Lab,
    directory: MeshDirectory,
    namespaces: Vec<(String, Pairs)>,
    pods: Vec<(PodPlan, Pod)>,
    services: Vec<(ServicePlan, u8)>,
}

impl Cluster {
    /// Writes the Node objects into `LAB/mesh`.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(lab: Lab) -> Result<Self> {
        let directory = MeshDirectory::create(&lab.directory().join("mesh"))?;
        for node in lab.nodes() {
            let addresses = [IpAddr::from(node.v4), IpAddr::from(node.v6)];
            directory.apply_yaml(&format!("node-{}", node.name), &yaml::node(&node.name, &addresses, &node.name))?;
        }
        Ok(Self { lab, directory, namespaces: Vec::new(), pods: Vec::new(), services: Vec::new() })
    }

    /// The lab.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The YAML, for objects of other kinds.
    #[must_use]
    pub fn directory(&self) -> &MeshDirectory {
        &self.directory
    }

    /// Every pod made, in order.
    pub fn pods(&self) -> impl Iterator<Item = (&PodPlan, &Pod)> {
        self.pods.iter().map(|(plan, pod)| (plan, pod))
    }

    /// Makes a namespace, or replaces its labels.
    ///
    /// # Errors
    /// The file system's.
    pub fn namespace(&mut self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: Pairs = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.directory.apply_yaml(&format!("namespace-{name}"), &yaml::namespace(name, &labels))?;
        self.namespaces.retain(|(known, _)| known != name);
        self.namespaces.push((name.to_owned(), labels));
        Ok(())
    }

    /// Sets (`Some`) or removes (`None`) one label of a namespace.
    ///
    /// # Errors
    /// No such namespace.
    pub fn set_namespace_label(&mut self, name: &str, key: &str, value: Option<&str>) -> Result<()> {
        let (_, labels) =
            self.namespaces.iter_mut().find(|(known, _)| known == name).with_context(|| format!("namespace {name}"))?;
        labels.retain(|(known, _)| known != key);
        labels.extend(value.map(|value| (key.to_owned(), value.to_owned())));
        self.directory.apply_yaml(&format!("namespace-{name}"), &yaml::namespace(name, labels))
    }

    /// Puts a namespace into the mesh, or takes it out: the label `weft.dev/mesh=enabled`.
    ///
    /// # Errors
    /// No such namespace.
    pub fn enrol(&mut self, name: &str, enrolled: bool) -> Result<()> {
        self.set_namespace_label(name, ENROL.0, enrolled.then_some(ENROL.1))
    }

    /// Makes a pod: its network, its ServiceAccount and its Pod object.
    ///
    /// # Errors
    /// Those of [`Lab::pod`] and of the file system.
    pub fn pod(&mut self, plan: PodPlan) -> Result<Pod> {
        let pod = self.lab.pod(plan.node, &plan.name)?;
        let account = yaml::service_account(&plan.namespace, &plan.account);
        self.directory.apply_yaml(&format!("serviceaccount-{}-{}", plan.namespace, plan.account), &account)?;
        self.write_pod(&plan, &pod)?;
        self.pods.push((plan, pod.clone()));
        self.update_services()?;
        Ok(pod)
    }

    /// Changes a pod's object (labels, readiness, annotations); its network stays.
    ///
    /// # Errors
    /// No such pod.
    pub fn change_pod(&mut self, name: &str, change: impl FnOnce(&mut PodPlan)) -> Result<()> {
        let (plan, _) =
            self.pods.iter_mut().find(|(plan, _)| plan.name == name).with_context(|| format!("pod {name}"))?;
        change(plan);
        let (plan, pod) = self.pods.iter().find(|(plan, _)| plan.name == name).context("it was there")?;
        self.write_pod(plan, pod)?;
        self.update_services()
    }

    /// Takes a pod away: object, addresses, network.
    ///
    /// # Errors
    /// No such pod.
    pub fn remove_pod(&mut self, name: &str) -> Result<()> {
        let place = self.pods.iter().position(|(plan, _)| plan.name == name).with_context(|| format!("pod {name}"))?;
        let (plan, pod) = self.pods.remove(place);
        self.directory.delete(&format!("pod-{}-{}", plan.namespace, plan.name))?;
        self.update_services()?;
        self.lab.remove_pod(&pod);
        Ok(())
    }

    /// Makes a service and gives its virtual addresses (`None` for a headless one).
    ///
    /// # Errors
    /// Those of the file system and of [`Lab::set_services`].
    pub fn service(&mut self, plan: ServicePlan) -> Result<Option<(IpAddr, IpAddr)>> {
        let number = FIRST_SERVICE + u8::try_from(self.services.len()).context("at most 200 services")?;
        let (v4, v6) = cluster_ip(number);
        let addresses: Vec<IpAddr> = if plan.headless { Vec::new() } else { vec![v4.into(), v6.into()] };
        let text = yaml::service(&plan, &addresses);
        self.directory.apply_yaml(&format!("service-{}-{}", plan.namespace, plan.name), &text)?;
        let result = (!plan.headless).then_some((v4.into(), v6.into()));
        self.services.push((plan, number));
        self.update_services()?;
        Ok(result)
    }

    fn write_pod(&self, plan: &PodPlan, pod: &Pod) -> Result<()> {
        let octets = pod.v4.octets();
        let uid = format!("00000000-0000-4000-8000-{:06}{:03}{:03}", 0, octets[2], octets[3]);
        let text = yaml::pod(plan, &[pod.v4.into(), pod.v6.into()], &uid, &pod.netns);
        self.directory.apply_yaml(&format!("pod-{}-{}", plan.namespace, plan.name), &text)
    }

    fn update_services(&self) -> Result<()> {
        let services: Vec<ClusterService> = self
            .services
            .iter()
            .filter(|(plan, _)| !plan.headless)
            .map(|(plan, number)| {
                let (v4, v6) = cluster_ip(*number);
                let matching = self.pods.iter().filter(|(pod, _)| plan.selects(pod)).map(|(_, pod)| pod.clone());
                ClusterService {
                    name: plan.name.clone(),
                    v4,
                    v6,
                    ports: plan.ports.clone(),
                    endpoints: matching.collect(),
                }
            })
            .collect();
        self.lab.set_services(&services)
    }
}

//! All objects together: what the three translators need from each other.

use std::collections::BTreeSet;

use weft_manifest::{Objects, conflicts};
use weft_model::{Resource, Uid};

use super::endpoints;
use super::policy;
use super::service;
use super::settings::MeshSettings;
use super::workload;

/// Translates everything: services, then policies, then workloads, each in the order of their keys. `captured` are the
/// pods that accept tunnels now, as the nodes report.
#[must_use]
pub fn translate(objects: &Objects, captured: &BTreeSet<Uid>, settings: &MeshSettings) -> Vec<Resource> {
    let conflicts = conflicts(objects);
    let endpoints = endpoints::of_services(objects, settings);
    let selected = policy::selected(objects);
    let context = workload::Context {
        objects,
        captured,
        settings,
        conflicts: &conflicts,
        last_resort: &endpoints.last_resort,
        selected: &selected,
    };

    let services = service::all(objects, &conflicts, settings).into_iter().map(Resource::Service);
    let policies = policy::all(objects).into_iter().map(Resource::Policy);
    let pods = objects
        .pods
        .iter()
        .filter_map(|(name, pod)| workload::of_pod(&context, pod, endpoints.of_pods.get(name)))
        .map(Resource::Workload);
    let others = endpoints.others.values().map(|other| Resource::Workload(workload::of_other(&context, other)));
    services.chain(policies).chain(pods).chain(others).collect()
}

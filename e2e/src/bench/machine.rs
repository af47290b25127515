//! The machine that was measured on, in a few words.

use std::fs;

use serde_json::{Value, json};

/// Processors, kernel, memory.
#[must_use]
pub fn describe() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let after = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches([' ', '\t', ':']).to_owned()).unwrap_or_default()
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "processors": processors, "model": after(&cpu, "model name"), "memory": after(&memory, "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "version": env!("CARGO_PKG_VERSION"), "profile": if cfg!(debug_assertions) { "debug" } else { "optimised" },
    })
}

/// The same as a line.
#[must_use]
pub fn line(machine: &Value) -> String {
    let word = |name: &str| machine[name].as_str().unwrap_or_default().to_owned();
    format!(
        "weft {} ({} build), {} processors ({}), {}, Linux {}",
        word("version"),
        word("profile"),
        machine["processors"],
        word("model"),
        word("memory"),
        word("kernel")
    )
}

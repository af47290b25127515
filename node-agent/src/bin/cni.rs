//! `weft-cni`: the CNI plugin. The container runtime starts it for each pod's network and reads its standard output; what it does is in
//! `cni/` of the library.

use std::io::{Read, Write};
use std::process::ExitCode;

use weft_node_agent::cni::ask::{ask, tell};
use weft_node_agent::cni::plugin::{Call, PluginError, Step, step, version_of};

/// More than any configuration has, in bytes.
const MAX_INPUT: u64 = 4 * 1024 * 1024;

fn main() -> ExitCode {
    let mut input = String::new();
    let read = std::io::stdin().take(MAX_INPUT).read_to_string(&mut input);
    let read = read.map_err(|error| PluginError::Configuration(error.to_string()));
    let (text, code) = match read.and_then(|_| act(&input)) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (error.to_json(&version_of(&input)), ExitCode::FAILURE),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        // Nobody read the result: the pod must not start without it.
        Err(_) => ExitCode::FAILURE,
    }
}

fn act(input: &str) -> Result<String, PluginError> {
    let said = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
    let call = Call {
        command: said("CNI_COMMAND"),
        container: said("CNI_CONTAINERID"),
        netns: said("CNI_NETNS"),
        arguments: said("CNI_ARGS"),
    };
    match step(&call, input)? {
        Step::Print(text) => Ok(text),
        Step::Ask(socket, request, result) => ask(&socket, &request).map(|()| result),
        Step::Tell(socket, request) => {
            tell(&socket, &request);
            Ok(String::new())
        }
    }
}

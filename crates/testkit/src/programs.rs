//! Real programs that we did not write, configured to run inside a pod of the laboratory, whoever the caller is:
//! data and configuration in the lab's directory, one process, no change of user (a user namespace has only one).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::agents::require_system_program;
use crate::netns::Pod;

/// nginx with the given `server` blocks; paths in them are relative to `directory` or absolute.
///
/// # Errors
/// nginx is not installed, or the directory cannot be written.
pub fn nginx(pod: &Pod, directory: &Path, servers: &str) -> Result<Command> {
    let program = require_system_program("nginx")?;
    fs::create_dir_all(directory.join("tmp"))?;
    // One process, so that a killed nginx is gone at once and needs no user to change to.
    let text = format!(
        "daemon off;\nmaster_process off;\nuser root root;\npid nginx.pid;\nerror_log stderr;\nevents {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path tmp/body;\n  proxy_temp_path tmp/proxy;\n  \
         fastcgi_temp_path tmp/fastcgi;\n  uwsgi_temp_path tmp/uwsgi;\n  scgi_temp_path tmp/scgi;\n  \
         default_type application/octet-stream;\n{servers}\n}}\n"
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, text).with_context(|| file.display().to_string())?;
    let mut command = pod.command(program);
    command.arg("-p").arg(directory).arg("-c").arg(file).args(["-e", "stderr"]);
    Ok(command)
}

/// redis-server on all addresses of the pod, port `port`, nothing kept on disk.
///
/// # Errors
/// redis-server is not installed, or the directory cannot be written.
pub fn redis(pod: &Pod, directory: &Path, port: u16) -> Result<Command> {
    let program = require_system_program("redis-server")?;
    fs::create_dir_all(directory)?;
    let mut command = pod.command(program);
    command.args(["--port", &port.to_string(), "--bind", "*", "-::*", "--protected-mode", "no"]);
    command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(directory);
    Ok(command)
}

//! On directories of a node that is none.

use tempfile::TempDir;

use super::*;

const LIST: &str = r#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"ptp"}]}"#;

struct Node {
    folder: TempDir,
    options: CniInstallOptions,
}

fn node() -> Node {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("net.d")).unwrap();
    fs::create_dir(at("bin")).unwrap();
    fs::write(at("weft-cni"), "program 1").unwrap();
    let options = CniInstallOptions {
        configurations: at("net.d"),
        programs: at("bin"),
        plugin: Some(at("weft-cni")),
        socket: SOCKET.into(),
        exempt_namespaces: vec!["kube-system".to_owned()],
        own_namespace: Some("mesh".to_owned()),
        remove: false,
        stay: false,
        empty: None,
    };
    Node { folder, options }
}

impl Node {
    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join("net.d").join(name), text).unwrap();
    }

    fn plugins(&self, name: &str) -> Vec<String> {
        let value: Value = serde_json::from_str(&self.read(name)).unwrap();
        let name = |plugin: &Value| plugin["type"].as_str().unwrap().to_owned();
        value["plugins"].as_array().unwrap().iter().map(name).collect()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join("net.d").join(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("net.d")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn program(&self) -> Option<String> {
        fs::read_to_string(self.folder.path().join("bin/weft-cni")).ok()
    }
}

#[test]
fn it_goes_into_the_first_that_runtimes_read_and_comes_back_when_that_is_written_anew() {
    let node = node();
    node.write("00-broken.conflist", "{");
    node.write("10-pods.conflist", LIST);
    node.write("20-other.conflist", LIST);
    node.write("05-notes.txt", "");
    let list = node.options.configurations.join("10-pods.conflist");
    assert_eq!(place(&node.options), None);
    assert_eq!(install(&node.options).unwrap(), Some(list.clone()));
    assert_eq!(install(&node.options).unwrap(), None);
    let said = |again: bool| keep_there(&node.options, again).unwrap();
    assert!(
        said(false).is_some_and(|words| words.contains("10-pods.conflist: new pods wait")),
        "by a successor that changes nothing"
    );
    assert_eq!(said(true), None, "once");
    assert_eq!(node.plugins("10-pods.conflist"), ["ptp", "weft-cni"]);
    assert_eq!(node.plugins("20-other.conflist"), ["ptp"]);
    let value: Value = serde_json::from_str(&node.read("10-pods.conflist")).unwrap();
    assert_eq!(value["plugins"][1]["exemptNamespaces"], json!(["kube-system", "mesh"]));
    assert_eq!(node.program().unwrap(), "program 1");

    node.write("10-pods.conflist", LIST);
    assert_eq!(install(&node.options).unwrap(), Some(list));
    assert_eq!(node.plugins("10-pods.conflist"), ["ptp", "weft-cni"]);
    assert_eq!(node.names(), ["00-broken.conflist", "05-notes.txt", "10-pods.conflist", "20-other.conflist"]);

    assert!(remove(&node.options).unwrap());
    assert!(!remove(&node.options).unwrap(), "nothing is left");
    assert_eq!(node.plugins("10-pods.conflist"), ["ptp"]);
    assert_eq!(node.program(), None);
}

#[test]
fn a_single_plugin_becomes_a_list_every_time_it_is_written() {
    let node = node();
    for _ in 0..2 {
        node.write("10-net.conf", r#"{"cniVersion":"0.3.1","name":"net","type":"bridge"}"#);
        install(&node.options).unwrap().unwrap();
        assert_eq!(node.names(), ["10-net.conflist"]);
        assert_eq!(node.plugins("10-net.conflist"), ["bridge", "weft-cni"]);
    }
}

#[test]
fn a_program_that_is_lost_or_of_another_version_is_replaced() {
    let node = node();
    node.write("10-pods.conflist", LIST);
    install(&node.options).unwrap();
    fs::remove_file(node.folder.path().join("bin/weft-cni")).unwrap();
    install(&node.options).unwrap();
    assert_eq!(node.program().unwrap(), "program 1");
    fs::write(node.folder.path().join("weft-cni"), "program 2").unwrap();
    install(&node.options).unwrap();
    assert_eq!(node.program().unwrap(), "program 2");
    let mode = fs::metadata(node.folder.path().join("bin/weft-cni")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[test]
fn the_file_keeps_its_permissions() {
    let node = node();
    node.write("10-pods.conflist", LIST);
    let path = node.options.configurations.join("10-pods.conflist");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    install(&node.options).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_node_without_network_and_one_that_cannot_chain_are_left_alone() {
    let node = node();
    assert!(matches!(install(&node.options), Err(CniInstallError::NoConfiguration(_))));
    node.write("10-old.conflist", r#"{"cniVersion":"0.2.0","plugins":[{"type":"a"}]}"#);
    node.write("20-new.conflist", LIST);
    assert!(matches!(install(&node.options), Err(CniInstallError::Unusable { .. })));
    assert_eq!(node.plugins("20-new.conflist"), ["ptp"]);
}

#[test]
fn what_the_halves_left_goes_only_where_that_is_asked() {
    let mut node = node();
    let run = node.folder.path().join("run");
    fs::create_dir_all(run.join("last-good")).unwrap();
    fs::write(run.join("last-good/1"), "").unwrap();
    fs::write(run.join("capture-status.json"), "").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(run.join("cni.sock")).unwrap();
    // A link leads elsewhere, and what is there stays.
    std::os::unix::fs::symlink(node.folder.path().join("net.d"), run.join("link")).unwrap();
    node.write("10-pods.conflist", LIST);
    remove(&node.options).unwrap();
    assert!(run.join("cni.sock").exists());
    node.options.empty = Some(run.clone());
    remove(&node.options).unwrap();
    remove(&node.options).unwrap();
    assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
    assert_eq!(node.names(), ["10-pods.conflist"]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_without_the_plugin_takes_away_what_the_one_before_it_put_in_again() {
    let node = node();
    node.write("10-pods.conflist", LIST);
    let away = CniInstallOptions { remove: true, stay: true, ..node.options.clone() };
    let before = async {
        for _ in 0..3 {
            install(&node.options).unwrap();
            tokio::time::sleep(LOOK * 2).await;
            assert_eq!((node.plugins("10-pods.conflist"), node.program()), (vec!["ptp".to_owned()], None));
        }
    };
    tokio::select! {
        () = keep(&away, keep_away) => unreachable!("until it is dropped"),
        () = before => {}
    }
}

//! The laboratory tests itself: two nodes, pods that reach each other, services, and nothing left behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy does not know as tests")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use weft_testkit::netns::{ClusterService, Lab, Pod, cluster_ip, spawn_in_netns};

/// Answers each connection with the name of the pod and the address of the client.
fn serve_name(pod: &Pod, port: u16) {
    for v6 in [false, true] {
        let listener = pod.run(|| TcpListener::bind((pod.address(v6), port))).unwrap().unwrap();
        let name = pod.name.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip();
                write!(stream, "{name} sees {peer}").unwrap();
            }
        });
    }
}

fn ask(from: &Pod, address: IpAddr, port: u16) -> std::io::Result<String> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_secs(2))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .unwrap()
}

#[test]
fn pods_reach_each_other_and_services() {
    weft_testkit::enter_or_skip!();
    let start = Instant::now();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let (client, near, far) = (lab.pod(1, "client").unwrap(), lab.pod(1, "near").unwrap(), lab.pod(2, "far").unwrap());
    let built = start.elapsed();
    for pod in [&client, &near, &far] {
        serve_name(pod, 8080);
    }
    let (v4, v6) = cluster_ip(10);
    let mut service = ClusterService {
        name: "both".into(),
        v4,
        v6,
        ports: vec![(80, 8080)],
        endpoints: vec![near.clone(), far.clone()],
    };
    lab.set_services(std::slice::from_ref(&service)).unwrap();
    for family in [false, true] {
        let me = client.address(family);
        for target in [&near, &far] {
            assert_eq!(ask(&client, target.address(family), 8080).unwrap(), format!("{} sees {me}", target.name));
        }
        let virtual_address: IpAddr = if family { v6.into() } else { v4.into() };
        let mut seen: Vec<String> = (0..30).map(|_| ask(&client, virtual_address, 80).unwrap()).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, [format!("far sees {me}"), format!("near sees {me}")], "both endpoints, address kept");
    }
    // A pod behind its own service (hairpin), then no endpoint at all.
    service.endpoints = vec![client.clone()];
    lab.set_services(std::slice::from_ref(&service)).unwrap();
    assert_eq!(ask(&client, v4.into(), 80).unwrap(), "client sees 10.244.1.1");
    service.endpoints.clear();
    lab.set_services(&[service]).unwrap();
    assert_eq!(ask(&client, v4.into(), 80).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    // The control namespace is reached from nodes and pods.
    let control = lab.control().name().to_owned();
    let listener = spawn_in_netns(&control, || TcpListener::bind("[::]:15012").unwrap()).unwrap().join().unwrap();
    lab.node(2).run(|| TcpStream::connect("172.31.0.100:15012").unwrap()).unwrap();
    far.run(|| TcpStream::connect("[fd00:172:31::100]:15012").unwrap()).unwrap();
    drop(listener);
    // Programs run inside.
    let output = far.command("ip").args(["-br", "addr", "show", "eth0"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("10.244.2.2/32"));
    assert!(start.elapsed() < Duration::from_secs(10), "built in {built:?}, done in {:?}", start.elapsed());
}

#[test]
fn labs_do_not_meet() {
    weft_testkit::enter_or_skip!();
    let one = Lab::builder().nodes(1).build().unwrap();
    let two = Lab::builder().nodes(1).build().unwrap();
    let (a, b) = (one.pod(1, "a").unwrap(), two.pod(1, "a").unwrap());
    assert_eq!(a.v4, b.v4);
    serve_name(&a, 80);
    assert!(ask(&b, a.v4.into(), 80).is_err());
    let name = a.netns.clone();
    drop(one);
    assert!(!std::path::Path::new("/run/netns").join(name).exists());
}

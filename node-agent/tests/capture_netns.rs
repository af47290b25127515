//! Rules, routes and sockets of the capture half in real network namespaces: as root, and as an ordinary user in a user
//! namespace (`WEFT_NETNS=user`). What is not possible here says SKIPPED.

mod capture_netns {
    mod equipment;
    mod rules;
}

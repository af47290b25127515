//! The privileged half: rules, routes and sockets inside the network namespaces of the pods of this node.

"""A laboratory: real libvirt hosts in namespaces of one machine, with power, network and storage that can be taken away."""

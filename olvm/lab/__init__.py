"""A laboratory: real libvirt hosts in namespaces of one machine, whose power, network and storage can be taken away."""

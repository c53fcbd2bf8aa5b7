"""One machine plays an array and several hypervisor hosts, from Linux namespaces. Needs root.

    lab = Lab(Path("/tmp/trial"), name="trial", net="198.18.90")   # all of it lives under that directory
    lab.up(hosts=2)                     # nodes "array", "host1", "host2"; again: repairs, boots what is off
    host = lab.node("host1")
    host.address("mgmt")                # "198.18.90.11"; also "stor" (198.18.91.11); array: .10
    host.run(["ip", "-br", "addr"])     # processes.Result, CommandFailed
    host.path("/run/gespann/agent.sock")             # the same file, as seen from outside; Unix sockets work there
    process = host.start(["sleep", "100"], log=Path("/tmp/sleep.log"))
    process.signal(signal.SIGKILL); process.running
    host.install("agent", [python, "-m", "gespann.main.agent", ...], cwd=project)    # a service: started at each boot
    host.service_pid("agent")           # and again when it dies; its log is lab.directory/host1/log/agent.log
    host.uninstall("agent")             # SIGTERM, and no more
    host.power_off(); host.crash(); host.boot()      # crash: the network goes first, so that no peer hears of it
    host.cut("stor"); host.heal("stor")              # cable out;  drop/undrop: packets vanish, link stays up
    lab.down()                          # no process, mount, namespace, veth or file is left; also after a crash of ours

Networks, each a bridge in a switch namespace: `mgmt` NET.0/24, `stor` the next /24, `vm` the one after. In a host: eth0
is mgmt, eth1 stor, and eth2 a port of the bridge xenbr2, where guests get addresses from a DHCP server in the switch.
This machine itself is on mgmt with NET.254 (interface NAME-mgmt), so a person can reach what the nodes serve. Each
node has /run (emptied at boot), /var and /etc of its own; everything else is this machine's. A host has its own
libvirtd, supervised, socket in /run/libvirt/libvirt-sock. Labs of different name and net live side by side; a name
belongs to the directory whose ``up`` took it, until its ``down``, and no other directory's lab can touch what is there.
"""

from gespann.lab.lab import Lab, LabError, name_and_net
from gespann.lab.node import Node, NodeProcess

__all__ = ["Lab", "LabError", "Node", "NodeProcess", "name_and_net"]

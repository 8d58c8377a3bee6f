"""NetworkPolicies as a firewall's rules, one list for each pod, as a network plug-in of Kubernetes makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.infra.kubernetes import Manifests, Tree

Rule = tuple[str, ...]


@dataclass(frozen=True)
class Peer:
    """Who can be named by a policy.

    Attributes:
        labels: of the pod.
        namespace: labels of its namespace; None: the namespace of the policies.
    """

    address: str
    labels: Mapping[str, str]
    namespace: Mapping[str, str] | None = None


def rules(manifests: Manifests, pod: Peer, peers: list[Peer], node: str) -> list[Rule]:
    """iptables' arguments for a pod's own network: first what is allowed, then no more.

    Args:
        node: the address of the node, whose agent always reaches a pod for its probes.
    """
    chosen = [item["spec"] for item in manifests.of("NetworkPolicy") if selects(item["spec"]["podSelector"], pod.labels)]
    found: list[Rule] = []
    for chain, kind, end, interface in (("INPUT", "ingress", "from", "-i"), ("OUTPUT", "egress", "to", "-o")):
        spoken = [spec for spec in chosen if kind.title() in spec["policyTypes"]]
        if not spoken:
            continue
        found.append(("-A", chain, interface, "lo", "-j", "ACCEPT"))
        found.append(("-A", chain, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"))
        if chain == "INPUT":
            found.append(("-A", chain, "-s", node, "-j", "ACCEPT"))
        for spec in spoken:
            for rule in spec.get(kind, []):
                found += _allow(chain, rule, rule.get(end), peers)
        # Not as a port that nobody listens on answers, which would look like a way in.
        found.append(("-A", chain, "-j", "REJECT", "--reject-with", "icmp-admin-prohibited"))
    return found


def selects(selector: Tree, labels: Mapping[str, str]) -> bool:
    unknown = selector.keys() - {"matchLabels"}
    assert not unknown, f"{sorted(unknown)}: not known to this translator; teach it first"
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def _allow(chain: str, rule: Tree, ends: list[Tree] | None, peers: list[Peer]) -> Iterator[Rule]:
    side = "-s" if chain == "INPUT" else "-d"
    places = ["0.0.0.0/0"] if ends is None else [place for end in ends for place in _places(end, peers)]
    for place in places:
        for item in rule.get("ports", []):
            ports = f"{item['port']}:{item['endPort']}" if "endPort" in item else str(item["port"])
            yield ("-A", chain, side, place, "-p", item["protocol"].lower(), "--dport", ports, "-j", "ACCEPT")


def _places(end: Tree, peers: list[Peer]) -> Iterator[str]:
    if "ipBlock" in end:
        yield end["ipBlock"]["cidr"]
        return
    for peer in peers:
        if "namespaceSelector" in end:
            inside = peer.namespace is not None and selects(end["namespaceSelector"], peer.namespace)
        else:
            inside = peer.namespace is None
        if inside and selects(end.get("podSelector", {}), peer.labels):
            yield peer.address

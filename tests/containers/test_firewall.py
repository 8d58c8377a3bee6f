"""The firewall that network policies become."""

from __future__ import annotations

from tests.containers.firewall import Peer, rules
from tests.infra.kubernetes import MANIFESTS, Manifests, render

LOOPBACK = {"INPUT": "-i", "OUTPUT": "-o"}


def both_ends(chain: str) -> list[tuple[str, ...]]:
    state = ("-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED")
    return [("-A", chain, LOOPBACK[chain], "lo", "-j", "ACCEPT"), ("-A", chain, *state, "-j", "ACCEPT")]


def last(chain: str) -> tuple[str, ...]:
    return ("-A", chain, "-j", "REJECT", "--reject-with", "icmp-admin-prohibited")


def test_a_server_is_asked_by_its_clients_and_asks_what_it_may() -> None:
    manifests = render(MANIFESTS / "overlays" / "dev")
    server = Peer("10.0.0.1", {"app.kubernetes.io/name": "prefect-server", "access.gkd/database": "true"})
    client = Peer("10.0.0.2", {"access.gkd/prefect": "true"})
    database = Peer("10.0.0.3", {"app.kubernetes.io/name": "postgres"})
    stranger = Peer("10.0.0.4", {"access.gkd/prefect": "true"}, namespace={})
    assert rules(manifests, server, [server, client, database, stranger], "10.0.0.9") == [
        *both_ends("INPUT"),
        ("-A", "INPUT", "-s", "10.0.0.9", "-j", "ACCEPT"),
        ("-A", "INPUT", "-s", "10.0.0.2", "-p", "tcp", "--dport", "4200", "-j", "ACCEPT"),
        last("INPUT"),
        *both_ends("OUTPUT"),
        ("-A", "OUTPUT", "-d", "10.0.0.3", "-p", "tcp", "--dport", "5432", "-j", "ACCEPT"),
        last("OUTPUT"),
    ]


def policy(**spec: object) -> Manifests:
    return Manifests([{"kind": "NetworkPolicy", "metadata": {"name": "x"}, "spec": {"podSelector": {}, **spec}}])


def test_whom_no_policy_selects_is_open() -> None:
    chosen = policy(podSelector={"matchLabels": {"a": "b"}}, policyTypes=["Ingress"])
    assert rules(chosen, Peer("10.0.0.1", {}), [], "10.0.0.9") == []


def test_namespaces_blocks_and_ranges_of_ports() -> None:
    peers = [Peer("10.0.0.2", {}, namespace={"team": "a"}), Peer("10.0.0.3", {}, namespace={}), Peer("10.0.0.4", {})]
    ports = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 1024, "endPort": 2048}]
    ends = [{"ipBlock": {"cidr": "192.0.2.64/26"}}, {"namespaceSelector": {"matchLabels": {"team": "a"}}}]
    found = rules(policy(policyTypes=["Egress"], egress=[{"to": ends, "ports": ports}]), Peer("10.0.0.1", {}), peers, "10.0.0.9")
    places = [(rule[3], rule[5], rule[7]) for rule in found if rule[2] == "-d"]
    assert places == [
        (place, kind, port) for place in ("192.0.2.64/26", "10.0.0.2") for kind, port in (("udp", "53"), ("tcp", "1024:2048"))
    ]


def test_a_rule_without_ends_is_for_everybody() -> None:
    found = rules(
        policy(policyTypes=["Egress"], egress=[{"ports": [{"protocol": "TCP", "port": 443}]}]),
        Peer("10.0.0.1", {}),
        [],
        "10.0.0.9",
    )
    assert ("-A", "OUTPUT", "-d", "0.0.0.0/0", "-p", "tcp", "--dport", "443", "-j", "ACCEPT") in found

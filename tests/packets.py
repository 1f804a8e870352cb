"""Counts what a command tries to send, in a network of its own; imports nothing that sends."""

import subprocess
import sys


def say(text):
    sys.stdout.write(f"{text}\n")  # `pytest -s` shows it


# Of /proc/net/snmp: all that was sent, and all that found no way out.
COUNTERS = ("Ip.OutRequests", "Ip.OutNoRoutes", "Ip6.OutRequests", "Ip6.OutNoRoutes")


def packets_tried(arguments, folder, counters=COUNTERS):
    """Packets that a command tried to send, by the kernel's count, in a network of its own.

    The network has no way out, so each try ends as a packet without a route; nothing leaves.
    Where a command talks to itself, count only what has no route.
    """
    counted = "cat /proc/net/snmp /proc/net/snmp6"
    command = f'"$@" >"{folder}/out" 2>&1 && {counted}'
    ran = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", command, "sh", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, (folder / "out").read_text() + ran.stderr
    told = dict(_counters(ran.stdout))
    return sum(told[name] for name in counters)


def _counters(text):
    lines = [line.split() for line in text.splitlines()]
    names, values = (line for line in lines if line[0] == "Ip:")
    yield from ((f"Ip.{name}", int(v)) for name, v in zip(names[1:], values[1:], strict=True))
    ip6 = [line for line in lines if line[0].startswith("Ip6")]
    yield from ((name.replace("Ip6", "Ip6.", 1), int(value)) for name, value in ip6)


def alone_in_a_network():
    told = subprocess.run(["unshare", "--map-root-user", "--net", "true"], capture_output=True)
    return told.returncode == 0

"""Listening: what is opened, what is inherited, and what the administrator reads when it does not work."""

import os
import socket
import subprocess
import sys
import textwrap

import pytest

from mailserver.config.units import SocketAddress
from mailserver.host import sockets
from mailserver.host.ports import holder

ANY = SocketAddress("127.0.0.1", 0)


def address_of(listener):
    return SocketAddress(*listener.getsockname()[:2])


def close(listeners):
    for listener in listeners:
        listener.close()


def test_listeners_are_non_blocking_and_take_connections_at_once():
    listeners = sockets.bind([ANY, ANY], "smtp")
    assert [listener.getblocking() for listener in listeners] == [False, False]
    for listener in listeners:
        socket.create_connection(listener.getsockname()).close()
    close(listeners)


def test_ipv6_and_ipv4_share_a_port_number():
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this machine has no IPv6")
    (six,) = sockets.bind([SocketAddress("::", 0)], "smtp")
    four = sockets.bind([SocketAddress("0.0.0.0", address_of(six).port)], "smtp")
    close([six, *four])


def test_a_port_in_use_names_the_program_the_pid_and_the_fix():
    listen = "import socket\ns = socket.create_server(('127.0.0.1', 0))\n"
    script = listen + "print(s.getsockname()[1], flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        port = int(other.stdout.readline())
        first = SocketAddress("127.0.0.1", 0)
        with pytest.raises(sockets.ListenError) as caught:
            sockets.bind([first, SocketAddress("127.0.0.1", port)], "pop3")
        text = str(caught.value)
        with pytest.raises(sockets.ListenError, match=f"pid {other.pid}"):
            sockets.bind([SocketAddress("0.0.0.0", port)], "pop3")
        other.communicate("\n")
    assert text.startswith(f"pop3: cannot listen on 127.0.0.1:{port}: the port is in use by python")
    assert f"(pid {other.pid})" in text
    assert f"kill {other.pid}" in text or "systemctl stop" in text
    assert "[pop3] listen" in text
    assert holder(SocketAddress("127.0.0.1", port)) is None


def test_an_address_that_is_not_ours_says_so():
    with pytest.raises(sockets.ListenError, match="no such address"):
        sockets.bind([SocketAddress("192.0.2.1", 2525)], "smtp")


def test_a_link_local_address_is_that_of_an_interface():
    """fe80::/10 is on every interface (RFC 4007): bind(2) wants to know which."""
    with open("/proc/net/if_inet6", encoding="ascii") as file:
        found = [line.split() for line in file if line.startswith("fe80")]
    if not found:
        pytest.skip("this machine has no link-local address")
    number, zone = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(found[0][0])), found[0][-1]
    with pytest.raises(sockets.ListenError, match=rf"needs its interface: write \[{number}%"):
        sockets.bind([SocketAddress(number, 0)], "smtp")
    with pytest.raises(sockets.ListenError, match="no such interface"):
        sockets.bind([SocketAddress(f"{number}%nosuch0", 0)], "smtp")
    (listener,) = sockets.bind([SocketAddress(f"{number}%{zone}", 0)], "smtp")
    with listener, socket.socket(socket.AF_INET6) as client:
        client.connect(listener.getsockname())


def test_a_low_port_without_privilege_says_how():
    if os.geteuid() != 0:
        pytest.skip("needs root, to become a user without privileges in a child process")
    done = as_nobody(
        """
        from mailserver.config.units import SocketAddress
        from mailserver.host import sockets
        try:
            sockets.bind([SocketAddress("127.0.0.1", 25)], "smtp")
        except sockets.ListenError as error:
            print(error)
        """
    )
    if not done.stdout:
        pytest.skip("this machine lets everybody bind port 25 (net.ipv4.ip_unprivileged_port_start)")
    assert "run_as" in done.stdout
    assert "CAP_NET_BIND_SERVICE" in done.stdout


def as_nobody(script):
    start = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    imports = (
        "import mailserver.host.sockets, mailserver.config.units\n"  # while the source can still be read
    )
    return subprocess.run(
        [sys.executable, "-c", imports + start + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )


def inherit(*names_and_sockets):
    """What sd_listen_fds(3) sees: consecutive descriptors; any first number will do."""
    first = 200
    for index, (_name, listener) in enumerate(names_and_sockets):
        os.dup2(listener.fileno(), first + index)
        listener.close()
    environ = {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(len(names_and_sockets)),
        "LISTEN_FDNAMES": ":".join(name for name, _ in names_and_sockets),
        "OTHER": "stays",
    }
    return sockets.Activated(environ, first_fd=first), environ


def test_sockets_of_the_service_manager_are_used_by_name_or_by_address():
    named, by_address, unknown = (socket.create_server(("127.0.0.1", 0)) for _ in range(3))
    named_at, at, unknown_at = address_of(named), address_of(by_address), address_of(unknown)
    activated, environ = inherit(("smtp", named), ("pop.socket", by_address), ("web", unknown))
    assert environ == {"OTHER": "stays"}

    smtp = sockets.bind([SocketAddress("127.0.0.1", 2525)], "smtp", activated)
    pop3 = sockets.bind([ANY, at], "pop3", activated)
    assert [address_of(listener) for listener in smtp] == [named_at]
    assert address_of(pop3[1]) == at
    assert len(pop3) == 2
    assert not any(listener.getblocking() or listener.get_inheritable() for listener in [*smtp, *pop3])
    (unused,) = activated.close_unused()
    assert unused.startswith("web ") and str(unknown_at.port) in unused
    close([*smtp, *pop3])


def test_sockets_meant_for_another_process_are_left_alone():
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2"}
    assert sockets.Activated(environ).take("smtp", [ANY]) == []
    assert environ == {}

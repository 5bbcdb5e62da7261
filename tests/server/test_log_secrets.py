"""Whatever a client does with a password, right, wrong or out of place, the log does not have it."""

import base64
import socket

WRONG, RIGHT = b"tr0mb0ne-TOPSECRET", b"wonderland"


def lines(port, *commands):
    """Say them one after the other, waiting for each answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        file = client.makefile("rb")
        file.readline()
        for command in commands:
            client.sendall(command + b"\r\n")
            while file.readline()[3:4] == b"-":
                pass


def test_no_password_reaches_the_log(server):
    forms = []
    for password in (WRONG, RIGHT):
        plain = base64.b64encode(b"\0alice@example.test\0" + password)
        user, encoded = base64.b64encode(b"alice@example.test"), base64.b64encode(password)
        forms += [password, plain, encoded]
        lines(
            server.ports["smtp"], b"EHLO x", b"AUTH PLAIN " + plain + b" x", b"AUTH PLAIN", password, b"AUTH LOGIN",
            user, password, b"AUTH LOGIN " + user, encoded, b" AUTH PLAIN " + plain, b"_auth  plain " + plain,
            b" AUTH LOGIN", user, encoded, b"AUTHPLAIN " + plain, b"AUTH PLAIN " + plain,
        )  # fmt: skip
        lines(
            server.ports["pop3"], b"PASS " + password, b"USER alice@example.test", b"PASS " + 2 * (password + b" "),
            b"AUTH PLAIN " + password + b" " + password, b"APOP alice " + password, b"AUTH PLAIN " + plain,
        )  # fmt: skip
    assert server.stop() == 0
    log = server.log_file.read_bytes()
    assert log.count(b"login-failed") >= 2
    assert log.count(b"logged-in") >= 2
    assert not [form for form in forms if form in log]

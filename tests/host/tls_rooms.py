"""Handshakes in memory, for the tests of certificates."""

import ssl

from cryptography import x509


def trusting_client():
    """Sees any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def handshake(server, client, name="mail.example.test"):
    """Both ends in memory: (the client's, the server's). Raises ssl.SSLError of whoever refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours, theirs


def shown(server, client, name="mail.example.test"):
    """The certificate a client that asks for ``name`` sees."""
    return x509.load_der_x509_certificate(handshake(server, client, name)[0].getpeercert(binary_form=True))


def names(certificate):
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return extension.value.get_values_for_type(x509.DNSName)

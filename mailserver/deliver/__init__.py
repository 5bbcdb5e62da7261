"""Local, remote and LMTP delivery; the bounce composer."""

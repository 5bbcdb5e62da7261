"""The operating system around us: sockets, privileges, TLS files, service manager."""

"""A mail server in one process: receive → queue → deliver → store → pop3 (see docs/flow.md)."""

__version__ = "0.1.0"

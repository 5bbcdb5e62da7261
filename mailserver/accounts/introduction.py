"""What whoever starts the server for the first time is told: the first account, and what to do with it."""

from __future__ import annotations


def introduction(address: str, password: str, pop3: str) -> str:
    """Shown once: only the hash is kept. ``pop3``: a listener, "host:port"."""
    return f"""
First account: {address}   password: {password}   (shown once)

  send   printf 'Subject: hello\\n\\nIt works.\\n' | .venv/bin/mailserver sendmail {address}
  read   curl -u {address}:{password} pop3://{pop3}/1
  queue  .venv/bin/mailserver queue list
"""

"""DECISIONS on where to: one graph of mailboxes, aliases, catch-alls and transports."""

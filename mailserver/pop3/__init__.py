"""Sans-IO protocol, maildrop (the session snapshot), server."""

"""Accounts kept by somebody else: what can be asked, and what is remembered of the answers."""

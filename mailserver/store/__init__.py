"""Durability, Maildir, the in-memory index."""

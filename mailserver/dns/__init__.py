"""MX and address look-ups; the only importer of aiodns."""

"""Readers of events: log, counters."""

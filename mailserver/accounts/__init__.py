"""Who exists and who may log in."""

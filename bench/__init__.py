"""How fast this server is beside others and beside what the machine could do (bench/README.md)."""

"""TOML → frozen typed settings; every fault with file:line, key and what would be right."""

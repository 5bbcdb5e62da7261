"""TOML → frozen typed settings; every fault with file:line, key and what would be right."""

import os

# pydantic would read the metadata of all that is installed for plugins: a thirtieth of the server's start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

"""``python -m mailserver`` is the ``mailserver`` command."""

from mailserver.cli import main

main()

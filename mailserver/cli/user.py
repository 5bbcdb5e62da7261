"""user add, list, passwd, remove, hash, import, app-password."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mailserver.cli import app_password, dump, site
from mailserver.cli.failure import fail
from mailserver.cli.options import (
    ConfigOption,
    Hashed,
    JsonOption,
    OfDomain,
    PasswordStdin,
    family,
    read_old_password,
    read_password,
)
from mailserver.cli.output import Columns, escaped, moment, print_listing

app = family("Accounts: who has a mailbox and may log in.")
app.add_typer(app_password.app, name="app-password")
COLUMNS: Columns = {
    "ADDRESS": lambda user: user["address"],
    "KEPT IN": lambda user: user["source"],
    "CREATED": lambda user: moment(user["created"]),
}
AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="user@domain")]


@app.command()
def add(
    address: AddressArgument,
    password_stdin: PasswordStdin = False,
    hashed: Hashed = False,
    config: ConfigOption = None,
) -> None:
    """Make an account.

    \b
    mailserver user add bob@example.test
    pwgen -1 20 | mailserver user add bob@example.test --password-stdin
    """
    password = read_password(password_stdin)
    result, remark = site.accounts_command(
        config, "user.add", address=address, password=password, hashed=hashed
    )
    print(f"added {escaped(result['address'])} ({remark})")


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help='A dump; "-" reads standard input.')],
    domain: Annotated[
        str | None, typer.Option("--domain", metavar="NAME", help="Of names without a domain.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Make accounts from another server's dump: lines of NAME:HASH:… as vpopmail's vpasswd, passwd files of Dovecot
    and /etc/shadow have them. Old passwords go on working and are stored anew at the first login.

    \b
    mailserver user import /home/vpopmail/domains/b.test/vpasswd --domain b.test
    """
    added, refused, remark = 0, 0, ""
    for batch in dump.batches(list(dump.entries(dump.read(file), domain))):
        result, remark = site.accounts_command(config, "user.import", users=batch)
        added += result["added"]
        for address, reason in result["refused"]:
            refused += 1
            print(f"{escaped(address)}: {escaped(reason)}", file=sys.stderr)
    print(f"added {added} accounts ({remark or 'the dump names nobody'})")
    if refused:
        fail(f"{refused} accounts were not added")


@app.command("list")
def list_(domain: OfDomain = None, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show the accounts and where they are kept.

    \b
    mailserver user list example.test
    """
    users, _ = site.accounts_command(config, "user.list", domain=domain)
    print_listing(users, COLUMNS, as_json=json)


@app.command()
def passwd(
    address: AddressArgument,
    password_stdin: PasswordStdin = False,
    hashed: Hashed = False,
    old_password: Annotated[
        bool,
        typer.Option("--old-password", help="Ask for the old password first, and refuse where it is wrong."),
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Give an account a new password; the old one stops working at once, app passwords stay.

    \b
    mailserver user passwd bob@example.test
    printf '%s\\n' OLD NEW | mailserver user passwd bob@example.test --old-password --password-stdin
    """
    old = read_old_password(password_stdin) if old_password else None
    password = read_password(password_stdin)
    result, remark = site.accounts_command(
        config, "user.passwd", address=address, password=password, hashed=hashed, old=old
    )
    print(f"changed the password of {escaped(result['address'])} ({remark})")


@app.command()
def remove(
    address: AddressArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Although aliases or a catch-all lead nowhere then.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Remove an account. Its mail stays on disk. Mail for an alias that leads nowhere is refused (550).

    \b
    mailserver user remove bob@example.test
    """
    result, remark = site.accounts_command(config, "user.remove", address=address, force=force)
    print(f"removed {escaped(result['address'])} ({remark}); its mail stays in data_dir/mail")


@app.command("hash")
def hash_(
    password_stdin: PasswordStdin = False,
    scheme: Annotated[
        str, typer.Option("--scheme", metavar="NAME", help="How it is stored; an unknown name lists all.")
    ] = "argon2id",
    config: ConfigOption = None,  # noqa: ARG001 - every command has -c
) -> None:
    """Print the hash of a password, for [users] of the configuration file.

    \b
    mailserver user hash
    mailserver user hash --scheme scram-sha-256     for SCRAM logins, too
    """
    from mailserver.accounts.passwords import SCHEMES, hash_password

    if scheme not in SCHEMES:
        fail(f"unknown scheme {escaped(scheme)}; known: {', '.join(SCHEMES)}", 2)
    try:
        print(hash_password(read_password(password_stdin), scheme))
    except ValueError as error:
        fail(str(error))

"""user add, list, passwd, remove, hash."""

from __future__ import annotations

from typing import Annotated

import typer

from mailserver.cli import site
from mailserver.cli.options import ConfigOption, Hashed, JsonOption, PasswordStdin, family, read_password
from mailserver.cli.output import escaped, moment, print_json, print_table

app = family("Accounts: who has a mailbox and may log in.")
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


@app.command("list")
def list_(
    domain: Annotated[str | None, typer.Argument(help="Only this domain's.", show_default=False)] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show the accounts and where they are kept.

    \b
    mailserver user list example.test
    """
    users, _ = site.accounts_command(config, "user.list", domain=domain)
    if json:
        print_json(users)
    else:
        rows = ((user["address"], user["source"], moment(user["created"])) for user in users)
        print_table(("ADDRESS", "KEPT IN", "CREATED"), rows)


@app.command()
def passwd(
    address: AddressArgument,
    password_stdin: PasswordStdin = False,
    hashed: Hashed = False,
    config: ConfigOption = None,
) -> None:
    """Give an account a new password; the old one stops working at once.

    \b
    mailserver user passwd bob@example.test
    """
    password = read_password(password_stdin)
    result, remark = site.accounts_command(
        config, "user.passwd", address=address, password=password, hashed=hashed
    )
    print(f"changed the password of {escaped(result['address'])} ({remark})")


@app.command()
def remove(address: AddressArgument, config: ConfigOption = None) -> None:
    """Remove an account. Its mail stays on disk.

    \b
    mailserver user remove bob@example.test
    """
    result, remark = site.accounts_command(config, "user.remove", address=address)
    print(f"removed {escaped(result['address'])} ({remark}); its mail stays in data_dir/mail")


@app.command("hash")
def hash_(password_stdin: PasswordStdin = False, config: ConfigOption = None) -> None:  # noqa: ARG001 - every command has -c
    """Print the hash of a password, for [users] of the configuration file.

    \b
    mailserver user hash
    """
    from mailserver.accounts.passwords import hash_password

    print(hash_password(read_password(password_stdin)))

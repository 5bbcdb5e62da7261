"""The user, domain and alias commands on an Accounts object: the same functions behind the control socket
and, while no server runs, behind the command line. Times are Unix seconds; ``created`` is None for what
stands in the configuration. They raise AccountsError and AccountsUnavailable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from mailserver.accounts.accounts import Accounts

Arguments = dict[str, Any]


async def user_add(accounts: Accounts, args: Arguments) -> Any:
    key = await accounts.add_user(args["address"], args["password"], hashed=args["hashed"])
    return {"address": key}


async def user_import(accounts: Accounts, args: Arguments) -> Any:
    refused = await accounts.import_users(args["users"])
    return {"added": len(args["users"]) - len(refused), "refused": refused}


async def user_list(accounts: Accounts, args: Arguments) -> Any:
    return [
        {"address": account.address, "source": account.source, "created": account.created}
        for account in accounts.merged.accounts.values()
        if _of(args["domain"], account.address)
    ]


async def user_passwd(accounts: Accounts, args: Arguments) -> Any:
    key = await accounts.set_password(
        args["address"], args["password"], hashed=args["hashed"], old=args["old"]
    )
    return {"address": key}


async def user_remove(accounts: Accounts, args: Arguments) -> Any:
    return {"address": await accounts.remove_user(args["address"], force=args["force"])}


async def app_password_add(accounts: Accounts, args: Arguments) -> Any:
    new, password = await accounts.add_app_password(args["address"], args["name"], args["scopes"])
    return {"address": new.address, "name": new.name, "scopes": new.scopes, "password": password}


async def app_password_list(accounts: Accounts, args: Arguments) -> Any:
    return [
        {
            "name": one.name,
            "scopes": one.scopes,
            "created": one.created,
            "used": one.used,
            "used_by": one.used_by,
        }
        for one in await accounts.list_app_passwords(args["address"])
    ]


async def app_password_remove(accounts: Accounts, args: Arguments) -> Any:
    return {"address": await accounts.remove_app_password(args["address"], args["name"])}


async def domain_add(accounts: Accounts, args: Arguments) -> Any:
    return {"name": await accounts.add_domain(args["name"])}


async def domain_list(accounts: Accounts, args: Arguments) -> Any:  # noqa: ARG001 - handlers look alike
    merged = accounts.merged
    entries = merged.directory.domains
    return [
        {
            "name": domain.name,
            "source": domain.source,
            "created": domain.created,
            "users": len(entries[domain.name].mailboxes),
            "aliases": len(entries[domain.name].aliases),
            "catch_all": entries[domain.name].catch_all,
        }
        for domain in merged.domains.values()
    ]


async def domain_remove(accounts: Accounts, args: Arguments) -> Any:
    return {"name": await accounts.remove_domain(args["name"])}


async def alias_set(accounts: Accounts, args: Arguments) -> Any:
    key = await accounts.set_alias(args["address"], args["targets"])
    return {"address": key, "targets": accounts.merged.aliases[key].targets}


async def alias_list(accounts: Accounts, args: Arguments) -> Any:
    return [
        {
            "address": alias.address,
            "targets": alias.targets,
            "source": alias.source,
            "created": alias.created,
        }
        for alias in accounts.merged.aliases.values()
        if _of(args["domain"], alias.address)
    ]


async def alias_remove(accounts: Accounts, args: Arguments) -> Any:
    return {"address": await accounts.remove_alias(args["address"])}


_ALL: dict[str, Callable[[Accounts, Arguments], Awaitable[Any]]] = {
    "user.add": user_add,
    "user.import": user_import,
    "user.list": user_list,
    "user.passwd": user_passwd,
    "user.remove": user_remove,
    "user.app-password.add": app_password_add,
    "user.app-password.list": app_password_list,
    "user.app-password.remove": app_password_remove,
    "domain.add": domain_add,
    "domain.list": domain_list,
    "domain.remove": domain_remove,
    "alias.set": alias_set,
    "alias.list": alias_list,
    "alias.remove": alias_remove,
}


def account_commands(accounts: Accounts) -> dict[str, Callable[[Arguments], Awaitable[Any]]]:
    """Command name → handler, ready for ControlServer."""
    return {name: partial(function, accounts) for name, function in _ALL.items()}


def _of(domain: str | None, address: str) -> bool:
    return domain is None or address.rpartition("@")[2] == domain.lower()

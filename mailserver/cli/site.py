"""Which server a command is about: its configuration, its control socket, and how to do without it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mailserver.config.find import find

if TYPE_CHECKING:
    from mailserver.accounts.accounts import Accounts
    from mailserver.config.load import Loaded
    from mailserver.config.schema import Config

T = TypeVar("T")


def config_path(option: str | None) -> Path:
    """The configuration file that ``-c`` or its fall-backs name. Raises ConfigError."""
    return find(option, os.environ)


def loaded(option: str | None) -> Loaded:
    """The settings. Raises ConfigError."""
    from mailserver.config.load import load

    return load(config_path(option))


def data_dir(option: str | None) -> str:
    """Where the server keeps everything, however wrong the rest of the file is: whoever has just spoilt it
    still wants to ask and stop the server that runs. Raises ConfigError when there is no telling."""
    path = config_path(option)
    try:
        configured = tomllib.loads(path.read_text("utf-8")).get("data_dir", "data")
    except (OSError, ValueError):
        configured = None
    if not isinstance(configured, str):
        return str(loaded(option).config.data_dir)
    return os.path.join(os.path.dirname(os.path.abspath(path)), configured)


def socket_path(option: str | None) -> str:
    """Where the running server answers. Raises ConfigError."""
    return os.path.join(data_dir(option), "control.sock")


def with_server(option: str | None, function: Callable[[str], T]) -> T:
    """``function`` on the socket of the running server: in data_dir, or in that of a server which was started before
    the file named another one. Raises ConfigError, and ServerDown when neither is there."""
    from mailserver.control.client import ServerDown, running_for

    try:
        return function(socket_path(option))
    except ServerDown:
        elsewhere = running_for(str(config_path(option)))
        if elsewhere is None:
            raise
        return function(elsewhere)


def ask(option: str | None, command: str, /, **args: Any) -> Any:
    """The running server's answer. Raises ConfigError, ServerDown, CommandFailed."""
    from mailserver.control.client import call

    return with_server(option, lambda path: call(path, command, **args))


def accounts_command(option: str | None, command: str, /, **args: Any) -> tuple[Any, str]:
    """A user, domain or alias command, by the running server or else straight on the database; its result and
    a remark saying which."""
    from mailserver.control.client import ServerDown

    try:
        return ask(option, command, **args), "in effect now"
    except ServerDown:
        config = loaded(option).config
        return _directly(config, command, args), "the server is not running; in effect when it starts"


def _directly(config: Config, command: str, args: dict[str, Any]) -> Any:
    import msgspec

    from mailserver.control.account_commands import account_commands
    from mailserver.control.commands import COMMANDS

    arguments = msgspec.structs.asdict(msgspec.convert(args, COMMANDS[command]))
    _data_dir_for_the_server(config)

    async def run(accounts: Accounts) -> Any:
        return msgspec.to_builtins(await account_commands(accounts)[command](arguments))

    return with_accounts(config, run)


def with_accounts(config: Config, function: Any) -> Any:
    """``await function(accounts)`` on what configuration and database say, without a server."""
    import asyncio
    import time
    from concurrent.futures import ThreadPoolExecutor

    from mailserver.accounts.accounts import Accounts
    from mailserver.accounts.known import database_of

    database = database_of(config)

    async def main(executor: ThreadPoolExecutor) -> Any:
        accounts = Accounts(config, database, executor=executor, now=time.time)
        try:
            return await function(accounts)
        finally:
            accounts.close()

    try:
        with ThreadPoolExecutor(1) as executor:
            return asyncio.run(main(executor))
    finally:
        database.close()


def _data_dir_for_the_server(config: Config) -> None:
    """Root may be the first to write there: the folder must be the server's, or it could not open it
    later."""
    if os.geteuid() == 0 and config.run_as is not None and not os.path.isdir(config.data_dir):
        import pwd

        entry = pwd.getpwnam(config.run_as)
        os.makedirs(config.data_dir, mode=0o700)
        os.chown(config.data_dir, entry.pw_uid, entry.pw_gid)

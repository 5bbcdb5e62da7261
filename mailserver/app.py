"""Composition root: builds every object from the configuration, starts, reloads, drains, stops.

A table of contents: what a thing does stands in its own room; here is only who gets whom.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mailserver import __version__, events
from mailserver.accounts.accounts import Accounts
from mailserver.accounts.door import Door
from mailserver.accounts.errors import AccountsError, AccountsUnavailable
from mailserver.accounts.known import database_of
from mailserver.accounts.login import AT_ONCE
from mailserver.config.faults import ConfigError
from mailserver.config.fixed import fixed
from mailserver.config.load import Loaded, load
from mailserver.config.schema import Config
from mailserver.config.shape import Finding
from mailserver.control.account_commands import account_commands
from mailserver.control.guard_commands import guard_commands
from mailserver.control.queue_commands import queue_commands
from mailserver.control.server import ControlServer, Refused
from mailserver.deliver.deliver import deliverer
from mailserver.deliver.local import LocalDelivery
from mailserver.deliver.remote import RemoteDelivery
from mailserver.dns.resolver import Resolver
from mailserver.dns.sender import sender_domain
from mailserver.host import garbage, limits, notify
from mailserver.host.certificate_watch import CertificateWatch
from mailserver.host.descriptors import DescriptorWatch
from mailserver.host.disk import DiskWatch
from mailserver.host.gateways import default_gateways
from mailserver.host.lock import DirectoryInUseError
from mailserver.host.privileges import PrivilegeError
from mailserver.host.surroundings import certificates
from mailserver.host.tls import TlsError
from mailserver.host.tls_contexts import TlsContexts, tls_contexts
from mailserver.housekeeping import every_second, on_failures, supervise
from mailserver.introduction import introduction
from mailserver.listeners import Listeners
from mailserver.message.address import Address
from mailserver.observe.counters import Counters
from mailserver.observe.log import Log
from mailserver.policy.admission import Unavailable
from mailserver.policy.explain import explain
from mailserver.policy.guard import Guard
from mailserver.policy.networks import Networks
from mailserver.policy.open_relay import OpenRelayGuard
from mailserver.policy.rates import Rates
from mailserver.policy.relay import RelayTable
from mailserver.pop3.server import Pop3Service
from mailserver.queue.queue import Queue
from mailserver.queue.spool import Spool
from mailserver.receive.server import SmtpService
from mailserver.receive.spill import clear
from mailserver.routing.resolve import Resolution, next_hop
from mailserver.routing.routes_of import routes_of
from mailserver.store import nursery
from mailserver.store.durable import Durable
from mailserver.store.index import Mailboxes
from mailserver.store.workers import Workers

DRAIN = 30.0  # seconds that transactions under way get at SIGTERM
SWITCH_INTERVAL = 0.0005  # seconds one thread may keep the interpreter while another waits (default 5 ms)
# What ends a start, or a reload, with one sentence for the administrator.
STOPPERS = (PrivilegeError, DirectoryInUseError, TlsError, AccountsError, AccountsUnavailable, OSError)
BLOCKING_THREADS = 8  # file reads, scans, look-ups; the commit thread and the log's are their own


class App:
    """Everything that lives as long as the process."""

    def __init__(
        self, config_path: Path, loaded: Loaded, listeners: Listeners, tls: TlsContexts,
        noticed: Iterable[events.Event] = (),
    ) -> None:  # fmt: skip
        self.started = time.time()
        self.config_path, self.config = config_path, loaded.config
        self.listeners, self.tls, self.warnings = listeners, tls, loaded.warnings
        self.configuration = os.path.abspath(config_path)
        self.data_dir = str(loaded.config.data_dir)
        self.log = Log(self.config.log, self.data_dir)
        self.counters = Counters()
        self.stopping = asyncio.Event()
        self.reloading = asyncio.Lock()
        self.relay_table = RelayTable.compile(loaded.relay_rules())
        self.descriptors = DescriptorWatch(limits.raise_nofile().now, self.emit)
        self.certificates = CertificateWatch(tls, self.emit)
        for event in noticed:
            self.emit(event)

    def emit(self, event: events.Event) -> None:
        """The one stream of events and its readers."""
        self.counters.see(event)
        self.log.write(event)

    # ---- start ---------------------------------------------------------------------------------------------
    async def run(self) -> int:
        """Start everything, wait for the end, drain."""
        try:
            self._build(asyncio.get_running_loop())
            await self._until_stopped()
            await self._drain()
        finally:
            self.log.close()
        return 0

    async def _until_stopped(self) -> None:
        """SIGTERM is heard while a long queue is still being loaded, too."""
        starting, stopped = asyncio.create_task(self._start()), asyncio.create_task(self.stopping.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
            return
        starting.result()  # raises what prevented the start
        beside = [
            asyncio.create_task(supervise(work, self._bug("housekeeping")))
            for work in (self._look_around, self._try_disk, self.queue.scrub)
        ]
        await stopped
        for task in beside:
            task.cancel()

    def _build(self, loop: asyncio.AbstractEventLoop) -> None:
        config, data_dir, now = self.config, self.data_dir, time.time
        sys.setswitchinterval(SWITCH_INTERVAL)
        self.blocking = ThreadPoolExecutor(BLOCKING_THREADS, "blocking")
        self.hashing = ThreadPoolExecutor(AT_ONCE + 1, "accounts")  # and one for the database
        self.disk = DiskWatch(data_dir, config.limits.disk_reserve, self.emit)
        self.durable = Durable(loop, nursery.prepare(os.path.join(data_dir, "nursery")))
        self.workers = Workers(loop, self.blocking)  # last of the threads: it makes do with fewer
        self.mailboxes = Mailboxes(
            os.path.join(data_dir, "mail"), hostname=config.hostname, workers=self.workers,
            memory=config.limits.index_memory,
        )  # fmt: skip
        self.accounts = Accounts(config, database_of(config), executor=self.hashing, now=now)
        self.gateway = OpenRelayGuard(default_gateways(), enabled=config.guard.gateway)
        self.guard = Guard(config.guard, config.proxy.trusted)
        self.door = Door(self.accounts.gate, self.accounts.channel, self.guard, now=now)
        self.resolver = Resolver(config.dns.servers, config.dns.timeout)
        self.remote = RemoteDelivery(
            config.queue, self.resolver, config.hostname, own=self.listeners.is_own, emit=self.emit
        )
        self.rates = Rates(config.rates, Networks(config.guard.trusted))
        self.spool = Spool(os.path.join(data_dir, "queue"), emit=self.emit)
        self.queue = Queue(
            settings=config.queue, hostname=config.hostname, spool=self.spool,
            durable=self.durable, mailboxes=self.mailboxes,
            deliver=deliverer(LocalDelivery(self.mailboxes, self.durable, now), self.remote),
            route_of=lambda address: routes_of(self.accounts.directory, address),
            onward=lambda address: next_hop(self.accounts.directory, address.rpartition("@")[2]), emit=self.emit,
            now=now, executor=self.blocking,
        )  # fmt: skip
        self.services: dict[str, SmtpService | Pop3Service] = {
            "smtp": self._smtp("smtp", loop), "submission": self._smtp("submission", loop),
            "lmtp": self._smtp("lmtp", loop), "pop3": self._pop3(loop),
        }  # fmt: skip
        self.control = ControlServer(
            os.path.join(data_dir, "control.sock"), self._commands(), on_error=self._bug("control"),
            told=(TlsError,),
        )  # fmt: skip

    def _smtp(
        self, name: Literal["smtp", "submission", "lmtp"], loop: asyncio.AbstractEventLoop
    ) -> SmtpService:
        return SmtpService(
            name, config=self.config, relay=lambda: self.relay_table,
            directory=lambda: self.accounts.directory,
            accept=self.queue.accept, new_id=self.queue.new_id, door=self.door,
            lookup=self._asked_elsewhere, storage_ok=self._storage_ok,
            sender_check=partial(sender_domain, self.resolver), tls=self.tls.of(name), emit=self.emit,
            now=time.time, loop=loop, executor=self.blocking, room=self.descriptors.for_session, gateway=self.gateway,
            rates=self.rates,
        )  # fmt: skip

    def _pop3(self, loop: asyncio.AbstractEventLoop) -> Pop3Service:
        return Pop3Service(
            config=self.config, mailboxes=self.mailboxes, door=self.door, tls=self.tls.of("pop3"),
            emit=self.emit, loop=loop, executor=self.blocking, relay=lambda: self.relay_table, rates=self.rates,
            room=self.descriptors.for_reader,
        )  # fmt: skip

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._escaped)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(self._reload_by_signal()))
        first = await self.accounts.first_account()
        clear(os.path.join(self.data_dir, "tmp"))
        queued = await self.queue.start()
        for name, service in self.services.items():
            await service.start(*self.listeners.take(name))
        await self.control.start()
        garbage.started()
        if first:
            said = introduction(self.config, self.config_path, *first)
            print(said, file=sys.stderr, flush=True)  # noqa: T201 - a password has no place in a log
        self._warn((*self.warnings, *self.accounts.merged.conflicts, *self.listeners.unused))
        notify.ready(f"{queued} messages queued")
        if self.config.log.target != "stderr":  # whoever started us waits for this word there
            print("mailserver: ready", file=sys.stderr, flush=True)  # noqa: T201 - see above
        self.emit(
            events.Ready(self.listeners.shown(), queued, round(time.time() - self.started, 3), __version__)
        )

    def _warn(self, texts: Iterable[object]) -> None:
        for text in texts:
            self.emit(events.Warned("configuration", str(text)))

    # ---- while running -------------------------------------------------------------------------------------
    async def _look_around(self) -> None:
        await every_second(
            (self.disk.check, lambda: self.certificates.check(self.config.tls, self.data_dir, time.time()))
        )

    async def _try_disk(self) -> None:
        """A commit that failed tells of what statvfs(2) does not know."""
        await on_failures(
            self.durable.failures, lambda: self.disk.sick, partial(self.workers.run, self.disk.try_writing)
        )

    def _bug(self, component: str) -> Callable[[BaseException], None]:
        return lambda error: self.emit(events.problem(component, error))

    def _escaped(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a callback or a task nobody awaits let through belongs into the log, too."""
        self._bug("event loop")(context.get("exception") or RuntimeError(context["message"]))

    def _storage_ok(self) -> bool:
        return self.disk.has_room() and self.descriptors.for_message()

    def _asked_elsewhere(self, address: Address) -> Resolution | Awaitable[Resolution | Unavailable] | None:
        return self.accounts.resolve(address) if self.accounts.backends.domains else None

    # ---- commands ------------------------------------------------------------------------------------------
    def _commands(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[Any]]]:
        return {
            "status": self._status, "health": self._health, "reload": self._reload, "stop": self._stop,
            "explain": self._explain, **account_commands(self.accounts), **guard_commands(self.guard, time.time),
            **queue_commands(self.queue, self.rates.forget),
        }  # fmt: skip

    async def _status(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        return {
            "pid": os.getpid(), "version": __version__, "uptime": round(time.time() - self.started, 1),
            "configuration": self.configuration, "listeners": self.listeners.shown(),
            "queue": self.queue.status(), "mailboxes": self.mailboxes.status(), "disk_ok": self.disk.check(),
            "commits": self.durable.status(),
            "services": {name: service.status() for name, service in self.services.items()},
            "open_files_limit": self.descriptors.limit, "counters": self.counters.snapshot(),
            "guard": self.guard.status(), "rates": self.rates.status(), "certificates": self.tls.servers.described(),
        }  # fmt: skip

    async def _health(self, _arguments: dict[str, Any]) -> list[dict[str, Any]]:
        if self.stopping.is_set():  # no listener is left to ask
            raise Refused("the server is draining")
        return self.listeners.described(self.config.proxy)

    async def _stop(self, _arguments: dict[str, Any]) -> str:
        asyncio.get_running_loop().call_later(0.05, self.stopping.set)  # after the answer is on its way
        return "draining"

    async def _explain(self, arguments: dict[str, Any]) -> Any:
        return explain(self.accounts.directory, self.relay_table, **arguments)

    # ---- reload --------------------------------------------------------------------------------------------
    async def _reload_by_signal(self) -> None:
        try:
            await self._reload({})
        except (ConfigError, *STOPPERS) as error:
            self.emit(events.Problem("reload", f"nothing changed: {error}"))
        except Exception as error:  # nobody awaits us: what escaped would be lost
            self._bug("reload")(error)

    async def _reload(self, _arguments: dict[str, Any]) -> str:
        """All of the new configuration or nothing: what can fail is done before anything is swapped."""
        async with self.reloading:  # one after the other, or an older file could win
            notify.reloading()
            try:
                loaded = await self.workers.run(load, self.config_path, None, self._cannot_be)
                said = await self._apply(loaded)
            finally:
                notify.ready()
            self.emit(events.Notice("reload", said))
            return said

    def _cannot_be(self, config: Config) -> Iterable[Finding]:
        return (*fixed(self.config, config), *certificates(config))

    async def _apply(self, loaded: Loaded) -> str:
        config = loaded.config
        relay_table = RelayTable.compile(loaded.relay_rules())
        change = self.listeners.prepare(config, self.config)
        try:
            # Tried on contexts nobody uses; it also makes the pair where a certificate was taken out.
            await self.workers.run(tls_contexts, config.tls, self.data_dir, config.hostname)
            self.log.reopen(config.log)
            await self.accounts.refresh(config)
        except Exception:
            self.log.reopen(self.config.log)
            change.abandon()
            raise
        self.tls.refresh(config.tls, self.data_dir)
        self.config, self.relay_table = config, relay_table
        self.disk.reserve = config.limits.disk_reserve
        for service in self.services.values():
            service.reconfigure(config)
        self.gateway.enabled = config.guard.gateway
        self.guard.configure(config.guard, config.proxy.trusted)
        self.rates.configure(config.rates, Networks(config.guard.trusted))
        rerouted = self.queue.reconfigure(config.queue)
        self.remote.reconfigure(config.queue)
        self.resolver.reconfigure(config.dns.servers, config.dns.timeout)
        self._warn((*loaded.warnings, *self.accounts.merged.conflicts))
        opened, closed = await change.apply(self.services)
        await asyncio.wait((rerouted,))  # or a retry at once would still go by the old routes
        listeners = f"{opened} listeners opened, {closed} closed"
        return f"configuration in force: {len(config.relay)} relay rules, {listeners}"

    # ---- end -----------------------------------------------------------------------------------------------
    async def _drain(self) -> None:
        """In order: no new connections, transactions finish, deliveries finish, everything is on disk."""
        notify.stopping()
        self.emit(events.Notice("stop", "draining"))
        await asyncio.gather(*(s.drain(s.now() + DRAIN) for s in self.services.values()))
        self.spool.abandon_scrub()
        await self.queue.drain(DRAIN)
        await self.remote.close()
        await self.control.close()
        self.durable.close()
        self.accounts.close()
        await self.resolver.close()
        self.workers.close()
        self.blocking.shutdown(cancel_futures=True)
        self.hashing.shutdown(cancel_futures=True)
        self.emit(events.Notice("stop", "stopped"))

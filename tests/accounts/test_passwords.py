"""Passwords in every stored form; vectors come from the systems that wrote them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from hypothesis import given
from hypothesis import strategies as st

from mailserver.accounts import login, passwords


def test_what_we_make_we_verify() -> None:
    stored = passwords.hash_password("correct horse")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.verify("correct horse", stored)
    assert not passwords.verify("correct hors", stored)
    assert passwords.verify("correct horse", "{ARGON2ID}" + stored)


def test_looks_the_same_is_the_same() -> None:
    """RFC 8265 4.2.2: composed and decomposed spellings are one password."""
    assert passwords.verify("cafe\u0301", passwords.hash_password("caf\u00e9"))


def test_no_empty_passwords() -> None:
    with pytest.raises(ValueError, match="empty"):
        passwords.hash_password("")
    assert not passwords.verify("", "{PLAIN}")


@pytest.mark.parametrize("setting", ["$y$j9T$saltsalt$", "$6$saltsalt$", "$5$saltsalt$", "$1$saltsalt$",
                                     "$2b$04$abcdefghijklmnopqrstuu"])  # fmt: skip
def test_crypt_forms_of_the_system(setting: str) -> None:
    import ctypes

    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    stored = library.crypt(b"secret", setting.encode()).decode()
    assert stored.startswith(setting[:3])
    assert passwords.is_known_scheme(stored)
    assert passwords.verify("secret", stored)
    assert passwords.verify("secret", "{CRYPT}" + stored)
    assert not passwords.verify("Secret", stored)
    assert not passwords.verify("secret\0more", stored)
    assert not passwords.verify("secret", stored[:-1])


def test_the_oldest_crypt_is_believed_where_a_prefix_announces_it() -> None:
    """The reference vector of crypt(3) for DES; bare, it may as well be somebody's password."""
    for stored in ("{CRYPT}abNANd1rDfiNc", "{des-crypt}abNANd1rDfiNc"):
        assert passwords.is_known_scheme(stored)
        assert passwords.verify("secret", stored)
        assert not passwords.verify("Secret", stored)
        assert passwords.is_outdated(stored)
        assert passwords.is_fast(stored)
    assert not passwords.is_known_scheme("abNANd1rDfiNc")
    assert not passwords.verify("secret", "abNANd1rDfiNc")


def test_sha512_crypt_reference_vector() -> None:
    """From Drepper's specification of SHA-crypt."""
    stored = (
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"
    )
    assert passwords.verify("Hello world!", stored)
    assert passwords.verify("Hello world!", "{SHA512-CRYPT}" + stored)


def test_digests_of_directories() -> None:
    salted = base64.b64encode(hashlib.sha1(b"secret" + b"salt").digest() + b"salt").decode()
    assert passwords.verify("secret", "{SSHA}" + salted)
    assert passwords.verify("secret", "{ssha}" + salted)
    assert not passwords.verify("secret", "{SHA}" + salted)
    wide = base64.b64encode(hashlib.sha512(b"secret" + b"\0\1").digest() + b"\0\1").decode()
    assert passwords.verify("secret", "{SSHA512}" + wide)
    assert not passwords.verify("secrets", "{SSHA512}" + wide)
    assert passwords.verify("a{b}", "{PLAIN}a{b}")


_BEGINNINGS = ["", "{SSHA}", "{SHA}", "{CRYPT}", "{XYZ}", "$1$", "$argon2id$", "$5$", "{"]


@given(st.text(), st.sampled_from(_BEGINNINGS), st.text(max_size=60))
def test_garbage_is_just_wrong(password: str, beginning: str, rest: str) -> None:
    stored = beginning + rest
    assert passwords.verify(password, stored) is False
    passwords.is_known_scheme(stored)


def test_absurd_parameters_are_refused() -> None:
    stored = passwords.hash_password("x").replace("m=19456", "m=4000000000")
    assert not passwords.verify("x", stored)


# Three logins at once with hashes of 256 MiB, which somebody brought along; the peak of memory in MiB.
LARGE = """
import asyncio, resource, time
from concurrent.futures import ThreadPoolExecutor
from argon2 import PasswordHasher
from mailserver.accounts import login
login.AT_ONCE = 3
stored = PasswordHasher(time_cost=1, memory_cost=256 << 10, parallelism=1).hash("right")
async def main():
    check = login.LoginCheck(executor=ThreadPoolExecutor(3), now=time.time)
    return await asyncio.gather(*(check.check(n, b"right", login.Lock(stored)) for n in "abc"))
assert asyncio.run(main()) == ["", "", ""]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def test_memory_for_verifications_is_bounded() -> None:
    assert login.AT_ONCE * passwords.MEMORY <= login.MEMORY == 64 << 20
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    assert 256 < int(done.stdout) < 2 * 256


def test_the_stand_in_for_unknown_names_is_a_whole_hash() -> None:
    """A malformed one would answer at once, and so tell who exists."""
    with pytest.raises(VerifyMismatchError):
        PasswordHasher().verify(login._NOBODY, "anything")


# Of "cryptpw"; glibc's default of 5000 rounds takes a tenth of argon2.
SHA512_CRYPT = (
    "$6$abcdefgh$9vPmfxJeKzUJkIRpmp1fCKkfGaRAi/6kkDMJW05ucc1co2afnSI6UF4lWlSOqM8fKlyx.f1rdXWv67smiaSWJ."
)
LIGHT_ARGON2 = PasswordHasher(time_cost=1, memory_cost=1 << 10, parallelism=1).hash("x")


@pytest.mark.parametrize("stored", ["{SSHA}AAAA", "{PLAIN}x", "$1$salt$x", SHA512_CRYPT, LIGHT_ARGON2])
async def test_a_wrong_password_costs_as_much_as_an_unknown_name(stored: str) -> None:
    with ThreadPoolExecutor(1) as executor:
        check = login.LoginCheck(executor=executor, now=time.time)

        async def cost(lock: login.Lock) -> float:
            least = 60.0
            for n in range(5):
                before = time.process_time()  # of all threads
                assert await check.check("name", b"wrong%d" % n, lock) is None
                least = min(least, time.process_time() - before)
            return least

        assert await cost(login.Lock(stored)) > 0.7 * await cost(login.Lock())


async def test_logins_that_wait_for_a_backend_do_not_keep_out_those_that_need_none() -> None:
    never = asyncio.Event()

    async def hangs(password: bytes) -> bool:
        return await never.wait()

    with ThreadPoolExecutor(1) as executor:
        check = login.LoginCheck(executor=executor, now=time.time)
        stuck = []
        for n in range(2 * login.WAITING_MAX):
            stuck.append(asyncio.create_task(check.check("far", b"%d" % n, login.Lock(hangs))))
            if n % 16 == 15:  # its turn comes when most of these have had theirs
                assert await check.check("near", b"%d" % n, login.Lock(f"{{PLAIN}}{n}")) == ""
        never.set()
        assert await asyncio.gather(*stuck) == [""] * len(stuck)

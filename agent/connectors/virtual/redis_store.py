"""The hash of one deployment in Redis, with what the connector keeps beside it: reads and writes.

Every write is one transaction, conditional on the claim of the connector that serves the hash. Raises RedisAwayError
where Redis does not answer or refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, WatchError

from agent.connectors.virtual import dynamo_hash as hashes
from agent.connectors.virtual.dynamo_hash import PassedOnHash
from agent.core.scaling.scaling_types import DecisionKey

T = TypeVar("T")


class RedisAwayError(Exception):
    """Redis did not answer, or refused: the text says which."""


@dataclass(frozen=True, slots=True)
class RedisAccess:
    """How to reach Redis. ``password`` is never printed. ``tls``: with which files; None: without TLS."""

    host: str
    port: int = 6379
    database: int = 0
    user: str = ""
    password: str = ""
    tls: Mapping[str, str] | None = None
    timeout_s: float = 5.0

    def __repr__(self) -> str:
        return f"RedisAccess({self.address}, user {self.user or 'default'})"

    @property
    def address(self) -> str:
        """For people."""
        return f"{self.host}:{self.port}/{self.database}"

    def client(self) -> Redis:
        """A client that connects with its first call, and tries each call once.

        Calls have no time limit of the client's: on Python 3.11 its ``asyncio.wait_for`` loses cancellations.
        """
        tls: dict[str, Any] = {} if self.tls is None else {"ssl": True, **self.tls}
        return Redis(
            host=self.host,
            port=self.port,
            db=self.database,
            username=self.user or None,
            password=self.password or None,
            socket_timeout=None,
            socket_connect_timeout=self.timeout_s,
            decode_responses=True,
            encoding_errors="replace",
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **tls,
        )


@dataclass(frozen=True, slots=True)
class HashSeen:
    """One reading: the fields of the hash, what was passed on last, and who serves the hash; empty: nobody."""

    fields: Mapping[str, str]
    passed_on: PassedOnHash | None
    holder: str


class RedisStore:
    """``async with RedisStore(access, target) as store``. ``target``: the key of the hash."""

    def __init__(self, access: RedisAccess, target: str) -> None:
        self._access = access
        self.target = target
        self._own, self._claim = hashes.own_keys(target)
        self._redis = access.client()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()

    async def read(self) -> HashSeen:
        """All of it at one instant."""

        async def seen() -> HashSeen:
            async with self._transaction() as pipe:
                pipe.hgetall(self.target)
                pipe.hgetall(self._own)
                pipe.get(self._claim)
                fields, own, holder = await pipe.execute()
            return HashSeen(fields, hashes.passed_on_hash(own), holder or "")

        return await self._asked(seen)

    async def claim(self, holder: str, ttl_s: int) -> bool:
        """Take or renew the claim; False where another connector holds it."""

        async def take() -> bool:
            async with self._transaction() as pipe:
                await pipe.watch(self._claim)
                if await pipe.get(self._claim) not in (None, holder):
                    return False
                pipe.multi()
                pipe.set(self._claim, holder, ex=ttl_s)
                return await _executed(pipe)

        return await self._asked(take)

    async def release(self, holder: str) -> None:
        """Give the claim up, where it is ours."""

        async def give_up() -> bool:
            async with self._transaction() as pipe:
                await pipe.watch(self._claim)
                if await pipe.get(self._claim) != holder:
                    return False
                pipe.multi()
                pipe.delete(self._claim)
                return await _executed(pipe)

        await self._asked(give_up)

    async def pass_on(self, key: DecisionKey, counts: hashes.Counts, holder: str, now_s: float) -> bool:
        """Write a decision; False, without effect, where the claim is not ours or anything changed meanwhile."""

        async def write() -> bool:
            async with self._transaction() as pipe:
                await pipe.watch(self.target, self._own, self._claim)
                if await pipe.get(self._claim) != holder:
                    return False
                # What the actuator reported before this decision says nothing about it.
                observed_at = await pipe.hget(self.target, hashes.OBSERVED_AT) or ""
                pipe.multi()
                given = {role: str(count) for role, count in counts.items() if count is not None}
                pipe.hset(self.target, mapping={**given, hashes.UPDATED_AT: f"{now_s:.6f}"})
                if unset := [role for role, count in counts.items() if count is None]:
                    pipe.hdel(self.target, *unset)
                pipe.hset(self._own, mapping=PassedOnHash(key, observed_at).fields())
                return await _executed(pipe)

        return await self._asked(write)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        """The client's own types do not say that a call after WATCH answers at once."""
        async with self._redis.pipeline(transaction=True) as pipe:
            yield pipe

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._access.timeout_s):
                return await ask()
        except (RedisError, OSError, TimeoutError) as error:
            raise RedisAwayError(f"Redis at {self._access.address}: {str(error) or type(error).__name__}") from error


async def _executed(pipe: Any) -> bool:
    """Whether the transaction took effect; False where a key that it depends on changed."""
    try:
        await pipe.execute()
    except WatchError:
        return False
    return True

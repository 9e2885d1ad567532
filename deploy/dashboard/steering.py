"""Commands from the page on deployments and budgets, by the code of ``wattscale deployment`` and ``wattscale budget``.

A request needs a token in its Authorization header, a header that no form and no other origin can send, and the page's
own origin. There is no cookie, so a browser adds nothing by itself. A command is its own record on the bus, with the
name of the token's holder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Annotated, Literal
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bus_schemas import v1
from bus_schemas.errors import BadNameError, BusError, NotPermittedError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.visible_text import visible
from deploy.cli.errors import BusProblemError, CliError
from deploy.cli.numbers import LONGEST_S, MOST_WATTS
from deploy.cli.steer.orders import (
    budget_order,
    check,
    deployment_order,
    sentence,
    store,
    too_few_watts,
    watts_to_repeat,
)
from deploy.dashboard.steer_tokens import RateLimit, SteerTokens
from deploy.views.bus_reader import names

log = logging.getLogger(__name__)
audit = logging.getLogger("wattscale.audit")

HEADER = "X-Wattscale-Steer"
MOST_BYTES = 8192
WRONG_TOKENS, COMMANDS, PER_S = 5, 30, 60.0
"""Wrong tokens of one address, and commands of one name, at once and a minute."""
ANSWER_S = 30.0
READ_ONLY = (
    "this page is read-only; `wattscale dashboard --steer-token-file FILE` serves one that steers, and so does a "
    "planner with dashboard.steering"
)
TAKES = {
    "pause": {"deployment", "reason"},
    "resume": {"deployment", "reason"},
    "pin": {"deployment", "replicas", "reason"},
    "unpin": {"deployment", "reason"},
    "budget-set": {"site", "watts", "ramp_s", "for_s", "reason"},
    "budget-release": {"site", "ramp_s", "reason"},
}
"""By action: what may be given with it. Anything else would be ignored, and is refused."""
Seconds = Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)]
SomeSeconds = Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)]
Replicas = Annotated[int, Field(ge=0, le=999_999)]


def log_commands() -> None:
    """Let the log have one line of each command that is carried out, whatever its level is."""
    audit.setLevel(logging.INFO)


class PageCommand(BaseModel):
    """What the page asks for."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["pause", "resume", "pin", "unpin", "budget-set", "budget-release"]
    deployment: str = ""
    replicas: dict[str, Replicas] = Field(default_factory=dict, max_length=64)
    """With pin: by pool."""
    site: str = ""
    watts: Annotated[float, Field(ge=0, le=MOST_WATTS, allow_inf_nan=False)] | None = None
    ramp_s: Seconds = 0.0
    for_s: SomeSeconds | None = None
    reason: Annotated[str, Field(max_length=300)] = ""


class NotCarriedOutError(Exception):
    """A request that is not carried out: the answer's status, one line, and after how many seconds to try again."""

    def __init__(self, status: int, line: str, again_s: float | None = None) -> None:
        super().__init__(line)
        self.status, self.line, self.again_s = status, line, again_s

    def answer(self) -> web.Response:
        """As the page gets it."""
        headers = {"WWW-Authenticate": 'Bearer realm="wattscale"'} if self.status == 401 else {}
        if self.again_s is not None:
            headers["Retry-After"] = str(int(self.again_s) + 1)
        return web.Response(status=self.status, text=visible(self.line) + "\n", headers=headers)


class Steering:
    """Checks requests and stores their commands on ``bus``, whose login must be allowed to give them.

    ``origins``: hosts, with their ports, under which a proxy serves the page, beside the one that is asked.
    """

    def __init__(
        self, bus: Bus, tokens: SteerTokens, origins: Collection[str] = (), clock: Callable[[], float] | None = None
    ) -> None:
        self._bus = bus
        self._tokens = tokens
        self._origins = frozenset(origins)
        self._clock = clock or asyncio.get_running_loop().time
        self._wrong = RateLimit(WRONG_TOKENS, PER_S)
        self._given = RateLimit(COMMANDS, PER_S)

    async def answer(self, request: web.Request) -> web.Response:
        """Carry out a request, or say in one line why not."""
        try:
            who = self._holder(request)
            async with asyncio.timeout(ANSWER_S):
                order, note = await self._carry_out(await _command(request), who)
        except NotCarriedOutError as refused:
            return refused.answer()
        except TimeoutError:
            line = "the bus did not answer in time, and may have stored the command: look at the decisions below"
            return NotCarriedOutError(503, line).answer()
        line = visible(sentence(order))
        audit.info("steer: %s, by %s", line, order.issued_by)
        return web.json_response({"line": line, "note": note, "by": order.issued_by, "t": order.time.timestamp() * 1e3})

    def _holder(self, request: web.Request) -> str:
        """The name of who asks. Raises NotCarriedOutError, before a token is compared that comes too often."""
        if request.headers.get(HEADER) != "1" or request.content_type != "application/json":
            raise NotCarriedOutError(403, f"a command is JSON and carries the header {HEADER}: 1")
        if (
            _host(request.headers.get("Origin", "")) not in {request.host, *self._origins}
            or request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin"
        ):
            raise NotCarriedOutError(
                403, "a command must come from the page itself; behind a proxy name its host: --host-name"
            )
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise NotCarriedOutError(401, "a command needs a token")
        address, now_s = request.remote or "", self._clock()
        if (wait_s := self._wrong.wait_s(address, now_s)) > 0:
            raise NotCarriedOutError(429, "too many wrong tokens from this address; try again later", wait_s)
        who = self._tokens.holder(token.strip())
        if who is None:
            self._wrong.take(address, now_s)
            log.warning("steer: a wrong token from %s", address)
            raise NotCarriedOutError(401, "the token is wrong")
        if (wait_s := self._given.wait_s(who, now_s)) > 0:
            raise NotCarriedOutError(429, f"too many commands by {who}; try again later", wait_s)
        self._given.take(who, now_s)
        return who

    async def _carry_out(self, asked: PageCommand, who: str) -> tuple[v1.BudgetChange | v1.DeploymentControl, str]:
        try:
            view = await names(self._bus)
            order = await self._order(asked, f"{who} on the dashboard")
            check(view, order)
            await store(self._bus, order)
        except CliError as error:
            status = 503 if isinstance(error, BusProblemError) else 422
            # The page has no --force.
            raise NotCarriedOutError(status, str(error).partition(" (--force")[0]) from error
        except BadNameError as error:
            raise NotCarriedOutError(422, str(error)) from error
        except BusError as error:
            if isinstance(error, NotPermittedError) or isinstance(error.__cause__, NotPermittedError):
                raise NotCarriedOutError(
                    403, f"the dashboard's login may not steer; log it in as operator: {error}"
                ) from error
            raise NotCarriedOutError(503, f"the bus does not answer: {self._bus.trouble or error}") from error
        return order, too_few_watts(view, order) if isinstance(order, v1.BudgetChange) else ""

    async def _order(self, asked: PageCommand, who: str) -> v1.BudgetChange | v1.DeploymentControl:
        now = datetime.now(UTC)
        if unused := sorted(asked.model_fields_set - TAKES[asked.action] - {"action"}):
            raise NotCarriedOutError(422, f"{', '.join(unused)}: not with {asked.action}")
        if not asked.action.startswith("budget"):
            action = "release" if asked.action == "unpin" else asked.action
            if action == "pin" and not asked.replicas:
                raise NotCarriedOutError(422, "replicas: by pool, how many")
            pinned, why = asked.replicas, asked.reason
            return deployment_order(asked.deployment, action, now, replicas=pinned, reason=why, issued_by=who)
        release = asked.action == "budget-release"
        watts = await watts_to_repeat(self._bus, asked.site) if release else asked.watts
        if watts is None:
            raise NotCarriedOutError(422, "watts: how many")
        return budget_order(
            asked.site,
            watts,
            now,
            ramp_s=asked.ramp_s,
            for_s=asked.for_s,
            release=release,
            reason=asked.reason,
            issued_by=who,
        )


def _host(origin: str) -> str:
    """The host of an origin, with its port; empty where it is not an address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


async def _command(request: web.Request) -> PageCommand:
    body = await request.content.read(MOST_BYTES + 1)
    while len(body) <= MOST_BYTES and (more := await request.content.read(MOST_BYTES + 1)):
        body += more
    if len(body) > MOST_BYTES:
        raise NotCarriedOutError(413, f"a command has at most {MOST_BYTES} bytes")
    try:
        return PageCommand.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NotCarriedOutError(422, f"{where or 'the command'}: {first['msg']}") from None

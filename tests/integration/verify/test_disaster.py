"""The page on lost, restored and split buses: its commands, in its order, against a running site."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from bus_schemas import v1
from bus_schemas.jetstream.reader import last
from tests.command_line import Done
from tests.contract.bus import until
from tests.integration.verify.test_broken_things import failed, green
from tests.integration.verify.verified_site import NODES, ROOT, SITE, VerifiedSite, verified_site

pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
PAGE = ROOT / "deploy" / "DISASTER.md"
OPERATOR = ("budget", "node", "deployment")


def blocks(title: str) -> list[list[str]]:
    """The commands of one section, by block, each without the program's name."""
    (section,) = [part for part in PAGE.read_text().split("\n## ") if part.startswith(title)]
    found = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return [[line.removeprefix("wattscale ") for line in block.splitlines()] for block in found]


async def typed(site: VerifiedSite, commands: list[str]) -> list[Done]:
    """The commands of one block, as an operator or as whoever may look at everything."""
    done = []
    for command in commands:
        words = shlex.split(command)
        if words[0] == "verify":
            words += ["-c", str(site.folder / "planner.yaml")]
        done.append(await site.run(*words, user="operator" if words[0] in OPERATOR else "planner"))
    return done


async def decided(site: VerifiedSite) -> dict[str, v1.PowerDecision]:
    """Each node's last decision."""
    found = {}
    for node in NODES:
        stored = await last(site.bus, site.bus.subjects.decision_power(node))
        if stored is not None and isinstance(stored.message, v1.PowerDecision):
            found[node] = stored.message
    return found


async def budget_holds(site: VerifiedSite, words: str) -> None:
    async def is_in_force() -> bool:
        budget = (await site.verify())[1]["budget"]
        return budget["verdict"] == "pass" and words in budget["detail"]

    await until(is_in_force, f"caps {words}", 60)


async def test_all_streams_are_lost(tmp_path: Path) -> None:
    async with verified_site(tmp_path) as site:
        await green(site)
        before = await decided(site)
        await site.server.stop()
        shutil.rmtree(site.folder / "store")
        await site.server.start()
        applied, verified, cut = await typed(site, blocks("All streams")[0])
        assert applied.code == 0
        assert verified.code == 0, (verified.out, site.logs())
        assert cut.code == 0, cut
        await green(site)
        after = await decided(site)
        assert {node for node in NODES if after[node].incarnation != before[node].incarnation} == set(NODES)
        await budget_holds(site, "of 1,500 W")


async def test_the_bus_is_restored_from_a_copy(tmp_path: Path) -> None:
    async with verified_site(tmp_path) as site:
        store, copy = site.folder / "store", site.folder / "copy"
        await green(site)
        await site.server.stop()
        shutil.copytree(store, copy)
        await site.server.start()
        await site.run("streams", "apply")
        for watts in ("1800", "1500"):
            assert (await site.run("budget", "set", watts, "--site", SITE, user="operator")).code == 0
            await green(site)
        before = await decided(site)
        await site.parts["planner"].stop()
        await site.server.stop()
        shutil.rmtree(store)
        shutil.copytree(copy, store)
        await site.server.start()
        first, second = blocks("The bus is restored")
        applied, _ = await typed(site, first)
        assert applied.code == 0

        async def is_named() -> bool:
            return "bus not restored" in failed((await site.verify())[1])

        # Agents state what they have carried out every ten seconds.
        await until(is_named, "the restored bus", 60)
        await site.parts["planner"].start()
        verified, shown, cut = await typed(site, second)
        assert verified.code == 0, (verified.out, site.logs())
        assert "1500" not in shown.out, "the command was given after the copy was made"
        assert cut.code == 0, cut
        await green(site)
        after = await decided(site)
        for node in NODES:
            told_apart = after[node].incarnation != before[node].incarnation or after[node].epoch > before[node].epoch
            assert told_apart, (before[node], after[node])
        await budget_holds(site, "of 1,500 W")

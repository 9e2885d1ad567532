"""All faults, by number: a seed determines one list of faults, from which a shrinker may drop some."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from random import Random

from deploy.fault_simulation.agent_process import AgentProcess
from deploy.fault_simulation.checker import IssuedCommand
from deploy.fault_simulation.hardware import Card
from deploy.fault_simulation.network import STORM
from deploy.fault_simulation.planner_process import PlannerProcess
from deploy.fault_simulation.scenario import ALL_FAULTS
from deploy.fault_simulation.simulated_site import SIZES
from deploy.fault_simulation.world import World
from planner.domain.ids import PoolId
from planner.domain.observation import HoldCommand, NodeCommand
from planner.domain.units import Milliwatts


class Faults:
    """Draws faults and applies them. Each has its own random numbers, so that dropping one changes no other."""

    def __init__(self, world: World, without: frozenset[str], only: frozenset[int] | None) -> None:
        self.world = world
        self.without = without
        self.only = only
        self.number = 0
        self.over = False
        self.struck: deque[tuple[int, str]] = deque(maxlen=100_000)
        self.clock = Random(f"faults {world.scenario.seed}")
        self.carry_out: dict[str, Callable[[Random], bool]] = {kind: getattr(self, f"_{kind}") for kind in ALL_FAULTS}

    def start(self) -> None:
        """Schedule the first fault."""
        self.world.timeline.after(self.clock.expovariate(1.0 / self.world.scenario.fault_every_s), self.strike)

    def strike(self, _: object) -> None:
        """Apply one fault and schedule the next."""
        if self.over:
            return
        self.start()
        kind = self.clock.choice(self.world.scenario.kinds)
        number, self.number = self.number, self.number + 1
        if kind in self.without or (self.only is not None and number not in self.only):
            return
        if self.carry_out[kind](Random(f"fault {self.world.scenario.seed} {number}")):
            self.world.counts[kind.replace("_", " ")] += 1
            self.struck.append((number, kind))

    # Budgets.

    def _change_budget(self, rng: Random, low: float, high: float, ahead_s: float, ramp_s: float) -> bool:
        world, now_s = self.world, self.world.timeline.now_s
        scenario = world.scenario
        room = scenario.highest_mw - scenario.lowest_mw
        budget = int(scenario.lowest_mw + room * rng.uniform(low, high))
        until_s = now_s + ahead_s + ramp_s + rng.uniform(5.0, 60.0) if rng.random() < 0.4 else None
        return self._send_budget(IssuedCommand(Milliwatts(budget), now_s + ahead_s, until_s, ramp_s, now_s))

    def _send_budget(self, command: IssuedCommand) -> bool:
        self.world.budget.add(command)
        self.world.bus.issue_budget(command)
        return True

    def _budget_cut(self, rng: Random) -> bool:
        below = rng.random() < 0.1
        return self._change_budget(rng, -0.05 if below else 0.02, 0.3, 0.0, 0.0)

    def _budget_raise(self, rng: Random) -> bool:
        return self._change_budget(rng, 0.4, 0.9, 0.0, 0.0)

    def _budget_ramp(self, rng: Random) -> bool:
        return self._change_budget(rng, 0.05, 0.8, rng.choice((0.0, 10.0)), rng.uniform(2.0, 40.0))

    def _budget_ahead(self, rng: Random) -> bool:
        return self._change_budget(rng, 0.05, 0.8, rng.uniform(1.0, 60.0), 0.0)

    def _budget_past(self, rng: Random) -> bool:
        return self._change_budget(rng, 0.05, 0.8, -rng.uniform(1.0, 30.0), rng.choice((0.0, 20.0)))

    def _budget_release(self, rng: Random) -> bool:
        now_s = self.world.timeline.now_s
        return self._send_budget(
            IssuedCommand(None, now_s + rng.choice((0.0, 20.0)), None, rng.choice((0.0, 15.0)), now_s)
        )

    # Hardware.

    def _card(self, rng: Random) -> Card | None:
        card = rng.choice(self.world.cards)
        return card if self.world.agents[card.node].powered else None

    def _for_a_while(self, rng: Random, card: Card, name: str) -> bool:
        if getattr(card, name):
            return False
        setattr(card, name, True)
        card.reading = None
        card.ok_since_s = float("inf")
        self.world.timeline.after(
            rng.uniform(1.0, 25.0), self._mended, (card, name, self.world.agents[card.node].machine_boot)
        )
        return True

    def _mended(self, argument: tuple[Card, str, int]) -> None:
        card, name, boot = argument
        if self.world.agents[card.node].machine_boot == boot and getattr(card, name):
            setattr(card, name, False)
            card.reading = None
            if name == "lost":
                self._reset(card)
        card.ok_since_s = self.world.timeline.now_s

    def _reset(self, card: Card) -> None:
        card.resets += 1
        card.disturb(card.default_mw, self.world.timeline.now_s)

    def _driver_reset(self, rng: Random) -> bool:
        card = self._card(rng)
        if card is None or card.lost:
            return False
        if rng.random() < 0.3:
            return self._for_a_while(rng, card, "lost")
        cards = self.world.agents[card.node].cards if rng.random() < 0.5 else [card]
        for each in cards:
            if not each.lost:
                self._reset(each)
        return True

    def _foreign_writer(self, rng: Random) -> bool:
        card = self._card(rng)
        if card is None or card.lost:
            return False
        card.disturb(rng.randrange(card.floor_mw, card.default_mw + 1), self.world.timeline.now_s)
        return True

    def _other_limiter(self, rng: Random) -> bool:
        card = self._card(rng)
        if card is None:
            return False
        card.limit_elsewhere(rng.randrange(card.floor_mw, card.default_mw))
        self.world.timeline.after(rng.uniform(1.0, 25.0), self._limiter_gone, card)
        return True

    def _limiter_gone(self, card: Card) -> None:
        if self.world.agents[card.node].powered:
            card.limit_elsewhere(None)

    def _no_effect(self, rng: Random) -> bool:
        card = self._card(rng)
        return card is not None and self._for_a_while(rng, card, "ignores")

    def _write_error(self, rng: Random) -> bool:
        card = self._card(rng)
        return card is not None and self._for_a_while(rng, card, "write_error")

    def _read_error(self, rng: Random) -> bool:
        card = self._card(rng)
        return card is not None and self._for_a_while(rng, card, "read_error")

    # Processes and links.

    def _agent(self, rng: Random) -> AgentProcess | None:
        agent = rng.choice(self.world.agents)
        return agent if agent.up else None

    def _agent_crash(self, rng: Random) -> bool:
        agent = self._agent(rng)
        if agent is None:
            return False
        agent.crash()
        long = rng.random() < 0.5
        self.world.timeline.after(rng.uniform(5.0, 50.0) if long else rng.uniform(0.05, 3.0), self._agent_back, agent)
        return True

    def _agent_back(self, agent: AgentProcess) -> None:
        if agent.powered and not agent.up:
            agent.start()

    def _agent_stall(self, rng: Random) -> bool:
        agent = self._agent(rng)
        if agent is None:
            return False
        agent.stall(rng.choice((rng.uniform(0.1, 3.0), rng.uniform(3.0, 45.0))))
        return True

    def _planner(self, rng: Random) -> PlannerProcess | None:
        leads = [planner for planner in self.world.planners if planner.state is not None]
        planner = rng.choice(leads or self.world.planners)
        return planner if planner.up else None

    def _planner_crash(self, rng: Random) -> bool:
        planner = self._planner(rng)
        if planner is None:
            return False
        planner.crash()
        self.world.timeline.after(rng.uniform(0.5, 20.0), self._planner_back, planner)
        return True

    def _planner_back(self, planner: PlannerProcess) -> None:
        if not planner.up:
            planner.start()

    def _planner_stall(self, rng: Random) -> bool:
        planner = self._planner(rng)
        if planner is None:
            return False
        ttl_s = self.world.scenario.leader_ttl_s
        planner.stall(rng.choice((rng.uniform(0.1, ttl_s), rng.uniform(ttl_s, 5.0 * ttl_s))))
        return True

    def _planner_partition(self, rng: Random) -> bool:
        return self._part(rng, self._planner(rng))

    def _lease_junk(self, _: Random) -> bool:
        """A message that is not a leader's lease takes the place of the lease."""
        return self.world.bus.junk_lease(self.world.scenario.leader_ttl_s, self.world.timeline.now_s)

    def _agent_partition(self, rng: Random) -> bool:
        return self._part(rng, rng.choice(self.world.agents))

    def _part(self, rng: Random, party: AgentProcess | PlannerProcess | None) -> bool:
        if party is None or party.parted:
            return False
        party.part(True)
        lease_s = self.world.scenario.config.lease_s
        for_s = rng.choice((rng.uniform(0.5, 5.0), rng.uniform(lease_s, 2.0 * lease_s)))
        if for_s > lease_s:
            self.world.counts["partition longer than the lease"] += 1
        self.world.timeline.after(for_s, self._joined, party)
        return True

    def _joined(self, party: AgentProcess | PlannerProcess) -> None:
        party.part(False)

    def _node_off(self, rng: Random) -> bool:
        agent = rng.choice(self.world.agents)
        if not agent.powered:
            return False
        agent.power_off()
        self.world.checker.switched(agent.index, self.world.timeline.now_s, on=False)
        for card in agent.cards:
            self.world.checker.ended(card)
        back_s = rng.uniform(20.0, 60.0)
        if rng.random() < 0.7:
            self.world.timeline.after(rng.uniform(1.0, 10.0), self._removed, agent)
        self.world.timeline.after(back_s, self._node_on, agent)
        return True

    def _removed(self, agent: AgentProcess) -> None:
        rows = self.world.bus.node_commands
        rows.append((len(rows), self.world.timeline.now_s, NodeCommand(agent.node)))
        self.world.counts["node removed by command"] += 1

    def _node_on(self, agent: AgentProcess) -> None:
        self.world.checker.switched(agent.index, self.world.timeline.now_s, on=True)
        agent.power_on()

    def _storm(self, rng: Random) -> bool:
        network = self.world.network
        if network.weather is STORM:
            return False
        network.weather = STORM
        self.world.timeline.after(rng.uniform(2.0, 30.0), self._calm)
        return True

    def _calm(self, _: object) -> None:
        self.world.network.weather = self.world.network.calm

    def _replay(self, rng: Random) -> bool:
        """Old decisions arrive again, as from a consumer that was reset."""
        agent = self._agent(rng)
        kept = self.world.bus.decisions.get(agent.name) if agent is not None else None
        if agent is None or not kept:
            return False
        kept = kept[-6:] if rng.random() < 0.7 else kept
        for stored in rng.sample(kept, min(3, len(kept))):
            self.world.timeline.after(rng.uniform(0.0, 5.0), agent.on_decision, (agent.generation, stored))
        return True

    # Pods, where the budget covers workers only.

    def _pod_unannounced(self, rng: Random) -> bool:
        """An HPA or a person sets another count, until the next decision or for a while."""
        connector, pool = self.world.connector, rng.choice(tuple(SIZES))
        connector.other[pool] = max(0, len(connector.living(pool)) + rng.choice((1, 1, 2, -1)))
        self.world.timeline.after(rng.uniform(5.0, 60.0), self._count_lifted, pool)
        return True

    def _count_lifted(self, pool: PoolId) -> None:
        self.world.connector.other.pop(pool, None)

    def _pod_moved(self, rng: Random) -> bool:
        """A replica is evicted: the scheduler starts another one in its place, on whichever GPUs are free."""
        connector = self.world.connector
        names = [name for pool in SIZES for name in connector.living(pool)]
        if not names:
            return False
        connector.end(rng.choice(names))
        return True

    def _pod_forced(self, rng: Random) -> bool:
        """A pod is deleted by force and goes on: only its node knows, and another one starts in its place.

        Half of the time the node's agent restarts meanwhile: then nothing knows whose pod it is.
        """
        world, connector = self.world, self.world.connector
        names = [name for pool in SIZES for name in connector.living(pool)]
        if not names:
            return False
        name = rng.choice(names)
        nodes = {card.node for card in world.cards if card.pod is not None and card.pod.name == name}
        connector.end(name, forced=True)
        agent = world.agents[min(nodes)]
        if rng.random() < 0.5 and agent.up:
            agent.crash()
            world.timeline.after(rng.uniform(0.05, 3.0), self._agent_back, agent)
        return True

    def _api_away(self, rng: Random) -> bool:
        """The Kubernetes API is away, and an agent restarts meanwhile: it knows no pod."""
        world, now_s = self.world, self.world.timeline.now_s
        if world.site.api.away(now_s):
            return False
        world.site.api.away_until_s = now_s + rng.uniform(3.0, 60.0)
        if (agent := self._agent(rng)) is not None:
            agent.crash()
            world.timeline.after(rng.uniform(0.05, 3.0), self._agent_back, agent)
        return True

    def _foreign_pod(self, rng: Random) -> bool:
        card = self._card(rng)
        if card is None or card.pod is not None:
            return False
        self.world.connector.others_pod(card, rng.uniform(3.0, 90.0))
        return True

    # Profilers.

    def _gpu_hold(self, rng: Random) -> bool:
        """A profiler holds GPUs of a node under a cap, then under others, and releases them or is killed.

        Its clock may be wrong by seconds, and its renewals late.
        """
        agent = rng.choice(self.world.agents)
        cards = rng.sample(agent.cards, rng.choice((1, 1, min(2, len(agent.cards)))))
        name = f"hold-{len(self.world.bus.hold_commands)}"
        gpus = tuple([card.gpu for card in cards])
        hold = HoldCommand(agent.node, name, gpus, Milliwatts(0), 0.0, rng.choice((3.0, 10.0, 30.0)))
        self._hold_again((hold, rng, rng.uniform(-4.0, 4.0), rng.randrange(1, 10)))
        return True

    def _hold_again(self, argument: tuple[HoldCommand, Random, float, int]) -> None:
        """The hold, or its renewal, until the profiler's end."""
        hold, rng, skew_s, left = argument
        if self.over:
            return
        if not left:
            if rng.random() < 0.5:
                self._store_hold(replace(hold, release=True), skew_s)
            return
        if not hold.cap_mw or rng.random() < 0.3:
            low, high = self.world.scenario.min_mw, self.world.scenario.default_mw
            hold = replace(hold, cap_mw=Milliwatts(rng.randrange(low // 2, high + 100_000)))
        self._store_hold(hold, skew_s)
        again_s = hold.for_s * rng.choice((0.33, 0.33, 0.33, 1.2))
        self.world.timeline.after(again_s, self._hold_again, (hold, rng, skew_s, left - 1))

    def _store_hold(self, hold: HoldCommand, skew_s: float) -> None:
        rows = self.world.bus.hold_commands
        rows.append((len(rows), self.world.timeline.now_s + skew_s, hold))
        self.world.counts["hold released" if hold.release else "hold written"] += 1

    # What takes days on a real site.

    def _bus_put_back(self, rng: Random) -> bool:
        """The bus is copied, goes on, and is put back from the copy while some agents are dead; planners start anew."""
        bus, now_s = self.world.bus, self.world.timeline.now_s
        decided = all(agent.name in bus.decisions for agent in self.world.agents)
        if bus.copied is not None or not decided:
            return False
        bus.copy(now_s)
        self.world.timeline.after(rng.uniform(20.0, 90.0), self._put_back, rng.random())
        return True

    def _put_back(self, chance: float) -> None:
        if self.over:
            return
        self.world.bus.put_back(acks=chance < 0.7)
        # Replicas that a lost decision asked for start unannounced.
        self.world.connector.credit = dict.fromkeys(SIZES, 0)
        self.world.counts["bus put back from a copy"] += 1
        for index, planner in enumerate(self.world.planners):
            if planner.up:
                planner.crash()
            self.world.timeline.after(0.5 + 0.7 * index, self._planner_back, planner)

    def _week_of_silence(self, rng: Random) -> bool:
        """An agent is dead for longer than what a bus with ages would keep; see ``simulated_bus``."""
        agent = self._agent(rng)
        if agent is None:
            return False
        agent.crash()
        self.world.timeline.after(rng.uniform(70.0, 140.0), self._agent_back, agent)
        return True

    def end(self) -> None:
        """Calm weather from now on: what is down comes back, and what is wrong is repaired."""
        self.over = True
        world = self.world
        world.network.calm = (0.0, *world.network.calm[1:])
        world.network.weather = world.network.calm
        for agent in world.agents:
            if not agent.powered:
                self._node_on(agent)
            agent.part(parted=False)
            self._agent_back(agent)
        world.connector.other = {}
        world.site.api.away_until_s = world.timeline.now_s
        for planner in world.planners:
            planner.part(parted=False)
            planner.steady = True
            self._planner_back(planner)
        for card in world.cards:
            card.limit_elsewhere(None)
            for name in ("lost", "ignores", "write_error", "read_error"):
                if getattr(card, name):
                    self._mended((card, name, world.agents[card.node].machine_boot))

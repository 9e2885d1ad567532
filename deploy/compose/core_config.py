"""Builds the planner core's configuration from settings: watts become milliwatts, files become values.

Finds every problem before anything starts, one line each.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from importlib.util import find_spec
from itertools import combinations

from bus_schemas.subjects import encode_name
from deploy.archive.day_files import ArchiveError
from deploy.archive.past_load import past_load
from deploy.compose.metric_sources import (
    SOURCES,
    Sources,
    metrics_problems,
    pool_blocks,
    prometheus_problems,
    role_of,
)
from deploy.compose.predictors import EXTRA_PREDICTORS, ExtraPredictors, predictors
from deploy.compose.settings_layers import SettingsError
from deploy.compose.sites import replica_schedule, site, unsafe
from planner.adapters.measured_power import check_order
from planner.adapters.power_priors import curve, gpu, phase_of
from planner.adapters.profiles import ProfileError, load_profile
from planner.adapters.traces import TraceError, read_trace
from planner.core.forecast.registry import model
from planner.domain.config import (
    DeploymentConfig,
    Fallback,
    LoadThresholds,
    OperationMode,
    PlannerConfig,
    PoolConfig,
    ScalingPolicy,
    ScalingRules,
    SiteConfig,
    SizingMode,
    WaitFor,
)
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from planner.domain.predictor import PointModel
from planner.domain.profile import Profile
from planner.domain.request import ObservedLoad, Request
from planner.domain.units import mw_from_watts
from planner.runtime.config.settings import (
    CurveSettings,
    DeploymentSettings,
    PoolSettings,
    RulesSettings,
    Settings,
)

log = logging.getLogger(__name__)

CONVERTED = frozenset({"pools", "profile", "site", "sizing", "mode", "fallback", "load", "history", "wait_for"})
NO_PROFILE = "none"
NO_POWER = PowerCurve(0, 1, 1.0, 0, 0, 1, 0)
CLASSIC_LIBRARY = "scipy"
DEFAULT_SITE = DeploymentSettings.model_fields["site"].default
MOST_CLASSES = 16
"""Classes of service on one site: each record of a deployment that is short has the figures of all of them."""
LONGEST_HISTORY = 200_000
"""How many requests of a recorded trace forecasts learn from: the last ones."""


def planner_config(
    settings: Settings,
    *,
    offline: bool = False,
    profiles: Mapping[str, Profile] | None = None,
    sources: Sources = SOURCES,
    extra_predictors: ExtraPredictors = EXTRA_PREDICTORS,
) -> PlannerConfig:
    """The core's configuration. Raises SettingsError with every problem there is.

    ``offline``: engines will not be read (a filter, a replay), so that no place to read from is needed. ``profiles``:
    by deployment, in place of the folder that its settings name. ``sources`` and ``extra_predictors``: the rows that
    settings may name.
    """
    problems: list[str] = []
    sites = dict(_sites(settings, problems)) if settings.power_aware else {}
    models = predictors(settings, problems, extra_predictors)
    deployments = {}
    for name, block in settings.deployments.items():
        if not offline:
            problems += metrics_problems(f"deployments.{name}", block, settings, sources)
        config = _deployment(name, block, settings, models, (profiles or {}).get(name), problems)
        if config is not None:
            deployments[config.deployment] = config
    problems += _across(settings)
    if not offline:
        problems += prometheus_problems(settings.prometheus)
    if problems:
        raise SettingsError(problems)
    return PlannerConfig(
        deployments=deployments,
        sites=sites,
        interval_s=settings.interval_s,
        load_time_scale=settings.load_time_scale,
        release_caps=not settings.power_aware and settings.power_off == "release",
        predictors=models,
    )


def _sites(settings: Settings, problems: list[str]) -> Iterator[tuple[SiteId, SiteConfig]]:
    for name, block in settings.sites.items():
        problems += [f"sites.{name}: {line}" for line in unsafe(block)]
        try:
            encode_name(name)
            yield SiteId(name), site(name, block, [d for d, each in settings.deployments.items() if each.site == name])
        except ValueError as error:
            problems.append(f"sites.{name}: {error}")


def _across(settings: Settings) -> list[str]:
    """Problems between blocks that are valid each on its own."""
    problems = []
    if not settings.deployments:
        problems.append("deployments: none; name at least one, as in deployments: {prod-chat: {…}}")
    problems += _too_many_classes(settings)
    for (one, a), (two, b) in combinations(settings.sites.items(), 2):
        # Read as a name, a pattern within another one is taken by it.
        shared = sorted(
            {max(p, q, key=len) for p in a.nodes for q in b.nodes if fnmatchcase(p, q) or fnmatchcase(q, p)}
        )
        if shared:
            problems.append(
                f"sites.{one}.nodes and sites.{two}.nodes both take {', '.join(shared)}: watts counted twice"
            )
    return problems


def _too_many_classes(settings: Settings) -> Iterator[str]:
    by_site: dict[str, set[str]] = {}
    for block in settings.deployments.values():
        if block.service_class is not None:
            by_site.setdefault(block.site, set()).add(block.service_class)
    for name, classes in by_site.items():
        if len(classes) > MOST_CLASSES:
            yield (
                f"deployments.*.service_class: {len(classes)} classes on site {name}, at most {MOST_CLASSES};"
                " name kinds of load, not deployments"
            )


def _deployment(
    name: str,
    block: DeploymentSettings,
    settings: Settings,
    models: Mapping[str, PointModel],
    profile: Profile | None,
    problems: list[str],
) -> DeploymentConfig | None:
    where = f"deployments.{name}"
    before = len(problems)
    if block.wait_for is not None and block.wait_for_scaling is not None:
        problems.append(f"{where}.wait_for_scaling: the former name of wait_for, which is set too; remove one")
    try:
        encode_name(name)
    except ValueError as error:
        problems.append(f"{where}: {error}")
    if settings.power_aware and block.site not in settings.sites and (settings.sites or block.site != DEFAULT_SITE):
        known = ", ".join(settings.sites) or "none"
        problems.append(f"{where}.site: no site {block.site!r}; there are: {known}")
    try:
        model(block.predictor, settings.interval_s, models)
    except KeyError as error:
        problems.append(f"{where}.predictor: {error.args[0]}")
    if block.slo_share is not None and block.sizing in ("classic", "load"):
        problems.append(
            f"{where}.slo_share: sizing {block.sizing} has no quantile to move; remove it, or set sizing: sla"
        )
    if block.sizing == "classic" and find_spec(CLASSIC_LIBRARY) is None:
        problems.append(f"{where}.sizing: classic needs {CLASSIC_LIBRARY}; pip install 'wattscale[classic]'")
    profile = profile or _profile(where, block, problems)
    history = _history(where, block, problems)
    past = _past_load(name, block, settings, problems)
    pools = _pools(where, block, profile, problems)
    if len(problems) > before or profile is None:
        return None
    known_fields = {field.name for field in fields(DeploymentConfig)}
    same = {key: value for key, value in block if key in known_fields - CONVERTED}
    return DeploymentConfig(
        deployment=DeploymentId(name),
        site=SiteId(block.site),
        pools={pool: one for pool, one in pools.items() if one.role is not Role.FRONTEND},
        other_pools={pool: one for pool, one in pools.items() if one.role is Role.FRONTEND},
        profile=profile,
        sizing=SizingMode(block.sizing),
        mode=OperationMode(block.mode),
        fallback=Fallback(block.fallback),
        load=LoadThresholds(**dict(block.load)),
        wait_for=_wait_for(block, settings),
        history=history,
        past_load=past,
        **same,
    )


def _wait_for(block: DeploymentSettings, settings: Settings) -> WaitFor | None:
    """What was set, by the new or the former name; the published rules of caps and shortage wait for completion."""
    if block.wait_for is not None:
        return WaitFor(block.wait_for)
    if block.wait_for_scaling is not None:
        return WaitFor.COMPLETE if block.wait_for_scaling else WaitFor.NOTHING
    of_site = settings.sites.get(block.site)
    published = block.caps == "fixed" or (of_site is not None and of_site.shortage == "proportional")
    return WaitFor.COMPLETE if published else None


def _profile(where: str, block: DeploymentSettings, problems: list[str]) -> Profile | None:
    if block.profile is None and block.sizing == "load":
        return Profile(NO_PROFILE, None, None)
    if block.profile is None:
        problems.append(f"{where}.profile: none; name a folder with the engine's profile")
        return None
    try:
        profile = load_profile(block.profile)
    except ProfileError as error:
        problems.append(f"{where}.profile: {error}")
        return None
    for line in profile.dropped:
        log.warning("profile %s: dropped %s", profile.name, line)
    return profile


def _history(where: str, block: DeploymentSettings, problems: list[str]) -> tuple[Request, ...]:
    if block.history is None or block.history.is_dir():
        return ()
    try:
        requests = read_trace(block.history)
    except TraceError as error:
        problems.append(f"{where}.history: {error}")
        return ()
    return tuple(requests[-LONGEST_HISTORY:])


def _past_load(
    name: str, block: DeploymentSettings, settings: Settings, problems: list[str]
) -> tuple[ObservedLoad, ...]:
    """What an archive kept of the deployment, where ``history`` is a folder."""
    if block.history is None or not block.history.is_dir():
        return ()
    where = f"deployments.{name}.history"
    if block.sizing == "classic":
        problems.append(
            f"{where}: {block.history} is a folder, and sizing classic learns from a trace only; name a file"
        )
        return ()
    try:
        found = past_load(block.history, name, settings.load_time_scale)
    except (ArchiveError, OSError) as error:
        problems.append(f"{where}: {error}")
        return ()
    if not found:
        log.warning("%s: no record of %s in %s yet; its forecasts start from nothing", where, name, block.history)
    return found


def _pools(
    where: str, block: DeploymentSettings, profile: Profile | None, problems: list[str]
) -> dict[PoolId, PoolConfig]:
    pools = {}
    for name, pool in pool_blocks(block).items():
        try:
            pools[PoolId(name)] = _pool(name, pool, block, profile)
        except (ValueError, KeyError) as error:
            problems.append(f"{where}.pools.{name}: {error.args[0]}")
    return pools


def _pool(name: str, pool: PoolSettings, block: DeploymentSettings, profile: Profile | None) -> PoolConfig:
    role = role_of(name, pool)
    if (role is Role.FRONTEND) != (pool.requests_per_s is not None):
        raise ValueError("requests_per_s is for a pool of role frontend, which needs it")
    if role is Role.FRONTEND:
        return _frontend(name, pool)
    if profile is not None and block.sizing != "load":
        _has_phases(role, profile)
    gpus = pool.gpus_per_replica
    if gpus is None and profile is not None:
        gpus = profile.prefill_gpus if role is Role.PREFILL else profile.decode_gpus
    most = _most_replicas(pool, block, gpus or 1)
    least = max(pool.min_replicas, math.ceil((pool.min_gpus or 0) / (gpus or 1)))
    if most < least:
        raise ValueError(f"max_replicas {most} is below min_replicas {least}")
    return PoolConfig(
        pool=PoolId(name),
        role=role,
        gpus_per_replica=gpus or 1,
        curve=_curve(role, pool, block, profile),
        min_replicas=least,
        max_replicas=most,
        startup_s=pool.startup_s,
        max_step=pool.max_step,
        scale_up=_rules(pool.behavior.scale_up),
        scale_down=_rules(pool.behavior.scale_down),
        fallback_replicas=pool.fallback_replicas,
        learn_power=pool.learn_power,
        schedule=replica_schedule(pool.schedule) if pool.schedule else None,
        component=pool.component,
    )


def _most_replicas(pool: PoolSettings, block: DeploymentSettings, gpus: int) -> int:
    """The published planner knows no maximum but its GPU budget, beyond which its rounding may go by one."""
    if block.sizing != "classic" or block.max_gpus is None or "max_replicas" in pool.model_fields_set:
        return pool.max_replicas
    return max(pool.max_replicas, pool.min_replicas, block.max_gpus // gpus + 1)


def _frontend(name: str, pool: PoolSettings) -> PoolConfig:
    """A pool without GPUs: the same limits, and a power curve that asks for nothing."""
    of_gpus = ("gpus_per_replica", "min_gpus", "max_cap_watts", "power_curve")
    if given := [key for key in of_gpus if getattr(pool, key) is not None]:
        raise ValueError(f"{', '.join(given)}: a frontend has no GPU")
    if pool.max_replicas < pool.min_replicas:
        raise ValueError(f"max_replicas {pool.max_replicas} is below min_replicas {pool.min_replicas}")
    return PoolConfig(
        pool=PoolId(name),
        role=Role.FRONTEND,
        gpus_per_replica=0,
        curve=NO_POWER,
        min_replicas=pool.min_replicas,
        max_replicas=pool.max_replicas,
        startup_s=pool.startup_s,
        max_step=pool.max_step,
        scale_up=_rules(pool.behavior.scale_up),
        scale_down=_rules(pool.behavior.scale_down),
        fallback_replicas=pool.fallback_replicas,
        learn_power=False,
        schedule=replica_schedule(pool.schedule) if pool.schedule else None,
        component=pool.component,
        requests_per_s=pool.requests_per_s,
    )


def _has_phases(role: Role, profile: Profile) -> None:
    if role is not Role.DECODE and profile.prefill is None:
        raise ValueError(f"the profile {profile.name} has no prefill part")
    if role is not Role.PREFILL and profile.decode is None:
        raise ValueError(f"the profile {profile.name} has no decode part")


def _rules(rules: RulesSettings) -> ScalingRules:
    return ScalingRules(
        stabilization_window_s=rules.stabilization_window_s,
        policies=tuple(ScalingPolicy(p.type, p.value, p.period_s) for p in rules.policies),
        select=rules.select,
        tolerance=rules.tolerance,
    )


def _curve(role: Role, pool: PoolSettings, block: DeploymentSettings, profile: Profile | None) -> PowerCurve:
    """The pool's own curve, else the profile's, else the published one of the GPU type."""
    profiled = None
    if profile is not None:
        profiled = profile.decode_curve if role is Role.DECODE else profile.prefill_curve
    if pool.power_curve is not None:
        found = _measured(pool.power_curve)
    elif profiled is not None:
        found = profiled
    else:
        found = curve(gpu(block.gpu), phase_of(role, moe=block.moe))
    if pool.max_cap_watts is None:
        if block.caps == "fixed":
            raise ValueError("caps: fixed needs max_cap_watts: the watts of each GPU")
        return found
    most = min(mw_from_watts(pool.max_cap_watts), found.max_mw)
    if most < found.min_mw:
        raise ValueError(f"max_cap_watts {pool.max_cap_watts:g} is below the GPU's minimum {found.min_mw / 1000:g} W")
    return replace(found, max_mw=most, useful_mw=most if block.caps == "fixed" else min(most, found.useful_mw))


def _measured(block: CurveSettings) -> PowerCurve:
    check_order(block.p_s_watts, block.p_u_watts, block.min_watts, block.max_watts)
    watts = {key.replace("_watts", "_mw"): mw_from_watts(value) for key, value in block if key.endswith("_watts")}
    return PowerCurve(alpha=block.alpha, **watts)

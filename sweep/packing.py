"""How trials are packed onto the nodes of the connected cluster: the share of a GPU for each, and what it costs."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from sn7.errors import ResultsConflict
from sn7.files import read_json, write_json
from sweep.budget import node_type
from sweep.cluster import capacity, has_gpus, per_gpu, require_capacity
from sweep.forecast import Prediction, describe_preflight, predict_cost
from sweep.growth import coming
from sweep.plan import Plan
from sweep.preflight import Preflight, cases, gpu_share, load_preflight, preflight
from sweep.study import Resources

__all__ = ["measured_cost", "preflight_text", "with_gpu_share"]

FORECAST = "forecast.json"


def with_gpu_share(plan: Plan, results: Path) -> Plan:
    """Return the plan with the share of a GPU in place of "auto", measured now where it has not been.

    Raises StudyInvalid where nothing of the study fits the device.
    """
    if not plan.study.resources.auto:
        return plan
    share = gpu_share(preflight(plan, results).costs) if has_gpus() else 0.0
    return _with_share(plan, share)


def _with_share(plan: Plan, share: float) -> Plan:
    return replace(plan, study=replace(plan.study, resources=Resources(share, plan.study.resources.cpu)))


def preflight_text(plan: Plan, results: Path) -> str:
    """Measure the study's cases on the cluster, keep that in preflight.json, and return what it says for people."""
    measured = preflight(plan, results, again=True)
    resources = plan.study.resources
    share = gpu_share(measured.costs) if resources.auto else float(resources.gpu)
    packed = _with_share(plan, share)
    require_capacity(packed.study)
    nodes, grown = ray.nodes(), coming()
    at_once = max(1, capacity(packed.study, nodes), capacity(packed.study, grown))
    node = _node([*nodes, *grown], "GPU" if share else "CPU")
    prediction = _prediction(packed, measured, at_once, node)
    forecast = {"seconds_per_epoch": prediction.seconds_per_epoch, "price_per_hour": prediction.price_per_hour}
    write_json(results / FORECAST, forecast)
    return describe_preflight(measured, prediction, share, at_once)


def _prediction(plan: Plan, measured: Preflight, at_once: int, node: Mapping[str, Any]) -> Prediction:
    """Return what the study takes, `at_once` trials side by side on nodes like this; the plan has a share of a GPU."""
    share, cpu = float(plan.study.resources.gpu), plan.study.resources.cpu
    has = node["Resources"]
    of_node = max(cpu / has.get("CPU", cpu), 1 / (has.get("GPU", 1) * per_gpu(share)) if share else 0.0)
    return predict_cost(plan, measured, share, at_once, min(1.0, of_node), node_type(node))


def _node(nodes: Iterable[Mapping[str, Any]], resource: str) -> Mapping[str, Any]:
    """Return the first node that has a resource, as ray.nodes() has it; one without a name where all have gone."""
    there = (node for node in nodes if node["Alive"] and node["Resources"].get(resource))
    return next(there, {"Resources": {}})


def measured_cost(plan: Plan, results: Path) -> dict[str, float] | None:
    """Return what an epoch takes, and an hour costs, by an earlier preflight of the same cases: for a dry run.

    Raises ResultsConflict where preflight.json or forecast.json is damaged.
    """
    measured, path = load_preflight(results), results / FORECAST
    if measured is None or measured.cases != tuple(cases(plan.study)) or not path.exists():
        return None
    try:
        return {name: float(value) for name, value in read_json(path).items() if value is not None}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ResultsConflict(f"{path} cannot be read ({error}); remove it, or measure again: --preflight.") from error

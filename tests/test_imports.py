"""The order in which modules may import each other, read from the source."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = [
    {"errors"},
    {"constants", "fields", "files", "parallel", "selection", "signals"},
    {"storage"},
    {"publish"},
    {"config", "rules", "bucket", "unpack"},
    {"catalog", "xyz", "losses", "metrics", "encoders", "prepared", "history", "panels", "configfile", "download"},
    {"pooling", "regions", "outlines", "vectors", "ground"},
    {"device", "precision", "evaluation", "augment", "curves", "steps", "optimizer", "aspp", "hookfree", "pretrained"},
    {"midway", "challenge", "footprints", "rasters", "sample"},
    {"imagereader", "masks", "maskfiles", "folds", "polygons", "windows"},
    {"separation", "check", "score", "symmetries"},
    {"imagearray", "unet", "tiles", "foldsfile"},
    {"splitreport", "prepare", "loader", "modeldir", "figures", "explore"},
    {"trainloop", "checkpoint", "learner"},
    {"tilesheet", "measure", "ensemble"},
    {"findlr", "training", "autobatch", "export"},
    {"predict", "tracking"},
    {"train", "changes"},
    {"commands"},
    {"cli"},
]
"""A module imports from earlier sets only."""
DRIVER_ONLY = {"ray", "optuna", "mlflow", "sweep"}
GEOSPATIAL = {"rasterio", "geopandas", "pyogrio", "pyproj", "shapely", "affine"}
WITHOUT_GEOSPATIAL = ("train", "ensemble", "autobatch", "findlr", "export", "windows", "symmetries", "pooling")


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _modules(package: str) -> dict[str, set[str]]:
    modules: dict[str, set[str]] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        if parts != ("__init__",):
            modules.setdefault(parts[0], set()).update(_imports(path))
    return modules


MODULES = _modules("sn7")


def _own(imports: set[str], package: str = "sn7") -> set[str]:
    return {parts[1] for name in imports if (parts := name.split("."))[0] == package and len(parts) > 1}


def test_every_module_has_its_place() -> None:
    """A new module is added to the order, on purpose."""
    assert set(MODULES) == set().union(*ORDER)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module: str) -> None:
    """From earlier sets only: no circle, no import of the command line by the core."""
    place = next(i for i, names in enumerate(ORDER) if module in names)
    allowed = set().union(*ORDER[:place])
    assert (_own(MODULES[module]) & set(MODULES)) - {module} <= allowed


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_core_knows_nothing_of_the_driver(module: str) -> None:
    """ray, optuna, mlflow and sweep are the driver's."""
    assert not {name.split(".")[0] for name in MODULES[module]} & DRIVER_ONLY


@pytest.mark.parametrize("module", WITHOUT_GEOSPATIAL)
def test_a_gpu_node_needs_no_geospatial_library(module: str) -> None:
    """Training works on arrays; neither it nor what it imports reads a GeoTIFF."""
    seen, todo = set(), {module}
    while todo:
        name = todo.pop()
        seen.add(name)
        assert not {imported.split(".")[0] for imported in MODULES[name]} & GEOSPATIAL, name
        todo |= (_own(MODULES[name]) & set(MODULES)) - seen


def test_the_driver_has_no_circle() -> None:
    """Its modules can be read from the lowest up."""
    modules = _modules("sweep")
    graph = {name: _own(imports, "sweep") & set(modules) - {name} for name, imports in modules.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())[-1] == "run"

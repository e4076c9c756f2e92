"""The order in which modules may import each other, read from the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = [
    {"errors"},
    {"files"},
    {"config"},
    {"catalog", "losses", "metrics", "encoders", "prepared"},
    {"rasters", "sample"},
    {"masks", "folds", "polygons", "windows"},
    {"imagearray", "unet"},
    {"prepare", "loader", "modeldir", "figures"},
    {"trainloop"},
    {"train"},
    {"ensemble"},
    {"predict"},
    {"cli"},
]
"""A module imports from earlier sets only."""
DRIVER_ONLY = {"ray", "optuna", "mlflow", "sweep"}
GEOSPATIAL = {"rasterio", "geopandas", "pyogrio", "pyproj", "shapely", "affine"}
WITHOUT_GEOSPATIAL = ("prepared", "folds", "loader", "unet", "modeldir", "train", "trainloop", "ensemble", "windows")


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _modules() -> dict[str, set[str]]:
    modules: dict[str, set[str]] = {}
    for path in sorted((ROOT / "sn7").rglob("*.py")):
        parts = path.relative_to(ROOT / "sn7").with_suffix("").parts
        if parts != ("__init__",):
            modules.setdefault(parts[0], set()).update(_imports(path))
    return modules


MODULES = _modules()


def _own(imports: set[str]) -> set[str]:
    return {parts[1] for name in imports if (parts := name.split("."))[0] == "sn7" and len(parts) > 1}


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

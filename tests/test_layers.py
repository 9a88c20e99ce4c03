"""How the code is laid out: who may import whom, how long things are, and what is never written."""

import ast
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    ("errors",),
    ("files",),
    ("arrays",),
    ("silence",),
    ("randomness",),
    ("config",),
    ("tensor_files",),
    ("skeletons",),
    ("surface_points",),
    ("types",),
    ("camera",),
    ("translation",),
    ("weak_perspective",),
    ("photo",),
    ("keypoints",),
    ("inert_pickle",),
    ("smpl_pickle",),
    ("joint_regressors",),
    ("body_file",),
    ("kinematics",),
    ("folding",),
    ("assets",),
    ("prior_files",),
    ("body",),
    ("part_masks",),
    ("skin_points",),
    ("part_alignment",),
    ("losses",),
    ("metrics",),
    ("rasterize",),
    ("shading",),
    ("render",),
    ("sheet",),
    ("pose_files",),
    ("sample",),
    ("score",),
    ("export",),
    ("keypoint_entries",),
    ("keypoint_archive",),
    ("keypoint_files",),
    ("blazepose",),
    ("detect",),
    ("objective",),
    ("minimize",),
    ("data", "data.*"),
    ("data.synthetic", "data.synthetic.*"),
    ("models", "models.*"),
    ("export_onnx",),
    ("branches", "branches.*"),
    ("branches.registry",),
    ("result",),
    ("skeleton_plot",),
    ("skeleton_page",),
    ("recover_report",),
    ("recover",),
    ("lift_inputs",),
    ("lift_result",),
    ("lift",),
    ("evaluation",),
    ("baselines",),
    ("lift_evaluation",),
    ("estimators",),
    ("record_evaluation",),
    ("record_report",),
    ("record_page",),
    ("evaluation_report",),
    ("evaluation_plots",),
    ("evaluate_records",),
    ("evaluate",),
    ("synthetic_sheet",),
    ("synthetic_folders",),
    ("synthesize",),
    ("viewer",),
    ("comparison", "comparison.*"),
    ("compare",),
    ("train", "train.*"),
    ("cli",),
    ("__main__",),
)
"""From the ground up: a module imports from the rows above its own only, and within a package (`*`) from siblings."""

PRIORS_MAY_IMPORT = {"numpy", "torch", "roma", "normflows", "jaxtyping", "priors"}
DISTRIBUTIONS = {
    "cv2": "opencv-contrib-python",
    "warp": "warp-lang",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "pydantic_core": "pydantic",
}
"""Packages that are installed under another name than they are imported by."""
HEAVY = {"torch", "numpy", "cv2", "warp", "tyro", "rich"}
LONGEST_FUNCTION = 80
LONGEST_FILE = 400


def _files(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _module(path: Path) -> str:
    """`meshrec/data/crop.py` is meshrec.data.crop; a package is its `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, tree: ast.AST | None = None) -> set[str]:
    """Every module that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(tree or _tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if _is_module(full) else node.module)
    return found


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _row(module: str) -> int | None:
    """The row of the table where a module of meshrec stands: by its own name first, then by its package."""
    name = module.removeprefix("meshrec.")
    for pattern in (name, f"{name.rpartition('.')[0]}.*"):
        for row, names in enumerate(LAYERS):
            if pattern in names:
                return row
    return None


def _where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def _offenders(path: Path, offends) -> list[str]:
    return [_where(path, node) for node in ast.walk(_tree(path)) if offends(node)]


def test_every_module_of_meshrec_has_a_place_in_the_table():
    homeless = [
        str(path.relative_to(ROOT))
        for path in _files("meshrec")
        if _module(path) != "meshrec" and _row(_module(path)) is None
    ]
    assert not homeless, f"{homeless} stand in no row of LAYERS: add each below everything that it imports"


def test_modules_import_only_from_the_rows_above():
    wrong = []
    for path in _files("meshrec"):
        module = _module(path)
        for imported in _imports(path):
            if not imported.startswith("meshrec.") or module == "meshrec":
                continue
            here, there = _row(module), _row(imported)
            siblings = here == there and here is not None and len(LAYERS[here]) > 1
            if here is not None and (there is None or there > here or (there == here and not siblings)):
                wrong.append(f"{path.relative_to(ROOT)} imports {imported}, which does not stand above it in LAYERS")
    assert not wrong, "\n".join(wrong)


def test_the_package_itself_imports_nothing():
    assert _imports(ROOT / "meshrec" / "__init__.py") == set()


def test_there_are_no_import_cycles():
    graph = {_module(path): _imports(path) for path in _files("meshrec", "priors")}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import cycle: {' -> '.join([*trail[trail.index(module) :], module])}"
        if module in done:
            return
        for imported in graph[module] & graph.keys():
            visit(imported, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_priors_are_probability_alone():
    wrong = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in _files("priors")
        for imported in _imports(path)
        if imported.partition(".")[0] not in PRIORS_MAY_IMPORT | sys.stdlib_module_names
    ]
    assert not wrong, wrong


def test_nothing_imports_tools():
    wrong = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in _files("meshrec", "priors")
        for imported in _imports(path)
        if imported.partition(".")[0] in {"tools", "tests"}
    ]
    assert not wrong, wrong


def test_third_parties_are_declared():
    """What a module imports at its top is a core dependency or an extra that a user can ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name, lines in extras.items() if name != "dev" for line in lines)]
    declared = {_distribution(line) for line in wanted}
    undeclared = {
        f"{path.relative_to(ROOT)} imports {package}"
        for path in _files("meshrec", "priors")
        for package in {imported.partition(".")[0] for imported in _imports(path, _top(path))}
        if package not in {"meshrec", "priors"} | sys.stdlib_module_names
        and DISTRIBUTIONS.get(package, package).lower().replace("_", "-") not in declared
    }
    assert not undeclared, f"{sorted(undeclared)}: declare it in pyproject.toml, or in DISTRIBUTIONS its other name"


def _distribution(requirement: str) -> str:
    """`torch>=2.6` asks for torch."""
    name = requirement
    for mark in "<>=!~; [":
        name = name.partition(mark)[0]
    return name.lower().replace("_", "-")


def _top(path: Path) -> ast.Module:
    """The statements at the top of a file, without those inside functions and classes."""
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return ast.Module([node for node in _tree(path).body if not isinstance(node, inner)], [])


@pytest.mark.skipif(not (ROOT / "meshrec" / "cli.py").is_file(), reason="there is no command line yet")
def test_the_command_line_starts_light():
    report = f"import sys, meshrec.cli; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", report], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [], "meshrec.cli imports them before any verb has run"


NEVER = {
    "a relative import": lambda node: isinstance(node, ast.ImportFrom) and node.level > 0,
    "a star import": lambda node: isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names),
    "`from __future__ import annotations`": lambda node: (
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and any(a.name == "annotations" for a in node.names)
    ),
    "print": lambda node: isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print",
    "eval or exec": lambda node: (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}
    ),
    "a bare except": lambda node: isinstance(node, ast.ExceptHandler) and node.type is None,
    "an edit of sys.path": lambda node: (
        isinstance(node, ast.Attribute)
        and node.attr == "path"
        and isinstance(node.value, ast.Name)
        and node.value.id == "sys"
    ),
    f"a function over {LONGEST_FUNCTION} lines": lambda node: (
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION
    ),
}


@pytest.mark.parametrize("what", NEVER)
def test_the_library_has_never(what):
    found = [where for path in _files("meshrec", "priors") for where in _offenders(path, NEVER[what])]
    assert not found, f"{what} stands in {found}"


def test_files_are_short():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in _files("meshrec", "priors")}
    long = {name: length for name, length in lengths.items() if length > LONGEST_FILE}
    assert not long, f"over {LONGEST_FILE} lines: {long}"

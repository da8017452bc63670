"""The floors of the house: imports go down only, and some modules never import jax, TensorFlow or PyTorch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ecgclip_jax"

FLOORS = {
    "spec": 0, "contracts": 0,
    "signal": 1, "text": 1, "models": 1, "objectives": 1, "metrics": 1,
    "parallel": 2, "data": 2, "checkpoints": 2, "tracking": 2,
    "training": 3,
    "inference": 4, "evaluation": 4, "explain": 4, "interop": 4,
    "reporting": 5, "serving": 6, "cli": 7,
}  # fmt: skip
JAX_FREE = ("spec", "text", "data/sources.py", "signal/leads.py", "signal/record.py", "signal/readers.py",
            "signal/wfdb_fast.py", "signal/storage.py", "signal/quality.py", "signal/synthesis",
            "signal/hospitals")  # fmt: skip


def imported_modules(path: Path) -> set[str]:
    """Absolute names of everything a file imports, wherever the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def python_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.py"))


def imported_rooms(path: Path) -> set[str]:
    parts = (name.split(".") for name in imported_modules(path))
    return {p[1] for p in parts if p[0] == "ecgclip_jax" and len(p) > 1 and p[1] in FLOORS}


def test_every_module_stands_on_a_floor() -> None:
    rooms = {room_of(p) for p in python_files(PACKAGE)} - {"__init__", "__main__"}
    assert rooms <= set(FLOORS), f"rooms without a floor: {rooms - set(FLOORS)}"


def test_imports_go_down_only() -> None:
    wrong = []
    for path in python_files(PACKAGE):
        room = room_of(path)
        if room in ("__init__", "__main__"):
            continue
        for other in imported_rooms(path) - {room}:
            if FLOORS[other] >= FLOORS[room] and not (room == "contracts" and other == "spec"):
                wrong.append(f"{path.relative_to(ROOT)} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[other]})")
    assert not wrong, "\n".join(wrong)


def test_experiments_import_only_spec() -> None:
    for path in python_files(ROOT / "experiments"):
        own = {n for n in imported_modules(path) if n.startswith(("ecgclip_jax", "tfds_builders"))}
        assert all(n.startswith("ecgclip_jax.spec") for n in own), f"{path.name}: {own}"


def test_builders_import_signal_text_and_spec_only() -> None:
    for path in python_files(ROOT / "tfds_builders"):
        assert imported_rooms(path) <= {"signal", "text", "spec"}, path


def test_only_prepare_imports_builders() -> None:
    users = {
        str(p.relative_to(PACKAGE))
        for p in python_files(PACKAGE)
        if any(n.split(".")[0] == "tfds_builders" for n in imported_modules(p))
    }
    assert users <= {"cli/prepare.py"}


def test_only_checkpoints_imports_orbax() -> None:
    users = {
        str(p.relative_to(PACKAGE))
        for p in python_files(PACKAGE)
        if any(n.startswith("orbax") for n in imported_modules(p))
    }
    assert users <= {"checkpoints.py"}


def test_no_tensorflow_and_no_torch() -> None:
    for folder in (PACKAGE, ROOT / "experiments", ROOT / "tfds_builders"):
        for path in python_files(folder):
            heads = {n.split(".")[0] for n in imported_modules(path)}
            assert not heads & {"tensorflow", "torch"}, path
    for path in python_files(ROOT / "tests"):
        heads = {n.split(".")[0] for n in imported_modules(path)}
        assert "tensorflow" not in heads, path
        assert "torch" not in heads or path.parent.name == "parity", path


def import_without(names: list[str], blocked: tuple[str, ...]) -> None:
    """Imports modules in a fresh interpreter in which the blocked packages are not installed.

    Not by `sys.modules[name] = None`: scipy looks there for arrays of other frameworks.
    """
    code = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in {blocked!r} else find(name, *rest)
"""
    code += "\n".join(f"import {name}" for name in names)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("target", JAX_FREE)
def test_marked_modules_import_with_jax_blocked(target: str) -> None:
    path = PACKAGE / target
    files = python_files(path) if path.is_dir() else [path]
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in files]
    import_without(names, ("jax", "tensorflow", "torch"))


def test_whole_package_imports_without_tensorflow_or_torch() -> None:
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in python_files(PACKAGE)]
    names = [n.removesuffix(".__init__") for n in names if not n.endswith("__main__")]
    import_without(names, ("tensorflow", "torch"))

"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ["finetune", "export", "bench", "kotune"]


def modules() -> list[Path]:
    return [ROOT / "kotune.py"] + [
        path for package in ORDER[:3] for path in sorted((ROOT / package).rglob("*.py"))
    ]


# Storeys of each package, the lowest first: a folder or file imports from its own or lower ones.
STOREYS = {
    "finetune": [
        "core",
        "recipes",
        "tasks.registry",
        "data metrics hardware",
        "models",
        "adapters",
        "loop",
        "run_folder run_records",
        "checks",
        "tasks",
        "training",
        "planning studies doctor",
        "cli __main__",
    ],
    "export": [
        "graph runtime",
        "checks artifact",
        "quantization precisions",
        "tasks",
        "exporting predict transcribe",
        "cli",
    ],
    "bench": [
        "instruments results",
        "statistics",
        "variants",
        "engines",
        "tasks.task tasks.registry",
        "report",
        "settings",
        "rounds",
        "tasks",
        "benchmark",
        "suites training comparing",
        "cli",
    ],
}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def typing_only(tree: ast.AST) -> set[int]:
    """Nodes that stand under ``if TYPE_CHECKING``: no import of a running program."""
    guarded = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {id(inner) for node in guarded for inner in ast.walk(node)}


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """Modules of the house that ``path`` imports, also inside functions."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped, found = typing_only(tree), set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found |= {inner if inner in known else node.module} & known
    return found


def arrows() -> dict[str, set[str]]:
    """module → modules it imports."""
    known = {dotted(path) for path in modules()}
    return {dotted(path): imported_modules(path, known) for path in modules()}


def test_no_module_imports_itself_in_a_circle() -> None:
    TopologicalSorter(arrows()).prepare()  # raises CycleError, which names the circle


def test_every_import_runs_down() -> None:
    wrong = []
    for module, imports in arrows().items():
        for target in imports:
            package, _, _ = module.partition(".")
            if target == "finetune.core.telemetry":  # before everything, of every face
                continue
            if target.partition(".")[0] == package and storey(target) > storey(module):
                wrong.append(f"{module} → {target}")
    assert not wrong, "\n".join(wrong)


def storey(module: str) -> int:
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    floors = STOREYS.get(package, [])
    for name in (rest, room):  # a module may stand on a storey of its own
        for number, rooms in enumerate(floors):
            if name in rooms.split():
                return number
    return len(floors) if room else -1  # a package's own face lies below its rooms


def imported_packages(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    later = set(ORDER[ORDER.index(package) + 1 :])
    assert not imported_packages(path) & later


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_pickled_and_no_remote_code(path: Path) -> None:
    assert not imported_packages(path) & {"pickle", "joblib", "dill", "cloudpickle", "shelve"}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
            assert isinstance(node.value, ast.Constant) and node.value.value is False
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert "weights_only=True" in ast.unparse(node)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_are_small(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


@pytest.mark.parametrize(
    "line",
    [
        "import kotune, sys; kotune.app",
        "import finetune.recipes.text, finetune.recipes.files, sys",
        "import bench.report, bench.report.writing, sys",
        "import export.runtime.classifier, sys",
    ],
)
def test_what_must_be_light_imports_no_torch(line: str) -> None:
    code = f"{line}\nimport sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_help_is_quick_to_ask_for() -> None:
    code = (
        "import sys; sys.argv = ['kotune', '--help']\n"
        "import kotune\n"
        "try: kotune.main()\n"
        "except SystemExit: pass\n"
        "sys.exit(any(n in sys.modules for n in ('torch', 'transformers', 'onnx', 'sklearn')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "finetune" in done.stdout


ASKS_FOR_CODE = ("from_pretrained", "from_config", "pipeline")
NO_REMOTE_CODE = ("PeftModel",)  # knows no such thing


def loading_calls(tree: ast.AST) -> list[ast.Call]:
    """Calls of transformers and Optimum that would ask whether to run a model's own Python."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [(call, ast.unparse(call.func)) for call in calls]
    return [
        call
        for call, name in named
        if name.rpartition(".")[2] in ASKS_FOR_CODE and name.partition(".")[0] not in NO_REMOTE_CODE
    ]


def test_no_model_brings_code_of_its_own() -> None:
    wrong, seen = [], 0
    for path in modules():
        for call in loading_calls(ast.parse(path.read_text("utf-8"))):
            seen += 1
            given = {one.arg: ast.unparse(one.value) for one in call.keywords}
            if given.get("trust_remote_code") != "False":
                wrong.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert not wrong, wrong
    assert seen > 10

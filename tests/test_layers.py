"""The shape of the code: layers, purity, who may import what, sizes, a light import."""

import ast
import dataclasses
import importlib
import inspect
import os
import pathlib
import subprocess
import sys

import pytest

from ddpm_jax.config import command_line, modes

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = "ddpm_jax"
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}

# Imports point to earlier lines only; the names of one line are siblings.
LAYERS = (
    ("core",),
    ("diffusion", "models", "data", "text"),
    ("runtime",),
    ("runs",),
    ("training", "sampling", "metrics", "report", "convert"),
    ("config",),
    ("builders",),
    ("evaluation", "diagnosis", "editing"),
    ("demo",),
    ("modes",),
    ("main", "api"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
SEPARATE = ("modes",)  # packages whose own modules do not import each other either

PURE = ("core", "diffusion")
PURE_STANDARD_LIBRARY = (
    "collections.abc",
    "contextlib",
    "dataclasses",
    "functools",
    "itertools",
    "math",
    "typing",
    "zlib",
)
IMPURE_CALLS = ("open", "print", "input", "eval", "exec", "__import__")
IMPURE_ATTRIBUTES = (
    "np.random",
    "np.load",
    "np.save",
    "np.savez",
    "np.loadtxt",
    "jax.config",
    "jax.debug",
    "jax.device_put",
    "jax.devices",
    "jax.experimental",
    "jax.pure_callback",
)

# Third-party packages that change often or do much, and the only places that know them.
CONFINED = {
    "flax": ("ddpm_jax/models/",),
    "orbax": ("ddpm_jax/runs/checkpoints.py",),
    "ml_collections": ("ddpm_jax/config/",),
    "absl": ("ddpm_jax/config/command_line.py", "ddpm_jax/config/overrides.py"),
    "torch": ("ddpm_jax/convert/",),
    "tensorflow": ("ddpm_jax/convert/",),
    "safetensors": ("ddpm_jax/convert/",),
    "gradio": ("ddpm_jax/demo/", "ddpm_jax/modes/demo.py"),
    "fastapi": ("ddpm_jax/demo/",),
    "uvicorn": ("ddpm_jax/demo/",),
}
# Keys and draws are made where flags of JAX change no number of them.
DRAWING = "ddpm_jax/core/keys.py"
DRAWS_NOTHING = ("jax.random.fold_in", "jax.random.key_data")
UNWANTED = ("tensorflow", "torch")  # at import, wherever

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
STORIES = {
    "ddpm_jax/config/__init__.py:base",  # the schema: one statement a field
    "ddpm_jax/modes/train.py:run",  # a training run from top to bottom
    "ddpm_jax/training/loop.py:run",  # the loop in its one right order
}


# ---- the checker: each rule returns the sentences that say what breaks it ------------


def imported(source):
    """Return the dotted names that a module imports, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def unit(dotted):
    """Return the layer's name for "ddpm_jax.core.errors" and the like, or None."""
    root, _, rest = dotted.partition(".")
    return rest.partition(".")[0] if root == PACKAGE else None


def dotted_name(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def layer_faults(path, source):
    own = unit(dotted_name(path))
    if not own:  # ddpm_jax/__init__.py
        lazily = f"{PACKAGE}.api"
        return [f"{path} imports {n}" for n in imported(source) if n != lazily]
    faults = []
    for name in imported(source):
        other = unit(name)
        if not other or name == f"{PACKAGE}.__version__":
            continue
        if other not in RANK:
            faults.append(f"{path} imports {name}, which belongs to no layer")
        elif other == own and own in SEPARATE:
            faults.append(f"{path} imports {name}: {own} do not import each other")
        elif other != own and RANK[other] >= RANK[own]:
            faults.append(f"{path} imports {name} from above or beside")
    return faults


def purity_faults(path, source):
    own = unit(dotted_name(path))
    allowed = ("jax", "numpy", *PURE_STANDARD_LIBRARY)
    allowed += tuple(f"{PACKAGE}.{name}" for name in {own, "core"})
    faults = [
        f"{path} imports {name}"
        for name in imported(source)
        if not any(name == good or name.startswith(f"{good}.") for good in allowed)
    ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in IMPURE_CALLS:
            faults.append(f"{path}:{node.lineno} calls {node.func.id}")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in IMPURE_ATTRIBUTES:
            faults.append(f"{path}:{node.lineno} uses {ast.unparse(node)}")
        if isinstance(node, ast.Global | ast.Nonlocal):
            faults.append(f"{path}:{node.lineno} changes an outer variable")
    return faults


def confinement_faults(path, source):
    faults = []
    for name in imported(source):
        top = name.partition(".")[0]
        if not path.startswith(CONFINED.get(top, PACKAGE)):
            faults.append(f"{path} imports {name}")
    return faults


def drawing_faults(path, source):
    used = {
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
    }
    used |= set(imported(source))
    return [
        f"{path} uses {name}"
        for name in sorted(used)
        if name.startswith("jax.random.") and name not in DRAWS_NOTHING
        if path != DRAWING
    ]


def size_faults(path, source):
    faults = []
    lines = source.splitlines()
    if len(lines) > MAX_FILE_LINES:
        faults.append(f"{path} has {len(lines)} lines")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and f"{path}:{node.name}" not in STORIES:
            count = code_lines(node, lines)
            if count > MAX_FUNCTION_LINES:
                faults.append(f"{path}:{node.name} has {count} lines of code")
    return faults


def code_lines(function, lines):
    """Return the lines of a function's body but docstring, comments and blanks."""
    body = function.body
    documented = ast.get_docstring(function) is not None
    docstring = (
        range(body[0].lineno, body[0].end_lineno + 1) if documented else range(0)
    )
    return sum(
        number not in docstring
        and bool(lines[number - 1].strip())
        and not lines[number - 1].lstrip().startswith("#")
        for number in range(body[0].lineno, function.end_lineno + 1)
    )


# ---- the package ---------------------------------------------------------------------


def faults_of(rule, only=()):
    """Return the faults of the whole package, or of some of its subpackages."""
    return [
        fault
        for path, source in SOURCES.items()
        if not only or unit(dotted_name(path)) in only
        for fault in rule(path, source)
    ]


def test_imports_point_down():
    assert faults_of(layer_faults) == []


def test_every_layer_is_there():
    assert {unit(dotted_name(path)) for path in SOURCES} - {""} == set(RANK)


def test_mathematics_is_pure():
    assert faults_of(purity_faults, only=PURE) == []


def test_changing_libraries_stay_in_their_places():
    assert faults_of(confinement_faults) == []


def test_one_module_draws():
    assert faults_of(drawing_faults) == []


def test_files_and_functions_are_small():
    assert faults_of(size_faults) == []


def test_the_table_knows_every_mode():
    named = {f"ddpm_jax.modes.{name}" for name in modes.MODES}
    modules = {dotted_name(p) for p in SOURCES if p.startswith("ddpm_jax/modes/")}
    assert named == modules - {"ddpm_jax.modes"}


@pytest.mark.parametrize("mode", modes.TABLE, ids=lambda mode: mode.name)
def test_a_record_passes_what_run_takes(mode):
    module = importlib.import_module(f"ddpm_jax.modes.{mode.name}")
    inspect.signature(module.run).bind(*mode.passes)
    known = {field.name for field in dataclasses.fields(command_line.Command)}
    assert set(mode.passes) <= known | {f.name for f in mode.flags} | {mode.arguments}
    # Prompts become sampling.prompts before the mode is run.
    own = {flag.name for flag in mode.flags if flag not in modes.PROMPTS}
    assert own <= set(mode.passes)


def test_no_mode_is_imported_before_the_command_line_is_understood():
    source = SOURCES["ddpm_jax/main.py"]
    assert not any(name.startswith("ddpm_jax.modes") for name in imported(source))
    program = "import sys, ddpm_jax.main; print('jax' in sys.modules)"
    shown = subprocess.check_output(
        [sys.executable, "-c", program], cwd=ROOT, text=True
    )
    assert shown == "False\n"


# ---- importing is free of devices and of heavy libraries -----------------------------

# Stand-ins note when they are executed, so that the test says something on machines
# without the real ones. A platform that does not exist fails at the first use of JAX.
LIGHT_IMPORT = """
import importlib, importlib.abc, importlib.machinery, sys

class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    executed = []
    def find_spec(self, name, path=None, target=None):
        if name in {unwanted!r}:
            return importlib.machinery.ModuleSpec(name, self)
    def exec_module(self, module):
        self.executed.append(module.__name__)

sys.meta_path.insert(0, StandIns())
for name in sys.argv[1:]:
    importlib.import_module(name)
print("imported", StandIns.executed)
import jax
try:
    jax.devices()
except RuntimeError:
    print("no backend")
"""


def import_lightly(*names, extra=""):
    program = LIGHT_IMPORT.format(unwanted=UNWANTED) + extra
    return subprocess.run(
        [sys.executable, "-c", program, *names],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "no_such_platform"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_touches_no_device_and_no_other_framework():
    names = [dotted_name(path) for path in SOURCES]
    result = import_lightly(*names)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["imported []", "no backend"]


def test_the_light_import_test_can_fail(tmp_path, monkeypatch):
    (tmp_path / "heavy.py").write_text("import torch")
    (tmp_path / "eager.py").write_text("import jax.numpy as jnp; ONE = jnp.ones(())")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "imported ['torch']" in import_lightly("heavy").stdout
    assert "no_such_platform" in import_lightly("eager").stderr


# ---- every rule can fail -------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ddpm_jax/core/new.py", "from ddpm_jax.diffusion import process"),
        ("ddpm_jax/core/new.py", "def f():\n    import ddpm_jax.data.order"),
        ("ddpm_jax/data/new.py", "from ddpm_jax.models import unet"),
        ("ddpm_jax/diffusion/new.py", "from ddpm_jax.runtime import sharding"),
        ("ddpm_jax/metrics/new.py", "from ddpm_jax.training import ema"),
        ("ddpm_jax/sampling/new.py", "from ddpm_jax import config"),
        ("ddpm_jax/runs/new.py", "from ddpm_jax.sampling import archive"),
        ("ddpm_jax/builders/new.py", "from ddpm_jax.evaluation import cards as other"),
        ("ddpm_jax/modes/new.py", "from ddpm_jax.modes import train"),
        ("ddpm_jax/modes/new.py", "import ddpm_jax.main"),
        ("ddpm_jax/runtime/new.py", "from ddpm_jax.helpers import x"),
        ("ddpm_jax/__init__.py", "from ddpm_jax import main"),
    ],
)
def test_an_import_that_points_up_is_found(path, source):
    assert len(layer_faults(path, source)) == 1


def test_imports_that_point_down_are_not_found():
    source = "import ddpm_jax\nimport jax\nfrom ddpm_jax.core.types import Network"
    assert layer_faults("ddpm_jax/runtime/new.py", source) == []
    source = "from ddpm_jax.training import ema, step\nfrom ddpm_jax import builders"
    assert layer_faults("ddpm_jax/modes/new.py", source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import random",
        "from time import perf_counter",
        "import pathlib",
        "from ddpm_jax import config",
        "from ddpm_jax.models import unet",
        "import jaxtyping",
        "def f():\n    open('x')",
        "print(1)",
        "import numpy as np\nnp.random.default_rng(0)",
        "import jax\njax.debug.print('x')",
        "N = 0\ndef f():\n    global N\n    N = 1",
    ],
)
def test_impurity_is_found(source):
    assert purity_faults("ddpm_jax/diffusion/new.py", source)


def test_purity_is_not_found():
    source = "import jax.numpy as jnp\nfrom collections.abc import Callable\n"
    source += "from ddpm_jax.core import keys\nfrom ddpm_jax.diffusion import process"
    assert purity_faults("ddpm_jax/diffusion/new.py", source) == []
    assert purity_faults("ddpm_jax/core/new.py", source)  # nothing above core


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ddpm_jax/training/step.py", "from flax import nnx"),
        ("ddpm_jax/runs/directory.py", "import orbax.checkpoint"),
        ("ddpm_jax/builders/new.py", "from ml_collections import config_dict"),
        ("ddpm_jax/config/__init__.py", "from absl import flags"),
        ("ddpm_jax/data/sources.py", "def f():\n    import tensorflow as tf"),
    ],
)
def test_a_library_out_of_place_is_found(path, source):
    assert len(confinement_faults(path, source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import jax\nkey = jax.random.key(0)",
        "import jax\njax.random.normal(key, ())",
        "from jax.random import normal",
    ],
)
def test_a_draw_elsewhere_is_found(source):
    assert len(drawing_faults("ddpm_jax/models/new.py", source)) == 1
    assert drawing_faults(DRAWING, source) == []


def test_size_is_found():
    lines = "    x = 1\n" * 61
    assert size_faults("a.py", f"def f():\n{lines}") == ["a.py:f has 61 lines of code"]
    comments = "    # why\n\n" * 60 + '    """One."""\n    return 1\n'
    assert size_faults("a.py", f"def f():\n{comments}") == []
    text = '    """One.\n' + "    two\n" * 80 + '    """\n    return 1\n'
    assert size_faults("a.py", f"def f():\n{text}") == []
    assert size_faults("a.py", "x = 1\n" * 401) == ["a.py has 401 lines"]


def test_every_story_is_there():
    for story in STORIES:
        path, _, name = story.partition(":")
        tree = ast.parse(SOURCES[path])
        functions = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
        assert name in functions

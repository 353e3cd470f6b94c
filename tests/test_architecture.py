"""Components import only from those below (docs/architecture.md), and tensorflow stays in the pipeline."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parent.parent
GROUND = ("config", "command_line", "cluster", "files", "rng", "batch", "progress")
COMPONENTS = (
    *("ops", "contrastive", "models", "weights", "augment", "methods", "training", "evaluation"),
    *(
        "visualization",
        "artifact",
        "inference",
        "flow_networks",
        "init_from",
        "preflight",
        "experiment",
        "predict",
        "search",
        "compute_flow",
    ),
)
ORDER = {f"hcml_jax.{component}": rank for rank, component in enumerate((*GROUND, *COMPONENTS))}
ORDER |= {"hcml_jax": len(ORDER), "data_pipelines": len(GROUND), "configs": len(ORDER)}


COMMANDS = ("data_pipelines.browse",)  # import from any component
ORDER |= dict.fromkeys(COMMANDS, len(ORDER))


def component(module):
    parts = module.split(".")
    if module in COMMANDS:
        return module
    return parts[0] if parts[0] != "hcml_jax" else ".".join(parts[:2])


def imports(path):
    """Modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from inner if node.module == "hcml_jax" else [node.module]


def files():
    for top in ("hcml_jax", "data_pipelines"):
        yield from (ROOT / top).rglob("*.py")


def test_no_component_imports_from_above():
    seen = 0
    for path in files():
        own = component(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        for module in imports(path):
            other = component(module)
            if other != own and other in ORDER and own != "hcml_jax":
                seen += 1
                assert ORDER[other] < ORDER[own], f"{path.relative_to(ROOT)} imports {module}"
    assert seen > 100


def test_tensorflow_is_imported_in_one_file():
    found = [path.name for path in files() if "tensorflow" in set(imports(path))]
    assert found == ["loader.py"]

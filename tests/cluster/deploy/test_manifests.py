"""Files for images, Kubernetes and schedulers name what is there, and fit what reads them."""

import json
import re
import shlex
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "cluster" / "deploy"
RAYJOB = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())
GROUPS = [RAYJOB["spec"]["rayClusterSpec"]["headGroupSpec"], *RAYJOB["spec"]["rayClusterSpec"]["workerGroupSpecs"]]


def closed(schema: Any) -> Any:
    """Kubernetes drops unknown keys in silence; here they are mistakes."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    done = {key: closed(value) for key, value in schema.items()}
    is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not is_open:
        done["additionalProperties"] = False
    return done


@pytest.fixture(scope="module")
def kuberay() -> jsonschema.Draft202012Validator:
    """KubeRay's own schema, see "$comment" in the file."""
    schema = closed(json.loads(Path(__file__).with_name("kuberay_rayjob_schema.json").read_text()))
    schema["properties"]["metadata"] = {"type": "object"}  # the API server's
    return jsonschema.Draft202012Validator(schema)


def test_the_rayjob_fits_the_schema_of_kuberay(kuberay: jsonschema.Draft202012Validator) -> None:
    assert not [f"{error.json_path}: {error.message}" for error in kuberay.iter_errors(RAYJOB)]


@pytest.mark.parametrize(
    ("path", "value"),
    [("spec.backoffLimits", 3), ("spec.backoffLimit", "3"), ("spec.rayClusterSpec.headGroupSpec.template.spec.x", 1)],
)
def test_the_schema_refuses(kuberay: jsonschema.Draft202012Validator, path: str, value: Any) -> None:
    changed = json.loads(json.dumps(RAYJOB))
    *parents, last = path.split(".")
    place = changed
    for key in parents:
        place = place[key]
    place[last] = value
    assert not kuberay.is_valid(changed)


def test_the_rayjob_continues_and_saves() -> None:
    spec = RAYJOB["spec"]
    words = shlex.split(spec["entrypoint"])
    assert words[:4] == ["python", "-m", "trainer", "train"]
    assert words[-1] == "--resume-or-start"
    assert '"--resume-or-start"' in (ROOT / "trainer" / "commands" / "train.py").read_text()
    assert spec["backoffLimit"] > 0
    assert spec["rayClusterSpec"]["rayVersion"] == version("ray")
    worker = GROUPS[1]["template"]["spec"]
    *command, seconds = worker["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["python", "-m", "cluster.leaving", "--seconds"]
    assert (ROOT / "cluster" / "leaving.py").exists()
    assert float(seconds) < worker["terminationGracePeriodSeconds"]
    folder = Path(words[4]).parent
    for group in GROUPS:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert set(mounts.values()) <= volumes
        assert str(folder) in mounts  # where the config and the run are


def test_the_head_notices_lost_hosts_as_soon_everywhere() -> None:
    in_manifest = {one["name"]: one["value"] for one in GROUPS[0]["template"]["spec"]["containers"][0]["env"]}
    script = (DEPLOY / "start_host.sh").read_text()
    assert in_manifest == dict(re.findall(r"(RAY_health_check_\w+)=(\d+)", script))


def instructions() -> list[tuple[str, str]]:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line and line[0] != "#")]


def test_the_image_installs_as_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text()
    installs = [rest for word, rest in instructions() if word == "RUN" and "-e " in rest]
    assert len(installs) == 2
    for command in installs:
        assert command in readme, command
    torch = next(rest for word, rest in instructions() if word == "RUN" and "torch==" in rest)
    assert f"torch=={version('torch').partition('+')[0]} " in torch


def test_the_image_has_all_that_it_copies_and_no_more() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for word, rest in instructions():
        if word == "COPY":
            *sources, _ = [part for part in rest.split() if not part.startswith("--")]
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source == "." or Path(source).parts[0] in kept, source
    packages = {plate.parent.name for plate in ROOT.glob("*/__init__.py")}
    assert packages <= kept
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()  # all else stays outside


def test_the_image_runs_as_nobody_special() -> None:
    words = [word for word, _ in instructions()]
    assert "USER" in words
    assert words.index("USER") < words.index("WORKDIR")
    assert dict(instructions())["USER"] not in ("root", "0")
    stages = [rest.split(" AS ")[1] for word, rest in instructions() if word == "FROM"]
    assert stages == ["base", "cpu", "gpu"]


@pytest.mark.parametrize("script", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_well_formed(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)
    for module in re.findall(r"python -m ([\w.]+)", script.read_text()):
        assert list(ROOT.glob(module.replace(".", "/") + "*")), module


def test_a_runtime_environment_installs_the_same() -> None:
    """As `pip install -c constraints.txt -e ".[train]" ./embeddings/fbgemm_cpu`, from the copy of the folder."""
    packages = yaml.safe_load((DEPLOY / "runtime_env.yaml").read_text())["pip"]["packages"]
    copy = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
    assert packages == [
        f"-c {copy}/constraints.txt",
        f"{copy}/embeddings/fbgemm_cpu",
        f"multigate[train] @ file://{copy}",
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "multigate"
    assert "train" in project["optional-dependencies"]

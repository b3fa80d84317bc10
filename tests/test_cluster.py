"""The manifests of cluster/ are valid for Kubernetes and KubeRay, and the jobs accept their command lines."""

from __future__ import annotations

import gzip
import importlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from jsonschema import Draft202012Validator
from typer.exceptions import TyperException

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
CRDS = ROOT.parent / "shared" / "kuberay-crds"
MANIFESTS = sorted(CLUSTER.glob("*.yaml"))
WITHOUT_PODS = {"NetworkPolicy", "PodDisruptionBudget", "PrometheusRule"}
RAY_MANIFESTS = [path for path in MANIFESTS if path.name.startswith("ray")]


def load(path: Path) -> dict[str, Any]:
    manifest = yaml.safe_load(path.read_text())
    assert isinstance(manifest, dict)
    return manifest


@cache
def crd_schema(kind: str) -> dict[str, Any]:
    """The OpenAPI schema of a KubeRay kind, made strict, because Kubernetes drops unknown fields without a message."""
    path = CRDS / f"ray.io_{kind.lower()}s.yaml.gz"
    if not path.exists():
        pytest.skip(
            "KubeRay's CRD schemas are not on this machine (expected ../shared/kuberay-crds beside the project)"
        )
    text = gzip.decompress(path.read_bytes())
    versions = yaml.load(text, Loader=yaml.CSafeLoader)["spec"]["versions"]  # seconds faster than the plain loader
    schema = next(version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1")
    make_strict(schema)
    return schema


def make_strict(schema: Any) -> None:
    if isinstance(schema, list):
        for item in schema:
            make_strict(item)
    if isinstance(schema, dict):
        open_ended = {"additionalProperties", "x-kubernetes-preserve-unknown-fields"} & schema.keys()
        if schema.get("type") == "object" and "properties" in schema and not open_ended:
            schema["additionalProperties"] = False
        for item in list(schema.values()):
            make_strict(item)


def errors(schema: dict[str, Any], value: Any) -> list[str]:
    found = Draft202012Validator(schema).iter_errors(value)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def pods(manifest: Any) -> Iterator[dict[str, Any]]:
    """Every pod's specification in a manifest."""
    if isinstance(manifest, list):
        for item in manifest:
            yield from pods(item)
    if isinstance(manifest, dict):
        if "containers" in manifest:
            yield manifest
        for item in manifest.values():
            yield from pods(item)


def commands() -> dict[str, list[str]]:
    """Manifest -> the command line it runs on the cluster."""
    found = {}
    for path in MANIFESTS:
        manifest = load(path)
        if manifest["kind"] == "RayJob":
            found[path.name] = shlex.split(manifest["spec"]["entrypoint"])
        elif path.name == "cronjob-nightly.yaml":
            found[path.name] = next(pods(manifest))["containers"][0]["args"]
    return found


@pytest.mark.parametrize("path", RAY_MANIFESTS, ids=lambda path: path.name)
def test_manifests_match_kuberays_schemas(path: Path) -> None:
    manifest = load(path)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert errors(crd_schema(manifest["kind"]), manifest) == []


def test_the_check_finds_an_unknown_field_and_a_wrong_type() -> None:
    schema = crd_schema("RayJob")
    manifest = load(CLUSTER / "rayjob-screen.yaml")
    manifest["spec"]["activeDeadlineSecond"] = 5
    manifest["spec"]["activeDeadlineSeconds"] = "5"
    assert len(errors(schema, manifest)) == 2


def test_the_nightly_pod_matches_kubernetes_schema_and_never_runs_twice_at_a_time() -> None:
    job = load(CLUSTER / "cronjob-nightly.yaml")["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    assert job["jobTemplate"]["spec"]["activeDeadlineSeconds"] > 0
    # KubeRay's schema contains Kubernetes' whole pod template.
    cluster = crd_schema("RayCluster")["properties"]["spec"]["properties"]
    template = cluster["headGroupSpec"]["properties"]["template"]
    assert errors(template, job["jobTemplate"]["spec"]["template"]) == []


@pytest.mark.parametrize(("name", "command"), commands().items())
def test_jobs_accept_the_arguments_of_the_manifests(name: str, command: list[str]) -> None:
    python, script, *arguments = command
    assert python == "python"
    assert (ROOT / script.removeprefix("/app/")).is_file()
    assert "COPY jobs /app/jobs" in (CLUSTER / "Dockerfile").read_text()
    job = typer.main.get_command(importlib.import_module(f"jobs.{Path(script).stem}").app)
    job.make_context(script, [*arguments])  # parses, does not run
    with pytest.raises(TyperException, match="No such option"):
        job.make_context(script, [*arguments, "--no-such-argument"])


def test_every_job_has_a_manifest() -> None:
    one_machine = {"coldstart"}  # it keeps what it makes in a local folder
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__"} - one_machine
    assert {Path(command[1]).stem for command in commands().values()} == jobs


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_pod_is_bounded_and_unprivileged(path: Path) -> None:
    manifest = load(path)
    found = list(pods(manifest))
    assert bool(found) is (manifest["kind"] not in WITHOUT_PODS)
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        for container in pod["containers"]:
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_no_ray_container_sends_usage_statistics() -> None:
    for pod in pods(load(CLUSTER / "raycluster.yaml")):
        for container in pod["containers"]:
            assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]


def test_the_hourly_pod_asks_for_the_status_and_matches_kubernetes_schema() -> None:
    job = load(CLUSTER / "cronjob-status.yaml")["spec"]
    cluster = crd_schema("RayCluster")["properties"]["spec"]["properties"]
    template = job["jobTemplate"]["spec"]["template"]
    assert errors(cluster["headGroupSpec"]["properties"]["template"], template) == []
    program, *arguments = template["spec"]["containers"][0]["command"]
    assert program == "spinemet"
    command = typer.main.get_command(importlib.import_module("spinemet.cli").app)
    name, status, arguments = command.resolve_command(command.make_context("spinemet", arguments), arguments)
    assert name == "status"
    status.make_context(name, arguments)


def test_only_ray_and_those_who_submit_reach_the_cluster() -> None:
    policy = load(CLUSTER / "networkpolicy.yaml")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    ports = [{port["port"] for port in rule.get("ports", [])} for rule in policy["ingress"]]
    assert ports == [set(), {8265}, {8265}, {8080}]
    assert policy["podSelector"] == policy["ingress"][0]["from"][0]["podSelector"]
    assert policy["podSelector"]["matchLabels"] == {
        "ray.io/cluster": load(CLUSTER / "raycluster.yaml")["metadata"]["name"]
    }


def test_every_alert_is_explained_and_asks_for_series_that_exist() -> None:
    readme = (CLUSTER / "README.md").read_text()
    rules = [rule for group in load(CLUSTER / "alerts.yaml")["spec"]["groups"] for rule in group["rules"]]
    assert rules
    for rule in rules:
        assert f"| `{rule['alert']}` |" in readme
        for series in re.findall(r"ray_spinemet_\w+", rule["expr"]):
            assert f"`{series}`" in readme


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze")
def test_the_systemd_units_are_valid(tmp_path: Path) -> None:
    for unit in (CLUSTER / "elsewhere").glob("spinemet-nightly.*"):
        # The program and the user are not on this machine.
        text = (
            unit.read_text()
            .replace("/opt/spinemet/.venv/bin/python", "/bin/true")
            .replace("User=spinemet", "User=root")
        )
        (tmp_path / unit.name).write_text(text)
    units = sorted(tmp_path.iterdir())
    assert [unit.suffix for unit in units] == [".service", ".timer"]
    checked = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    said = [line for line in checked.stderr.splitlines() if "spinemet-nightly" in line]
    assert (checked.returncode, said) == (0, [])


def test_the_jobs_accept_the_arguments_of_the_units_and_of_the_slurm_script() -> None:
    for name in ("spinemet-nightly.service", "slurm.sh"):
        file = CLUSTER / "elsewhere" / name
        found = re.search(r"jobs/screen\.py ([^\n&]*)", file.read_text().replace("\\\n", " "))
        assert found
        job = typer.main.get_command(importlib.import_module("jobs.screen").app)
        job.make_context("screen", shlex.split(found[1]))
    assert subprocess.run(["bash", "-n", str(CLUSTER / "elsewhere" / "slurm.sh")], check=False).returncode == 0


def test_the_cluster_is_authenticated_and_scales_to_zero() -> None:
    spec = load(CLUSTER / "raycluster.yaml")["spec"]
    assert spec["authOptions"]["mode"] == "token"
    assert spec["enableInTreeAutoscaling"] is True
    assert [group["minReplicas"] for group in spec["workerGroupSpecs"]] == [0, 0]
    gpu = next(group for group in spec["workerGroupSpecs"] if group["groupName"] == "gpu")
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_cluster_runs_the_ray_that_the_package_needs() -> None:
    least = re.search(r'"ray\[.*\]>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert least
    version = load(CLUSTER / "raycluster.yaml")["spec"]["rayVersion"]
    assert tuple(map(int, version.split("."))) >= tuple(map(int, least[1].split(".")))


def test_the_readme_names_every_secret_and_no_manifest_holds_a_value() -> None:
    readme = (CLUSTER / "README.md").read_text()
    for path in MANIFESTS:
        text = path.read_text()
        for name in re.findall(r"secret(?:Name|KeyRef|Ref): (?:\{name: )?([\w-]+)", text):
            assert f"create secret generic {name} " in readme
        assert not re.search(r"AWS_SECRET_ACCESS_KEY|SPINEMET_PSEUDONYM_KEY, value", text)


def test_the_dockerfile_copies_existing_files_and_does_not_run_as_root() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    sources = [name for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for name in line.split()[:-1]]
    assert {"spinemet", "jobs", "pyproject.toml"} <= {name.removeprefix("./") for name in sources}
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text()
    for name in sources:
        assert (ROOT / name).exists()
        assert f"!{name.removeprefix('./')}" in ignored
    assert re.search(r"^USER 10001$", text, re.MULTILINE)
    # What changes often comes after the dependencies: a new README does not install torch again.
    assert text.index("-r pyproject.toml") < text.index("COPY README.md") < text.index("COPY spinemet")


def test_the_nightly_pod_stops_the_job_if_the_deadline_ends_the_pod(tmp_path: Path) -> None:
    """Runs the pod's command with a `ray` that records its arguments and never finishes."""
    calls = tmp_path / "calls"
    ray = tmp_path / "ray"
    ray.write_text(f'#!/bin/bash\necho "$@" >> {calls}\n[ "$2" = stop ] || exec sleep 30\n')
    ray.chmod(0o755)
    container = next(pods(load(CLUSTER / "cronjob-nightly.yaml")))["containers"][0]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.Popen([*container["command"], *container["args"]], env=environment, start_new_session=True)
    try:
        for _ in range(100):
            if calls.exists():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 143
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    submitted, stopped = calls.read_text().splitlines()
    name = re.search(r"--submission-id (nightly-\d{8}-\d{6}) -- python /app/jobs/screen.py --archive ", submitted)
    assert name
    assert stopped == f"job stop {name[1]}"

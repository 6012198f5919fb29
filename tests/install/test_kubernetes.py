"""contrib/kubernetes/sidecar.yaml: fields that Kubernetes knows, and arguments that the command knows."""

from __future__ import annotations

from typing import Any

import yaml
from harness.shell import ROOT, Shell

# The fields of the API (apps/v1, core/v1) that the example uses: field → fields below it; None: any content.
PROBE = {"httpGet": {"path": None, "port": None}}
CONTAINER = {
    "name": None, "image": None, "args": None, "ports": {"name": None, "containerPort": None},
    "livenessProbe": PROBE, "readinessProbe": PROBE,
    "resources": {"requests": {"cpu": None, "memory": None}, "limits": {"cpu": None, "memory": None}},
    "securityContext": {
        "runAsNonRoot": None, "runAsUser": None, "readOnlyRootFilesystem": None, "allowPrivilegeEscalation": None,
        "capabilities": {"drop": None}, "seccompProfile": {"type": None},
    },
}  # fmt: skip
POD = {"terminationGracePeriodSeconds": None, "containers": CONTAINER}
DEPLOYMENT = {
    "apiVersion": None, "kind": None, "metadata": {"name": None},
    "spec": {
        "replicas": None, "selector": {"matchLabels": None},
        "template": {"metadata": {"labels": None}, "spec": POD},
    },
}  # fmt: skip
EXAMPLE: dict[str, Any] = yaml.safe_load((ROOT / "contrib/kubernetes/sidecar.yaml").read_text(encoding="utf-8"))


def unknown(value: Any, fields: dict[str, Any] | None, path: str = "") -> list[str]:
    """The paths in `value` that are not in `fields`."""
    if fields is None:
        return []
    if isinstance(value, list):
        return [fault for item in value for fault in unknown(item, fields, path)]
    if not isinstance(value, dict):
        return [f"{path} has no fields"]
    return [
        fault
        for name, below in value.items()
        for fault in (unknown(below, fields[name], f"{path}.{name}") if name in fields else [f"{path}.{name}"])
    ]


def test_each_field_exists() -> None:
    assert unknown(EXAMPLE, DEPLOYMENT) == []
    assert unknown({"spec": {"template": {"spec": {"containers": [{"img": "x"}]}}}}, DEPLOYMENT) == [
        ".spec.template.spec.containers.img"
    ]


def test_the_sidecar_agrees_with_itself_and_with_the_command(shell: Shell) -> None:
    template = EXAMPLE["spec"]["template"]
    assert template["metadata"]["labels"] == EXAMPLE["spec"]["selector"]["matchLabels"]
    (sidecar,) = [one for one in template["spec"]["containers"] if one["image"] == "qtools"]
    (port,) = sidecar["ports"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert sidecar[probe]["httpGet"]["port"] == port["name"]
    program, *words = sidecar["args"]
    assert words[words.index("--metrics-address") + 1].endswith(f":{port['containerPort']}")
    done = shell.run(program, *words, "--help")
    assert done.status == 0, done.err
    assert shell.run(program, *words, "--no-such-flag", "--help").status == 2

"""The locked requirements, the conda file and pyproject.toml agree, and no address is recorded."""

import re
import tomllib

import yaml

from tests.conftest import ROOT

ENVS = ROOT / "envs"
LOCKS = sorted(ENVS.glob("*.txt"))


def pins(name: str) -> dict[str, str]:
    """Version of every package in a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ \\;]+)", (ENVS / name).read_text(), re.MULTILINE))


def required() -> list[str]:
    """Names of the packages that the project asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [re.split(r"[<>=]", requirement)[0] for requirement in project["dependencies"]]


def test_locks_hold_hashes_and_no_address():
    for lock in LOCKS:
        text = lock.read_text()
        assert "://" not in text, lock
        assert "--index" not in text, lock
        for block in re.findall(r"^[a-z0-9-]+==.*(?:\n +.*)*", text, re.MULTILINE):
            assert "--hash=sha256:" in block, block


def test_every_requirement_is_locked():
    assert set(required()) <= set(pins("analysis.txt"))


def test_the_conda_file_has_the_locked_versions():
    listed = yaml.safe_load((ENVS / "analysis.yaml").read_text())["dependencies"]
    named = {"matplotlib-base": "matplotlib", "ml_dtypes": "ml-dtypes"}
    pairs = [item.split("=") for item in listed if not item.startswith("python=")]
    conda = {named.get(name, name): version for name, version in pairs}
    locked = pins("analysis.txt")
    assert conda == {name: locked[name] for name in required()}


def test_the_development_packages_agree_with_the_locked_ones():
    main, dev = pins("analysis.txt"), pins("dev.txt")
    assert {name: dev[name] for name in dev if name in main} == {name: main[name] for name in dev if name in main}

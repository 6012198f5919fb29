"""`make dist`: the same bytes each time, metadata that an index accepts, and commands that run from the wheel."""

from __future__ import annotations

import configparser
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.shell import ROOT, Shell
from packaging.metadata import Metadata

from install.conftest import make_dist
from qtools import __version__
from qtools.manual import pages


@pytest.fixture
def outside() -> Iterator[Shell]:
    """A shell whose programs do not see this checkout."""
    shell = Shell()
    del shell.environ["PYTHONPATH"]
    yield shell
    shell.close()


@pytest.mark.slow
def test_another_build_elsewhere_has_the_same_bytes(dist: Path, sdist: Path, tmp_path: Path) -> None:
    """The second build is made of the sdist, without a repository."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    again = make_dist(tmp_path / f"qtools_cli-{__version__}", tmp_path / "dist")
    assert again.keys() == {f"qtools_cli-{__version__}.tar.gz", f"qtools_cli-{__version__}-py3-none-any.whl"}
    differ = [name for name, content in again.items() if (dist / name).read_bytes() != content]
    assert differ == []


def metadata_of(path: Path) -> bytes:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return archive.read(f"qtools_cli-{__version__}.dist-info/METADATA")
    with tarfile.open(path) as archive:
        member = archive.extractfile(f"qtools_cli-{__version__}/PKG-INFO")
        assert member is not None
        return member.read()


def test_the_metadata_is_what_an_index_accepts(wheel: Path, sdist: Path) -> None:
    """What `twine check --strict` looks at, and the fields of the core metadata besides."""
    assert metadata_of(wheel) == metadata_of(sdist)
    metadata = Metadata.from_email(metadata_of(wheel), validate=True)
    assert (metadata.name, str(metadata.version)) == ("qtools-cli", __version__)
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / "README.md").read_text(encoding="utf-8")
    assert (metadata.license_expression, metadata.license_files) == ("MIT", ["LICENSE"])
    assert metadata.summary
    assert len(metadata.summary) <= 512
    assert str(metadata.requires_python) == ">=3.11"
    assert metadata.provides_extra
    assert metadata.classifiers


def test_the_wheel_has_all_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(f"qtools_cli-{__version__}.dist-info/entry_points.txt").decode())
    tracked = subprocess.run(["git", "ls-files", "qtools"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert set(tracked.stdout.split()) <= names
    assert {"qtools/py.typed"} <= names
    manual = {f"qtools_cli-{__version__}.data/data/share/man/man1/{name}.1" for name in pages.PROGRAMS}
    assert manual <= names
    assert {"qtools", "q-pipe", "q-tail", "q-exec", "q-admin", "q-broker"} <= scripts["console_scripts"].keys()


def test_the_commands_run_from_the_wheel(installed: Path, outside: Shell) -> None:
    where = outside.run("python", "-c", "import qtools; print(qtools.__file__)", argv=[str(installed / "python")])
    assert where.out.decode().startswith(str(installed.parent)), where.err
    version = outside.run("qtools", "--version", argv=[str(installed / "qtools")])
    assert (version.status, version.out) == (0, f"qtools {__version__}\n".encode())
    help_ = outside.run("q-tail", "--help", argv=[str(installed / "q-tail")])
    assert help_.status == 0
    assert b"Usage: q-tail" in help_.out
    manual = outside.run("qtools", "help", "tail", argv=[str(installed / "qtools")])
    assert manual.out.startswith(b"q-tail: print the messages")


def test_messages_go_through_a_broker_from_the_wheel(installed: Path, outside: Shell) -> None:
    broker = outside.start(
        "q-broker", "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0", f"--data-path={outside.home}",
        argv=[str(installed / "q-broker")],
    )  # fmt: skip
    broker.wait_err("TCP: listening on ")
    address = broker.err.partition("TCP: listening on ")[2].split()[0]
    words = [f"--nsqd-tcp-address={address}"]
    sent = outside.run("q-pipe", "letters", *words, input=b"a\nb\n", argv=[str(installed / "q-pipe")])
    assert (sent.status, sent.out) == (0, b""), sent.err
    read = outside.run("q-tail", "letters/me", "-n", "2", *words, argv=[str(installed / "q-tail")])
    assert (read.status, read.out) == (0, b"a\nb\n"), read.err

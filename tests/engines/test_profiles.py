"""Profiles: what a table of the configuration file becomes, and one line for whatever is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qtools.engines.profiles import Profile, read_profile
from qtools.engines.url import BrokerUrl
from qtools.errors import StartError, UsageError

SECRET = "s3cret-of-the-test"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the file in $XDG_CONFIG_HOME, with a mode; returns its path."""

    def write(text: str | bytes, mode: int = 0o644) -> Path:
        path = tmp_path / "qtools" / "config.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        return path

    return write


def read(name: str, tmp_path: Path) -> Profile:
    return read_profile(name, {"XDG_CONFIG_HOME": str(tmp_path)})


def test_a_profile_is_a_url_and_options(tmp_path: Path, write: Write) -> None:
    path = write(
        "\ufeff[broker.prod]\n"
        'url = "nsqs+lookupd://a,b?snappy=1"\npassword_file = "~/s"\ntls-ca = "ca.pem"\ndeflate_level = 3\n'
        "[broker.other]\nurl = 7\n"
    )
    profile = read("prod", tmp_path)
    url = BrokerUrl("nsqs+lookupd", ("a:4161", "b:4161"), query=(("snappy", "1"),))
    options = {"password_file": "~/s", "tls_ca": "ca.pem", "deflate_level": 3}
    assert profile == Profile("prod", path, url, options)
    assert str(profile) == f"{path}: [broker.prod]"


def test_a_path_begins_in_the_directory_of_the_file(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    write('[broker.x]\nurl = "nsq://h"\n')
    profile = read("x", tmp_path)
    assert profile.file("ca.pem") == f"{tmp_path}/qtools/ca.pem"
    assert (profile.file("/ca.pem"), profile.file("~/ca.pem")) == ("/ca.pem", "/home/me/ca.pem")


def test_the_default_is_below_home(tmp_path: Path) -> None:
    place = tmp_path / ".config" / "qtools"
    place.mkdir(parents=True)
    (place / "config.toml").write_text('[broker.x]\nurl = "nsq://h"\n')
    for empty in ({}, {"XDG_CONFIG_HOME": ""}):
        assert read_profile("x", {"HOME": str(tmp_path), **empty}).url.hosts == ("h:4150",)


# ── secrets ──

PASSWORDS = [f'url = "nsq://h"\npassword = "{SECRET}"', f'url = "nsq://:{SECRET}@h"']


@pytest.mark.parametrize("text", PASSWORDS)
def test_a_password_is_taken_from_a_private_file_and_shown_nowhere(tmp_path: Path, write: Write, text: str) -> None:
    write(f"[broker.prod]\n{text}\n", 0o600)
    profile = read("prod", tmp_path)
    assert profile.url.password == SECRET
    assert SECRET not in f"{profile} {profile!r}"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
@pytest.mark.parametrize("text", PASSWORDS)
def test_and_from_no_other(tmp_path: Path, write: Write, text: str, mode: int) -> None:
    path = write(f'[broker.prod]\n{text}\n[broker.plain]\nurl = "nsq://h"\n', mode)
    with pytest.raises(UsageError) as caught:
        read("prod", tmp_path)
    assert str(caught.value) == (
        f"{path}: [broker.prod] holds a password, and other users can read the file, or it is not yours:"
        f" run chmod 600 {path}"
    )
    assert read("plain", tmp_path).url.password == ""  # a profile without a secret needs no private file


@pytest.mark.parametrize(
    "text",
    ['url = "nsq://:{0}@h"\npassword = "{0}"', 'url = "nsq://h"\npassword = "{0}"\npassword_file = "f"',
     'url = "nsq://:{0}@h"\npassword_file = "f"'],
)  # fmt: skip
def test_one_password_is_enough(tmp_path: Path, write: Write, text: str) -> None:
    path = write("[broker.prod]\n" + text.format(SECRET), 0o600)
    with pytest.raises(UsageError) as caught:
        read("prod", tmp_path)
    assert str(caught.value) == (
        f"{path}: [broker.prod] gives more than one of a password in url, password and password_file"
    )


# ── what is wrong ──


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no profile 'prod' in FILE, which has: none"),
        ('[broker.a]\nurl = "x"\n[broker."b c"]\n', "there is no profile 'prod' in FILE, which has: a, b c"),
        ("[broker\n", "FILE is not TOML: expected ']' at the end of a table declaration (at line 1, column 8)"),
        (b"\xff", "FILE is not UTF-8 (at byte 0)"),
        ("[brokers.prod]\n", "FILE: unknown key 'brokers'; a profile begins with [broker.NAME]"),
        ("broker = 1\n", "FILE: broker is not a table; a profile begins with [broker.NAME]"),
        ('[broker]\nurl = "nsq://h"\n', "FILE: 'url' stands in [broker]; a profile begins with [broker.NAME]"),
        ("[broker.local]\n", "FILE: [broker.local]: 'local' is the private local broker; choose another name"),
        ("[broker.prod]\n", 'FILE: [broker.prod] has no url: write url = "nsq://HOST:4150"'),
        ("[broker.prod]\nurl = 7\n", "FILE: [broker.prod]: url is not a string"),
        ('[broker.prod]\nurl = "nsq://h"\npassword = 7\n', "FILE: [broker.prod]: password is not a string"),
        ('[broker.prod]\nurl = "h:4150"\n',
         "FILE: [broker.prod]: url: address 'h:4150' is no URL such as nsq://HOST:4150"),
        ('[broker.prod]\nurl = "nsq://h/t"\n',
         "FILE: [broker.prod]: url: nsq://h:4150/t names a topic; a profile names a broker only"),
    ],
)  # fmt: skip
def test_one_line_names_the_file_and_the_key(tmp_path: Path, write: Write, text: str | bytes, message: str) -> None:
    path = write(text)
    with pytest.raises(UsageError) as caught:
        read("prod", tmp_path)
    assert str(caught.value) == message.replace("FILE", str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "qtools" / "config.toml"
    with pytest.raises(UsageError) as caught:
        read("prod", tmp_path)
    assert str(caught.value) == f"there is no profile 'prod': {path} does not exist"
    with pytest.raises(UsageError, match=r"; a broker's address is a URL: nsq://10\.0\.0\.5$"):
        read("10.0.0.5", tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_a_file_that_cannot_be_read(tmp_path: Path, write: Write) -> None:
    path = write("", 0)
    with pytest.raises(StartError) as caught:
        read("prod", tmp_path)
    assert str(caught.value) == f"cannot read {path}: Permission denied"


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "qtools" / "config.toml"
    path.mkdir(parents=True)
    with pytest.raises(StartError) as caught:
        read("prod", tmp_path)
    assert str(caught.value) == f"cannot read {path}: Is a directory"

"""Credentials of a profile that change while a command runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtools.errors import StartError
from qtools.to_file.stores.credentials import S3Credentials


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "keys")}


def tell(environ: dict[str, str], *keys: str) -> None:
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    text = "".join(f"{name} = {key}\n" for name, key in zip(names, keys, strict=False))
    Path(environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text(f"[default]\n{text}")


def test_a_key_that_has_changed_is_read(environ: dict[str, str]) -> None:
    tell(environ, "one", "first")
    credentials = S3Credentials(environ)
    assert not credentials.renew()  # it is the same
    tell(environ, "one", "second")
    assert credentials.renew()
    assert credentials.settings["config"]["secret_access_key"] == "second"
    tell(environ, "one", "second", "a token")
    assert credentials.renew()
    assert credentials.settings["config"]["session_token"] == "a token"
    assert not credentials.renew()


@pytest.mark.parametrize("text", ["", "[default]\n", "[default]\naws_", "[other]\naws_access_key_id=x\n"])
def test_a_file_that_is_half_written_changes_nothing(
    environ: dict[str, str], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    tell(environ, "one", "first-secret")
    credentials = S3Credentials(environ)
    Path(environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text(text)
    assert not credentials.renew()
    assert credentials.settings["config"]["access_key_id"] == "one"
    assert "first-secret" not in caplog.text
    tell(environ, "two", "second")
    assert credentials.renew()


def test_a_profile_that_is_named_and_gone_is_said(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    environ["AWS_PROFILE"] = "mine"
    keys = Path(environ["AWS_SHARED_CREDENTIALS_FILE"])
    keys.write_text("[mine]\naws_access_key_id = one\n")
    credentials = S3Credentials(environ)
    keys.unlink()
    assert not credentials.renew()
    assert "there are no newer ones: there is no profile 'mine'" in caplog.text
    with pytest.raises(StartError, match="there is no profile 'mine'"):
        S3Credentials(environ)


def test_the_environment_of_a_process_stays(environ: dict[str, str]) -> None:
    tell(environ, "one", "first")
    credentials = S3Credentials(environ | {"AWS_ACCESS_KEY_ID": "environment"})
    tell(environ, "two", "second")
    assert not credentials.renew()


def test_what_comes_from_a_service_is_asked_for_again(environ: dict[str, str]) -> None:
    assert S3Credentials(environ).renew()
    assert S3Credentials(environ | {"AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}).renew()

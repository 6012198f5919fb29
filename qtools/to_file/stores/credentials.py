"""S3 credentials from a profile, by the rules of AWS's tools. In: the environment, two files. Out: S3Store arguments.

    1. AWS_ACCESS_KEY_ID in the environment            read by obstore, as are the other variables
    2. a profile with keys, $AWS_PROFILE or [default]   read here: ~/.aws/credentials, ~/.aws/config
    3. a profile with a role, SSO or a program          resolved by boto3, if it is installed
    4. web identity, container, instance metadata       resolved by obstore

While a command runs, 2 and 3 are read again when the store denies the present credentials, and 4 when they expire.
Secrets come from no other source, are never printed, and are no arguments of any command.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Any

from qtools.errors import StartError

logger = logging.getLogger("qtools.to_file")

_ASKED_FOR = (
    "role_arn",
    "sso_session",
    "sso_start_url",
    "credential_process",
    "web_identity_token_file",
    "login_session",
)
_BY_ITSELF = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
              "AWS_CONTAINER_CREDENTIALS_FULL_URI")  # fmt: skip


def s3_profile(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Arguments of S3Store that the environment does not provide: `config`, and perhaps `credential_provider`.

    StartError if AWS_PROFILE names a profile that does not exist, or one that needs boto3 and boto3 is not installed.
    """
    named = environ.get("AWS_PROFILE", "")
    profile = named or "default"
    home = Path(environ.get("HOME") or "~").expanduser()
    secrets = Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials")
    config_file = Path(environ.get("AWS_CONFIG_FILE") or home / ".aws" / "config")
    found = _section(config_file, profile if profile == "default" else f"profile {profile}") | _section(
        secrets, profile
    )
    if named and not found:
        raise StartError(f"there is no profile {named!r} (AWS_PROFILE) in {secrets} or {config_file}")
    config: dict[str, str] = {}
    if found.get("region") and not (environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")):
        config["region"] = found["region"]
    if found.get("endpoint_url") and not (environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")):
        config["endpoint"] = found["endpoint_url"]
    if any(environ.get(name) for name in _BY_ITSELF):
        return {"config": config}
    if found.get("aws_access_key_id"):
        config["access_key_id"] = found["aws_access_key_id"]
        config["secret_access_key"] = found.get("aws_secret_access_key", "")
        if found.get("aws_session_token"):
            config["session_token"] = found["aws_session_token"]
        return {"config": config}
    needs = next((key for key in _ASKED_FOR if key in found), "")
    if needs:
        return {"config": config, "credential_provider": _by_boto3(profile, needs)}
    return {"config": config}


class S3Credentials:
    """The profile's credentials, which `renew` reads again when the store denies the present ones.

    settings: arguments of S3Store, as of the last read. obstore itself renews tokens that expire: those of a web
    identity, a container or an instance.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """StartError as for `s3_profile`."""
        self._environ = environ
        self.settings = s3_profile(environ)

    def renew(self) -> bool:
        """Read the credentials again; whether a new attempt may succeed, as they changed or a service issues them."""
        if self._environ.get("AWS_ACCESS_KEY_ID"):
            return False  # the environment of a process does not change
        try:
            found = s3_profile(self._environ)
        except StartError as error:  # the file may be half written at this moment
            logger.warning("the store denies the credentials, and there are no newer ones: %s", error)
            return False
        had, have = self.settings["config"].get("access_key_id"), found["config"].get("access_key_id")
        if had and (found == self.settings or not (have or "credential_provider" in found)):
            return False
        self.settings = found
        return True


def _section(path: Path, name: str) -> dict[str, str]:
    # No interpolation: a secret may have a % in it.
    parser = ConfigParser(interpolation=None, default_section="\0", strict=False)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror or error}") from error
    except (Error, UnicodeDecodeError) as error:  # the error text may quote secrets: it is not shown
        raise StartError(f"{path} is not a valid file of profiles") from error
    return dict(parser[name]) if parser.has_section(name) else {}


def _by_boto3(profile: str, needs: str) -> Any:
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise StartError(
            f"the profile {profile!r} has {needs}, for which boto3 is needed: pip install boto3,"
            " or use a profile with keys"
        ) from error
    try:
        return Boto3CredentialProvider(boto3.Session(profile_name=profile))
    except Exception as error:  # botocore's errors have no common root that can be named without importing more
        raise StartError(f"the profile {profile!r} gives no credentials: {error}") from error

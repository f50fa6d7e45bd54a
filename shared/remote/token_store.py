"""Keeps the newest refresh token of the Partner Center sign-in: in a file, or in Key Vault. Never logs or judges it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shared.errors import Unavailable

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.keyvault.secrets import SecretClient

SECRET_NAME = "partner-center-refresh-token"  # noqa: S105 - a name, not a secret


class TokenStore(Protocol):
    """Where one refresh token lives. Both methods raise Unavailable when the store cannot be reached or used."""

    def load(self) -> str | None:
        """Return the stored token, None when there is none yet."""

    def save(self, token: str) -> None:
        """Replace the stored token."""


class FileTokenStore:
    """A file that only its owner can read; replaced in one step, so that a reader never sees half a token."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> str | None:
        try:
            return self._path.read_text().strip() or None
        except FileNotFoundError:
            return None
        except OSError as failed:
            raise Unavailable(f"the refresh token in {self._path} cannot be read: {failed.strerror}") from failed

    def save(self, token: str) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # mkstemp creates with mode 0600.
            descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
            try:
                with os.fdopen(descriptor, "w") as file:
                    file.write(token)
                Path(temporary).replace(self._path)
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError as failed:
            raise Unavailable(f"the refresh token cannot be stored in {self._path}: {failed.strerror}") from failed


class KeyVaultTokenStore:
    """A Key Vault secret. The app's identity needs the role Key Vault Secrets Officer on it.

    https://learn.microsoft.com/azure/key-vault/general/rbac-guide
    """

    def __init__(self, vault_url: str, credential: TokenCredential | None = None) -> None:
        self._vault_url = vault_url
        self._credential = credential
        self._client: SecretClient | None = None

    def load(self) -> str | None:
        from azure.core.exceptions import AzureError, ResourceNotFoundError

        try:
            return self._secrets().get_secret(SECRET_NAME).value or None
        except ResourceNotFoundError:
            return None
        except AzureError as failed:
            raise self._unusable("read", failed) from failed

    def save(self, token: str) -> None:
        from azure.core.exceptions import AzureError

        try:
            self._secrets().set_secret(SECRET_NAME, token)
        except AzureError as failed:
            raise self._unusable("stored", failed) from failed

    def _secrets(self) -> SecretClient:
        # The Azure SDK takes most of a second to import: only when it is needed.
        if self._client is None:
            from azure.identity import DefaultAzureCredential
            from azure.keyvault.secrets import SecretClient

            credential = self._credential or DefaultAzureCredential()
            self._client = SecretClient(self._vault_url, credential, retry_total=1)
        return self._client

    def _unusable(self, done: str, failed: Exception) -> Unavailable:
        return Unavailable(
            f"the refresh token cannot be {done} as secret {SECRET_NAME} in {self._vault_url} "
            f"({type(failed).__name__}): the app's identity needs the role Key Vault Secrets Officer there"
        )
